"""What is to be learnt: kind, metric and classes, and how splits do justice to it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kfp_bonsai.prepare_data import labels, split
from kfp_bonsai.prepare_data.asked import check_metric
from kfp_bonsai.prepare_data.survey import Survey
from kfp_bonsai.prepare_data.targets import TARGETS, Target
from kfp_bonsai.shared.core.errors import BonsaiError, listed
from kfp_bonsai.shared.kinds.kind import Kind
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.metrics.scores import check_counted, in_words

SHOWN = 6  # classes whose rows are told


@dataclass(frozen=True)
class Goal:
    """What is to be learnt.

    Attributes:
        kind: a key of KINDS.
        metric: what counts.
        labels: class names; none where nothing has a name.
        hint: how to choose another kind, where the labels leave it open.
        together: what the text is called that holds rows together; "" where each stands alone.
    """

    kind: str
    metric: str
    labels: tuple[str, ...]
    hint: str
    together: str = ""

    def __str__(self) -> str:
        """Return it in words."""
        what = "into" if self.known.is_one_class else "of"
        classes = f" {what} {len(self.labels)} {self.called} ({listed(self.labels)})" if self.labels else ""
        return f"{self.kind}{classes}{self.hint}"

    @property
    def known(self) -> Kind:
        """What is known of the kind."""
        return KINDS[self.kind]

    @property
    def target(self) -> Target:
        """What is done with its right answers."""
        return TARGETS[self.known.target]

    @property
    def called(self) -> str:
        """What its labels are called."""
        return "classes" if self.known.is_one_class else "labels"

    @property
    def shared(self) -> str:
        """How a draw does justice to all rows, in words."""
        return f"all rows of one {self.together} together" if self.together else self.target.shared


def goal_of(train: Survey, kind: str, metric: str, positive_class: str, usual: str = "") -> Goal:
    """Return what the labels of train are to be learnt as.

    Args:
        train: what the first pass found.
        kind: the kind that was asked for, or "auto".
        metric: the metric that was asked for, or "".
        positive_class: the class that was asked for, or "".
        usual: what the data are known to be scored by, or "".

    Raises:
        BonsaiError: the labels are not what was asked for.
    """
    hint = labels.hint(train, kind)
    kind = labels.kind_of(train, kind)
    check_metric(metric, kind)
    together = train.columns[train.reading.group] if train.groups is not None else ""
    fitting = KINDS[kind].metrics
    metric = metric or (usual if usual in fitting else fitting[0])
    check_counted(metric)
    return Goal(kind, metric, labels.class_names(train, kind, positive_class), hint, together)


def metric_notes(goal: Goal, asked: str) -> list[str]:
    """Return what a reader should know of the metric, and whether it was asked for."""
    notes = []
    if not asked and goal.metric != goal.known.metrics[0]:
        notes.append(f"the metric is {in_words(goal.metric)}, as GLUE scores this task; another one by --metric")
    if goal.metric == "f1" and len(goal.labels) == 2:
        notes.append(f"f1 is that of the class '{goal.labels[1]}'; another one by --positive-class")
    return notes


def label_notes(goal: Goal, title: str, found: Survey) -> list[str]:
    """Return what a reader should know of a split's labels, as far as it matters for the kind."""
    return [f"{title}: {each}" for each in (*(found.notes if goal.labels else ()), *found.told)]


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
    if goal.known.is_one_class:
        split.check_sizes(np.bincount(values, minlength=len(goal.labels)).tolist(), goal.labels, made)
    elif len(values) < len(made) + 1:
        raise BonsaiError(f"{where} has {len(values)} different rows, too few to split: add rows")


def counts(goal: Goal, values: np.ndarray) -> str:
    """Return how often each label is there, in words."""
    if not goal.labels:
        return ""
    if goal.target.of_lists:
        values = np.array([label for answer in values for label in goal.target.labels(answer)], np.int64)
    sizes = np.bincount(values, minlength=len(goal.labels))
    shown = ", ".join(f"{name} {size:,}" for name, size in zip(goal.labels[:SHOWN], sizes, strict=False))
    return f" ({shown}{', ...' if len(goal.labels) > SHOWN else ''})"
