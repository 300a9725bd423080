"""Turn a FLOPs budget into widths: which heads and neurons to keep, or which uniform shape."""

import torch

from kfp_bonsai.shared.errors import BonsaiError
from kfp_bonsai.shared.flops import layer_flops
from kfp_bonsai.shared.shapes import LayerShape, Shape

STEP = 32  # widths in multiples of this suit SIMD and tensor cores
Kept = dict[str, torch.Tensor]


def unit_costs(shape: Shape, length: float) -> tuple[float, float]:
    """Return the FLOPs a token of one head and of one neuron, at sequences of `length` tokens."""
    head = layer_flops(shape.hidden, shape.head_dim, 1, 0, length)
    return head, layer_flops(shape.hidden, shape.head_dim, 0, 1, length)


def allot(scores: Kept, shape: Shape, budget: float, length: float) -> Kept:
    """Choose the heads and neurons worth most for their FLOPs, over all layers together.

    Every layer keeps one head and STEP neurons at least. The neurons of a layer come in steps of STEP.

    Args:
        scores: importance of each unit, by mask name ("heads.0", "ffn.0", ...).
        shape: the model's widths now.
        budget: FLOPs a token that the layers may cost together.
        length: tokens in a sequence.

    Returns:
        Sorted indices to keep, by mask name.
    """
    head_cost, neuron_cost = unit_costs(shape, length)
    order = {name: values.argsort(descending=True) for name, values in scores.items() if name != "hidden"}
    kept = {name: 1 if name.startswith("heads") else min(STEP, len(ids)) for name, ids in order.items()}
    spent = sum(head_cost if name.startswith("heads") else count * neuron_cost for name, count in kept.items())
    offers = []
    for name, ids in order.items():
        step, cost = (1, head_cost) if name.startswith("heads") else (STEP, neuron_cost)
        for start in range(kept[name], len(ids), step):
            block = ids[start : start + step]
            offers.append((float(scores[name][block].sum()) / (cost * len(block)), name, len(block), cost * len(block)))
    full: set[str] = set()
    for _, name, count, cost in sorted(offers, key=lambda offer: -offer[0]):
        if name in full:
            continue
        if spent + cost > budget:
            full.add(name)  # what comes later from this list is worth less; other lists may still fit
            continue
        kept[name] += count
        spent += cost
    return {name: ids[: kept[name]].sort().values for name, ids in order.items()}


def least(shape: Shape, length: float) -> float:
    """Return the FLOPs a token of the smallest shape that `allot` gives."""
    head_cost, neuron_cost = unit_costs(shape, length)
    return len(shape.layers) * (head_cost + STEP * neuron_cost)


def uniform(shape: Shape, budget: float, length: float) -> Shape:
    """Return the stock shape within a budget whose neurons are nearest to twice the attention's width.

    Args:
        shape: the model's widths now.
        budget: FLOPs a token that the layers may cost together.
        length: tokens in a sequence.

    Raises:
        BonsaiError: even the smallest shape costs more; the message names its share.
    """
    now = shape.layers[0]
    found: list[tuple[float, Shape]] = []
    for heads in range(1, now.heads + 1):
        hidden = heads * shape.head_dim
        for ffn in range(STEP, now.ffn + 1, STEP):
            cost = len(shape.layers) * layer_flops(hidden, shape.head_dim, heads, ffn, length)
            if cost <= budget:
                wide = abs(ffn / (heads * shape.head_dim) - 2) + 4 * (1 - cost / budget)
                found.append((wide, Shape(hidden, shape.head_dim, (LayerShape(heads, ffn),) * len(shape.layers))))
    if not found:
        raise BonsaiError(
            "--flops is below what one head and 32 neurons a layer cost: ask for more, or keep fewer layers"
        )
    return min(found, key=lambda pair: pair[0])[1]
