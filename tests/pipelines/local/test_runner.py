"""How a run on this machine is stopped."""

import io
import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from kfp_bonsai.pipelines.local.runner import Lines, forget_damaged
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.faults import Fault

STOPPED = """
import io, signal, subprocess, threading, time
from kfp_bonsai.pipelines.local.runner import Lines, _run_stoppable

lines = Lines(io.StringIO(), str)
def work():
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # as if the waiting thread had missed it
    time.sleep(1)
    print(subprocess.run(["sleep", "60"]).returncode)
_run_stoppable(work, lines)
print(lines.stopped)
"""


def test_a_task_that_starts_as_one_presses_ctrl_c_is_ended():
    """A training that goes on until its level is done, though the run was stopped."""
    started = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, timeout=120)
    assert ended.stdout.split() == ["-15", "True"], ended.stderr
    assert time.monotonic() - started < 50


HELD = """
import io, os, signal, subprocess, sys, threading, time
from kfp_bonsai.pipelines.local.runner import Lines, _run_stoppable

lines = Lines(io.StringIO(), str)
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
def work():
    task = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    task.stdout.readline()
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    print(task.wait())
_run_stoppable(work, lines)
"""


def test_a_task_that_does_not_end_is_killed_when_one_presses_ctrl_c_again():
    """A terminal that nothing gets free, as where a library's process waits for ever."""
    started = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, timeout=120)
    assert ended.stdout.split() == ["-9"], ended.stderr
    assert time.monotonic() - started < 50


TRACE = """Traceback (most recent call last):
  File "x.py", line 3, in distill
    1 / 0
{ends}
[KFP Executor 2026-11-29] done
"""


@pytest.mark.parametrize(
    ("ends", "kind", "said"),
    [
        ("ZeroDivisionError: division by zero", Fault, "distill ended with an unexpected ZeroDivisionError: division"),
        ("KeyError", Fault, "unexpected KeyError"),
        ("torch.OutOfMemoryError: CUDA out of memory", BonsaiError, "memory ran out"),
        ("OSError: [Errno 28] No space left on device", BonsaiError, "no space left on the disk"),
        ("kfp_bonsai.shared.core.errors.BonsaiError: no rows", BonsaiError, "distill: no rows"),
        ("kfp_bonsai.shared.energy.energy.CounterError: stands still", BonsaiError, "distill: stands still"),
        (None, BonsaiError, "as when memory runs out"),
    ],
)
def test_a_task_that_fails_is_told_of_in_words(ends, kind, said, capsys):
    """Fifty lines of traceback, or a bug of ours told as the user's mistake."""
    lines = Lines(io.StringIO(), str)
    lines.task = "distill"
    lines.write(textwrap.indent(TRACE.format(ends=ends), "    ") if ends else "a line\n")
    found = lines.failure(Path("run.log"))
    assert type(found) is kind and said in str(found)
    assert ends is None or kind is not Fault or "run.log" in str(found)
    assert "Traceback" not in capsys.readouterr().out


def test_a_damaged_note_on_a_finished_task_costs_that_task_alone(tmp_path, capsys):
    """A run that fails with KFP's traceback each time it is started again."""
    artifact = '{"train": {"__kfp_artifact__": true, "name": "train", "uri": "gs://a/b", "metadata": %s}}'
    notes = {
        "whole": artifact % '{"rows": 4}',
        "list": "[1]",
        "cut": '{"a',
        "deep": "[" * 10**5,
    }
    for name, content in notes.items():
        (tmp_path / f"{name}.json").write_text(content)
    (tmp_path / "bytes.json").write_bytes(b"\xff")
    forget_damaged(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} <= {"whole", "cut"}  # which KFP takes for none itself
    assert (tmp_path / "whole.json").exists() and "list.json is damaged" in capsys.readouterr().out


def test_a_finished_task_whose_files_a_crash_of_the_machine_emptied_is_done_again(tmp_path, capsys):
    """Each start of a run would be refused for a damaged model, and the night's work started over."""
    for name, content in (("whole", "weights"), ("emptied", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bonsai.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_text(content)
        artifact = {"__kfp_artifact__": True, "name": "model", "uri": str(tmp_path / name), "metadata": {}}
        (tmp_path / f"{name}.json").write_text(json.dumps({"model": artifact, "Output": 1}))
    forget_damaged(tmp_path)
    assert [path.stem for path in tmp_path.glob("*.json")] == ["whole"]
    assert "emptied/model.safetensors is empty" in capsys.readouterr().out
