"""Where memory does not suffice for a batch: it is worked on in parts, and what comes of it is that of the whole batch.

A limit of the address space or a GPU's memory raises an error, after which there is another way. A container's limit
(a cgroup's) mostly ends the process instead: then a smaller --batch-size is for the user to give.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from kfp_bonsai.shared.core.faults import is_out_of_memory
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.kinds.kind import IGNORED
from kfp_bonsai.shared.training.answer_batches import PLACES, READ

FLAT = {"hidden_at": ("teacher_hidden",), PLACES: ("teacher_logits", "labels")}  # by places in the flattened batch


def ran_out(error: BaseException) -> bool:
    """Say whether an error means that memory ran out, and let go of what a GPU keeps for the next step."""
    found = is_out_of_memory(error)
    if found and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


def parts(batch: Mapping[str, torch.Tensor], most: int) -> Iterator[dict[str, torch.Tensor]]:
    """Yield a batch in parts of so many rows at the most, padded as it is."""
    rows = len(batch["input_ids"])
    for first in range(0, rows, most):
        last, found = min(first + most, rows), {}
        for places, beside in FLAT.items():
            if places in batch:
                width = batch[READ if places == PLACES and READ in batch else "input_ids"].shape[1]
                inside = (batch[places] >= first * width) & (batch[places] < last * width)
                found[places] = batch[places][inside] - first * width
                found |= {name: batch[name][inside] for name in beside if name in batch}
        yield found | {name: one[first:last] for name, one in batch.items() if name not in found}


def share(part: torch.Tensor, whole: torch.Tensor) -> float:
    """Return what part of all labels are in a part of a batch, by which its mean loss counts."""
    return float((part != IGNORED).sum() / (whole != IGNORED).sum().clamp(min=1))


def in_halves(work: Callable[[Sequence[Any]], Sequence[Any]], items: Sequence[Any]) -> list[Any]:
    """Return what comes of each item of a batch, whose halves are worked on where memory does not suffice for it.

    Args:
        work: works on a batch, and gives what comes of each item.
        items: the batch.
    """
    try:
        return [*work(items)]
    except (RuntimeError, MemoryError) as error:
        if len(items) == 1 or not ran_out(error):
            raise
    half = len(items) // 2
    say(f"note: memory does not suffice for {len(items)} rows at once: goes on with {half}")
    return [*in_halves(work, items[:half]), *in_halves(work, items[half:])]
