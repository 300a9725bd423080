"""Widths of a model: read them, cut to them, and give back a model that `from_pretrained` loads.

Two kinds of shape exist. A *stock* shape is uniform over the layers with hidden = heads x head_dim, so
stock transformers loads it. A *free* shape keeps the hidden width and lets heads and neurons differ layer
by layer; such a model has a model type of its own (see free_models.py).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from kfp_bonsai.shared.families import FREE_PREFIX, family_of, head_dim

STOCK, FREE = "stock", "free"


@dataclass(frozen=True)
class LayerShape:
    """How many attention heads and feed-forward neurons one layer has."""

    heads: int
    ffn: int


@dataclass(frozen=True)
class Shape:
    """The widths of a whole model: hidden width, head width and every layer's heads and neurons."""

    hidden: int
    head_dim: int
    layers: tuple[LayerShape, ...]

    @property
    def kind(self) -> str:
        """What it takes to load it: "stock" if plain transformers can hold this shape, else "free"."""
        uniform = len(set(self.layers)) == 1
        return STOCK if uniform and self.layers[0].heads * self.head_dim == self.hidden else FREE


@dataclass(frozen=True)
class Kept:
    """Which heads and neurons of one layer stay, as sorted indices into what it has now."""

    heads: torch.Tensor
    ffn: torch.Tensor


def module_at(model: nn.Module, path: str) -> nn.Module | None:
    """Return the module at a family's path; None where this model has none (an optional part, a bare body)."""
    for name in path.split("."):
        if not hasattr(model, name):
            return None
        model = getattr(model, name)
    return model


def layers_of(model: Any) -> nn.ModuleList:
    """Return the model's list of transformer layers."""
    path = family_of(model.config).layers
    layers = module_at(model, path) or module_at(model, path.partition(".")[2])
    assert isinstance(layers, nn.ModuleList), path
    return layers


def module_reading(model: Any, layer: nn.Module, axis: str) -> nn.Module:
    """Return the layer's module whose input is `axis`: the output projection of attention or of the FFN."""
    path = next(path for path, axes in family_of(model.config).layer.items() if axes[-1] == axis and len(axes) == 2)
    module = module_at(layer, path)
    assert module is not None, path
    return module


def shape_of(model: Any) -> Shape:
    """Return the widths that a model has now, read from its weights."""
    width = head_dim(model.config)

    def inputs(layer: nn.Module, axis: str) -> int:
        module = module_reading(model, layer, axis)
        return _weight_axes(module)[1]

    layers = layers_of(model)
    first = module_reading(model, layers[0], "ffn")
    return Shape(
        hidden=_weight_axes(first)[0],
        head_dim=width,
        layers=tuple(LayerShape(inputs(layer, "heads") // width, inputs(layer, "ffn")) for layer in layers),
    )


def keep_layers(model: Any, indices: Iterable[int]) -> None:
    """Keep only the layers at `indices` (in their order), in place, and renumber what counts them."""
    layers = layers_of(model)
    kept = [layers[index] for index in indices]
    del layers[:]
    layers.extend(kept)
    for number, layer in enumerate(kept):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, "layer_idx", number)  # noqa: B010  (modules type their attributes as tensors)
    setattr(model.config, family_of(model.config).config["layers"], len(kept))
    if getattr(model.config, "layer_shapes", None):
        model.config.layer_shapes = [[one.heads, one.ffn] for one in shape_of(model).layers]


def cut_layer(model: Any, layer: nn.Module, kept: Kept) -> None:
    """Remove from one layer, in place, every head and neuron not in `kept`: rows and columns really go."""
    width = head_dim(model.config)
    rows = (kept.heads[:, None] * width + torch.arange(width, device=kept.heads.device)).reshape(-1)
    _cut(layer, family_of(model.config).layer, {"heads": rows, "ffn": kept.ffn})


def cut_hidden(model: Any, kept: torch.Tensor) -> None:
    """Narrow the whole residual stream to the features in `kept`, in place: embeddings, layers, norms and head."""
    family = family_of(model.config)
    everywhere = {"hidden": kept}
    names = family.config
    if "embedding" in names and getattr(model.config, names["embedding"]) == getattr(model.config, names["hidden"]):
        everywhere["embedding"] = kept
    for layer in layers_of(model):
        _cut(layer, family.layer, everywhere)
    _cut(model, family.embeddings, everywhere)
    _cut(model, family.head, everywhere)


def rebuild(model: Any, shape: Shape | None = None) -> Any:
    """Return the cut model as a clean instance made from a configuration that says its widths.

    What comes back is what `from_pretrained` will give: its class and configuration fit the shape, and all
    weights are loaded strictly. Stock shapes become the stock class, others the family's free class.
    """
    from kfp_bonsai.shared.free_models import free_class, free_config, stock_class, stock_config

    shape = shape or shape_of(model)
    names = family_of(model.config).config
    config = stock_config(model.config)
    setattr(config, names["layers"], len(shape.layers))
    if shape.kind == STOCK:
        setattr(config, names["heads"], shape.layers[0].heads)
        setattr(config, names["ffn"], shape.layers[0].ffn)
        if "embedding" in names and getattr(config, names["embedding"]) == getattr(config, names["hidden"]):
            setattr(config, names["embedding"], shape.hidden)
        setattr(config, names["hidden"], shape.hidden)
        built = stock_class(type(model))(config)
    else:
        built = free_class(type(model))(free_config(config, shape.layers))
    built.to(dtype=model.dtype, device=model.device).load_state_dict(model.state_dict(), strict=True)
    return built.train(model.training)


def resize(model: Any, layers: Iterable[LayerShape]) -> None:
    """Cut every layer to the given widths, in place, keeping the first heads and neurons (before weights load)."""
    for layer, shape in zip(layers_of(model), layers, strict=True):
        cut_layer(model, layer, Kept(torch.arange(shape.heads), torch.arange(shape.ffn)))


def is_free(config: Any) -> bool:
    """Say whether a configuration is of a free shape."""
    return config.model_type.startswith(FREE_PREFIX)


def _weight_axes(module: nn.Module) -> tuple[int, int]:
    """Return (outputs, inputs) of a matrix, however the module stores it."""
    rows, columns = module.weight.shape  # type: ignore[union-attr,misc]
    return (int(columns), int(rows)) if isinstance(module, Conv1D) else (int(rows), int(columns))


def _cut(root: nn.Module, axes: Any, kept: dict[str, torch.Tensor]) -> None:
    for path, names in axes.items():
        module = module_at(root, path)
        if module is None:
            continue
        for axis, name in enumerate(names):
            if name in kept:
                _cut_module(module, axis, kept[name])


def _cut_module(module: nn.Module, axis: int, kept: torch.Tensor) -> None:
    """Keep the given positions of one axis of a module: 0 is the output (or the only one), 1 the input."""
    if isinstance(module, nn.Embedding):
        module.weight = _selected(module.weight, 1, kept)
        module.embedding_dim = len(kept)
        return
    stored = 1 - axis if isinstance(module, Conv1D) else axis
    module.weight = _selected(module.weight, stored, kept)
    if axis == 0 and getattr(module, "bias", None) is not None:
        module.bias = _selected(module.bias, 0, kept)
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = (len(kept),)
    elif isinstance(module, Conv1D):
        module.nx, module.nf = module.weight.shape


def _selected(parameter: Any, axis: int, kept: torch.Tensor) -> nn.Parameter:
    chosen = parameter.detach().index_select(axis, kept.to(parameter.device)).clone()
    return nn.Parameter(chosen, requires_grad=parameter.requires_grad)
