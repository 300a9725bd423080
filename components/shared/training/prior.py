"""A new head begins with answers as frequent as the training rows have them.

Otherwise the first hundreds of steps teach the network what a bias could say: where answers are rare, as labels of two
dozen or names among words, it drives its last features to one constant, and all rows alike are told the same. The last
matrix's bias is set to the log odds of each label (Lin et al., arXiv 1708.02002, section 3.3), of classes to their log
shares.
"""

from typing import Any

import numpy as np
import torch

from kfp_bonsai.shared.kinds.kind import ANY, IGNORED, ONE, ROW, TOKEN, Kind
from kfp_bonsai.shared.models.configuration import family_of
from kfp_bonsai.shared.models.shapes import last_matrix


def begin(network: Any, kind: Kind, labels: Any) -> None:
    """Set the bias of a network's last matrix by how often each answer is right; of one without a bias, nothing.

    Args:
        network: the model, with a new head, changed in place.
        kind: what its logits say; numbers and places among tokens have no frequency.
        labels: targets of the training rows, as the kind gives them.
    """
    if kind.head not in (ROW, TOKEN) or kind.says not in (ONE, ANY) or family_of(network.config).answers_in_text:
        return
    bias = last_matrix(network).bias
    if bias is None:
        return
    if kind.says == ANY:
        targets = np.asarray(labels, np.float64).reshape(len(labels), -1)
        right = ((targets > 0).sum(0) + 1) / (
            len(targets) + 2
        )  # by Laplace's rule: what never occurs is not impossible
        found = np.log(right / (1 - right))
    else:
        targets = np.concatenate([np.ravel(row) for row in labels]).astype(np.int64)
        counts = np.bincount(targets[targets != IGNORED], minlength=len(bias)) + 1
        found = np.log(counts / counts.sum())
        found -= found.mean()  # which changes no chance
    with torch.no_grad():
        bias.copy_(torch.from_numpy(found))
