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

    A model whose rows have no labels to be told from none, or whose last matrix has no bias, stays as it is.

    Args:
        network: the model, changed in place.
        task: what it answers; its metric says what is best.
        logits: the model's, of the rows.
        held_out: validation rows.
    """
    kind, bias = kinds.kind_of(task), last_matrix(network).bias
    if not kind.has_thresholds or bias is None:
        return logits
    found = [kinds.score(task, logits - each, held_out.right) for each in TRIED]
    threshold = float(np.median(TRIED[np.asarray(found) == max(found)]))
    with torch.no_grad():
        bias.sub_(threshold)
    return logits - np.float32(threshold)
