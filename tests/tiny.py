"""A small world to test in: a task that can be learnt, and a random model with a tokenizer for its words."""

import csv
import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    set_seed,
)

from kfp_bonsai.shared.data.tasks import Task, schema
from kfp_bonsai.shared.models.families import FAMILIES

GOOD, BAD = ["good", "great", "fine", "lovely"], ["bad", "poor", "awful", "dull"]
PLAIN = ["the", "a", "film", "plot", "cast", "was", "and", "very", "it", "is", "music", "scene"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

AS_PUBLISHED = {  # where the defaults of transformers are those of no checkpoint
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "share_att_key": True,
        "pos_att_type": "p2c|c2p",
    }
}


def texts(rows: int, seed: int) -> list[tuple[str, int]]:
    """Sentences of plain words with two words of one sentiment: the label is which."""
    chance = random.Random(seed)
    found = []
    for _ in range(rows):
        label = chance.randrange(2)
        words = chance.choices(PLAIN, k=chance.randint(3, 12)) + chance.choices((BAD, GOOD)[label], k=2)
        chance.shuffle(words)
        found.append((" ".join(words), label))
    return found


def reviews(file: Path, rows: int, seed: int, classes: Sequence[str] = ("0", "1")) -> Path:
    """Write such sentences as the CSV of a user, with what they call the classes; return the file."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["text", "label"])
        writer.writerows((text, classes[label]) for text, label in texts(rows, seed))
    return file


def split(folder: Path, name: str, rows: int, seed: int) -> Path:
    """Write one split as prepare-data does; return its path."""
    found = texts(rows, seed)
    task = Task("made", "classification", ("text",), ("bad", "good"), "accuracy", "made", name, rows, f"{name}{seed}")
    columns = {"text": [text for text, _ in found]}
    if name != "unlabelled":
        columns["label"] = [label for _, label in found]
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table(columns).cast(schema(task)), path)
    return path


def splits(folder: Path) -> dict[str, Path]:
    """Write train, validation, test and unlabelled."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"train": 320, "validation": 64, "test": 128, "unlabelled": 64}
    return {name: split(folder, name, rows, seed) for seed, (name, rows) in enumerate(sizes.items())}


def tokenizer(family: str = "bert") -> PreTrainedTokenizerFast:
    """A word-level tokenizer for the made texts, with a family's special tokens (some have none to pad with)."""
    words = SPECIAL + PLAIN + GOOD + BAD
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    if family in ("gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "gemma3_text"):
        return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", eos_token="[SEP]")
    if family == "t5":
        made.post_processor = processors.TemplateProcessing(
            single="$A [SEP]", pair="$A [SEP] $B [SEP]", special_tokens=[("[SEP]", 3)]
        )
        return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", eos_token="[SEP]", pad_token="[PAD]")
    if family == "opt":
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A", pair="[CLS] $A [CLS] $B", special_tokens=[("[CLS]", 2)]
        )
        return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", bos_token="[CLS]", pad_token="[PAD]")
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, mask_token="[MASK]", **names)


def pretrained(folder: Path, layers: int = 3, family: str = "bert", writes: bool = False) -> Path:
    """Save a random model of a family with its tokenizer, as a hub would serve it; return the folder."""
    set_seed(0)
    names = FAMILIES[family].config
    widths = {"hidden": 32, "heads": 4, "kv_heads": 2, "head_dim": 8, "ffn": 64, "embedding": 32}
    values = {names[key]: value for key, value in widths.items() if key in names}
    values |= {stack.count: layers for stack in FAMILIES[family].stacks}
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    size = len(SPECIAL + PLAIN + GOOD + BAD)
    values |= AS_PUBLISHED.get(family, {})
    config = CONFIG_MAPPING[family](vocab_size=size, max_position_embeddings=64, **special, **values)
    config.decoder_start_token_id = 0
    decoder = AutoModelForCausalLM if writes else AutoModelForSequenceClassification
    head = AutoModelForSeq2SeqLM if FAMILIES[family].answers_in_text else decoder
    head.from_config(config).save_pretrained(folder)
    tokenizer(family).save_pretrained(folder)
    return folder
