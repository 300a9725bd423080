"""All kinds of task. Nothing else knows their names: what differs between them is asked of the kind."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.kinds import classification, generation, multi_label, questions, ranking, regression, tagging
from kfp_bonsai.shared.kinds.kind import ANY, IGNORED, ROW, TOKEN, Columns, Kind, Logits
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.kinds.windows import Windows
from kfp_bonsai.shared.metrics.scores import score_predictions

KINDS: dict[str, Kind] = {
    "classification": classification.KIND,
    "regression": regression.KIND,
    "multi-label": multi_label.KIND,
    "tokens": tagging.KIND,
    "questions": questions.KIND,
    "ranking": ranking.KIND,
    "generation": generation.KIND,
}

THRESHOLDS = np.linspace(-4, 4, 81)  # that are tried, as logits


def answered_alike(kind: str) -> tuple[str, ...]:
    """Return the kinds that models answer with the same head as one, itself too; none where it is not known."""
    return tuple(name for name, one in KINDS.items() if kind and one.head == KINDS[kind].head)


def kind_of(task: Task) -> Kind:
    """Return what is known of a task's kind."""
    return KINDS[task.kind]


def kind_in(task: Mapping[str, Any]) -> Kind:
    """Return what is known of the kind that a file's task names; a task of no kind is one of classes, or of numbers."""
    return KINDS.get(task.get("kind") or "", classification.KIND if task.get("labels") else regression.KIND)


def drawn(task: Task, columns: Columns) -> int:
    """Return how many rows, or queries, a split's score is of."""
    kind = kind_of(task)
    return len(set(columns[kind.group])) if kind.scored != "rows" else len(columns["label"])


def classes_of(task: Task) -> int:
    """Return how many classes scores are to reckon with: two at the least."""
    return max(2, len(task.labels))


def predict(task: Task, logits: Logits, windows: Windows | None = None) -> Any:
    """Return what logits predict, one prediction a row.

    Raises:
        BonsaiError: logits that are not finite.
    """
    _check_finite(task, logits)
    return kind_of(task).predict(logits, task, windows)


def tell(task: Task, logits: Logits, windows: Windows | None = None) -> list[dict[str, Any]]:
    """Return what a server answers for each row, as plain JSON.

    Raises:
        BonsaiError: logits that are not finite.
    """
    _check_finite(task, logits)
    return kind_of(task).tell(logits, task, windows)


def check_stage(kind: str, *stages: str) -> None:
    """Refuse a kind of task that a stage does not know yet.

    Args:
        kind: a key of KINDS; another one is of no concern here.
        stages: the stages' commands.

    Raises:
        BonsaiError: one of them does not know it.
    """
    lacking = KINDS[kind].lacking if kind in KINDS else ()
    unable = [stage for stage in stages if stage in lacking]
    if unable:
        raise BonsaiError(
            f"{unable[0]} does not know tasks of the kind {kind} yet: in this version they go as far as the stages "
            f"that do, each by itself (not {', '.join(lacking)})"
        )


def _check_finite(task: Task, logits: Logits) -> None:
    if kind_of(task).writes:
        return
    if not all(np.isfinite(one).all() for one in logits):
        raise BonsaiError(
            "the model's outputs hold NaN or infinity, so its weights are broken: make the model again, with a lower "
            "--learning-rate"
        )


def score(task: Task, logits: Logits, right: Any, windows: Windows | None = None) -> float:
    """Return the score of logits by the task's metric; higher is better.

    Args:
        task: what was learnt.
        logits: shape (rows, labels); where there are windows, of each window, shape (tokens, labels).
        right: the right answers, as the kind gives them.
        windows: which part of which row each of the logits' entries is; None where each is a row.

    Raises:
        BonsaiError: no rows, or logits that are not finite.
    """
    return score_of(task, predict(task, logits, windows), right)


def score_of(task: Task, predicted: Any, right: Any) -> float:
    """Return the score of predictions by the task's metric; higher is better.

    Raises:
        BonsaiError: no rows.
    """
    return score_predictions(task.metric, predicted, right, classes=classes_of(task))


def threshold(task: Task, logits: Logits, right: Any, added: Any = 1.0) -> float:
    """Return the threshold at which logits score best; 0 where rows have no labels to be told from none.

    Args:
        task: what was learnt; its metric says what is best.
        logits: shape (rows, labels).
        right: the right answers, as the kind gives them.
        added: how much of a threshold each row's logits get, shape (rows, 1), where that is not all of it.
    """
    if not kind_of(task).has_thresholds:
        return 0.0
    found = [score(task, logits - each * added, right) for each in THRESHOLDS]
    return float(np.median(THRESHOLDS[np.asarray(found) == max(found)]))


def unknown(task: Task, tokens: int) -> Any:
    """Return the target of an input that has no label, as no loss looks at it: in the shape that targets have."""
    kind = kind_of(task)
    if kind.head == ROW and kind.says != ANY:
        return IGNORED
    return np.full(tokens if kind.head == TOKEN else len(kind.outputs(task)), IGNORED)
