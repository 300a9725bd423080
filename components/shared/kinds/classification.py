"""Rows of one class each."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kfp_bonsai.shared.kinds.bag_of_words import vectors
from kfp_bonsai.shared.kinds.chances import of_one
from kfp_bonsai.shared.kinds.kind import NUMBERS, ONE, PAIR, ROW, TEXT, TEXT_TENSOR, Columns, Kind, Logits
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.kinds.windows import Windows


def _targets(labels: Sequence[Any], _task: Task, _windows: Windows | None) -> np.ndarray:
    return np.asarray(labels, np.int64)


def _right(columns: Columns, _task: Task) -> np.ndarray:
    return np.asarray(columns["label"])


def _predict(logits: Logits, _task: Task, _windows: Windows | None) -> np.ndarray:
    return np.asarray(logits).argmax(axis=1)


def _agreement(one: Any, other: Any, _task: Task) -> tuple[float, str]:
    return float((one == other).mean()), "equal classes"


def _floor(known: Columns, asked: Columns, task: Task) -> tuple[Any, str]:
    from sklearn.dummy import DummyClassifier
    from sklearn.svm import LinearSVC

    learnt, others, counted = vectors([known[name] for name in task.columns], [asked[name] for name in task.columns])
    method = f"TF-IDF of {counted} + linear SVM (scikit-learn), trained on the training split"
    if learnt is None:
        return [0] * len(asked["label"]), method
    # The other classes, if there are any, are too rare to be drawn.
    model = DummyClassifier() if len(set(known["label"])) < 2 else LinearSVC()
    return model.fit(learnt, known["label"]).predict(others), method


def _shares(labels: Sequence[Any], task: Task, _edges: Sequence[float] | None) -> dict[str, Any]:
    found = np.bincount(np.asarray(labels, int), minlength=len(task.labels)) / len(labels)
    return {"labels": list(task.labels), "shares": found.tolist()}


def _tell(logits: Logits, task: Task, _windows: Windows | None) -> list[dict[str, Any]]:
    return [
        {"label": task.labels[int(row.argmax())], "probabilities": dict(zip(task.labels, row.tolist(), strict=True))}
        for row in of_one(np.asarray(logits))
    ]


KIND = Kind(
    columns=(TEXT, PAIR),
    target="class",
    named=True,
    head=ROW,
    says=ONE,
    metrics=("accuracy", "f1", "matthews_correlation", "macro_f1", "balanced_accuracy"),
    answer="one of some classes",
    outputs=lambda task: task.labels,
    means=lambda task: f"one of its {len(task.labels)} classes",
    is_answer=lambda label, task: type(label) is int and 0 <= label < len(task.labels),
    targets=_targets,
    right=_right,
    predict=_predict,
    agreement=_agreement,
    floor=_floor,
    shares=_shares,
    hub=("text-classification", "Text Classification"),
    does="telling {labels} apart",
    tell=_tell,
    tensors=lambda task: (("label", TEXT_TENSOR, 0), ("probabilities", NUMBERS, len(task.labels))),
    all_alike=lambda labels: len(set(labels)) < 2,
    hits=lambda predicted, right: predicted == right,
)
