"""As many threads work as a container has cores, and not as the machine has."""

import os
import subprocess
import sys

import pytest

from kfp_bonsai.shared.core import threads


def test_threads_are_known_without_affinity(monkeypatch):
    """On macOS, where a process has no affinity, a measurement would crash once everything is trained."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert threads.threads() == os.cpu_count()


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({}, 8),
    ],
)
def test_a_containers_quota_limits_the_threads(files, found, tmp_path, monkeypatch):
    """64 threads share the time of two processors, and the served model asks for 64."""
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # what is set below goes with the test
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(threads, "CGROUP", tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert threads.threads() == found
    threads.keep_to_quota()
    assert os.environ.get("OMP_NUM_THREADS") == (str(found) if found < 8 else None)


@pytest.mark.parametrize(
    ("stated", "found"), [("4,2", 4), (" 3 ", 3), ("abc", 0), ("0", 0), ("-2", 0), ("", 0), ("9" * 12, 0), ("2.5", 0)]
)
def test_threads_that_cannot_be_are_not_taken(stated, found, monkeypatch):
    """A traceback for a variable that a scheduler set, or as many threads as no machine has."""
    monkeypatch.setenv("OMP_NUM_THREADS", stated)
    assert threads.threads() == (found or len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("main", ["kfp_bonsai.cli", "kfp_bonsai.serve.__main__"])
def test_a_limit_is_heeded_before_torch_counts_the_cores(main, tmp_path):
    """A training in a container, in which 64 threads wait for each other, or a server as slow."""
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    program = f"""
import os, sys
from contextlib import suppress
from pathlib import Path
from kfp_bonsai.shared.core import threads
os.environ.pop("OMP_NUM_THREADS", None)
threads.CGROUP, sys.argv = Path({str(tmp_path)!r}), ["it", "--help"]
from {main} import main
assert "torch" not in sys.modules
threads._cores = lambda: 64
with suppress(SystemExit):
    main()
print(os.environ["OMP_NUM_THREADS"])
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.split()[-1] == "1"
