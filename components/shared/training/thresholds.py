"""Where labels of a row are told from none: one threshold for all labels, set by validation rows.

It goes into the last matrix's bias, so that whoever serves the model takes chances above a half, as everybody does.
"""

from typing import Any

import numpy as np
import torch

from kfp_bonsai.shared.data.rows import Rows
from kfp_bonsai.shared.kinds import kinds
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.models.shapes import last_matrix

TRIED = np.linspace(-4, 4, 81)  # as logits


def settle(network: Any, task: Task, logits: Any, held_out: Rows) -> Any:
    """Move a model's threshold to where it scores best on validation rows; return its logits as they are then.

    Args:
        network: the model, changed in place where `best` gives a threshold.
        task: what it answers; its metric says what is best.
        logits: the model's, of the rows.
        held_out: validation rows.
    """
    threshold = best(network, task, logits, held_out)
    if threshold is None:
        return logits
    with torch.no_grad():
        last_matrix(network).bias.sub_(threshold)
    return logits - np.float32(threshold)


def best(network: Any, task: Task, logits: Any, held_out: Rows) -> float | None:
    """Return the threshold at which a model scores best, in logits.

    None for a model whose rows have no labels to be told from none, or whose last matrix has no bias.
    """
    kind = kinds.kind_of(task)
    if not kind.has_thresholds or last_matrix(network).bias is None:
        return None
    found = [kinds.score(task, logits - each, held_out.right) for each in TRIED]
    return float(np.median(TRIED[np.asarray(found) == max(found)]))
