"""Training in several processes, one a GPU, as torchrun starts them.

torchrun tells each process in its environment which one it is, and where the others meet. transformers' Trainer
does the training; here is what the stages need beside it. Only the first process writes and talks. One process alone
is the same with sums over one; so is one in whose environment a scheduler or MPI left a part of this.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.core.ranks import number, processes

if TYPE_CHECKING:
    import torch

NEEDS_GPU = "BONSAI_NEEDS_GPU"  # set where a task was given a GPU: without, it is to fail and not to train on the CPU
# What libraries take for a group of processes, each from another starter of such.
SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
RANKS = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK")
PLACES = (*RANKS, "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")


def _forget_others() -> None:
    """Let no library wait for processes that nobody started."""
    if number("WORLD_SIZE", 1) > 1:
        say("note: WORLD_SIZE is left over from something else, as no RANK and MASTER_ADDR fit it: this is one process")
    for name in (*SIZES, *PLACES):
        os.environ.pop(name, None)


def begin() -> None:
    """Join the other processes, on this process's own GPU if there are any; nothing happens if it is alone."""
    import torch

    if processes() == 1:
        _forget_others()
        return
    if torch.distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(number("LOCAL_RANK", 0))
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


def any_of(wanted: bool) -> bool:
    """Say whether any process wants something that all are to do together."""
    if processes() == 1:
        return wanted
    import torch

    return bool(total(torch.tensor(float(wanted), device="cuda" if torch.cuda.is_available() else "cpu")) > 0)


def gathered(own: Any) -> list[Any]:
    """Return what each process has, in their order."""
    if processes() == 1:
        return [own]
    import torch

    found: list[Any] = [None] * processes()
    torch.distributed.all_gather_object(found, own)
    return found


def share(part: "torch.Tensor", whole: "torch.Tensor") -> "torch.Tensor":
    """Return a loss whose gradient, averaged over the processes, is that of the sum of parts / the sum of wholes.

    Args:
        part: a sum over this process's items, a scalar.
        whole: what to divide by, such as how many items they are; where it is 0 everywhere, so is the loss.
    """
    return part * processes() / total(whole).float().clamp(min=1e-12)
