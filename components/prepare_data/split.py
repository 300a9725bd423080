"""Who goes where: duplicates, leaks, and stratified draws. Arrays in, arrays out; seeded."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from kfp_bonsai.shared.core.errors import BonsaiError

QUANTILES = 10


def groups(keys: np.ndarray) -> np.ndarray:
    """Number equal keys alike.

    Args:
        keys: (rows, 2) of uint64, the two halves of each row's hash.

    Returns:
        One integer a row, equal where the keys are equal.
    """
    if not len(keys):
        return np.zeros(0, np.int64)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    new = np.r_[False, (ordered[1:] != ordered[:-1]).any(axis=1)]
    numbers = np.empty(len(keys), np.int64)
    numbers[order] = np.cumsum(new)
    return numbers


def first_of_each(numbers: np.ndarray) -> np.ndarray:
    """Return a mask of the rows whose group has not been seen before, in row order."""
    mask = np.zeros(len(numbers), bool)
    mask[np.unique(numbers, return_index=True)[1]] = True
    return mask


def quantile_bins(values: np.ndarray) -> np.ndarray:
    """Return strata for regression: tenths by rank, fewer where there are few rows."""
    bins = max(1, min(QUANTILES, len(values) // 10))
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    return ranks * bins // max(len(values), 1)


def rarest(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Return strata for rows of several labels: of each row the label that fewest rows have, -1 where it has none."""
    counts = Counter(label for row in rows for label in set(row))
    return np.array([min(row, key=lambda one: (counts[one], one), default=-1) for row in rows], np.int64)


def drawable(strata: np.ndarray, count: int, leave: int) -> tuple[np.ndarray, np.ndarray]:
    """Leave out strata that are too small for every split: their rows stay behind, where something is learnt of them.

    Args:
        strata: a number for each row.
        count: how many rows are to be chosen.
        leave: rows that stay behind in every stratum.

    Returns:
        Strata, all the same if the others do not suffice, and a mask of the rows to choose from.
    """
    _, codes, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    enough = sizes > leave
    if enough.sum() <= count <= (sizes[enough] - leave).sum():
        return strata, enough[codes]
    return np.zeros(len(strata), np.int64), np.ones(len(strata), bool)


def draw_groups(numbers: np.ndarray, count: int, seed: int, *, leave: int = 1, most: bool = False) -> np.ndarray:
    """Choose whole groups of rows, of as near to `count` rows as the groups that come first allow.

    Args:
        numbers: the number of each row's group.
        count: how many rows to choose.
        seed: of the choice.
        leave: groups that stay behind.
        most: choose no more than `count` rows.

    Returns:
        A mask of the chosen rows; nothing is chosen if there are too few groups.
    """
    names, codes, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    reached = np.cumsum(sizes[order])[: max(len(names) - leave, 0)]
    if not len(reached) or (most and reached[0] > count):
        return np.zeros(len(numbers), bool)
    off = np.where(most & (reached > count), np.inf, np.abs(reached - count))
    chosen = np.zeros(len(names), bool)
    chosen[order[: int(off.argmin()) + 1]] = True
    return chosen[codes]


def draw(strata: np.ndarray, count: int, seed: int, *, leave: int = 1, least: int = 1) -> np.ndarray:
    """Choose `count` rows, each stratum by its share (largest remainders).

    Args:
        strata: a class or bin for each row.
        count: how many rows to choose.
        seed: of the choice.
        leave: rows that stay behind in every stratum.
        least: rows that are chosen from every stratum.

    Returns:
        A mask of the chosen rows.

    Raises:
        ValueError: the strata are too small for `leave` and `least`, or `count` does not fit them.
    """
    names, codes, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    room = sizes - leave
    if (room < least).any() or not least * len(names) <= count <= room.sum():
        raise ValueError(f"cannot choose {count} of {sizes.tolist()}, leaving {leave} and taking {least} of each")
    quota = count * sizes / sizes.sum()
    taken = np.clip(np.floor(quota).astype(np.int64), least, room)
    while (missing := count - taken.sum()) != 0:
        step = 1 if missing > 0 else -1
        able = taken < room if step > 0 else taken > least
        order = np.argsort(-(quota - taken) * step, kind="stable")
        taken[order[able[order]][: abs(missing)]] += step
    chosen = np.zeros(len(strata), bool)
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(strata))
    by_stratum = shuffled[np.argsort(codes[shuffled], kind="stable")]
    starts = np.r_[0, np.cumsum(sizes)[:-1]]
    for start, number in zip(starts, taken, strict=True):
        chosen[by_stratum[start : start + number]] = True
    return chosen


def by_hash(keys: np.ndarray, fraction: float, half: int) -> np.ndarray:
    """Choose rows by what their texts' hashes are: the same row always falls on the same side.

    Args:
        keys: (rows, 2) of uint64, the two halves of each row's hash.
        fraction: the share of all rows to choose, about.
        half: which half of the hash decides, so that one choice says nothing of the next.

    Returns:
        A mask of the chosen rows.
    """
    return keys[:, half] < np.uint64(fraction * 2.0**64)


def check_sizes(sizes: Sequence[int], names: Sequence[str], made: Sequence[str]) -> None:
    """Refuse classes that cannot be in train and in every split that is to be made.

    Raises:
        BonsaiError: a class has too few rows.
    """
    needed = len(made) + 1
    small = [(name, size) for name, size in zip(names, sizes, strict=True) if size < needed]
    if small:
        shown = ", ".join(f"'{name}' has {size}" for name, size in small[:5])
        if not made:
            raise BonsaiError(
                f"no rows of a class are left to train on: {shown}: all of them are in the validation or test rows "
                "too: add rows to train, or remove the class"
            )
        raise BonsaiError(
            f"too few rows to make {' and '.join(made)} from train: each class needs {needed} different rows, {shown}"
            f"{' ...' if len(small) > 5 else ''}: add rows, remove the class, or give --{made[0]}-data "
            "(if these are no classes: --label-column; if they are numbers to predict: --kind regression)"
        )
