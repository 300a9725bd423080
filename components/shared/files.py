"""Outputs appear whole or not at all: write beside the target, then rename."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kfp_bonsai.shared import parallel
from kfp_bonsai.shared.errors import BonsaiError

# What libraries say that do not raise an OSError with its number: safetensors, shutil.copytree, torch.save.
FULL_DISK = ("No space left on device", "os error 28", "unexpected pos", "failed writing file")


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a scratch folder that becomes `target` when the block ends without an error.

    Of several processes only the first one's becomes it.

    Raises:
        BonsaiError: `target` exists and is not empty, or the disk is full.
    """
    target = Path(target)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise BonsaiError(f"{target} exists already: name a new output, or remove it first")
    if not parallel.is_first():
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    with _scratch(target, directory=True) as scratch:
        yield scratch
        if target.is_dir():
            target.rmdir()
        os.replace(scratch, target)


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield a scratch path; the file written there replaces `target` when the block ends well.

    Raises:
        BonsaiError: `target` is a folder, or the disk is full.
    """
    target = Path(target)
    check_writable(target)
    with _scratch(target, directory=False) as scratch:
        yield scratch
        os.replace(scratch, target)


def check_apart(outputs: Sequence[Path | str], inputs: Sequence[Path | str] = ()) -> None:
    """Check that no output would replace an input or another output, or lie inside one; "" stands for none.

    Raises:
        BonsaiError: one would.
    """
    made, used = ([Path(one).resolve() for one in each if str(one)] for each in (outputs, inputs))
    for at, one in enumerate(made):
        for other in [*used, *made[:at], *made[at + 1 :]]:
            if one == other or other in one.parents:
                where = "is" if one == other else "lies in"
                raise BonsaiError(f"the output {one} {where} {other}, which is given too: name another output")


def check_writable(target: Path) -> None:
    """Check, before long work, that the file `target` can be written when the work is done.

    Raises:
        BonsaiError: it is a folder, or its own folder takes no file.
    """
    if Path(target).is_dir():
        raise BonsaiError(f"{target} is a folder: name a file in it")
    _check_room(Path(target))


def _check_room(target: Path) -> None:
    folder = target.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BonsaiError(f"{target} cannot be written ({error.strerror}): name another output") from error


def is_full_disk(error: BaseException | None) -> bool:
    """Say whether an error, or what it was raised from, means that the disk is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return True
        if any(text in str(error) for text in FULL_DISK):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _scratch(target: Path, directory: bool) -> Iterator[Path]:
    _check_room(target)
    holder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    scratch = holder / target.name
    try:
        if directory:
            scratch.mkdir()
        yield scratch
    except Exception as error:
        if is_full_disk(error) and not str(error).startswith("no space left on the disk"):
            raise BonsaiError(f"no space left on the disk while writing {target}: free some and run again") from error
        raise
    finally:
        shutil.rmtree(holder, ignore_errors=True)
