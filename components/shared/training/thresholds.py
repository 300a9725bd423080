"""Where labels of a row are told from none: one threshold for all labels, set by validation rows.

It goes into the last matrix, so that whoever serves the model takes chances above a half, as everybody does.
"""

from typing import Any

import numpy as np

from kfp_bonsai.shared.data.rows import Rows
from kfp_bonsai.shared.kinds import kinds
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.training import offsets


def settle(network: Any, task: Task, logits: Any, held_out: Rows, pad_id: int) -> Any:
    """Move a model's threshold to where it scores best on validation rows; return its logits as they are then.

    Args:
        network: the model, changed in place where its rows have labels to be told from none.
        task: what it answers; its metric says what is best.
        logits: the model's, of the rows.
        held_out: validation rows.
        pad_id: the tokenizer's padding token.

    Raises:
        BonsaiError: logits that are not finite.
    """
    if not kinds.kind_of(task).has_thresholds:
        return logits
    kinds.predict(task, logits)  # which says so, where sklearn would with a traceback
    along = offsets.direction(network, held_out, pad_id)
    added = 1.0 if along is None else (offsets.features_of(network, held_out, pad_id) @ along)[:, None]
    threshold = kinds.threshold(task, logits, held_out.right, added)
    offsets.add(network, -threshold, along)
    return logits - np.float32(threshold * added)
