"""Pairs of a query and a document, to be put in order: a score a pair, as a cross-encoder gives it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kfp_bonsai.shared.kinds.bag_of_words import vectors
from kfp_bonsai.shared.kinds.chances import of_any
from kfp_bonsai.shared.kinds.kind import ANY, NUMBERS, PAIR, ROW, Columns, Kind, Logits, number_a_row
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.kinds.windows import Windows


def _targets(labels: Sequence[Any], _task: Task, _windows: Windows | None) -> np.ndarray:
    """Return relevance as a chance, the highest grade as 1, shape (rows, 1)."""
    found = np.asarray(labels, np.float32)[:, None]
    return found / max(1.0, float(found.max(initial=0)))


def _right(columns: Columns, _task: Task) -> np.ndarray:
    """Return each row's query, as a number, and its relevance, shape (rows, 2)."""
    numbers: dict[str, int] = {}
    queries = [numbers.setdefault(query, len(numbers)) for query in columns["text_a"]]
    return np.stack([np.asarray(queries, float), np.asarray(columns["label"], float)], axis=1)


def _agreement(one: Any, other: Any, _task: Task) -> tuple[float, str]:
    from scipy import stats

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float(np.allclose(one, other, rtol=0.05)), "rank correlation"
    return float(stats.spearmanr(one, other).statistic), "rank correlation"


def _floor(known: Columns, asked: Columns, _task: Task) -> tuple[Any, str]:
    both = [[*known["text_a"], *known["text_b"]]]
    pairs = [[*asked["text_a"], *asked["text_b"]]]
    _, found, counted = vectors(both, pairs)
    method = f"cosine of the TF-IDF of {counted}, of query and document"
    if found is None:
        return np.zeros(len(asked["label"])), method
    half = len(asked["label"])
    return np.asarray(found[:half].multiply(found[half:]).sum(axis=1)).ravel(), method


def _shares(labels: Sequence[Any], _task: Task, edges: Sequence[float] | None) -> dict[str, Any]:
    edges = edges or sorted({0.0, *np.quantile(labels, [0.5, 0.9]).tolist()})
    counts = np.bincount(np.searchsorted(edges, labels, side="left"), minlength=len(edges) + 1)
    return {"edges": edges, "shares": (counts / len(labels)).tolist()}


def _tell(logits: Logits, task: Task, windows: Windows | None) -> list[dict[str, Any]]:
    return [{"score": score} for score in of_any(number_a_row(logits, task, windows)).tolist()]


KIND = Kind(
    columns=(PAIR,),
    target="number",
    named=False,
    head=ROW,
    says=ANY,
    metrics=("ndcg@10", "mrr@10"),
    answer="a score of a pair",
    outputs=lambda _task: ("relevance",),
    means=lambda _task: "a relevance of 0 or more",
    is_answer=lambda label, _task: isinstance(label, int | float) and 0 <= label < math.inf,
    targets=_targets,
    right=_right,
    predict=number_a_row,
    agreement=_agreement,
    floor=_floor,
    shares=_shares,
    hub=("text-ranking", "Text Ranking"),
    does="putting texts in order for a query",
    tell=_tell,
    tensors=lambda _task: (("score", NUMBERS, 1),),
    floor_name=("bag of words", "bag of words that compares query and text"),
    group="text_a",
    scored="queries",
)
