"""JSON files that stages and others leave behind: read whole, or refused with what to do.

A shape says what is read of a document: a `Kind` of value; `[shape]`, a list of such; `[shape, shape]`, a list of just
those; `{"key": shape}`, an object with such keys at the least. A key that ends in "?" may be missing or null, and is
null where it is missing.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError

RECORD = "bonsai.json"  # what a model folder says of its model
FORMAT = 1  # of the documents that stages write
LARGEST = 1e30  # of any number in them


@dataclass(frozen=True)
class Kind:
    """What a value is to be.

    Attributes:
        words: what that is, for the message.
        holds: tells whether a value is it.
    """

    words: str
    holds: Callable[[Any], bool]


Shape = Kind | list[Any] | Mapping[str, Any]


def is_number(value: Any) -> bool:
    """Return whether a value is a number that can be reckoned with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


TEXT = Kind("text", lambda value: isinstance(value, str) and not re.search("[\ud800-\udfff]", value))
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
NUMBER = Kind("a number", is_number)
ABOVE_ZERO = Kind("a number above zero", lambda value: is_number(value) and value > 0)
NUMBERS = Kind("numbers by names", lambda value: isinstance(value, dict) and all(map(is_number, value.values())))
LENGTH = Kind("1 to 1,048,576 tokens", lambda value: type(value) is int and 1 <= value <= 1 << 20)
COUNT = Kind("a whole number", lambda value: is_number(value) and 0 <= value < 2**63 and value == int(value))


def read_document(path: Path, made_by: str, *keys: str, shape: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read a JSON document and check that it is what it should be; NaN and infinity become None.

    Args:
        path: the file.
        made_by: what writes such a file, such as "bonsai report", for the message.
        keys: the lists and objects that such a document has at the least.
        shape: what is read of it; its keys are those of the document.

    Raises:
        BonsaiError: it is missing, is not JSON, lacks what such a document has, or is of another format.
    """
    if not Path(path).is_file():
        raise BonsaiError(f"no file at {path}: make it with `{made_by}`")
    try:
        content = Path(path).read_text(encoding="utf-8")
        document = json.loads(content, parse_constant=lambda _: None, parse_float=_finite)
    except OSError as error:
        raise BonsaiError(f"{path} cannot be read ({error.strerror}): check who may read it, and the disk") from error
    except (ValueError, RecursionError) as error:
        raise BonsaiError(f"{path} is not JSON, or is cut off ({error}): make it again with `{made_by}`") from error
    missing = [key for key in keys if not isinstance(document, dict) or not isinstance(document.get(key), list | dict)]
    if missing or not isinstance(document, dict):
        lacks = f"it has no '{missing[0]}'" if missing else "it is no object"
        raise BonsaiError(f"{path} was not written by `{made_by}` ({lacks}): give the file that it wrote")
    if document.get("format", FORMAT) != FORMAT:
        raise BonsaiError(
            f"{path} has format {document['format']}, this version reads {FORMAT}: make it again with `{made_by}`"
        )
    return fitted(document, shape, str(path), made_by) if shape else document


def fitted(
    document: Mapping[str, Any],
    shape: Mapping[str, Any],
    where: str,
    made_by: str,
    advice: str = "give the file that it wrote, or make it again",
) -> dict[str, Any]:
    """Return a document that is of a shape, with None for what it lacks.

    Args:
        document: what was read.
        shape: what is read of it.
        where: where it is, for the message.
        made_by: what writes such a document.
        advice: what to do if this is none.

    Raises:
        BonsaiError: it is not of that shape.
    """
    try:
        return _fitted(document, shape, "")
    except _OddValueError as problem:
        raise BonsaiError(f"{where} is not as `{made_by}` wrote it ({problem}): {advice}") from problem


class _OddValueError(Exception):
    """A value is not what it should be."""


def _fitted(value: Any, shape: Shape, where: str) -> Any:
    """Return a value that is of a shape, with None for what it lacks.

    Raises:
        _OddValueError: it is not of that shape.
    """
    if isinstance(shape, Mapping):
        if not isinstance(value, dict):
            raise _OddValueError(_odd(where, value, "an object"))
        found = dict(value)
        for key, inner in shape.items():
            name = key.removesuffix("?")
            at = f"{where}.{name}" if where else name
            if found.get(name) is None and key.endswith("?"):
                found[name] = None
            elif name not in found:
                raise _OddValueError(f"it has no '{at}'")
            else:
                found[name] = _fitted(found[name], inner, at)
        return found
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise _OddValueError(_odd(where, value, "a list"))
        if len(shape) > 1 and len(value) != len(shape):
            raise _OddValueError(_odd(where, value, f"a list of {len(shape)}"))
        shapes = shape if len(shape) > 1 else shape * len(value)
        return [
            _fitted(one, inner, f"{where}[{at}]") for at, (one, inner) in enumerate(zip(value, shapes, strict=True))
        ]
    if not shape.holds(value):
        raise _OddValueError(_odd(where, value, shape.words))
    return value


def _odd(where: str, value: Any, wanted: str) -> str:
    shown = json.dumps(value)
    return f"'{where}' is {shown if len(shown) <= 40 else f'{shown[:40]} ...'}, not {wanted}"


def _finite(literal: str) -> float | None:
    """Return a number of JSON, or None for one beyond what a float holds, as for infinity."""
    value = float(literal)
    return value if math.isfinite(value) else None


def kept_document(file: Path) -> Any:
    """Return the JSON of a file that is only kept for a later process; None if it is not there, or is damaged."""
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None


def read_object(file: Path) -> dict[str, Any]:
    """Return a JSON object beside a model; empty where there is no such file.

    Raises:
        BonsaiError: it is damaged, or something else.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except OSError as error:
        raise BonsaiError(f"{file} cannot be read ({error.strerror}): check who may read it, and the disk") from error
    except (ValueError, RecursionError) as error:
        raise BonsaiError(f"{file} is not JSON, or is cut off ({error}): copy the folder again") from error
    if not isinstance(found, dict):
        raise BonsaiError(f"{file} holds no JSON object: copy the folder again")
    return found
