"""Rows of one number each."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kfp_bonsai.shared.kinds.bag_of_words import vectors
from kfp_bonsai.shared.kinds.kind import (
    NUMBER,
    NUMBERS,
    PAIR,
    ROW,
    TEXT,
    Columns,
    Kind,
    Logits,
    by_metric,
    number_a_row,
)
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.kinds.windows import Windows

TENTHS = 10


def _targets(labels: Sequence[Any], _task: Task, _windows: Windows | None) -> np.ndarray:
    return np.asarray(labels, np.float32)


def _right(columns: Columns, _task: Task) -> np.ndarray:
    return np.asarray(columns["label"])


def _agreement(one: Any, other: Any, task: Task) -> tuple[float, str]:
    if task.metric == "r2":  # which sees what is added to all answers
        return by_metric(one, other, task)
    if np.ptp(one) == 0 or np.ptp(other) == 0:  # one row, or a model that says one value
        return float(np.allclose(one, other, rtol=0.05)), "correlation"
    return float(np.corrcoef(one, other)[0, 1]), "correlation"


def _floor(known: Columns, asked: Columns, task: Task) -> tuple[Any, str]:
    from sklearn.linear_model import Ridge

    learnt, others, counted = vectors([known[name] for name in task.columns], [asked[name] for name in task.columns])
    method = f"TF-IDF of {counted} + ridge regression (scikit-learn), trained on the training split"
    if learnt is None:
        return [0] * len(asked["label"]), method
    return Ridge().fit(learnt, known["label"]).predict(others), method


def _shares(labels: Sequence[Any], _task: Task, edges: Sequence[float] | None) -> dict[str, Any]:
    edges = edges or np.quantile(labels, np.arange(1, TENTHS) / TENTHS).tolist()
    counts = np.bincount(np.searchsorted(edges, labels, side="right"), minlength=len(edges) + 1)
    return {"edges": edges, "shares": (counts / len(labels)).tolist()}


def _tell(logits: Logits, task: Task, windows: Windows | None) -> list[dict[str, Any]]:
    return [{"value": float(value)} for value in number_a_row(logits, task, windows)]


KIND = Kind(
    columns=(TEXT, PAIR),
    target="number",
    named=False,
    head=ROW,
    says=NUMBER,
    metrics=("pearson", "spearman", "r2"),
    answer="a number",
    outputs=lambda _task: ("value",),
    means=lambda _task: "a number",
    is_answer=lambda label, _task: isinstance(label, int | float) and math.isfinite(label),
    targets=_targets,
    right=_right,
    predict=number_a_row,
    agreement=_agreement,
    floor=_floor,
    shares=_shares,
    hub=("text-classification", "Text Regression"),
    does="predicting a number",
    tell=_tell,
    tensors=lambda _task: (("value", NUMBERS, 1),),
)
