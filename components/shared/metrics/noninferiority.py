"""How much of a model's accuracy another one may have lost, as far as the test rows can tell."""

from typing import Any

import numpy as np

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.metrics.scores import METRICS, score_predictions
from kfp_bonsai.shared.metrics.statistics import net_loss_limit

MEANS = ("macro_f1", "balanced_accuracy")  # of what each class scores
OF_CLASSES = ("accuracy", "f1", "matthews_correlation", *MEANS)  # of rows that are of one class each


def check_margin(margin: float) -> None:
    """Refuse a margin that is no fraction.

    Raises:
        BonsaiError: it is none.
    """
    if not 0 <= margin < 1:
        raise BonsaiError(f"--margin {margin}: give a fraction from 0 to 1, such as 0.01")


def largest_loss(metric: str, right: Any, baseline: Any, candidate: Any, classes: int = 2) -> float:
    """Return the largest share of the baseline's right answers that a candidate may lose, from 0 to 1.

    A bootstrap cannot draw what no row shows: of two models that agree on 20 rows it says that they agree on all. This
    limit falls with the number of rows, to 1 % at 381 rows where nothing was lost or won.

    Args:
        metric: the task's. F1 does not count what is right about the class that is not looked for, and Matthews'
            correlation hardly that about the commonest: rows of which all say that they are of it are left out. F1 of
            more than two classes, and what is called a macro or balanced score, is the mean of theirs: there it is what
            the class of which the rows tell least may lose. Other answers are not simply right or wrong: there it is
            the limit for models that agree on all, and the bootstrap of the score says the rest.
        right: the right answers, one a row.
        baseline: its predictions, or those of a champion.
        candidate: the other model's.
        classes: how many there are.
    """
    of_classes = isinstance(right, np.ndarray) and right.dtype.kind in "iu"  # other rows have sets, texts or numbers
    if metric not in OF_CLASSES or not of_classes:
        return net_loss_limit(0, 0, len(METRICS[metric].table(baseline, right, classes)))
    if metric in MEANS or (metric == "f1" and classes > 2):
        own = (right == one for one in np.unique(right))
        limit = max(_net_loss(right[rows], baseline[rows], candidate[rows]) for rows in own) / classes
        score = score_predictions(metric, baseline, right, classes=classes)
        return min(1.0, limit / score) if score else 1.0
    if metric != "accuracy":
        other = 0 if metric == "f1" else np.bincount(right).argmax()
        counted = (right != other) | (baseline != other) | (candidate != other)
        right, baseline, candidate = right[counted], baseline[counted], candidate[counted]
    share = float((baseline == right).mean()) if len(right) else 0.0
    return min(1.0, _net_loss(right, baseline, candidate) / share) if share else 1.0


def _net_loss(right: np.ndarray, baseline: np.ndarray, candidate: np.ndarray) -> float:
    """Return the largest share of rows that the candidate may lose, less those it wins."""
    before, now = baseline == right, candidate == right
    return net_loss_limit(int((before & ~now).sum()), int((~before & now).sum()), len(right))
