"""Training in several processes, one a GPU, as torchrun starts them.

torchrun tells each process in its environment which one it is (RANK, LOCAL_RANK, WORLD_SIZE). transformers' Trainer
does the training; here is what the stages need beside it. Only the first process writes and talks. One process alone
is the same with sums over one.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

NEEDS_GPU = "BONSAI_NEEDS_GPU"  # set where a task was given a GPU: without, it is to fail and not to train on the CPU


def processes() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Return whether this process is the one that writes and talks."""
    return int(os.environ.get("RANK", "0")) == 0


def is_first_here() -> bool:
    """Return whether this is the machine's first process, which reads the counters of the whole machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def begin() -> None:
    """Join the other processes, on this process's own GPU if there are any; nothing happens if it is alone."""
    import torch

    if processes() == 1 or torch.distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def end() -> None:
    """Leave the other processes, if there are any."""
    if processes() == 1:
        return
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def total(value: "torch.Tensor") -> "torch.Tensor":
    """Return the sum of a tensor over all processes, without a gradient."""
    import torch

    value = value.detach()
    if processes() > 1:
        value = value.clone()
        torch.distributed.all_reduce(value)
    return value


def totals(values: Mapping[str, float]) -> dict[str, float]:
    """Return the sums of named numbers over all processes."""
    if processes() == 1:
        return dict(values)
    import torch

    begin()
    where = "cuda" if torch.cuda.is_available() else "cpu"
    found = total(torch.tensor(list(values.values()), dtype=torch.float64, device=where))
    return dict(zip(values, found.tolist(), strict=True))


def share(part: "torch.Tensor", whole: "torch.Tensor") -> "torch.Tensor":
    """Return a loss whose gradient, averaged over the processes, is that of the sum of parts / the sum of wholes.

    Args:
        part: a sum over this process's items, a scalar.
        whole: what to divide by, such as how many items they are; where it is 0 everywhere, so is the loss.
    """
    return part * processes() / total(whole).float().clamp(min=1e-12)
