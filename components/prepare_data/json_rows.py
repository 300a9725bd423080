"""JSON lines, and JSON arrays, as rows: each an object, every key once, every text valid Unicode."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from kfp_bonsai.prepare_data import label_studio, squad_file
from kfp_bonsai.prepare_data.columns import CONVERSATIONS
from kfp_bonsai.prepare_data.text import LONGEST, Lines
from kfp_bonsai.shared.core.errors import BonsaiError

ROW = 'every line is one object, such as {"text": "...", "label": "..."}'


def json_rows(lines: Lines) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield rows with their place: "line 3" of JSON lines, "row 3" of an array.

    Raises:
        BonsaiError: one is not valid JSON or no object, names a key twice, or has half of a character.
    """
    suspect, is_first = None, True  # a first row that is a table by columns, if no other one comes
    for place, found in _values(lines):
        row = _annotated(found)
        if label_studio.is_task(row):
            row = label_studio.row(row, f"{lines.where}, {place}")
        if suspect:
            yield suspect
            suspect = None
        if squad_file.is_squad(row):
            yield from squad_file.rows(lines.where, row)
            continue
        if not isinstance(row, dict):
            raise BonsaiError(f"{lines.where}, {place}: {str(row)[:60]!r} is no object: {ROW}")
        wrapped = [
            key for key, value in row.items() if isinstance(value, list) and value and isinstance(value[0], dict)
        ]
        if len(row) == 1 and wrapped and wrapped[0].lower() not in CONVERSATIONS:
            raise BonsaiError(
                f"{lines.where}, {place}: the rows are in '{wrapped[0]}': give the list alone, without it"
            )
        if isinstance(row, _Twice):
            raise BonsaiError(f"{lines.where}, {place}: '{row.name}' is there more than once: {ROW}")
        if is_first and row and all(isinstance(value, list | dict) for value in row.values()):
            suspect = place, row
        else:
            yield place, row
        is_first = False
    if suspect:
        raise BonsaiError(
            f"{lines.where}, {suspect[0]}: nothing but lists and objects in it, as in tables by columns: {ROW} "
            "(pandas: orient='records', lines=True)"
        )


def json_columns(lines: Lines) -> list[str]:
    """Return the first row's keys; none where there is no row."""
    for place, row in json_rows(lines):
        for name in row:
            _check_unicode(name, lines.where, place)
        return [*row]
    return []


def blocks(lines: Lines, columns: list[str], most: int) -> Iterator[dict[str, list]]:
    """Yield some of the columns, at most `most` rows at a time, fewer where they are long.

    Raises:
        BonsaiError: a row has not all of them, or cannot be read.
    """
    block, rows, size = {name: list[Any]() for name in columns}, 0, 0
    for place, row in json_rows(lines):
        for name in columns:
            if name not in row:
                raise BonsaiError(f"{lines.where}, {place}: no '{name}': every row needs it")
            value = row[name]
            if isinstance(value, str):
                _check_unicode(value, lines.where, place)
            block[name].append(value)
            size += len(value) if isinstance(value, str) else 8
        rows += 1
        if rows == most or size > LONGEST:
            yield block
            block, rows, size = {name: [] for name in columns}, 0, 0
    if rows:
        yield block


def _values(lines: Lines) -> Iterator[tuple[str, Any]]:
    first = True
    for line in lines:
        if not line.strip():
            continue
        place = f"line {lines.number}"
        if first and line.strip() == "{":
            whole = _whole(line + lines.rest())
            if not squad_file.is_squad(whole):
                raise BonsaiError(
                    f"{lines.where}, {place}: one object over several lines is no table: {ROW}, or an array of such"
                )
            yield place, whole
            return
        if first and line.lstrip().startswith("["):
            found = _parse(lines.where, "the array", line + lines.rest(), "correct it, or give JSON lines")
            yield from ((f"row {number}", row) for number, row in enumerate(found, 1))
            return
        yield place, _parse(lines.where, place, line, ROW)
        first = False


def _whole(text: str) -> Any:
    """Return one object over several lines, nothing if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _annotated(found: Any) -> Any:
    """Return spaCy's pair of a text and its annotations, ["In Oslo", {"entities": [[3, 7, "LOC"]]}], as a row."""
    is_pair = isinstance(found, list) and len(found) == 2 and isinstance(found[0], str) and isinstance(found[1], dict)
    return {"text": found[0], "entities": found[1]["entities"]} if is_pair and "entities" in found[1] else found


def _parse(where: str, place: str, text: str, advice: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise BonsaiError(f"{where}, {place}: not valid JSON ({error}): {advice}") from error


class _Twice(dict):
    """An object that has a key twice, which matters where it is a row."""

    name = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    counted, twice = Counter(name for name, _ in pairs), _Twice(found)
    twice.name = next(name for name in counted if counted[name] > 1)
    return twice


def _check_unicode(text: str, where: str, place: str) -> None:
    """Refuse half of a character outside of the first 65,536, as a text or a name that was cut may end in."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BonsaiError(f"{where}, {place}: a text is no valid Unicode ({error.reason}): correct it") from error
