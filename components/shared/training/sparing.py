"""Where memory does not suffice for a batch: it is worked on in parts, and what comes of it is that of the whole batch.

A limit of the address space or a GPU's memory raises an error, after which there is another way. A container's limit
(a cgroup's) mostly ends the process instead: so an attempt notes how much it works on at once, and the next one, where
that was ended without a word, before it kept anything new, begins with half. Where the kernel's count of processes that
it ended for memory did not rise on the same machine, it was something else, and all stays as it was.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from kfp_bonsai.shared.core.documents import kept_document
from kfp_bonsai.shared.core.faults import is_out_of_memory
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.kinds.kind import IGNORED
from kfp_bonsai.shared.training.answer_batches import PLACES, READ

FLAT = {"hidden_at": ("teacher_hidden",), PLACES: ("teacher_logits", "labels")}  # by places in the flattened batch
NOTE = "at-once.json"
BOOT, COUNTS = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/vmstat")  # Linux's alone


def ran_out(error: BaseException) -> bool:
    """Say whether an error means that memory ran out, and let go of what a GPU keeps for the next step."""
    found = is_out_of_memory(error)
    if found and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found


@contextmanager
def watched(folder: Path, step: int, stage: str) -> Iterator[tuple[int, Callable[[int], None]]]:
    """Yield how many rows at once an attempt may begin with, and what it notes by with how many it works.

    Args:
        folder: the attempt's.
        step: of the checkpoint that it begins from: what was killed after a later one has got on.
        stage: the name shown with what is told.
    """
    file, most = folder / NOTE, sys.maxsize
    match kept_document(file):
        case {"step": int(begun), "rows": int(rows), "killings": killings} if begun == step and rows > 0:
            if killings is None or killings != _killings():
                most = max(1, rows // 2)
                say(
                    f"{stage}  WARNING: an attempt with {rows} rows at once was killed, as where a container's memory "
                    f"does not suffice: begins with {most}, whose gradients are added up to those of a step"
                )

    def note(rows: int) -> None:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"step": step, "rows": rows, "killings": _killings()}), encoding="utf-8")

    try:
        yield most, note
    finally:
        with suppress(OSError):
            file.unlink()


def _killings() -> str | None:
    """Return the kernel's count of processes that it ended for memory, and since when; None where it tells none."""
    with suppress(OSError, ValueError):
        counts = dict(line.split() for line in COUNTS.read_text().splitlines())
        return f"{counts['oom_kill']} since {BOOT.read_text().strip()}" if "oom_kill" in counts else None
    return None


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
