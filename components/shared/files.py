"""Outputs appear whole or not at all: write beside the target, then rename."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kfp_bonsai.shared.errors import BonsaiError


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a scratch folder that becomes `target` when the block ends without an error.

    Raises:
        BonsaiError: `target` exists and is not empty, or the disk is full.
    """
    target = Path(target)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise BonsaiError(f"{target} exists already: name a new output, or remove it first")
    with _scratch(target, directory=True) as scratch:
        yield scratch
        if target.is_dir():
            target.rmdir()
        os.replace(scratch, target)


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield a scratch path; the file written there replaces `target` when the block ends well.

    Raises:
        BonsaiError: the disk is full.
    """
    target = Path(target)
    with _scratch(target, directory=False) as scratch:
        yield scratch
        os.replace(scratch, target)


def check_writable(target: Path) -> None:
    """Check, before long work, that `target` can be written when the work is done.

    Raises:
        BonsaiError: its folder takes no file.
    """
    folder = Path(target).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BonsaiError(f"{target} cannot be written ({error.strerror}): name another output") from error


@contextmanager
def _scratch(target: Path, directory: bool) -> Iterator[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    scratch = holder / target.name
    if directory:
        scratch.mkdir()
    try:
        yield scratch
    except OSError as error:
        if error.errno == 28:  # ENOSPC
            raise BonsaiError(f"no space left on the disk while writing {target}: free some and run again") from error
        raise
    finally:
        shutil.rmtree(holder, ignore_errors=True)
