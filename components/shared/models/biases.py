"""Tables of relative positions that the layers of a stack share, and how free shapes part them.

Stock layers take over the biases of one table, as an argument of their attention, and so need the same heads. In a free
shape each layer has a table for its own heads.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from kfp_bonsai.shared.models.axes import Stack
from kfp_bonsai.shared.models.shapes import module_at


def table_of_all(model: nn.Module, stack: Stack) -> nn.Module | None:
    """Return the table that is of no layer; None in a free shape, or if the first layer has it."""
    return getattr(_holder(model, stack), stack.bias_of_all.rpartition(".")[2], None)


def part(model: nn.Module, stack: Stack, layers: nn.ModuleList) -> None:
    """Give every layer a table of its own, so that layers can have different heads (in a model without weights)."""
    attention, _, table = stack.shared_bias.rpartition(".")
    holder: Any = _holder(model, stack)
    shared = layers[0].get_submodule(stack.shared_bias) if holder is None else getattr(holder, table)
    assert isinstance(shared, nn.Embedding)
    for layer in layers:
        own: Any = layer.get_submodule(attention)
        if not hasattr(own, table):
            setattr(own, table, nn.Embedding(*shared.weight.shape))
        if holder is None:  # without a bias it computes its own
            own.has_relative_attention_bias = True
            for path, axes in stack.layer.items():
                if len(axes) == 2 and axes[-1] in ("heads", "cross_heads") and axes[0] == "hidden":
                    reads = layer.get_submodule(path.rpartition(".")[0])
                    reads.register_forward_pre_hook(_without_bias, with_kwargs=True)
        else:
            own.relative_position_bucket = holder.relative_position_bucket
            own.register_forward_pre_hook(partial(_with_own_bias, type(holder).compute_position_bias), with_kwargs=True)
    if holder is not None:
        delattr(holder, table)
        holder.compute_position_bias = _no_bias


def _holder(model: nn.Module, stack: Stack) -> nn.Module | None:
    path = stack.bias_of_all.rpartition(".")[0]
    return module_at(model, path) or module_at(model, path.partition(".")[2])


def _without_bias(_module: nn.Module, arguments: tuple, options: dict) -> tuple[tuple, dict]:
    return arguments, {**options, "position_bias": None}


def _with_own_bias(compute: Callable, attention: nn.Module, arguments: tuple, options: dict) -> tuple[tuple, dict]:
    states, mask = arguments[:2]
    return (states, mask), {**options, "position_bias": compute(attention, states[:1])}  # alike for all rows


def _no_bias(_states: Any) -> None:
    return None
