"""Rows of any number of the labels, none included."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kfp_bonsai.shared.kinds.bag_of_words import vectors
from kfp_bonsai.shared.kinds.chances import of_any
from kfp_bonsai.shared.kinds.kind import ANY, NUMBERS, PAIR, ROW, TEXT, TEXT_TENSOR, Columns, Kind, Logits
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.kinds.windows import Windows
from kfp_bonsai.shared.metrics import items


def _targets(labels: Sequence[Any], task: Task, _windows: Windows | None) -> np.ndarray:
    found = np.zeros((len(labels), len(task.labels)), np.float32)
    for row, ids in enumerate(labels):
        found[row, ids] = 1
    return found


def _is_answer(label: Any, task: Task) -> bool:
    numbers = isinstance(label, list) and all(type(one) is int and 0 <= one < len(task.labels) for one in label)
    return numbers and len(set(label)) == len(label)


def _right(columns: Columns, _task: Task) -> list[items.Items]:
    return [tuple((one,) for one in sorted(row)) for row in columns["label"]]


def _predict(logits: Logits, _task: Task, _windows: Windows | None) -> list[items.Items]:
    """Return the labels of a chance above a half, where training puts each model's threshold."""
    return [tuple((int(one),) for one in np.flatnonzero(row > 0)) for row in np.asarray(logits)]


def _floor(known: Columns, asked: Columns, task: Task) -> tuple[Any, str]:
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import LinearSVC

    learnt, others, counted = vectors([known[name] for name in task.columns], [asked[name] for name in task.columns])
    method = f"TF-IDF of {counted} + a linear SVM for each label (scikit-learn), trained on the training split"
    targets = _targets(known["label"], task, None)
    occurs = np.flatnonzero(targets.any(axis=0) & ~targets.all(axis=0))
    if learnt is None or not len(occurs):
        return [()] * len(asked["label"]), method
    scores = OneVsRestClassifier(LinearSVC()).fit(learnt, targets[:, occurs]).decision_function(others)
    scores = scores.reshape(len(asked["label"]), -1)
    return [tuple((int(occurs[one]),) for one in np.flatnonzero(row > 0)) for row in scores], method


def _shares(labels: Sequence[Any], task: Task, _edges: Sequence[float] | None) -> dict[str, Any]:
    counts = np.bincount([one for row in labels for one in row], minlength=len(task.labels))
    shares = (counts / max(1, counts.sum())).tolist()
    return {"labels": list(task.labels), "shares": shares, "counted": int(counts.sum())}


def _tell(logits: Logits, task: Task, windows: Windows | None) -> list[dict[str, Any]]:
    return [
        {"labels": [task.labels[one] for (one,) in said], "probabilities": dict(zip(task.labels, row, strict=True))}
        for said, row in zip(_predict(logits, task, windows), of_any(np.asarray(logits)).tolist(), strict=True)
    ]


KIND = Kind(
    columns=(TEXT, PAIR),
    target="classes",
    named=True,
    head=ROW,
    says=ANY,
    metrics=("micro_f1", "macro_f1"),
    answer="any of some labels",
    outputs=lambda task: task.labels,
    means=lambda task: f"a list of some of its {len(task.labels)} labels, each once",
    is_answer=_is_answer,
    targets=_targets,
    right=_right,
    predict=_predict,
    floor=_floor,
    shares=_shares,
    hub=("text-classification", "Multi-label Classification"),
    does="saying which of {labels} hold",
    tell=_tell,
    tensors=lambda task: (("labels", TEXT_TENSOR, 0), ("probabilities", NUMBERS, len(task.labels))),
    items="rows",
    hits=items.hits,
    errs="unless all its labels are right",
)
