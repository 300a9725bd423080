"""Dropout as a CPU draws it cheaply, and models without any."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import functional

RATES = ("dropout", "attention_dropout", "layerdrop")  # that attention and layers keep as numbers
STEPS = 256  # of a byte
_of_torch = functional.dropout


def without_dropout(model: Any) -> None:
    """Let a model train without dropout: that of modules, and the rates that attention and layers keep as numbers."""
    for module, name in _rates(model):
        setattr(module, name, 0.0)


def drops(model: Any) -> bool:
    """Say whether anything of a model is dropped in training."""
    return any(getattr(module, name) > 0 for module, name in _rates(model))


def _rates(model: Any) -> Iterator[tuple[nn.Module, str]]:
    """Yield what has a rate of dropout, and what that is called there."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            yield module, "p"
        yield from ((module, name) for name in RATES if isinstance(getattr(module, name, None), float))


@contextmanager
def drawn_by_bytes() -> Iterator[None]:
    """Let functional.dropout draw a byte for each number on a CPU, in 256ths of its rate, from torch's own generator.

    torch draws 53 random bits for each: of a step of MiniLM, in bfloat16, one thread, that is 15 % of the time at 26
    tokens a row and 41 % at 256, where attention's scores are dropped by the square of the length; this takes a third
    of it. A rate of 0.1 becomes 26/256, by which what is kept is scaled.
    """
    with patch.object(functional, "dropout", _by_bytes):
        yield


class _Dropped(torch.autograd.Function):
    """What is kept is remembered as bytes, of which a matrix of scores has as many as it has numbers."""

    @staticmethod
    def forward(ctx: Any, given: torch.Tensor, kept: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.save_for_backward(kept)
        ctx.scale = scale
        return given * kept.to(given.dtype).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (kept,), (gradient,) = ctx.saved_tensors, gradients
        return gradient * kept.to(gradient.dtype).mul_(ctx.scale), None, None


def _by_bytes(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
    least = round(p * STEPS)
    if not training or inplace or input.device.type != "cpu" or not 0 < least < STEPS:
        return _of_torch(input, p, training, inplace)
    drawn = torch.empty(-(-input.numel() // 8), dtype=torch.int64).random_(-(2**63), None).view(torch.uint8)
    kept = drawn[: input.numel()].clamp_(least - 1, least).sub_(least - 1)  # 0 and 1, ten times as fast as by comparing
    dropped: torch.Tensor = _Dropped.apply(input, kept.view(input.shape), STEPS / (STEPS - least))
    return dropped
