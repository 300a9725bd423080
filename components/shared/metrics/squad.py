"""Exact match and F1 of answers, as SQuAD's own script counts them (Rajpurkar et al., arXiv 1606.05250, section 6)."""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def plain(text: str) -> str:
    """Return an answer as it is compared: lower case, without punctuation, English articles and spare spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def compared(predicted: Sequence[str], right: Sequence[Sequence[str]], _classes: int = 0) -> np.ndarray:
    """Return exact match and F1 a row, each the best over the right answers, shape (rows, 2).

    A question without an answer has none in its list, or such as nothing is left of, and a prediction of which nothing
    is left either is right.
    """
    found = []
    for one, answers in zip(predicted, right, strict=True):
        scored = [_both(one, answer) for answer in answers if plain(answer)] or [_both(one, "")]
        found.append([max(column) for column in zip(*scored, strict=True)])
    return np.array(found, float).reshape(-1, 2)


def hits(predicted: Sequence[str], right: Sequence[Sequence[str]]) -> np.ndarray:
    """Return which rows match exactly, shape (rows,)."""
    return compared(predicted, right)[:, 0] > 0


def _both(predicted: str, answer: str) -> tuple[float, float]:
    mine, theirs = plain(predicted), plain(answer)
    return float(mine == theirs), _f1(mine.split(), theirs.split())


def _f1(mine: list[str], theirs: list[str]) -> float:
    if not mine or not theirs:
        return float(mine == theirs)
    shared = sum((Counter(mine) & Counter(theirs)).values())
    return 2 * shared / (len(mine) + len(theirs))
