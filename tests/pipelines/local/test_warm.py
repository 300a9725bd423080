"""Tasks that are forks of one process: each is on its own, and its end is told as that of a process is."""

import json
import os

import pytest
from kfp.local import logging_utils, subprocess_task_handler

from kfp_bonsai.pipelines.local import warm

MODULE = "kfp_bonsai.shared.metrics.statistics"  # one that nothing of KFP imports


@pytest.fixture(scope="module")
def run():
    """Return what runs a component's function, given as its lines: its exit status."""
    with warm.warm_tasks(["kfp.dsl.executor_main", MODULE]):

        def task(*lines, **environment):
            source = "\n".join(["def work():", *(f"    {line}" for line in lines)])
            arguments = ["--executor_input", json.dumps({"inputs": {}, "outputs": {"outputFile": os.devnull}})]
            command = ["sh", "-ec", "SCRIPT", source, *arguments, "--function_to_execute", "work"]
            return subprocess_task_handler.run_local_subprocess(command, environment)

        yield task


def said(capsys):
    """Return what tasks printed, without KFP's own lines."""
    return [line for line in capsys.readouterr().out.splitlines() if line and "KFP Executor" not in line]


def test_a_task_finds_imported_what_it_needs_and_is_on_its_own(run, capsys, monkeypatch):
    """Five seconds for each task; or a task that sees what another one left, or misses a variable set for it."""
    monkeypatch.setenv("SET_AFTER_THE_START", "seen")
    lines = [
        "import os, sys",
        f"print({MODULE!r} in sys.modules, hasattr(sys, 'left'), os.environ.get('OWN'), sys.stdin.read() == '')",
        "sys.left = True",
        "print(os.environ['SET_AFTER_THE_START'], os.getppid())",
    ]
    assert run(*lines, OWN="1") == run(*lines) == 0
    first, other, second, again = [line for line in said(capsys) if line.startswith(("True", "seen"))]
    assert (first, second) == ("True False 1 True", "True False None True")
    assert other == again != f"seen {os.getpid()}", "both are of one process, which is not this one"


@pytest.mark.parametrize(
    ("lines", "status", "shown"),
    [
        (["raise ValueError('no such column')"], 1, "ValueError: no such column"),
        (["import os", "os.write(1, b'half a line')", "os.kill(os.getpid(), 9)"], -9, "half a line"),  # out of memory
        (["import sys", "sys.exit(3)"], 3, ""),
        (["import os, signal", "os.kill(os.getpid(), signal.SIGINT)"], -2, "KeyboardInterrupt"),
        (["import os", "os.write(1, bytes([255, 10]))"], 0, "\ufffd"),
    ],
    ids=["error", "killed", "exit", "interrupted", "not text"],
)
def test_how_a_task_ended_is_told_and_the_next_one_runs(run, capsys, lines, status, shown):
    """A failed task that counts as done, a run that waits forever for one, or one that takes all others with it."""
    assert run(*lines) == status
    assert shown in "\n".join(said(capsys))
    assert run("print('next')") == 0
    assert "next" in said(capsys)


def test_nothing_but_what_a_task_prints_is_shown(run, capsys):
    """KFP's own lines among those of the stages, as an indentation that nobody asked for hides where they begin."""
    with logging_utils.indented_print():
        assert run("print('one')") == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("    [KFP Executor ")
    assert "    one" in others


def test_a_run_whose_process_is_killed_ends(capsys):
    """A run that hangs, or that counts a task as done which never ran."""
    before = subprocess_task_handler.run_local_subprocess
    with warm.warm_tasks(["kfp.dsl.executor_main"]):
        killing = "def work():\n    import os, signal\n    os.kill(os.getppid(), signal.SIGKILL)"
        arguments = ["--executor_input", '{"inputs": {}, "outputs": {}}', "--function_to_execute", "work"]
        for _ in range(2):
            assert subprocess_task_handler.run_local_subprocess(["sh", "-ec", "", killing, *arguments]) == 1
    assert subprocess_task_handler.run_local_subprocess is before


def test_with_a_gpu_each_task_is_a_process_of_its_own(monkeypatch, tmp_path):
    """A GPU's driver that does not work in a fork: every training fails."""
    monkeypatch.setattr(warm, "GPU", tmp_path)
    before = subprocess_task_handler.run_local_subprocess
    with warm.warm_tasks():
        assert subprocess_task_handler.run_local_subprocess is before
