"""The machine that a measurement was made on, and one measurement on it at a time."""

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import try_lock
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.core.temporary import machines_folder

LOCK = "kfp-bonsai-measurement.lock"
WAIT_SECONDS = 1.0  # between two looks at another measurement's lock


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
    from kfp_bonsai.shared.energy.cpu_estimate import cpu_model

    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count() or 0,
        "threads": used_threads,
        "memory_bytes": _memory_bytes(),
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


def _memory_bytes() -> int:
    """Return the machine's memory, 0 if it does not tell."""
    import psutil

    try:
        return psutil.virtual_memory().total
    except (OSError, ValueError, KeyError, RuntimeError):  # no /proc/meminfo, or one of a sandbox
        return 0


def load() -> float:
    """Return the load average of the last minute, 0 if the machine does not tell."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return 0.0


@contextmanager
def alone(wait: bool = True) -> Iterator[None]:
    """Keep other measurements off this machine, as two at once would disturb each other.

    Args:
        wait: whether to wait for one that runs already, or to refuse.

    Raises:
        BonsaiError: another measurement runs, and nobody wants to wait; or this is Windows.
    """
    if find_spec("fcntl") is None:
        raise BonsaiError("evaluate-emissions runs on Linux and macOS: on Windows, use WSL")
    try:
        path = machines_folder() / LOCK
        file = path.open() if path.exists() else path.open("a")  # another user's file can be locked, not written
    except OSError:  # a lock that cannot be opened is nothing to wait on
        yield
        return
    with file:
        if try_lock(file) is False:  # without locks, the control tells whether another measurement disturbed
            if not wait:
                raise BonsaiError(
                    f"another measurement runs on this machine ({path} is locked), and the two would disturb each "
                    "other: start again when it has ended, or wait for it (--wait)"
                )
            say("evaluate-emissions  waiting: another measurement runs on this machine")
            while try_lock(file) is False:
                time.sleep(WAIT_SECONDS)
            say("evaluate-emissions  going on: the other measurement has ended")
        yield
