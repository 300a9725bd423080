"""A new head begins with answers as frequent as the training rows have them.

Otherwise the first hundreds of steps teach the network what a bias could say: where answers are rare, as labels of two
dozen or names among words, it drives its last features to one constant, and all rows alike are told the same. To its
answers the log odds of each label are added (Lin et al., arXiv 1708.02002, section 3.3), of classes their log shares.
"""

from typing import Any

import numpy as np

from kfp_bonsai.shared.data.rows import Rows
from kfp_bonsai.shared.kinds.kind import ANY, IGNORED, ONE, ROW, TOKEN, Kind
from kfp_bonsai.shared.models.configuration import family_of
from kfp_bonsai.shared.models.shapes import last_matrix
from kfp_bonsai.shared.training import offsets


def begin(network: Any, kind: Kind, train_rows: Rows, pad_id: int) -> None:
    """Let a network answer by how often each answer is right.

    Args:
        network: the model, with a new head, changed in place.
        kind: what its logits say; numbers and places among tokens have no frequency.
        train_rows: training rows, with targets as the kind gives them.
        pad_id: the tokenizer's padding token.
    """
    if kind.head not in (ROW, TOKEN) or kind.says not in (ONE, ANY) or family_of(network.config).answers_in_text:
        return
    labels = train_rows.labels
    if kind.says == ANY:
        targets = np.asarray(labels, np.float64).reshape(len(labels), -1)
        right = ((targets > 0).sum(0) + 1) / (
            len(targets) + 2
        )  # by Laplace's rule: what never occurs is not impossible
        found = np.log(right / (1 - right))
    else:
        targets = np.concatenate([np.ravel(row) for row in labels]).astype(np.int64)
        counts = np.bincount(targets[targets != IGNORED], minlength=len(last_matrix(network).weight)) + 1
        found = np.log(counts / counts.sum())
        found -= found.mean()  # which changes no chance
    offsets.add(network, found, offsets.direction(network, train_rows, pad_id))
