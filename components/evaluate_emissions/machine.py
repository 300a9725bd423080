"""The machine that a measurement was made on, and one measurement on it at a time."""

import math
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.errors import BonsaiError
from kfp_bonsai.shared.progress import say

CGROUP = Path("/sys/fs/cgroup")
LOCK = "kfp-bonsai-measurement.lock"


def threads() -> int:
    """Return the threads that every model gets: OMP_NUM_THREADS, or the cores that mask and quota leave us."""
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if asked.isdigit() and int(asked):
        return int(asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # macOS has none
    return max(1, math.ceil(min(cores, _quota())))


def _quota() -> float:
    """Return the processors' time a second that a container may take (`docker run --cpus 2`); infinity for no limit."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # version 2 of cgroups, and 1
        try:
            quota, period = " ".join((CGROUP / name).read_text() for name in files).split()
            return int(quota) / int(period) if int(quota) > 0 else math.inf
        except (OSError, ValueError, ZeroDivisionError):  # not there, or "max"
            continue
    return math.inf


def wait_without_spinning() -> str:
    """Let OpenMP's idle threads sleep, which must be said before torch is loaded; return the policy in words.

    A thread that spins while its neighbour is held up burns CPU time that no model asked for: with two threads on
    two busy cores, the same batch took 289 to 600 ms of CPU time; without spinning 131 to 138 ms.
    """
    loaded = "torch" in sys.modules
    policy = os.environ.get("OMP_WAIT_POLICY", "") if loaded else os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return policy.lower() or "default, as torch was loaded already"


def environment(used_threads: int) -> dict[str, Any]:
    """Return what a reader needs to know about the machine."""
    import psutil

    from kfp_bonsai.shared.energy import cpu_model

    return {
        "cpu": cpu_model(),
        "cores": psutil.cpu_count() or 0,
        "threads": used_threads,
        "memory_bytes": psutil.virtual_memory().total,
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "container": Path("/.dockerenv").exists() or "KUBERNETES_SERVICE_HOST" in os.environ,
    }


def device_name(device: str, found: dict[str, Any]) -> str:
    """Return the device in words, such as "cpu (AMD EPYC, 2 cores, 2 threads)"."""
    if device == "cpu":
        return f"cpu ({found['cpu']}, {found['cores']} cores, {found['threads']} threads)"
    import torch

    return f"cuda ({torch.cuda.get_device_name()})"


def load() -> float:
    """Return the load average of the last minute."""
    return round(os.getloadavg()[0], 2)


@contextmanager
def alone(wait: bool = True) -> Iterator[None]:
    """Keep other measurements off this machine, as two at once would disturb each other.

    Args:
        wait: whether to wait for one that runs already, or to refuse.

    Raises:
        BonsaiError: another measurement runs, and nobody wants to wait; or this is Windows.
    """
    try:
        import fcntl
    except ImportError as error:
        raise BonsaiError("evaluate-emissions runs on Linux and macOS: on Windows, use WSL") from error

    path = Path(tempfile.gettempdir()) / LOCK
    try:
        file = path.open() if path.exists() else path.open("a")  # another user's file can be locked, not written
    except OSError:  # a lock that cannot be opened is nothing to wait on
        yield
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if not wait:
                raise BonsaiError(
                    f"another measurement runs on this machine ({path} is locked), and the two would disturb each "
                    "other: start again when it has ended, or wait for it (--wait)"
                ) from error
            say("evaluate-emissions  waiting: another measurement runs on this machine")
            fcntl.flock(file, fcntl.LOCK_EX)
            say("evaluate-emissions  going on: the other measurement has ended")
        yield
