"""Texts to tokens, by a folder's tokenizer.json alone: what is trained, measured and served gets the same ones."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.documents import RECORD, read_object
from kfp_bonsai.shared.core.errors import BonsaiError

FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}  # of an encoding


def encode(
    folder: Path, texts: Sequence[str], pairs: Sequence[str] | None = None, max_length: int = 0
) -> dict[str, np.ndarray]:
    """Turn texts into a padded batch with the folder's tokenizer.json alone, as AutoTokenizer would.

    Args:
        folder: a model folder.
        texts: the rows' texts, or first texts.
        pairs: the rows' second texts, for tasks on pairs.
        max_length: the most tokens a row keeps; 0 takes the length the model was trained with.
    """
    folder = Path(folder)
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise BonsaiError(f"{file} is missing: the folder needs a fast tokenizer (save_pretrained of AutoTokenizer)")
    tokenizer = _tokenizer(file, file.stat().st_mtime_ns, max_length or _max_length(folder))
    rows = encode_rows(tokenizer, texts, *([] if pairs is None else [pairs]))
    width = max((max(1, len(row.ids)) for row in rows), default=0)
    found = {
        name: np.array([getattr(row, field) or [0] * width for row in rows], dtype=np.int64).reshape(len(rows), width)
        for name, field in FIELDS.items()
    }
    empty = ~found["attention_mask"].any(axis=1)  # a text of no tokens is one padding token, as in training
    found["attention_mask"][empty, :1] = 1
    found["input_ids"][empty] = tokenizer.padding["pad_id"]
    return found


def encode_rows(tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Any]:
    """Encode texts or pairs with a tokenizer of the tokenizers library, as it is set: all tokens come from here.

    Raises:
        BonsaiError: the tokenizer cannot encode them.
    """
    rows = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
    try:
        return tokenizer.encode_batch_fast(rows)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # the library's Rust's
            raise
        raise BonsaiError(f"the tokenizer cannot split texts into tokens ({error}): save the model's again") from error


@lru_cache(maxsize=8)
def _tokenizer(file: Path, changed: int, max_length: int) -> Any:
    from tokenizers import Tokenizer

    settings = read_object(file.with_name("tokenizer_config.json"))
    pad = (
        settings.get("pad_token") or read_object(file.with_name("special_tokens_map.json")).get("pad_token") or "[PAD]"
    )
    pad = pad.get("content") if isinstance(pad, dict) else pad
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # which is all that the library says of its kind
        raise BonsaiError(f"{file} holds no tokenizer ({error}): save the model's there again") from error
    pad_id = tokenizer.token_to_id(pad) if isinstance(pad, str) else None
    if pad_id is None:
        raise BonsaiError(f"{file}: the padding token '{pad}' is not in the vocabulary: set pad_token and save again")
    sides = [settings.get(name, "right") for name in ("padding_side", "truncation_side")]
    if not all(side in ("left", "right") for side in sides):
        raise BonsaiError(f"{file.with_name('tokenizer_config.json')}: a side is neither left nor right: save it again")
    tokenizer.enable_padding(direction=sides[0], pad_id=pad_id, pad_token=pad)
    tokenizer.enable_truncation(max_length, direction=sides[1])
    tokenizer.encode_special_tokens = settings.get("split_special_tokens") is True
    return tokenizer


def _max_length(folder: Path) -> int:
    stated = read_object(folder / RECORD).get("max_length") or 128
    if not isinstance(stated, int):
        raise BonsaiError(f"{folder / RECORD}: max_length is {stated!r}, no number of tokens: make the model again")
    return stated
