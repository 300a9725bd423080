"""Which part of a row each input of a model is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Windows:
    """Which part of which row each input of a model is; rows that are longer than an input are several.

    Attributes:
        rows: number of each window's row, rising, shape (windows,).
        offsets: for each window where its tokens begin and end in their text, in characters, shape (tokens, 2).
        sides: for each window which text its tokens are of: 0, 1, or -1 for those that mark ends, shape (tokens,).
        texts: the rows' texts, a tuple a row.
    """

    rows: np.ndarray
    offsets: Sequence[np.ndarray]
    sides: Sequence[np.ndarray]
    texts: Sequence[tuple[str, ...]]


def join(parts: Sequence[Windows]) -> Windows:
    """Return the windows of several batches of rows as those of one."""
    first = np.cumsum([0, *(len(part.texts) for part in parts)])
    return Windows(
        np.concatenate([part.rows + start for part, start in zip(parts, first, strict=False)]),
        [one for part in parts for one in part.offsets],
        [one for part in parts for one in part.sides],
        [one for part in parts for one in part.texts],
    )
