"""Which rows go into one batch, where no row's place matters: rows of like length, and of long ones fewer."""

from collections.abc import Iterator, Sequence

import numpy as np

LONG = 128  # tokens of a row beyond which a batch has fewer rows, so that what it takes in memory has a bound


def by_length(lengths: Sequence[int] | np.ndarray, most: int) -> Iterator[list[int]]:
    """Give the numbers of rows in batches, the shortest first: `most` rows, or as many tokens as those of `LONG`.

    Args:
        lengths: tokens of each row.
        most: rows of a batch.
    """
    order = np.argsort(np.asarray(lengths), kind="stable").tolist()
    start = 0
    while start < len(order):
        longest = lengths[order[min(start + most, len(order)) - 1]]
        end = start + max(1, min(most, most * LONG // max(1, int(longest))))
        yield order[start:end]
        start = end
