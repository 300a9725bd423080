"""What is to be learnt: kind, metric and classes. All that differs between kinds where splits are made is here."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kfp_bonsai.prepare_data import labels, split
from kfp_bonsai.prepare_data.asked import check_metric
from kfp_bonsai.prepare_data.read import Rows
from kfp_bonsai.prepare_data.survey import Survey
from kfp_bonsai.shared.core.errors import BonsaiError, listed
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.kinds.kinds import KINDS

SHOWN = 6  # classes whose rows are told
SHARED = {  # how a draw does justice to all labels
    tasks.CLASSIFICATION: "by the share of each class",
    tasks.REGRESSION: "evenly over the range of the labels",
}


@dataclass(frozen=True)
class Goal:
    """What is to be learnt.

    Attributes:
        kind: classification or regression.
        metric: what counts.
        labels: class names; none for regression.
        hint: how to choose the other kind, where the labels leave it open.
    """

    kind: str
    metric: str
    labels: tuple[str, ...]
    hint: str

    def __str__(self) -> str:
        """Return it in words."""
        classes = f" into {len(self.labels)} classes ({listed(self.labels)})" if self.labels else ""
        return f"{self.kind}{classes}{self.hint}"


def goal_of(train: Survey, rows: Rows, kind: str, metric: str, positive_class: str) -> Goal:
    """Return what the labels of train are to be learnt as.

    Args:
        train: what the first pass found.
        rows: the same rows.
        kind: the kind that was asked for, or "auto".
        metric: the metric that was asked for, or "".
        positive_class: the class that was asked for, or "".

    Raises:
        BonsaiError: the labels are not what was asked for.
    """
    hint = labels.hint(train, kind)
    kind = labels.kind_of(train, kind)
    check_metric(metric, kind)
    return Goal(kind, metric or KINDS[kind].metrics[0], labels.class_names(train, rows, kind, positive_class), hint)


def metric_notes(goal: Goal) -> list[str]:
    """Return what a reader should know of the metric."""
    if goal.metric == "f1" and len(goal.labels) == 2:
        return [f"f1 is that of the class '{goal.labels[1]}'; another one by --positive-class"]
    return []


def label_notes(goal: Goal, title: str, found: Survey) -> list[str]:
    """Return what a reader should know of a split's labels, as far as it matters for the kind."""
    return [f"{title}: {each}" for each in found.notes] if goal.kind == tasks.CLASSIFICATION else []


def check_enough(goal: Goal, values: np.ndarray, where: str, made: Sequence[str]) -> None:
    """Refuse training rows that are too few to make splits from.

    Args:
        goal: what is to be learnt.
        values: the rows' labels.
        where: where they come from.
        made: the splits to make.

    Raises:
        BonsaiError: they are too few.
    """
    if goal.kind == tasks.CLASSIFICATION:
        split.check_sizes(np.bincount(values, minlength=len(goal.labels)).tolist(), goal.labels, made)
    elif len(values) < len(made) + 1:
        raise BonsaiError(f"{where} has {len(values)} different rows, too few to split: add rows")


def strata(goal: Goal, values: np.ndarray) -> np.ndarray:
    """Return what a draw takes its share of: each row's class, or which tenth of the labels it is in."""
    return values if goal.kind == tasks.CLASSIFICATION else split.quantile_bins(values)


def counts(goal: Goal, values: np.ndarray) -> str:
    """Return how many rows each class has, in words."""
    if not goal.labels:
        return ""
    sizes = np.bincount(values, minlength=len(goal.labels))
    shown = ", ".join(f"{name} {size:,}" for name, size in zip(goal.labels[:SHOWN], sizes, strict=False))
    return f" ({shown}{', ...' if len(goal.labels) > SHOWN else ''})"
