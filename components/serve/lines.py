"""Texts, one a line, to answers."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from kfp_bonsai.serve.served import BATCH_ROWS, InputError, Model, Row


def score(model: Model, lines: Iterable[str], as_json: bool = False) -> Iterator[dict[str, Any]]:
    """Give the answer for each line, such as label and probabilities.

    Args:
        model: the model.
        lines: texts, for a model of pairs with a tab between the two; or JSON.
        as_json: lines are JSON: strings, or objects with "text" (and "text_pair").

    Raises:
        InputError: a line is not what the model takes.
    """
    rows = (_row(model, line.rstrip("\r\n"), number, as_json) for number, line in enumerate(lines, 1))
    while chunk := list(islice(rows, BATCH_ROWS)):
        yield from map(_shortened, model.tell(chunk))


def _row(model: Model, line: str, number: int, as_json: bool) -> Row:
    texts: list[Any] = line.split("\t") if model.pairs else [line]
    wanted = "two texts with a tab between" if model.pairs else "one text"
    if as_json:
        wanted = 'an object with "text" and "text_pair"' if model.pairs else 'a string, or an object with "text"'
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"line {number} is no JSON: give {wanted} ({error})") from error
        texts = [found.get(key) for key in model.names] if isinstance(found, dict) else [found]
    if len(texts) != 1 + model.pairs or not all(isinstance(text, str) for text in texts):
        raise InputError(f"line {number}: give {wanted}")
    return (texts[0], texts[1]) if model.pairs else texts[0]


def _shortened(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer whose chances have six digits."""
    return {key: _rounded(value) if isinstance(value, dict | list) else value for key, value in answer.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 6) if isinstance(value, float) else value
