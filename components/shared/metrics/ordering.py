"""How well scores put the documents of each query in order: MRR and nDCG of the first ten.

A query of which no document is relevant tells nothing and is left out. No order of documents of equal score was said:
for nDCG they share the mean of what their places are worth, for MRR the irrelevant ones come first.
"""

from collections.abc import Callable

import numpy as np

FIRST = 10


def by_query(of_one: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[np.ndarray, np.ndarray, int], np.ndarray]:
    """Return what gives a figure a query, shape (queries, 1), of scores and (query, relevance) a row."""

    def table(predicted: np.ndarray, right: np.ndarray, _classes: int = 0) -> np.ndarray:
        scores, right = np.asarray(predicted, float), np.asarray(right, float)
        order = np.argsort(right[:, 0], kind="stable")
        ends = np.flatnonzero(np.diff(right[order, 0])) + 1
        groups = [rows for rows in np.split(order, ends) if (right[rows, 1] > 0).any()]
        return np.array([of_one(scores[rows], right[rows, 1]) for rows in groups], float).reshape(-1, 1)

    return table


def reciprocal_rank(scores: np.ndarray, relevance: np.ndarray) -> float:
    """Return 1 / the place of the first relevant document, 0 if none is among the first ten (MRR@10)."""
    best = scores[relevance > 0].max()
    place = 1 + int((scores[relevance <= 0] >= best).sum())
    return 1 / place if place <= FIRST else 0.0


def gain(scores: np.ndarray, relevance: np.ndarray) -> float:
    """Return the normalised discounted cumulative gain of the first ten (nDCG@10), with gains as they are stated."""
    worth = np.where(np.arange(len(scores)) < FIRST, 1 / np.log2(np.arange(len(scores)) + 2), 0.0)
    _, group, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    mean = np.array([worth[end - size : end].mean() for end, size in zip(ends, sizes, strict=True)])
    best = (np.sort(relevance)[::-1] * worth).sum()
    return float((relevance * mean[group]).sum() / best)


def mean(table: np.ndarray, _classes: int = 0) -> float:
    """Return the mean over the queries, 0 if there are none."""
    return float(table.mean()) if len(table) else 0.0
