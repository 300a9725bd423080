"""A command's temporary files lie in one folder of its own: where it was killed, the next command removes that."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kfp_bonsai.shared.core.files import UNFINISHED, hold_new, sweep

PREFIX = ".bonsai."
VARIABLE = "TMPDIR"  # by which the processes that this one starts know it too


@contextmanager
def own_folder() -> Iterator[None]:
    """Let all that Python and its libraries make for a while lie in a new folder, which goes at the end.

    Where there is no room for one, all stays as it is.
    """
    try:
        shared = tempfile.gettempdir()
        sweep(PREFIX, Path(shared))
        folder, lock = hold_new(PREFIX, Path(shared))
    except OSError:
        yield
        return
    before, stated = tempfile.tempdir, os.environ.get(VARIABLE)
    tempfile.tempdir = os.environ[VARIABLE] = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
        if stated is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = stated
        shutil.rmtree(folder, ignore_errors=True)
        if lock:
            lock.close()


def machines_folder() -> Path:
    """Return the temporary folder that all commands of this machine share."""
    folder = Path(tempfile.gettempdir())
    while folder.name.startswith(PREFIX) and folder.name.endswith(UNFINISHED):
        folder = folder.parent
    return folder
