"""Small ready-made models, some with a tokenizer of their own."""

from pathlib import Path
from typing import Any

import tiny
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = [*tiny.PLAIN, *tiny.GOOD, *tiny.BAD]


def ready(folder: Path, pieces: Any = None, split: Any = None, **options: Any) -> Path:
    """Save a small random model; with pieces, its tokenizer has these, found by a pre-tokenizer."""
    tiny.pretrained(folder, **{"layers": 1, **options})
    if pieces:
        made = Tokenizer(models.WordLevel({one: at for at, one in enumerate([*tiny.SPECIAL, *pieces])}, "[UNK]"))
        made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), split or pre_tokenizers.Whitespace()
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(folder)
    return folder


def letters(folder: Path, **options: Any) -> Path:
    """Save a model that reads letter by letter, with the same vocabulary's size."""
    return ready(folder, sorted({*"".join(WORDS)})[:20], pre_tokenizers.Split("", "isolated"), **options)
