"""What a process does that is asked to end: what it began to write goes, and its exit status says that it may go on.

A node that is taken away, or a run that is stopped, sends SIGTERM. By itself that ends Python where it stands, with all
its temporary folders. Here it ends as by an error, or, in a block that looks for it, when that has kept its work.
"""

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PARENT_ENDED = 1  # what prctl calls PR_SET_PDEATHSIG
ENDED = 128 + signal.SIGTERM  # the exit status, by which a cluster knows that another try makes sense

_heeding = 0  # blocks that look for it themselves
_asked: int | None = None  # the signal that came


def heed() -> None:
    """Let SIGTERM end this process in order, unless whoever started it has a way of their own.

    What stands already is set again: a library in C may have taken it away, of which Python knows nothing.
    """
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, _on_signal):
        signal.signal(signal.SIGTERM, _on_signal)


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Let the kernel send this process a signal when the one that started it is gone, killed or not; on Linux alone."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PARENT_ENDED, number)


def asked() -> bool:
    """Say whether this process is to end."""
    return _asked is not None


def stop() -> None:
    """End the process, as it was asked to.

    Raises:
        SystemExit: by SIGTERM.
        KeyboardInterrupt: by Ctrl-C.
    """
    if _asked == signal.SIGINT:
        _forget()
        raise KeyboardInterrupt
    raise SystemExit(ENDED)


@contextmanager
def heeded() -> Iterator[None]:
    """Let a block look for SIGTERM and Ctrl-C by `asked`, and `stop` when its work is kept; at its end that is done.

    A second Ctrl-C ends it where it stands.
    """
    global _heeding
    heed()
    main = threading.current_thread() is threading.main_thread()
    interrupt = signal.getsignal(signal.SIGINT) if main else None
    ours = interrupt is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, _on_signal)
    _heeding += 1
    try:
        yield
        if asked():
            stop()
    finally:
        _heeding -= 1
        if ours:
            signal.signal(signal.SIGINT, interrupt)
            if _asked == signal.SIGINT:
                _forget()


def _on_signal(number: int, frame: object) -> None:
    global _asked
    if _asked is not None:
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        return  # it is ending: a second SIGTERM is not to break off its clearing up
    _asked = number
    if not _heeding:
        stop()


def _forget() -> None:
    global _asked
    _asked = None
