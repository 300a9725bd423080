"""Widths of a model, read from its weights by what its family says of their axes.

Two kinds of shape exist. A *stock* shape is uniform over the layers, so stock transformers loads it. A *free* shape
keeps the hidden width and lets heads and neurons differ layer by layer; such a model has a model type of its own (see
free_models.py). surgery.py cuts models to them.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from kfp_bonsai.shared.models.axes import Axis, Stack
from kfp_bonsai.shared.models.configuration import family_of, head_dim, heads_per_group
from kfp_bonsai.shared.models.heads import axes_of

STOCK, FREE = "stock", "free"

# What is pruned as one, and which of its entries each axis has: "head" (head_dim), "group" (a key-value head's heads),
# "qkv" (query, key and value).
_UNITS = {
    "heads": ("heads", ("group", "head")),
    "kv_heads": ("heads", ("head",)),
    "qkv_heads": ("heads", ("qkv", "head")),
    "each_head": ("heads", ("group",)),
    "cross_heads": ("cross_heads", ("head",)),
    "each_cross_head": ("cross_heads", ()),
    "ffn": ("ffn", ()),
}


@dataclass(frozen=True)
class LayerShape:
    """How many query heads, feed-forward neurons, and heads that read the encoder one layer has."""

    heads: int
    ffn: int
    cross_heads: int = 0


@dataclass(frozen=True)
class Shape:
    """The widths of a whole model.

    Attributes:
        hidden: width of the residual stream.
        head_dim: width of a head.
        layers: heads and neurons of every layer, an encoder's before its decoder's.
        stacks: how many layers each stack has.
        group: query heads to a key-value head; they stay or go together.
        tied: stock models must have hidden = heads x head_dim.
        divided: stock models must have a hidden width that is a multiple of their heads.
    """

    hidden: int
    head_dim: int
    layers: tuple[LayerShape, ...]
    stacks: tuple[int, ...] = ()
    group: int = 1
    tied: bool = True
    divided: bool = False

    @property
    def kind(self) -> str:
        """What it takes to load these widths: "stock" if plain transformers can, else "free"."""
        first = self.layers[0]
        uniform = {(one.heads, one.ffn, one.cross_heads or first.heads) for one in self.layers}
        tied = not self.tied or first.heads * self.head_dim == self.hidden
        divided = not self.divided or self.hidden % first.heads == 0
        return STOCK if uniform == {(first.heads, first.ffn, first.heads)} and tied and divided else FREE

    def units(self, layer: LayerShape) -> dict[str, int]:
        """Return how many units of each kind a layer has; heads count by the key-value head that they share."""
        return {"heads": layer.heads // self.group, "cross_heads": layer.cross_heads, "ffn": layer.ffn}


def module_at(model: nn.Module, path: str) -> nn.Module | None:
    """Return the module at a family's path; None where this model has none (an optional part, a bare body).

    Some models with another head have the body under another name than a classifier.
    """
    first, *others = path.split(".")
    body = getattr(model, "base_model_prefix", "")
    if others and body and getattr(model, first, None) is None:
        first = body
    for name in (first, *others):
        if getattr(model, name, None) is None:
            return None
        model = getattr(model, name)
    return model


def matrices(root: nn.Module, paths: Iterable[str]) -> Iterator[Any]:
    """Yield those of the modules that multiply by a matrix."""
    for path in paths:
        module = module_at(root, path)
        if isinstance(module, nn.Linear | Conv1D):
            yield module


def stacks_of(model: Any) -> list[tuple[Stack, nn.ModuleList]]:
    """Return the model's stacks of layers."""
    found = []
    for stack in family_of(model.config).stacks:
        layers = module_at(model, stack.layers) or module_at(model, stack.layers.partition(".")[2])
        assert isinstance(layers, nn.ModuleList), stack.layers
        found.append((stack, layers))
    return found


def layers_of(model: Any) -> list[tuple[Stack, nn.Module]]:
    """Return every layer with its stack, an encoder's before its decoder's."""
    return [(stack, layer) for stack, layers in stacks_of(model) for layer in layers]


def reader(stack: Stack, layer: nn.Module, unit: str) -> nn.Module | None:
    """Return the layer's module whose input are the units of this kind; None if it has no such units."""
    for path, axes in stack.layer.items():
        if axes[-1] == unit and len(axes) == 2 and module_at(layer, path) is not None:
            return module_at(layer, path)
    return None


def unit_width(axis: Axis, shape: Shape) -> dict[str, int]:
    """Return how many entries of an axis belong to one unit, by kind; empty for axes that have no units."""
    if isinstance(axis, tuple):
        found: dict[str, int] = {}
        for block in axis:
            for unit, entries in unit_width(block, shape).items():
                found[unit] = found.get(unit, 0) + entries
        return found
    if axis not in _UNITS:
        return {}
    unit, factors = _UNITS[axis]
    sizes = {"head": shape.head_dim, "group": shape.group, "qkv": 3}
    return {unit: math.prod(sizes[factor] for factor in factors)}


def shape_of(model: Any) -> Shape:
    """Return the widths that a model has now, read from its weights."""
    family, width = family_of(model.config), head_dim(model.config)

    def inputs(stack: Stack, layer: nn.Module, unit: str) -> int:
        module = reader(stack, layer, unit)
        return _sides(module)[1] if module is not None else 0

    layers = layers_of(model)
    network = reader(*layers[0], "ffn")
    assert network is not None
    return Shape(
        hidden=_sides(network)[0],
        head_dim=width,
        layers=tuple(
            LayerShape(
                inputs(*one, "heads") // width, inputs(*one, "ffn"), cross_heads=inputs(*one, "cross_heads") // width
            )
            for one in layers
        ),
        stacks=tuple(len(found) for _, found in stacks_of(model)),
        group=heads_per_group(model.config),
        tied="head_dim" not in family.config,
        divided=family.heads_divide_hidden,
    )


def _sides(module: Any) -> tuple[int, int]:
    """Return (outputs, inputs) of a matrix, however the module stores it."""
    rows, columns = module.weight.shape
    return (int(columns), int(rows)) if isinstance(module, Conv1D) else (int(rows), int(columns))


def last_matrix(model: Any) -> Any:
    """Return the matrix whose rows are the answers."""
    return next(matrices(model, (path for path, axes in axes_of(family_of(model.config)).items() if axes[0] is None)))
