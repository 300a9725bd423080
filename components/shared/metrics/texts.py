"""Scores of texts that a model wrote against the texts that are right, counted by the libraries that others use."""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.scripts import leaves_no_spaces

_WORD = re.compile(r"[^\W_]+")


def same(predicted: Sequence[str], right: Sequence[str], _classes: int = 0) -> np.ndarray:
    """Return 1 for each text that is letter for letter the right one, but for white space around it: (rows, 1)."""
    return np.array([[float(one.strip() == other.strip())] for one, other in zip(predicted, right, strict=True)])


def rouge_l(predicted: Sequence[str], right: Sequence[str], _classes: int = 0) -> np.ndarray:
    """Return the F of the longest common subsequence of words (Lin 2004, section 3), without stemming: (rows, 1).

    Texts that are the same have 1, without a word too, as empty answers of two models.
    """
    score = _rouge().score
    pairs = zip(predicted, right, strict=True)
    found = [1.0 if one == other else score(other, one)["rougeL"].fmeasure for one, other in pairs]
    return np.array(found, float).reshape(-1, 1)


def counted_characters(predicted: Sequence[str], right: Sequence[str], _classes: int = 0) -> np.ndarray:
    """Return what sacrebleu counts of each text for chrF (Popovic 2015): n-grams written, right, and both."""
    return np.array(_chrf()._extract_corpus_statistics([*predicted], [[*right]]), float)


def chrf(table: np.ndarray, _classes: int = 0) -> float:
    """Return chrF2 of all texts together, in 0 to 1: table as of `counted_characters`."""
    return _chrf()._compute_score_from_stats(table.sum(axis=0).tolist()).score / 100


class Words:
    """The words of a text in lower case, as rouge-score takes them, in any script; signs of Chinese are words."""

    def tokenize(self, text: str) -> list[str]:
        """Return the words."""
        return [part for word in _WORD.findall(text.lower()) for part in _parted(word)]


def _parted(word: str) -> Iterator[str]:
    if word.isascii():
        yield word
        return
    rest = ""
    for sign in word:
        if leaves_no_spaces(sign):
            yield from filter(None, (rest, sign))
            rest = ""
        else:
            rest += sign
    if rest:
        yield rest


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=Words())


@cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()
