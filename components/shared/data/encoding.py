"""Texts to tokens, by a folder's tokenizer.json alone: what is trained, measured and served gets the same ones."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.documents import LENGTH, RECORD, read_document, read_object
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.kinds.windows import Windows

FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}  # of an encoding
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")  # beside tokenizer.json
DECIDE = ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model")  # of tokenizer.json
OVERLAP = 4  # of a window's tokens, every fourth is in the window before too


class TextError(BonsaiError):
    """A text that is none: whoever gave it can mend it, and the model is as it should be."""


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
    return encode_batch(folder_tokenizer(folder, max_length), texts, pairs)


def encode_batch(tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Turn texts or pairs into a padded batch with a tokenizer that `folder_tokenizer` gave."""
    return _padded(tokenizer, encode_rows(tokenizer, texts, pairs))


def folder_tokenizer(folder: Path, max_length: int = 0) -> Any:
    """Return a folder's tokenizer, of the tokenizers library, set to cut and pad as its model was trained.

    Raises:
        BonsaiError: there is none, or it is damaged.
    """
    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        raise BonsaiError(f"{file} is missing: the folder needs a fast tokenizer (save_pretrained of AutoTokenizer)")
    read = [each for each in (file, *map(file.with_name, SETTINGS)) if each.is_file()]
    changed = tuple(each.stat().st_mtime_ns for each in read)
    return _tokenizer(file, changed, max_length or trained_length(folder))


def tokens_sha256(folder: Path) -> str:
    """Return a hash of what decides a text's tokens; padding and truncation are set for each call.

    Raises:
        BonsaiError: the folder has no tokenizer.json, or a damaged one.
    """
    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        raise BonsaiError(f"{file} is missing: save the model with a fast tokenizer (AutoTokenizer, save_pretrained)")
    return _deciding_sha256(read_document(file, "save_pretrained"))


def tokens_of(tokenizer: Any) -> str:
    """Return that of a tokenizer that transformers loaded."""
    return _deciding_sha256(json.loads(tokenizer.backend_tokenizer.to_str()))


def _deciding_sha256(tokenizer: Mapping[str, Any]) -> str:
    """Return that of what a tokenizer.json holds, its pieces' scores to the 12 digits that survive reading a file."""
    text = json.dumps([tokenizer.get(name) for name in DECIDE], sort_keys=True)
    rounded = json.loads(text, parse_float=lambda score: f"{float(score):.12g}")
    return hashlib.sha256(json.dumps(rounded).encode()).hexdigest()


def _padded(tokenizer: Any, rows: Sequence[Any]) -> dict[str, np.ndarray]:
    """Return encoded rows as a batch."""
    width = max((max(1, len(row.ids)) for row in rows), default=0)
    found = {
        name: np.array([getattr(row, field) or [0] * width for row in rows], dtype=np.int64).reshape(len(rows), width)
        for name, field in FIELDS.items()
    }
    empty = ~found["attention_mask"].any(axis=1)  # a text of no tokens is one padding token, as in training
    found["attention_mask"][empty, :1] = 1
    found["input_ids"][empty] = tokenizer.padding["pad_id"]
    return found


def encode_windows(
    folder: Path, columns: Sequence[Sequence[str]], max_length: int = 0, cut: str = ""
) -> tuple[dict[str, np.ndarray], Windows | None]:
    """Turn rows into a padded batch; where `cut` names a text, a row that is too long becomes several windows.

    Args:
        folder: a model folder.
        columns: the rows' texts, or first and second texts.
        max_length: the most tokens of an input; 0 takes the length the model was trained with.
        cut: which text is cut, as a kind says it; empty: a row is one input, and what is too long of it is cut off.
    """
    return encode_parts(folder_tokenizer(folder, max_length), columns, cut)


def encode_parts(
    tokenizer: Any, columns: Sequence[Sequence[str]], cut: str = ""
) -> tuple[dict[str, np.ndarray], Windows | None]:
    """Do that with a tokenizer that `folder_tokenizer` gave."""
    if not cut:
        return encode_batch(tokenizer, *columns), None
    encoded, windows = split(tokenizer, columns, tokenizer.truncation["max_length"], cut)
    return _padded(tokenizer, encoded), windows


