"""The units of a text that are tagged: its words, as the data part them, or as anybody would."""

import re
from collections.abc import Iterator

import numpy as np

from kfp_bonsai.shared.core.scripts import leaves_no_spaces
from kfp_bonsai.shared.kinds.windows import Windows

WORDS = "words"  # the setting of a task whose texts are words with one space between
_GIVEN, _FOUND = re.compile(r"\S+"), re.compile(r"\w+|[^\w\s]")


def units(text: str, setting: str) -> list[tuple[int, int]]:
    """Return where each unit of a text begins and ends, in characters.

    They are what stands between spaces where the data are words; else runs of letters and digits, single letters of
    scripts that leave no spaces, and single signs.
    """
    if setting == WORDS:
        return [found.span() for found in _GIVEN.finditer(text)]
    return [part for found in _FOUND.finditer(text) for part in _parted(text, *found.span())]


def _parted(text: str, begin: int, end: int) -> Iterator[tuple[int, int]]:
    if text[begin:end].isascii():
        yield begin, end
        return
    start = begin
    for at in range(begin, end):
        if leaves_no_spaces(text[at]):
            if start < at:
                yield start, at
            yield at, at + 1
            start = at + 1
    if start < end:
        yield start, end


def first_tokens(windows: Windows, setting: str) -> Iterator[tuple[int, list[tuple[int, int]], np.ndarray]]:
    """Yield for each window its row, the row's units, and the token that answers for each unit: its first one.

    The tokens have the shape (units,), with -1 for a unit that does not begin in the window.
    """
    known: tuple[int, list[tuple[int, int]]] = (-1, [])
    for row, offsets, sides in zip(windows.rows.tolist(), windows.offsets, windows.sides, strict=True):
        if known[0] != row:
            known = row, units(windows.texts[row][0], setting)
        found = np.full(len(known[1]), -1)
        begins = np.array([begin for begin, _ in known[1]], int)
        tokens = np.flatnonzero((sides == 0) & (offsets[:, 1] > offsets[:, 0]))
        if len(tokens) and len(begins):
            unit = np.searchsorted(begins, offsets[tokens, 1] - 1, side="right") - 1  # by a token's last character
            first = (unit >= 0) & (offsets[tokens, 0] <= begins[unit])
            places, where = np.unique(unit[first], return_index=True)
            found[places] = tokens[first][where]
        yield row, known[1], found
