"""How a run on this machine is stopped."""

import subprocess
import sys
import time

STOPPED = """
import io, signal, subprocess, threading, time
from kfp_bonsai.pipelines.local import Lines, _run_stoppable

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
