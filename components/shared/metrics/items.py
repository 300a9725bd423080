"""Answers that are sets of items with a label each: labels of a row, or tagged stretches of its text.

A row's items are tuples whose last entry is the label's number.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Items = Sequence[tuple[int, ...]]


def hits(predicted: Sequence[Items], right: Sequence[Items]) -> np.ndarray:
    """Return which rows have just the right items, shape (rows,)."""
    return np.array([set(one) == set(other) for one, other in zip(predicted, right, strict=True)], bool)


def counted(predicted: Sequence[Items], right: Sequence[Items], _classes: int = 0) -> np.ndarray:
    """Return how many items of each row are right, were predicted, and are there, shape (rows, 3)."""
    found = [
        (len(set(one) & set(other)), len(set(one)), len(set(other)))
        for one, other in zip(predicted, right, strict=True)
    ]
    return np.array(found, np.int64).reshape(-1, 3)


def counted_by_label(predicted: Sequence[Items], right: Sequence[Items], classes: int) -> np.ndarray:
    """Return the same for each label, shape (rows, labels, 3); rows of one class each have one item."""
    if isinstance(right, np.ndarray):
        ours, theirs = (np.eye(classes, dtype=np.int8)[np.asarray(one)] for one in (predicted, right))
        return np.stack([ours & theirs, ours, theirs], axis=2)
    table = np.zeros((len(right), classes, 3), np.int32)
    for row, (one, other) in enumerate(zip(predicted, right, strict=True)):
        for column, items in enumerate((set(one) & set(other), set(one), set(other))):
            for item in items:
                table[row, item[-1], column] += 1
    return table


def micro_f1(table: np.ndarray, _classes: int = 0) -> float:
    """Return the F1 of all items together, 0 where there are none: table as of `counted`."""
    both, predicted, right = table.sum(axis=0)
    return float(2 * both / (predicted + right)) if predicted + right else 0.0


def macro_f1(table: np.ndarray, _classes: int = 0) -> float:
    """Return the mean of the labels' F1, of those that occur on either side: table as of `counted_by_label`."""
    both, predicted, right = table.sum(axis=0).T
    there = predicted + right > 0
    return float((2 * both[there] / (predicted + right)[there]).mean()) if there.any() else 0.0


def by_label(predicted: Sequence[Items], right: Sequence[Items], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Return what each label scores: its rows' items, precision, recall and F1, None where that cannot be said."""
    total = counted_by_label(predicted, right, len(labels)).sum(axis=0)
    return [
        {
            "label": label,
            "items": int(there),
            "precision": float(both / said) if said else None,
            "recall": float(both / there) if there else None,
            "f1": float(2 * both / (said + there)) if said + there else None,
        }
        for label, (both, said, there) in zip(labels, total, strict=True)
    ]
