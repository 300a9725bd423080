"""What other systems than Linux lack ends in a sentence, or is done without."""

import os
import subprocess
import sys

from kfp_bonsai.evaluate_emissions import machine
from kfp_bonsai.shared.core import threads as threads_here


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
from kfp_bonsai.shared.core import threads as threads_here
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
