"""Turn a budget into widths: which heads and neurons to keep, or which uniform shape.

Units are named as their masks are: "heads.0", "cross_heads.0" and "ffn.0" are those of layer 0. A unit of heads is
what shares one key-value head. Costs are FLOPs a sequence, or seconds a batch: see prices.py.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch

from kfp_bonsai.matrix_prune.prices import Prices
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.models.shapes import STOCK, LayerShape, Shape

STEP = 32  # widths in multiples of this suit SIMD and tensor cores
UNSPENT = 12  # what a whole budget that is not spent weighs against neurons that are as many again as attention is wide
Kept = dict[str, torch.Tensor]
Costs = Mapping[str, float]


def step_of(name: str) -> int:
    """Return how many units of a kind come and go together."""
    return STEP if name.startswith("ffn") else 1


def allot(scores: Kept, costs: Costs, budget: float) -> Kept:
    """Choose the heads and neurons worth most for what they cost, over all layers together.

    Every layer keeps one head and STEP neurons at least. The neurons of a layer come in steps of STEP.

    Args:
        scores: importance of each unit, by mask name ("heads.0", "ffn.0", ...).
        costs: of one unit, by mask name.
        budget: what the units may cost together.

    Returns:
        Sorted indices to keep, by mask name.
    """
    order = {name: scores[name].argsort(descending=True) for name in costs}
    kept = {name: min(step_of(name), len(ids)) for name, ids in order.items()}
    spent = sum(count * costs[name] for name, count in kept.items())
    offers = []
    for name, ids in order.items():
        for start in range(kept[name], len(ids), step_of(name)):
            block = ids[start : start + step_of(name)]
            cost = costs[name] * len(block)
            worth = float(scores[name][block].sum())
            offers.append((worth / cost if cost else math.inf, name, len(block), cost))  # a table may find it free
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


def least(costs: Costs) -> float:
    """Return what the units of the smallest shape cost that `allot` gives."""
    return sum(step_of(name) * cost for name, cost in costs.items())


def uniform(shape: Shape, prices: Prices, unreachable: int = 0) -> Shape:
    """Return the stock shape that takes a budget as far as it goes, with neurons near twice the attention's width.

    Args:
        shape: the model's widths now.
        prices: what units cost, and the target.
        unreachable: a narrower hidden width that the model cannot have; 0 for none.

    Raises:
        BonsaiError: even the smallest shape costs more.
    """
    now = shape.layers[0]
    found: list[tuple[float, Shape]] = []
    over = float("inf")
    for heads in range(shape.group, now.heads + 1, shape.group):
        attention = heads * shape.head_dim
        hidden = attention if shape.tied else shape.hidden
        if hidden == unreachable:
            continue
        costs, most = prices.units(hidden, False), prices.target - prices.rest(hidden, False)
        neuron = sum(cost for name, cost in costs.items() if name.startswith("ffn"))
        group = sum(cost for name, cost in costs.items() if not name.startswith("ffn"))
        if alike(shape, heads, now.ffn, hidden).kind != STOCK:
            continue
        for ffn in range(STEP, now.ffn + 1, STEP):
            cost = heads // shape.group * group + ffn * neuron
            over = min(over, cost - most)
            if cost <= most:
                worse = abs(ffn / attention - 2) + UNSPENT * (1 - cost / most)
                found.append((worse, alike(shape, heads, ffn, hidden)))
    if not found:
        raise BonsaiError(prices.too_little(prices.target + over, STEP))
    return min(found, key=lambda pair: pair[0])[1]


def alike(shape: Shape, heads: int, ffn: int, hidden: int) -> Shape:
    """Return a shape whose layers all have these widths."""
    layers = tuple(LayerShape(heads, ffn, cross_heads=heads if one.cross_heads else 0) for one in shape.layers)
    return replace(shape, hidden=hidden, layers=layers)
