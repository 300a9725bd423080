"""Run a pipeline by KFP's local runner, with a log that people can follow.

KFP prints a task's own lines between many of its own. Here a task gets one headline, its lines follow as they
are printed, and everything else goes to the log file alone.
"""

import io
import logging
import math
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import redirect_stdout, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import psutil
from kfp import local

from kfp_bonsai.pipelines.local.warm import QUANTIZING, TRAINING, warm_tasks
from kfp_bonsai.shared.core import faults
from kfp_bonsai.shared.core.errors import BonsaiError, in_words
from kfp_bonsai.shared.core.progress import duration, put, say

QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "PYTHONWARNINGS": "ignore",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
PATIENCE = 120  # seconds that a task may take to keep its work
USER_ERROR = re.compile(r"kfp_bonsai\.[\w.]+Error: (.*)")
ANY_ERROR = re.compile(r"[A-Za-z_][\w.]*(: .*)?$")  # the last line of a traceback
CHATTER = re.compile(r"\[KFP Executor |-+$|\s*$")
COLOUR = re.compile(r"\x1b\[\d+m")


def run_locally(
    pipeline: Any, arguments: Mapping[str, Any], work: Path, log: Path, headline: Callable[[str], str]
) -> None:
    """Run a pipeline here; tasks that finished in an earlier run in `work` with the same inputs are not run again.

    Args:
        pipeline: the pipeline function.
        arguments: its arguments.
        work: where all artifacts go, and the notes on which tasks are finished.
        log: the file that gets every line.
        headline: gives the headline of the task of this name.

    Raises:
        BonsaiError: a stage refused its input, or its process was ended.
        Fault: a task failed with an error that it does not explain.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    forget_damaged(work / "finished")
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(work),
        enable_caching=True,
        cache_root=str(work / "finished"),
    )
    root = logging.getLogger()
    root.setLevel(logging.INFO)  # KFP tells at this level which tasks it does not run again
    imported = [*TRAINING, *(QUANTIZING if arguments.get("edge") else ())]
    with log.open("a", encoding="utf-8") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # KFP warns of settings that matter on a cluster only
        lines = Lines(file, headline)
        root.addFilter(lines.filter)
        try:
            with warm_tasks(imported), redirect_stdout(lines):
                _run_stoppable(partial(pipeline, **arguments), lines)
        except RuntimeError as error:
            if lines.stopped:
                raise KeyboardInterrupt from error
            raise lines.failure(log) from error
        finally:
            root.removeFilter(lines.filter)


def forget_damaged(finished: Path) -> None:
    """Remove notes on finished tasks that KFP fails to read, as it would at each start from then on, or that are wrong.

    A machine that loses its power may keep a file's name, and not what was written to it in the last half minute.
    """
    from kfp.local.cache import LocalCache

    for note in finished.glob("*.json"):
        try:
            made = LocalCache(str(finished)).get(note.stem) or {}
            places = [Path(one.uri).resolve() for one in made.values() if hasattr(one, "uri")]
            ours = [one for one in places if one.is_relative_to(finished.parent.resolve())]
            files = [file for one in ours for file in (one, *one.rglob("*")) if file.is_file()]
            wrong = next((f"{file} is empty" for file in files if not file.stat().st_size), "")
        except Exception as error:  # whatever KFP raises of it
            wrong = f"{note} is damaged ({in_words(error)})"
        if wrong:
            say(f"note: {wrong}: its task is done again")
            note.unlink()


def _run_stoppable(work: Callable[[], Any], lines: "Lines") -> None:
    """Run in a thread, and end its tasks when this process is asked to stop; KFP alone would begin the next level.

    This thread wakes all the time, as one that waits for a lock can miss a signal, and ends tasks until the run has
    ended, as KFP may be about to start one. What does not end is killed: after PATIENCE, or when it is asked again.
    """
    killed_from = math.inf

    def stop(signum: int, frame: object) -> None:
        nonlocal killed_from
        killed_from = time.monotonic() + (0 if lines.stopped else PATIENCE)
        lines.stopped = True

    signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {each: signal.signal(each, stop) for each in signals}
    try:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(work)
            while not wait([running], timeout=0.2).done:
                for child in psutil.Process().children(recursive=True) if lines.stopped else ():
                    with suppress(psutil.NoSuchProcess):
                        child.kill() if time.monotonic() > killed_from else child.terminate()
        running.result()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class Lines(io.TextIOBase):
    """Standard output while the pipeline runs: passes on the stages' lines, and keeps tracebacks back."""

    def __init__(self, file: IO[str], headline: Callable[[str], str]) -> None:
        import sys

        self.file, self.headline, self.shown = file, headline, sys.stdout
        self.started = time.monotonic()
        self.partial, self.task, self.user_error = "", "", ""
        self.held: list[str] = []
        self.stopped = self.failed = False
        self.in_json = False  # KFP prints what a task gets, as JSON

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Take text as KFP prints it."""
        if self.file.closed:
            return len(text)
        *whole, self.partial = (self.partial + text).split("\n")
        for line in whole:
            self._line(line.removeprefix("    "))
        return len(text)

    def flush(self) -> None:
        """Do nothing: each line is shown as it comes."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Take KFP's log records: a task that starts gets its headline, all else goes to the file alone."""
        if os.sep + os.path.join("kfp", "local") + os.sep not in record.pathname:
            return True
        text = COLOUR.sub("", record.getMessage())
        self.file.write(f"{time.strftime('%H:%M:%S')} kfp: {text}\n")
        if self.stopped:
            raise RuntimeError("stopped by the user")
        if "finished with status FAILURE" in text:
            self.failed = True
        elif self.failed and text.startswith("Executing task"):
            raise RuntimeError("a task failed")  # KFP alone would train the other levels first
        elif started := re.match(r"Executing task '(.+)'", text):
            self._begin(started[1], "")
        elif reused := re.match(r"Task (\S+) cache hit", text):
            self._begin(reused[1], ", finished already")
        return False

    def failure(self, log: Path) -> Exception:
        """Return the error to raise after a task failed."""
        if self.user_error:
            return BonsaiError(f"{self.task}: {self.user_error.removeprefix(f'{self.task}: ')}")
        for line in self.held if os.environ.get(faults.DEBUG) else ():
            self._show(line)
        ends = [line for before, line in pairwise(self.held) if before[:1] == " " and ANY_ERROR.match(line)]
        if not ends:
            return BonsaiError(
                f"{self.task}: its process ended without an error of its own, as when memory runs out and the system "
                f"ends it (all that it said is in {log})"
            )
        if words := faults.in_plain_words(ends[-1]):
            return BonsaiError(f"{self.task}: {words} (all that it said is in {log})")
        return faults.Fault(f"{self.task} ended with an unexpected {ends[-1]}", log)

    def _begin(self, task: str, note: str) -> None:
        self.task, self.held, self.user_error = task, [], ""
        self._show(f"\n{self.headline(task)}{note}  [{duration(time.monotonic() - self.started)}]")

    def _line(self, line: str) -> None:
        self.file.write(line + "\n")
        self.file.flush()
        if found := USER_ERROR.match(line):
            self.user_error = found[1]
        if self.in_json or line == "{":
            self.in_json = line != "}"
        elif self.held or line.startswith("Traceback (most recent call last)"):
            self.held.append(line)
        elif not CHATTER.match(line):
            self._show("  " + line)

    def _show(self, line: str) -> None:
        put(line, self.shown)  # not print(), which KFP replaces by one that indents
