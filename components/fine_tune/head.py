"""The classifier of a model that was trained before, where its classes are not the data's, or in another order."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.models.shapes import last_matrix


def settle(network: Any, before: Mapping[int, str], labels: Sequence[str], new: Collection[str]) -> None:
    """Let row i of the last matrix be that of label i: reordered, or anew where the model knew other classes.

    Args:
        network: a classifier with as many classes as labels.
        before: the classes' names as the model was saved; those that transformers makes up (LABEL_0) say nothing.
        labels: the data's names.
        new: names of the parameters that the model was saved without.
    """
    last = last_matrix(network)
    if any(parameter is last.weight for name, parameter in network.named_parameters() if name in new):
        return
    known = [str(before.get(index, "")).casefold() for index in range(len(labels))]
    wanted = [label.casefold() for label in labels]
    if known == wanted or known == [f"label_{index}" for index in range(len(labels))]:
        return
    with torch.no_grad():
        if sorted(known) == sorted(wanted):
            order = [known.index(label) for label in wanted]
            last.weight.copy_(last.weight[order].clone())
            if last.bias is not None:
                last.bias.copy_(last.bias[order].clone())
            say(f"fine-tune  the model's classes are put into the data's order ({', '.join(labels)})")
        else:
            last.weight.normal_(0.0, getattr(network.config, "initializer_range", None) or 0.02)
            if last.bias is not None:
                last.bias.zero_()
            say(f"fine-tune  the model was made for other classes ({', '.join(map(str, before.values()))}): a new head")
