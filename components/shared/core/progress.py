"""Progress a person can follow: newline-terminated lines, also where there is no terminal."""

import os
import sys
import time
from contextlib import suppress
from typing import IO

from kfp_bonsai.shared.core import ranks

EVERY_SECONDS = 10.0
COMMANDS = {one: "?" for one in (*range(32), *range(127, 160)) if chr(one) not in "\n\t"}  # to a terminal


def say(text: str) -> None:
    """Print one line at once, so that it shows in a pod's log as it happens."""
    if ranks.is_first():
        put(text, sys.stdout)


def put(text: str, stream: IO[str] | None) -> None:
    """Write one line to a stream at once; what is only said never fails.

    Signs that the stream's encoding lacks become "?", as do those that a terminal takes for commands, which a text of
    somebody's data may hold; and a stream that nobody reads any more takes all in silence.
    """
    text = text.translate(COMMANDS)
    if stream is None:  # this process was started without one
        return
    try:
        try:
            stream.write(text + "\n")
        except UnicodeEncodeError:
            encoding = getattr(stream, "encoding", None) or "ascii"
            stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        stream.flush()
    except BrokenPipeError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):  # a full disk below it, or it is closed
        pass


def duration(seconds: float) -> str:
    """Return seconds as people say them: "8s", "1m40s", "2h05m"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def megabytes(count: int) -> str:
    """Return a number of bytes in words."""
    return f"{count / 1e6:,.1f} MB" if count < 1e8 else f"{count / 1e6:,.0f} MB"


class Ticker:
    """Say how far a loop of `total` steps is, about every ten seconds and at its end."""

    def __init__(self, stage: str, total: int) -> None:
        self.stage, self.total = stage, total
        self.started = self.said = time.monotonic()

    def step(self, done: int, **values: float) -> None:
        """Note that `done` steps are complete, with values worth showing (loss, accuracy)."""
        now = time.monotonic()
        if now - self.said < EVERY_SECONDS and done < self.total:
            return
        self.said = now
        left = (now - self.started) / max(done, 1) * (self.total - done)
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        when = f"{duration(left)} left" if done < self.total else f"took {duration(now - self.started)}"
        say(f"{self.stage}  step {done}/{self.total}  {shown}  {when}".replace("    ", "  "))

    def middle(self, done: int) -> None:
        """Note it, without a line at the end: of what mostly takes no ten seconds."""
        if done < self.total:
            self.step(done)
