"""One cell of a study: `bonsai run` in a process of its own, whose end is told in words, however it came."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from kfp_bonsai.shared.core import stopping
from kfp_bonsai.shared.core.progress import put

BONSAI = "from kfp_bonsai.cli import main; main()"
ERROR = "error: "


def run_cell(arguments: Sequence[str]) -> str:
    """Run `bonsai` with these arguments, show its lines, and return why it failed, or "".

    Raises:
        KeyboardInterrupt: this process was asked to stop, and the run has come to its end.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", BONSAI, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C comes to it once, by the one who waits for it
            preexec_fn=partial(stopping.end_with_parent, signal.SIGINT) if sys.platform == "linux" else None,
        )
        with process, _handing_on(process) as stopped:
            assert process.stdout
            for line in process.stdout:
                put(f"  {line}".rstrip(), sys.stdout)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # tasks that outlive a run that was killed
        errors.seek(0)
        said = errors.read().splitlines()
    if stopped.is_set():
        raise KeyboardInterrupt
    return _reason(process.returncode, said)


@contextmanager
def _handing_on(process: subprocess.Popen) -> Iterator[threading.Event]:
    """Hand Ctrl-C, and the request to end, on to the run, which keeps what it has finished."""
    stopped = threading.Event()

    def stop(signum: int, frame: object) -> None:
        if not stopped.is_set():
            stopped.set()
            process.send_signal(signal.SIGINT)

    signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {each: signal.signal(each, stop) for each in signals}
    try:
        yield stopped
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _reason(status: int, said: Sequence[str]) -> str:
    """Return why a run failed, in one line."""
    if status == 0:
        return ""
    for line in said:
        if line.startswith(ERROR):
            return line.removeprefix(ERROR)
    if status < 0:
        return f"its process was ended by {signal.Signals(-status).name}, as when memory runs out"
    return f"its process ended with status {status}{f' ({said[-1].strip()})' if said else ''}"
