"""What other systems than Linux lack ends in a sentence, or is done without."""

import os
import subprocess
import sys

import pytest

from kfp_bonsai.evaluate_emissions import machine
from kfp_bonsai.shared.inference import threads as threads_here


def test_threads_are_known_without_affinity(monkeypatch):
    """On macOS, where a process has no affinity, a measurement would crash once everything is trained."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert threads_here.threads() == os.cpu_count()


@pytest.mark.parametrize(
    ("files", "threads"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({}, 8),
    ],
)
def test_a_containers_quota_limits_the_threads(files, threads, tmp_path, monkeypatch):
    """64 threads share the time of two processors, and the served model asks for 64."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(threads_here, "CGROUP", tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert threads_here.threads() == threads


@pytest.mark.parametrize(
    ("stated", "threads"), [("4,2", 4), (" 3 ", 3), ("abc", 0), ("0", 0), ("-2", 0), ("", 0), ("9" * 12, 0), ("2.5", 0)]
)
def test_threads_that_cannot_be_are_not_taken(stated, threads, monkeypatch):
    """A traceback for a variable that a scheduler set, or as many threads as no machine has."""
    monkeypatch.setenv("OMP_NUM_THREADS", stated)
    assert threads_here.threads() == (threads or len(os.sched_getaffinity(0)))


def test_what_the_machine_does_not_tell_ends_no_measurement(tmp_path, monkeypatch, memory_too):
    """All measured, and then lost for a line about the machine."""
    import psutil

    from kfp_bonsai.evaluate_emissions import memory, protocol
    from kfp_bonsai.shared.core import temporary

    def fails(*_, **__):
        raise FileNotFoundError("/proc")

    for module, name in ((psutil, "virtual_memory"), (psutil, "cpu_times"), (os, "getloadavg")):
        monkeypatch.setattr(module, name, fails)
    monkeypatch.setattr(os, "sched_getaffinity", fails)
    monkeypatch.setattr(temporary.tempfile, "gettempdir", fails)
    monkeypatch.setattr(memory.tempfile, "mkdtemp", fails)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with machine.alone():
        found = machine.environment(threads_here.threads())
    assert (found["memory_bytes"], machine.load(), protocol._machine_busy()) == (0, 0, 0)
    assert "/proc" in memory.peaks([tmp_path], [{}], 1)[0].problem


WITHOUT_FCNTL = """
import sys
sys.modules["fcntl"] = None
from pathlib import Path
from kfp_bonsai.evaluate_emissions import machine
from kfp_bonsai.shared.inference import threads as threads_here
from kfp_bonsai.pipelines.local.folder import run_folder
from kfp_bonsai.shared.core.errors import BonsaiError
for need in (machine.alone(), run_folder(Path(sys.argv[1]) / "run", {}, overwrite=False)):
    try:
        need.__enter__()
    except BonsaiError as error:
        print(error)
"""


def test_windows_is_refused_in_a_sentence_where_locks_are_needed(tmp_path):
    """`bonsai --help` and all stages would end in a missing module, without a word on what to do."""
    run = [sys.executable, "-c", WITHOUT_FCNTL, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert [line.partition(": ")[2] for line in done.stdout.splitlines()] == ["on Windows, use WSL"] * 2, done.stderr
    assert not (tmp_path / "run").exists()
