"""What a block of work costs in joules, and how we know.

    with energy.track() as meter:
        ...
    meter.reading  # Reading(seconds=12.1, joules=190.3, ..., label="estimated", source="...")

Each part has the best source that the machine offers:

- CPU: the RAPL counter under /sys/class/powercap where it can be read (measured, the whole package), else
  codecarbon's model of a process (estimated): CPU seconds of this process and its children x watts per thread,
  which are the TDP in codecarbon's data base / the threads, or 4 W where it does not know the CPU. It is the formula
  of codecarbon's process mode, read at the ends of the block instead of by a thread that wakes every second, so that
  it is also right for blocks of a second (codecarbon reads 0 there) and cannot fail in silence.
- GPU: the energy counter of NVML (measured) of each GPU that the work uses; other GPUs are left out, busy or idle.
- RAM: codecarbon's model, watts that depend on the memory used x time (estimated). As it is a clock and not a
  meter of work, it is told apart and is no part of `joules`.

Where joules are a note beside the work, as in training, a counter that fails gives its place to the estimate
(`enduring`). A measurement never mixes the two: it ends with a `CounterError`, and is done anew with `estimates`.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core import parallel, ranks
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.energy.codecarbons import Memory, codecarbon_tracker
from kfp_bonsai.shared.energy.cpu_estimate import ProcessCpu, watts_per_thread
from kfp_bonsai.shared.energy.enduring import Enduring, enduring
from kfp_bonsai.shared.energy.nvml import gpus_in_use
from kfp_bonsai.shared.energy.rapl import POWERCAP, rapl
from kfp_bonsai.shared.energy.reading import (
    CPU,
    ESTIMATED,
    GPU,
    JOULES_PER_KWH,
    LABELS,
    MEASURED,
    PROXY,
    RAM,
    CounterError,
    Meter,
    NotCounted,
    Reading,
    Source,
    checked,
    weakest,
)

__all__ = [  # what other rooms and the stages take from here
    "CPU",
    "ESTIMATED",
    "GPU",
    "JOULES_PER_KWH",
    "LABELS",
    "MEASURED",
    "PROXY",
    "RAM",
    "CounterError",
    "Memory",
    "Meter",
    "ProcessCpu",
    "Reading",
    "Source",
    "codecarbon_tracker",
    "estimates",
    "find_sources",
    "track",
    "training_sources",
    "weakest",
]


@contextmanager
def track(sources: Sequence[Source] | None = None) -> Iterator[Meter]:
    """Measure the energy of a block, in all processes that train together; nothing is read if the block raises.

    Args:
        sources: what to read, from `find_sources`; `training_sources` if not given, which never fail.

    Raises:
        CounterError: a counter cannot be read, went back, or stood still for a second.
    """
    sources = training_sources() if sources is None else sources
    meter = Meter(partial(_cost, sources, [one.mark() for one in sources], time.perf_counter()))
    yield meter
    meter._reading = meter.so_far()


def _cost(sources: Sequence[Source], before: Sequence[Any], started: float) -> Reading:
    """Return what all processes together took since."""
    seconds, after = time.perf_counter() - started, [one.mark() for one in reversed(sources)][::-1]
    parts = {CPU: 0.0, GPU: 0.0, RAM: 0.0}
    for one, start, end in zip(sources, before, after, strict=True):
        joules = checked(one, one.between(start, end), seconds)
        if one.label != MEASURED or ranks.is_first_here():  # such counters are the machine's, of all its processes
            parts[one.part] += joules
    parts = parallel.totals(parts)
    counted = [one for one in sources if one.part != RAM]
    return Reading(
        seconds=seconds,
        joules=parts[CPU] + parts[GPU],
        cpu_joules=parts[CPU],
        gpu_joules=parts[GPU],
        ram_joules=parts[RAM],
        label=weakest([one.label for one in counted]),
        source="; ".join(f"{one.part.upper()} {one.label}: {one.name}" for one in sources),
    )


@cache
def find_sources(device: str = "cpu", powercap: Path = POWERCAP) -> tuple[Source, ...]:
    """Return the best source of each part: CPU, the GPUs in use, and RAM.

    Args:
        device: where the work is done: "cpu", and no GPU counts, or "cuda".
        powercap: where Linux shows RAPL's counters.

    Raises:
        BonsaiError: the work is done on a GPU whose energy cannot be read.
    """
    gpus = gpus_in_use() if device == "cuda" else ()
    return (rapl(powercap) or ProcessCpu(watts_per_thread()[0]), *gpus, Enduring(Memory()))


def estimates(sources: Sequence[Source], problem: CounterError) -> tuple[Source, ...]:
    """Return the sources with the CPU's estimated instead of read, after a counter failed.

    Raises:
        CounterError: the problem, where none of the CPU's counters is among them: a GPU's energy has no estimate.
    """
    if not any(one.part == CPU and one.label == MEASURED for one in sources):
        raise problem
    return tuple(ProcessCpu(watts_per_thread()[0]) if one.part == CPU else one for one in sources)


def training_sources() -> tuple[Source, ...]:
    """Return the sources for work that a GPU does if torch sees one, as in training.

    What cannot be read ends no training: a line says that it is not counted or estimated, and so does the label.
    """
    import torch

    cpu, memory = find_sources()
    gpus: Sequence[Source] = ()
    if torch.cuda.is_available():
        try:
            gpus = gpus_in_use()
        except BonsaiError as error:
            say(f"note: the joules told here leave out the GPU: {error}")
            gpus = (NotCounted(GPU),)
    return enduring((cpu, *gpus, memory))
