"""A small world to test in: a task that can be learnt, and a random BERT with a tokenizer for its words."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast, set_seed

from kfp_bonsai.shared.tasks import Task, schema

GOOD, BAD = ["good", "great", "fine", "lovely"], ["bad", "poor", "awful", "dull"]
PLAIN = ["the", "a", "film", "plot", "cast", "was", "and", "very", "it", "is", "music", "scene"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


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


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer for the made texts, with BERT's special tokens."""
    words = SPECIAL + PLAIN + GOOD + BAD
    made = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=made, mask_token="[MASK]", **names)


def pretrained(folder: Path, layers: int = 3) -> Path:
    """Save a random BERT with its tokenizer, as a hub would serve it; return the folder."""
    set_seed(0)
    config = BertConfig(
        vocab_size=len(SPECIAL + PLAIN + GOOD + BAD),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