def split(tokenizer: Any, columns: Sequence[Sequence[str]], max_length: int, cut: str) -> tuple[list[Any], Windows]:
    """Encode rows as windows that overlap by a quarter, and say which part of which row each is.

    Args:
        tokenizer: one of the tokenizers library.
        columns: the rows' texts, or first and second texts.
        max_length: the most tokens of a window.
        cut: which text is cut where a row is longer.
    """
    room = max_length - tokenizer.num_special_tokens_to_add(len(columns) > 1)
    texts = list(zip(*columns, strict=True))
    with _set_again(tokenizer):
        if len(columns) > 1:
            columns = [_begun(tokenizer, columns[0], max(1, room // 2)), *columns[1:]]
        tokenizer.enable_truncation(max_length, stride=max(0, room // OVERLAP), strategy=cut, direction="right")
        encoded = encode_rows(tokenizer, *columns, offsets=True)
    found, rows = [], []
    for number, row in enumerate(encoded):
        for window in (row, *row.overflowing):
            found.append(window)
            rows.append(number)
    there = [np.asarray(window.attention_mask, bool) for window in found]
    sides = [np.array([-1 if side is None else side for side in window.sequence_ids], np.int8) for window in found]
    offsets = [np.asarray(window.offsets, np.int32).reshape(-1, 2) for window in found]
    windows = Windows(
        np.asarray(rows, np.int64),
        [one[real] for one, real in zip(offsets, there, strict=True)],
        [one[real] for one, real in zip(sides, there, strict=True)],
        texts,
    )
    return found, windows


@contextmanager
def _set_again(tokenizer: Any) -> Iterator[None]:
    """Let a tokenizer, which others use too, cut texts afterwards as it did before."""
    before = tokenizer.truncation
    try:
        yield
    finally:
        if before:
            tokenizer.enable_truncation(**before)
        else:
            tokenizer.no_truncation()


def _begun(tokenizer: Any, texts: Sequence[str], most: int) -> list[str]:
    """Return texts without what is beyond so many tokens, so that there is room for others beside them."""
    tokenizer.enable_truncation(most, direction="right")
    encoded = encode_rows(tokenizer, texts, offsets=True, special=False)
    return [
        text[: max(end for _, end in one.offsets)] if one.overflowing else text
        for text, one in zip(texts, encoded, strict=True)
    ]


def encode_rows(
    tokenizer: Any,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    offsets: bool = False,
    special: bool = True,
) -> list[Any]:
    """Encode texts or pairs with a tokenizer of the tokenizers library, as it is set: all tokens come from here.

    Args:
        tokenizer: the tokenizer.
        texts: the rows' texts, or first texts.
        pairs: the rows' second texts.
        offsets: whether it is asked where in its text each token is, which takes a little longer.
        special: whether tokens that mark ends are added.

    Raises:
        TextError: a text is none.
        BonsaiError: the tokenizer cannot encode them.
    """
    rows = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
    try:
        encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
        return encode(rows, add_special_tokens=special)
    except (TypeError, UnicodeEncodeError) as error:
        raise TextError("a text is none, or holds half of a surrogate pair, which is no character") from error
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # the library's Rust's
            raise
        raise BonsaiError(f"the tokenizer cannot split texts into tokens ({error}): save the model's again") from error


@lru_cache(maxsize=8)
def _tokenizer(file: Path, changed: tuple[int, ...], max_length: int) -> Any:
    from tokenizers import Tokenizer

    settings, special = (read_object(file.with_name(name)) for name in SETTINGS)
    pad = settings.get("pad_token") or special.get("pad_token") or "[PAD]"
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


def trained_length(folder: Path) -> int:
    """Return the tokens at which texts were cut where a folder's model was trained; 128 where nothing says it.

    Raises:
        BonsaiError: what says it is damaged.
    """
    stated = read_object(Path(folder) / RECORD).get("max_length", 128)
    if not LENGTH.holds(stated):
        shown = json.dumps(stated)[:40]
        raise BonsaiError(f"{Path(folder) / RECORD}: max_length is {shown}, not {LENGTH.words}: make the model again")
    return stated
