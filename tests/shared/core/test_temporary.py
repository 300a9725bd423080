"""Temporary files of commands, those that end and those that are killed."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from kfp_bonsai.shared.core import temporary

COMMAND = """
import os, pathlib, signal, subprocess, sys, tempfile
from kfp_bonsai.shared.core import temporary
with temporary.own_folder():
    tempfile.mkdtemp()
    child = "import tempfile; print(tempfile.gettempdir(), flush=True)"
    subprocess.run([sys.executable, "-c", child], check=True)
    print(temporary.machines_folder(), flush=True)
    {last}
"""


def _run(folder: Path, last: str) -> tuple[Path, Path, int]:
    """Run a command with temporary files in a folder; return its child's folder, what all share, and the status."""
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND.format(last=last)],
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    mine, shared = map(Path, ended.stdout.split())
    return mine, shared, ended.returncode


def test_temporary_files_go_with_the_command(tmp_path):
    """Libraries' files, or those of processes that it started, stay in the temporary folder for ever."""
    mine, shared, status = _run(tmp_path, "")
    assert status == 0
    assert mine.parent == tmp_path
    assert shared == tmp_path
    assert not [*tmp_path.iterdir()]


def test_the_next_command_removes_what_a_killed_one_left(tmp_path):
    """A node that is taken away again and again fills its disk; or one that still works loses its files."""
    mine, _, status = _run(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert status == -signal.SIGKILL
    assert [*mine.iterdir()]
    (tmp_path / ".bonsai.of-others").mkdir()
    living = subprocess.Popen(
        [sys.executable, "-c", COMMAND.format(last="input()")],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    at_work = Path(living.stdout.readline().strip())
    assert not mine.exists()
    _run(tmp_path, "")
    assert at_work.is_dir()
    living.communicate("\n")
    assert living.returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == [".bonsai.of-others"]


def test_a_command_within_another_shares_what_the_machine_shares(tmp_path, monkeypatch):
    """Two measurements at once do not see each other, because each has its lock in a folder of its own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with temporary.own_folder(), temporary.own_folder():
        assert tempfile.gettempdir() != str(tmp_path)
        assert temporary.machines_folder() == tmp_path
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(tmp_path)


def test_without_room_for_temporary_files_commands_still_begin(monkeypatch):
    """`bonsai --help` is a traceback where the temporary folder takes no files."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere/at/all")
    with temporary.own_folder():
        assert tempfile.tempdir == "/nowhere/at/all"
