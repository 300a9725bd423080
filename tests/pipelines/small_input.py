"""A model and a data set small enough to be compressed within a test: nothing is downloaded."""

import csv
import random
from pathlib import Path

GOOD = ("good", "fine", "great", "lovely", "bright", "funny")
BAD = ("bad", "poor", "awful", "dull", "grey", "tired")
OTHER = ("the", "film", "plot", "was", "and", "actor", "a", "music", "very", "scene", "story", "of", "with", "end")


def write_reviews(path: Path, rows: int = 400, seed: int = 0) -> Path:
    """Write a CSV whose label can be learnt from a few words."""
    chance = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for index in range(rows):
            words = chance.choices(OTHER, k=chance.randint(4, 12)) + chance.choices((GOOD, BAD)[index % 2], k=3)
            chance.shuffle(words)
            writer.writerow([" ".join(words), ("positive", "negative")[index % 2]])
    return path


def write_model(folder: Path) -> Path:
    """Write a BERT of two layers with random weights and a tokenizer of whole words."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *GOOD, *BAD, *OTHER]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in special.items()}
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder
