"""How many threads work on a batch, in a measurement and wherever one is foreseen."""

import math
import os
from pathlib import Path

from kfp_bonsai.shared.inference.runtimes import stated_threads

CGROUP = Path("/sys/fs/cgroup")


def threads() -> int:
    """Return the threads that every model gets: OMP_NUM_THREADS, or the cores that mask and quota leave us."""
    if asked := stated_threads():
        return asked
    try:
        cores = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # macOS has none, nor have some sandboxes
        cores = os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _quota())))


def _quota() -> float:
    """Return the processors' time a second that a container may take (`docker run --cpus 2`); infinity for no limit."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # version 2 of cgroups, and 1
        try:
            quota, period = " ".join((CGROUP / name).read_text() for name in files).split()
            return int(quota) / int(period) if int(quota) > 0 < int(period) else math.inf
        except (OSError, ValueError):  # not there, or "max"
            continue
    return math.inf
