"""Remove layers, heads, neurons and features of a model, exactly.

Surgery never changes the model it is given: it returns a new one, made from a configuration that states its widths,
with all weights loaded strictly, as `from_pretrained` will load it.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.models.biases import table_of_all
from kfp_bonsai.shared.models.configuration import check_first, family_of, is_free
from kfp_bonsai.shared.models.free_models import free_config, stock_config, variant
from kfp_bonsai.shared.models.heads import axes_of
from kfp_bonsai.shared.models.narrow import Kept, narrowed
from kfp_bonsai.shared.models.shapes import (
    FREE,
    LayerShape,
    Shape,
    module_at,
    shape_of,
    stacks_of,
)


def keep_layers(model: Any, indices: Sequence[Sequence[int]]) -> Any:
    """Return the model with only these layers of each stack, in their order.

    Raises:
        BonsaiError: there are no such layers, or the family needs one that is not among them.
    """
    for (stack, layers), kept in zip(stacks_of(model), indices, strict=True):
        _check_indices(f"the layers of {stack.layers}", torch.tensor(list(kept)), len(layers))
    config, names, weights = copy.deepcopy(model.config), _names(model), dict(model.state_dict())
    flat: list[int] = []
    before = 0
    for (stack, layers), kept in zip(stacks_of(model), indices, strict=True):
        check_first(model.config, stack, kept)
        start = names[layers]
        old = {name: weights.pop(name) for name in list(weights) if name.startswith(start + ".")}
        for new, index in enumerate(kept):
            one = f"{start}.{index}."
            named = {name.removeprefix(one): value for name, value in old.items() if name.startswith(one)}
            weights |= {f"{start}.{new}.{name}": value for name, value in named.items()}
        if stack.shared_bias and not stack.bias_of_all:
            weights.setdefault(f"{start}.0.{stack.shared_bias}.weight", old[f"{start}.0.{stack.shared_bias}.weight"])
        setattr(config, stack.count, len(kept))
        flat += [before + index for index in kept]
        before += len(layers)
    for name in (*family_of(config).per_layer, "layer_shapes"):
        if getattr(config, name, None):
            setattr(config, name, [getattr(config, name)[index] for index in flat])
    return _loaded(model, type(model), config, weights)


def cut(model: Any, kept: Sequence[Kept], hidden: torch.Tensor | None = None, free: bool = False) -> Any:
    """Return the model without what is not kept: rows and columns of the matrices really go.

    What comes back is what `from_pretrained` will give: its class and configuration fit the shape. Stock shapes
    become the stock class, others the family's free class, whose classifiers compute no token that they do not read.

    Args:
        model: a model of a known family.
        kept: for every layer, the units of each kind that stay; a kind that is left out stays whole.
        hidden: sorted features of the residual stream that stay; None for all.
        free: make the free class of a shape that could be stock too.

    Raises:
        BonsaiError: a shape that no model can have: nothing left, or what is not there; the message says what can be.
    """
    _check_kept(shape_of(model), kept, hidden)
    if hidden is not None and len(hidden) == unreachable_width(model.config):
        raise BonsaiError(
            f"a hidden width of {len(hidden)} is that of the embeddings, and transformers then builds no projection "
            "between them and the layers: choose another"
        )
    family, shape, names = family_of(model.config), shape_of(model), _names(model)
    after = _shape_after(shape, kept, hidden)
    free = free or after.kind == FREE or _biases_part(model, kept)
    weights = dict(model.state_dict())
    everywhere = {} if hidden is None else {"hidden": hidden, "memory": hidden}
    if hidden is not None and _embeddings_follow(model.config):
        everywhere["embedding"] = hidden
    stays = iter(zip(shape.layers, kept, strict=True))
    for stack, layers in stacks_of(model):
        of_all = table_of_all(model, stack)
        for layer in layers:
            now, units = next(stays)
            for path, axes in stack.layer.items():
                module = module_at(layer, path)
                if module is None and path == stack.shared_bias and free:
                    module = of_all or module_at(layers[0], path)
                if module is not None:
                    narrow = narrowed(module, axes, {**everywhere, **units}, shape, now)
                    weights |= {f"{names[layer]}.{path}.{name}": value for name, value in narrow.items()}
        if of_all is not None:
            weight = f"{names[of_all]}.weight"
            weights.pop(weight)
            if not free:  # all layers keep the same heads
                axes = stack.layer[stack.shared_bias]
                weights[weight] = narrowed(of_all, axes, {**everywhere, **units}, shape, now)["weight"]
    for path, axes in {**family.tokens, **axes_of(family)}.items():
        module = module_at(model, path)
        if module is not None:
            narrow = narrowed(module, axes, everywhere, shape)
            weights |= {f"{names[module]}.{name}": value for name, value in narrow.items()}
    return _loaded(model, variant(type(model), free), config_for(model.config, after, free), weights)


def _names(model: nn.Module) -> dict[nn.Module, str]:
    return {module: name for name, module in model.named_modules()}


def _check_kept(shape: Shape, kept: Sequence[Kept], hidden: torch.Tensor | None) -> None:
    if len(kept) != len(shape.layers):
        raise BonsaiError(f"{len(kept)} layers are described, and the model has {len(shape.layers)}")
    for number, (layer, units) in enumerate(zip(shape.layers, kept, strict=True)):
        there = {unit: count for unit, count in shape.units(layer).items() if count}
        for unit, ids in units.items():
            if unit not in there:
                raise BonsaiError(f"layer {number} has no '{unit}': it has {', '.join(there)}")
            what = f"{unit} (groups of {shape.group})" if unit == "heads" and shape.group > 1 else unit
            _check_indices(f"the {what} of layer {number}", ids, there[unit])
    if hidden is not None:
        _check_indices("the hidden features", hidden, shape.hidden)
        after = _shape_after(shape, kept, hidden)
        if after.kind == FREE:
            raise BonsaiError(
                f"a hidden width of {after.hidden} needs the same heads and neurons in every layer, and heads x "
                f"{shape.head_dim} = {after.hidden}: no other narrower shape can be loaded"
            )


def _check_indices(what: str, ids: torch.Tensor, count: int) -> None:
    found = ids.tolist()
    if not found or found != sorted(set(found)) or found[0] < 0 or found[-1] >= count:
        raise BonsaiError(f"{what}: give rising numbers from 0 to {count - 1}, one at the least (given: {found[:8]})")


def _shape_after(shape: Shape, kept: Sequence[Kept], hidden: torch.Tensor | None) -> Shape:
    def left(layer: LayerShape, units: Kept) -> LayerShape:
        count = {**shape.units(layer), **{unit: len(ids) for unit, ids in units.items()}}
        return LayerShape(count["heads"] * shape.group, count["ffn"], count["cross_heads"])

    layers = tuple(left(layer, units) for layer, units in zip(shape.layers, kept, strict=True))
    return replace(shape, layers=layers, hidden=shape.hidden if hidden is None else len(hidden))


def _biases_part(model: Any, kept: Sequence[Kept]) -> bool:
    """Say whether layers that share one bias table keep different heads, and so need tables of their own."""
    number = 0
    for stack, layers in stacks_of(model):
        heads = {
            tuple(one["heads"].tolist()) if "heads" in one else None for one in kept[number : number + len(layers)]
        }
        number += len(layers)
        if stack.shared_bias and (is_free(model.config) or len(heads) > 1):
            return True
    return False


def _embeddings_follow(config: Any) -> bool:
    """Say whether the embeddings are as wide as the residual stream, and so are cut with it."""
    names = family_of(config).config
    hidden = getattr(config, names["hidden"])
    return "embedding" in names and getattr(config, names["embedding"], hidden) == hidden


def unreachable_width(config: Any) -> int:
    """Return the hidden width that a narrower stock model cannot have, that of embeddings with a projection; 0 if none.

    transformers builds the projection (ELECTRA's, OPT's) only where the widths differ.
    """
    names = family_of(config).config
    return int(getattr(config, names["embedding"])) if "embedding" in names and not _embeddings_follow(config) else 0


def config_for(config: Any, shape: Shape, free: bool) -> Any:
    """Return the configuration of a model of this shape."""
    names, made = family_of(config).config, stock_config(config)
    if "head_dim" in names:
        setattr(made, names["head_dim"], shape.head_dim)
    if free:
        return free_config(made, shape.layers)
    if _embeddings_follow(config):
        setattr(made, names["embedding"], shape.hidden)
    for width in ("hidden", "pooled"):
        if width in names:
            setattr(made, names[width], shape.hidden)
    setattr(made, names["heads"], shape.layers[0].heads)
    setattr(made, names["ffn"], shape.layers[0].ffn)
    if "kv_heads" in names:
        setattr(made, names["kv_heads"], shape.layers[0].heads // shape.group)
    return made


def _loaded(model: Any, model_class: Any, config: Any, weights: Mapping[str, torch.Tensor]) -> Any:
    built = model_class(config)
    _untie(built, model)
    built.to(dtype=model.dtype, device=model.device).load_state_dict(weights, strict=True)
    if hasattr(model, "generation_config"):
        built.generation_config = copy.deepcopy(model.generation_config)
    return built.train(model.training)


def _untie(built: nn.Module, model: nn.Module) -> None:
    """Give a new model a parameter of its own wherever the other one has two, which only loading weights unties.

    So Flan-T5's output matrix: transformers 5 builds every T5 with that of its input embeddings.
    """
    own = dict(model.named_parameters(remove_duplicate=False))
    first: dict[nn.Parameter, str] = {}
    for name, parameter in built.named_parameters(remove_duplicate=False):
        other = first.setdefault(parameter, name)
        if own.get(name) is not own.get(other):
            owner, _, leaf = name.rpartition(".")
            setattr(built.get_submodule(owner), leaf, nn.Parameter(parameter.detach().clone()))
