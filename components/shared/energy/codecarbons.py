"""What is codecarbon's own: its model of the memory, and its tracker."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.energy.reading import ESTIMATED, JOULES_PER_KWH, RAM, Meter, Reading


@dataclass(frozen=True)
class Memory:
    """codecarbon's model of a process's memory: watts that depend on its size x time."""

    part = RAM
    label = ESTIMATED

    @property
    def name(self) -> str:
        """The source in words."""
        return f"codecarbon {version()} RAM model, a constant of time"

    def mark(self) -> float:
        """Return the time."""
        return time.perf_counter()

    def between(self, before: float, after: float) -> float:
        """Return the joules of the time between at the watts of the memory in use now."""
        return (after - before) * _memory_model().total_power().W


@cache
def _memory_model() -> Any:
    quiet()
    from codecarbon.external.ram import RAM as CodecarbonRam

    return CodecarbonRam(tracking_mode="process")


@contextmanager
def codecarbon_tracker() -> Iterator[Meter]:
    """Measure a block by codecarbon's own tracker, to check `track` against; for blocks of 5 s and more.

    Raises:
        BonsaiError: codecarbon made no reading.
    """
    quiet()
    from codecarbon import OfflineEmissionsTracker

    tracker = OfflineEmissionsTracker(
        country_iso_code="FRA",  # it wants a country; its grams are not used
        tracking_mode="process",
        output_methods=[],
        allow_multiple_runs=True,
        log_level="critical",
        measure_power_secs=3600,
    )
    meter = Meter()
    tracker.start()
    yield meter
    tracker.stop()
    found = tracker.final_emissions_data
    if found is None or not found.cpu_energy > 0:
        raise BonsaiError("codecarbon's tracker made no reading: measure a block of 5 seconds or more")
    cpu, gpu, ram = (value * JOULES_PER_KWH for value in (found.cpu_energy, found.gpu_energy, found.ram_energy))
    name = f"codecarbon {version()} OfflineEmissionsTracker, process mode"
    meter._reading = Reading(found.duration, cpu + gpu, cpu, gpu, ram, ESTIMATED, name)


def quiet() -> None:
    """Let codecarbon say nothing, and ask the machine: SLURM's variables are there without its commands too."""
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    from codecarbon.core import util
    from codecarbon.external import ram

    util.SLURM_JOB_ID = ram.SLURM_JOB_ID = None  # a thread's watts are the machine's, not a job's share of them


def version() -> str:
    """Return codecarbon's version."""
    return metadata.version("codecarbon")
