"""How much of the champion's accuracy the challenger may have lost, as far as the test rows can tell."""

import numpy as np

from kfp_bonsai.shared.metrics import REGRESSION_METRICS
from kfp_bonsai.shared.statistics import net_loss_limit


def largest_loss(metric: str, right: np.ndarray, champion: np.ndarray, challenger: np.ndarray) -> float:
    """Return the largest share of the champion's right answers that the challenger may lose, from 0 to 1.

    A bootstrap cannot draw what no row shows: of two models that agree on 20 rows it says that they agree on all. This
    limit falls with the number of rows, to 1 % at 381 rows where nothing was lost or won.

    Args:
        metric: the task's. F1 and Matthews' correlation hardly count what is right about the commonest class, so rows
            of which all say that they are of it are left out. A regression's answers are not right or wrong: there it
            is the limit for models that agree on all rows, and the bootstrap of the score says the rest.
        right: the right answers, one a row.
        champion: its predictions.
        challenger: its predictions.
    """
    if metric in REGRESSION_METRICS:
        return net_loss_limit(0, 0, len(right))
    if metric != "accuracy":
        common = np.bincount(right).argmax()
        counted = (right != common) | (champion != common) | (challenger != common)
        right, champion, challenger = right[counted], champion[counted], challenger[counted]
    before, now = champion == right, challenger == right
    if not before.any():
        return 1.0
    limit = net_loss_limit(int((before & ~now).sum()), int((~before & now).sum()), len(before))
    return min(1.0, limit / float(before.mean()))
