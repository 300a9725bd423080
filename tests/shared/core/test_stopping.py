"""A process that is asked to end does so in order: what it began goes, what it keeps stays, and its status says why."""

import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

BEGIN = """
    import os, signal, sys, time
    from pathlib import Path
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which whoever runs the tests may have switched off
    from kfp_bonsai.shared.core import stopping
    from kfp_bonsai.shared.core.files import new_folder
    stopping.heed()
    target = Path(sys.argv[1])
    def ready():
        print("ready", flush=True)
"""


def started(folder, code, *arguments):
    """Start a process, and wait until it says that it is ready."""
    program = textwrap.dedent(BEGIN) + textwrap.dedent(code)
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_what_was_begun_goes(tmp_path):
    """Half a model beside its place, each time a node is taken away."""
    process = started(
        tmp_path / "out",
        """
        with new_folder(target) as folder:
            (folder / "half").touch()
            ready()
            time.sleep(60)
        """,
    )
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143 and not [*tmp_path.iterdir()]


def test_a_handler_that_a_library_in_c_took_away_is_set_again(tmp_path):
    """A training that ends where it stands, though Python says that SIGTERM is heeded."""
    process = started(
        tmp_path / "out",
        """
        import ctypes
        ctypes.CDLL(None).signal(int(signal.SIGTERM), None)  # SIG_DFL
        with stopping.heeded():
            ready()
            while not stopping.asked():
                time.sleep(0.01)
        """,
    )
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 1)])
def test_what_looks_for_it_keeps_its_work_first(tmp_path, number, status):
    """A training that is broken off in the midst of a step, goes on till it is killed, or is broken off as it saves."""
    process = started(
        tmp_path / "out",
        """
        with stopping.heeded():
            ready()
            while not stopping.asked():
                time.sleep(0.01)
            time.sleep(0.3)
            target.write_text("kept")
            stopping.stop()
        """,
    )
    process.send_signal(number)
    if number == signal.SIGTERM:  # a run that is stopped sends it again and again
        time.sleep(0.1)
        process.send_signal(number)
    ended = process.wait(20)
    assert ended in (status, -number) and (tmp_path / "out").read_text() == "kept"


def test_a_second_ctrl_c_ends_it_at_once(tmp_path):
    """Somebody waits for a checkpoint of gigabytes that nobody wants."""
    process = started(
        tmp_path / "out",
        """
        with stopping.heeded():
            ready()
            while not stopping.asked():
                time.sleep(0.01)
            ready()
            time.sleep(60)
        """,
    )
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) != 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a task outlives the run that started it")
def test_a_task_ends_with_who_started_it(tmp_path):
    """A run that was killed, and its task goes on beside the one of the run that goes on."""
    process = started(
        tmp_path / "out",
        """
        child = os.fork()
        if not child:
            stopping.end_with_parent()
            target.write_text(str(os.getpid()))
            ready()
            time.sleep(60)
        os.waitpid(child, 0)
        """,
    )
    child = int((tmp_path / "out").read_text())
    process.kill()
    process.wait(20)
    until = time.monotonic() + 20
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, "it is still there"
        time.sleep(0.05)
