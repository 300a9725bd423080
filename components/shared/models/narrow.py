"""Weights with fewer units: what of a module's weights stays, and modules made as narrow as a configuration states."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.models.axes import Axis
from kfp_bonsai.shared.models.shapes import LayerShape, Shape, layers_of, module_at, shape_of, unit_width

Kept = Mapping[str, torch.Tensor]
"""Which units of one layer stay, by kind ("heads", "cross_heads", "ffn"): sorted indices into what it has now."""


def resize(model: Any, layers: Iterable[LayerShape]) -> None:
    """Make every layer as narrow as stated, in place, keeping the first units (for a model that has no weights yet).

    Raises:
        BonsaiError: a layer shall have what it cannot have.
    """
    whole, layers = shape_of(model), list(layers)
    if len(layers) != len(whole.layers):
        raise BonsaiError(f"layer_shapes has {len(layers)} entries, and the model {len(whole.layers)} layers")
    for number, (now, after) in enumerate(zip(whole.layers, layers, strict=True)):
        for unit, most in whole.units(now).items():
            asked = {"heads": after.heads, "cross_heads": after.cross_heads, "ffn": after.ffn}[unit]
            each = whole.group if unit == "heads" else 1
            if asked % each or not min(1, most) <= asked // each <= most:
                raise BonsaiError(
                    f"layer_shapes: layer {number} has {asked} {unit}; it can have {each} to {most * each}"
                    + (f", in steps of {each}" if each > 1 else "")
                )
    for (stack, layer), now, after in zip(layers_of(model), whole.layers, layers, strict=True):
        units = {unit: torch.arange(count) for unit, count in whole.units(after).items()}
        for path, axes in stack.layer.items():
            module = module_at(layer, path)
            if module is not None:
                for name, value in narrowed(module, axes, units, whole, now).items():
                    setattr(module, name, nn.Parameter(value))
                _restate(module)
        for path, axis in stack.sizes.items():
            owner = module_at(layer, path.rpartition(".")[0])
            counts = whole.units(after)
            if owner is not None:
                entries = sum(counts[unit] * each for unit, each in unit_width(axis, whole).items())
                setattr(owner, path.rpartition(".")[2], entries)


def narrowed(
    module: nn.Module, axes: tuple[Axis, ...], kept: Kept, shape: Shape, layer: LayerShape | None = None
) -> dict[str, torch.Tensor]:
    """Return a module's parameters with only what is kept of each axis."""
    counts = shape.units(layer) if layer else {}
    found = {}
    for name, parameter in module.named_parameters(recurse=False):
        value = parameter.detach()
        for number, axis in enumerate(axes[: value.dim()]):
            chosen = _entries(axis, kept, shape, counts)
            if chosen is not None:
                stored = 1 - number if isinstance(module, Conv1D) and value.dim() == 2 else number
                value = value.index_select(stored, chosen.to(value.device))
        found[name] = value.clone()
    return found


def _entries(axis: Axis, kept: Kept, shape: Shape, counts: Mapping[str, int]) -> torch.Tensor | None:
    """Return which entries of an axis stay; None for all."""
    if isinstance(axis, tuple):
        found, start = [], 0
        for block in axis:
            chosen = _entries(block, kept, shape, counts)
            if chosen is None:
                return None
            found.append(start + chosen)
            start += sum(counts[unit] * each for unit, each in unit_width(block, shape).items())
        return torch.cat(found)
    for unit, each in unit_width(axis, shape).items():
        if unit in kept:
            chosen = kept[unit]
            return (chosen[:, None] * each + torch.arange(each, device=chosen.device)).reshape(-1)
        return None
    return kept.get(axis) if axis else None


def _restate(module: nn.Module) -> None:
    """Make a module's attributes say what its weights are."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    elif isinstance(module, Conv1D):
        module.nx, module.nf = module.weight.shape
