"""The CPU's joules as codecarbon's process mode estimates them: CPU seconds x watts per thread."""

import json
import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kfp_bonsai.shared.core.cache import cached
from kfp_bonsai.shared.core.documents import kept_document
from kfp_bonsai.shared.core.errors import BonsaiError, in_words
from kfp_bonsai.shared.core.files import new_file, text_in
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.energy.codecarbons import quiet, version
from kfp_bonsai.shared.energy.reading import CPU, ESTIMATED, MOST_WATTS

ASSUMED = "not in codecarbon's table"  # of a CPU, in the words of a source
ASSUMED_WATTS = 4.0  # of a thread: codecarbon's DEFAULT_POWER_PER_CORE


@dataclass(frozen=True)
class ProcessCpu:
    """codecarbon's model of a process: its CPU time x watts per thread."""

    part = CPU
    label = ESTIMATED
    watts: float

    @property
    def name(self) -> str:
        """The source in words."""
        return (
            f"codecarbon {version()} process mode, CPU time x {self.watts:.3g} W per thread ({watts_per_thread()[1]})"
        )

    def mark(self) -> float:
        """Return the CPU seconds used so far."""
        return cpu_seconds()

    def between(self, before: float, after: float) -> float:
        """Return the joules of the CPU seconds used between."""
        return (after - before) * self.watts


def cpu_seconds() -> float:
    """Return the CPU seconds used by this process and its children, those that ended included."""
    return time.process_time() + _children_seconds()


def _children_seconds() -> float:
    import psutil

    times = os.times()
    total = times.children_user + times.children_system
    for child in psutil.Process().children(recursive=True) if _has_children() else ():
        with suppress(psutil.Error):
            used = child.cpu_times()
            total += used.user + used.system
    return total


def _has_children() -> bool:
    """Return whether this process has children, or none could be told: ten times as fast as psutil's search."""
    lists = list(Path("/proc/self/task").glob("*/children"))
    return not lists or any(text_in(each) for each in lists)


@cache
def watts_per_thread() -> tuple[float, str]:
    """Return the watts that codecarbon gives one busy hardware thread, and how it came to them.

    The answer is kept beside the downloads, since asking takes over a second and each stage is a process.
    """
    machine = f"{version()}, {cpu_model()}, {os.cpu_count()} threads"
    kept = cached("cpu_watts.json")
    with suppress(OSError, ValueError, KeyError, TypeError):
        watts, how = kept_document(kept)[machine]
        if 0 < float(watts) < MOST_WATTS:
            return float(watts), str(how)
    try:
        found = _codecarbons_watts()
    except Exception as error:  # it asks commands and files that this machine may not have
        say(f"note: codecarbon does not find this CPU's power ({in_words(error)}): {ASSUMED_WATTS:g} W a thread, then")
        return ASSUMED_WATTS, f"{ASSUMED}, which could not be asked: {ASSUMED_WATTS:g} W a thread"
    with suppress(OSError, BonsaiError), new_file(kept) as file:
        file.write_text(json.dumps({machine: found}), encoding="utf-8")
    return found


def _codecarbons_watts() -> tuple[float, str]:  # the formula of codecarbon.external.hardware.CPU in process mode
    quiet()
    from codecarbon.core import cpu, util
    from codecarbon.core.hardware_cache import get_cached_tdp

    tdp = get_cached_tdp(cpu)
    threads = util.count_cpus()
    sockets = util.count_physical_cpus()
    known = tdp._get_cpu_power_from_registry(tdp.model)
    power = f"TDP {tdp.tdp:g} W" if known else f"{ASSUMED}, which takes {tdp.tdp:g} W then"
    return tdp.tdp * sockets / threads, f"{tdp.model}: {power}, {sockets} socket(s), {threads} threads"


def cpu_model() -> str:
    """Return the CPU's name."""
    lines = (line for line in text_in(Path("/proc/cpuinfo")).splitlines() if line.startswith("model name"))
    return next(lines, "").partition(":")[2].strip() or platform.processor() or platform.machine()
