"""How many threads work on a batch, in a training, in a measurement and wherever one is foreseen."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OMP = "OMP_NUM_THREADS"  # torch, OpenMP's libraries and our other runtimes go by it
MOST_THREADS = 8192


def threads() -> int:
    """Return the threads that every model gets: OMP_NUM_THREADS, or the cores that mask and quota leave us."""
    return stated_threads() or max(1, math.ceil(min(_cores(), _quota())))


def stated_threads() -> int:
    """Return the threads that OMP_NUM_THREADS states, of "4,2" the first; 0 if it states none that can be."""
    stated = os.environ.get(OMP, "").partition(",")[0].strip()
    return int(stated) if stated.isdecimal() and int(stated) <= MOST_THREADS else 0


def keep_to_quota() -> None:
    """Let this process, and those that it starts, train with as many threads as a container's limit has cores.

    torch takes one for each core of the machine, which then wait for each other: no step gets on. It is to be told
    before it is imported.
    """
    if not stated_threads() and _quota() < _cores():
        os.environ[OMP] = str(threads())


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS has none, nor have some sandboxes
        return os.cpu_count() or 1


def _quota() -> float:
    """Return the processors' time a second that a container may take (`docker run --cpus 2`); infinity for no limit."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # version 2 of cgroups, and 1
        try:
            quota, period = " ".join((CGROUP / name).read_text() for name in files).split()
            return int(quota) / int(period) if int(quota) > 0 < int(period) else math.inf
        except (OSError, ValueError):  # not there, or "max"
            continue
    return math.inf
