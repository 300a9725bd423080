"""Outputs appear whole or not at all: write into a scratch folder, then rename.

A new output is written beside its place. A folder that is there already, such as a mounted volume, cannot be renamed
over everywhere: it is written into, and what was made is moved to it piece by piece, the record last, without which no
stage takes it for a model. Where a file system does not rename, files are copied. What was made is never thrown away
because it cannot be put in its place.
"""

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from kfp_bonsai.shared.core import ranks
from kfp_bonsai.shared.core.errors import BonsaiError, kind_of

# What libraries say that do not raise an OSError with its number: safetensors, shutil.copytree, torch.save.
FULL_DISK = ("No space left on device", "os error 28", "unexpected pos", "failed writing file")
LAST = "bonsai.json"  # a model's record, see above
FOREIGN = "lost+found"  # in each new volume of ext4
HELD = ".held"  # the file in a scratch folder that its process has locked
KEPT = ".kept"  # in one that is never removed
UNFINISHED = ".unfinished"  # what ends the name of a scratch folder
BLOCK_BYTES = 1 << 22  # read at once
CHECKPOINTS = ".checkpoints"  # what ends the name of a folder that outlives a failure
SCRATCH = "BONSAI_SCRATCH"  # a folder for checkpoints that outlives a pipeline's attempts
RUN = "BONSAI_RUN"  # the id of the pipeline's run: its attempts share it, and no other run has it


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a scratch folder that becomes `target` when the block ends without an error.

    Of several processes only the first one's becomes it.

    Raises:
        BonsaiError: `target` exists and is not empty, cannot be written, or the disk is full.
    """
    target = _followed(target)
    if (target.exists() and not target.is_dir()) or _foreign(target):
        with suppress(OSError):  # of one that was killed right after it was done
            sweep(f".{target.name}.", target.parent)
            for place in (target.parent, target) if (target / LAST).is_file() else ():
                for path in checkpoints_of(target, place):
                    shutil.rmtree(path, ignore_errors=True)
        raise BonsaiError(f"{target} exists already: name a new output, or remove it first")
    if not ranks.is_first():
        with tempfile.TemporaryDirectory() as holder:
            scratch = Path(holder) / target.name
            scratch.mkdir()
            yield scratch
        return
    with _scratch(target, place_of(target), _put_folder) as scratch:
        scratch.mkdir()
        yield scratch


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """Yield a scratch path; the file written there replaces `target` when the block ends well.

    Raises:
        BonsaiError: `target` is a folder, cannot be written, or the disk is full.
    """
    target = _followed(target)
    with _scratch(target, _room_for_file(target), _put_file) as scratch:
        yield scratch


def put_copy(source: Path, target: Path) -> None:
    """Copy a file or a folder to where an older one may be: at any time the target is whole, or not there.

    Raises:
        BonsaiError: it cannot be written, or the disk is full.
    """
    if source.is_dir():
        if target.is_dir() and any(target.iterdir()):  # an empty one may be mounted
            remove_whole(target)
        with new_folder(target) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
    else:
        with new_file(target) as file:
            shutil.copyfile(source, file)


def remove_whole(path: Path) -> None:
    """Remove a file or a folder, if it is there, so that no part of it is ever found under its name."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    holder, lock = None, None
    with suppress(OSError):  # it stays where it is if the disk is full, or it is mounted
        holder, lock = hold_new(f".{path.name}.", path.parent)
        os.rename(path, holder / path.name)
    for one in (path, holder):
        if one and one.exists():
            shutil.rmtree(one)
    if lock:
        lock.close()


def place_of(target: Path) -> Path:
    """Return the folder for what belongs to the output folder `target` while it is made: itself if it exists.

    Names there begin with a dot and the target's name; such names do not fill it.
    """
    target = _followed(target)
    return target if target.is_dir() else target.parent


def checkpoints_of(target: Path, place: Path) -> list[Path]:
    """Return the folders in which attempts at an output keep what they have, of those in a folder."""
    alike = re.compile(re.escape(checkpoints_name(target)) + r"\.[0-9a-f]{12}" + re.escape(CHECKPOINTS))
    return [one for one in place.iterdir() if alike.fullmatch(one.name)] if place.is_dir() else []


def checkpoints_name(target: Path) -> str:
    """Return what the names of these folders begin with: the output's name, and the run's, where there is one."""
    return "." + ".".join(part for part in (_followed(target).name, os.environ.get(RUN)) if part)


def _followed(target: Path) -> Path:
    """Return a path with links followed, as the output belongs where they lead; but devices and pipes as they are."""
    target = Path(target)
    special = target.exists() and not (target.is_dir() or target.is_file())
    return target if special else Path(os.path.realpath(target))


def _foreign(target: Path) -> bool:
    """Say whether a folder holds what was not left there by an interrupted writing of itself."""
    found = [path.name for path in target.iterdir()] if target.is_dir() else []
    return any(name != FOREIGN and not name.startswith(f".{target.name}.") for name in found)


def _put_folder(scratch: Path, target: Path) -> None:
    if not target.is_dir():
        with suppress(OSError):
            os.replace(scratch, target)
            return
        target.mkdir()
    if _foreign(target):
        raise FileExistsError(errno.EEXIST, "something else was written there meanwhile")
    tried: list[Path] = []
    try:
        for path in sorted(scratch.iterdir(), key=lambda path: (path.name == LAST, path.name)):
            tried.append(path)
            _move(path, target / path.name)
    except BaseException:
        for path in tried:
            if path.exists():  # and what came of it is a part
                _remove(target / path.name)
            else:
                _move(target / path.name, path)
        raise
    for path in target.glob(f".{target.name}.*"):  # left by attempts that were killed
        if path != scratch.parent and not path.name.endswith(CHECKPOINTS):
            _remove(path)


def _move(path: Path, to: Path) -> None:
    """Rename, or copy where the file system does not rename."""
    with suppress(OSError):
        os.rename(path, to)
        return
    if path.is_dir():
        to.mkdir(exist_ok=True)
        for inner in sorted(path.iterdir()):
            _move(inner, to / inner.name)
    else:
        shutil.copyfile(path, to)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _put_file(scratch: Path, target: Path) -> None:
    if target.is_file() or not target.exists():
        with suppress(OSError):
            os.replace(scratch, target)
            return
    with scratch.open("rb") as source, target.open("wb") as sink:  # a mounted file, a device or a pipe
        shutil.copyfileobj(source, sink)


def check_plain(path: Path) -> None:
    """Refuse what never begins or never ends when it is read: a pipe, a socket or a device, or a folder with one in it.

    Raises:
        BonsaiError: it is such.
    """
    for one in (path, *(sorted(path.rglob("*")) if path.is_dir() else ())):
        if one.exists() and not (one.is_file() or one.is_dir()):
            raise BonsaiError(f"{one} is no file, but a pipe, a socket or a device: put a file in its place")


def copy_folder(source: Path, folder: Path) -> None:
    """Copy all that is in a folder into another one that is there.

    Raises:
        BonsaiError: it holds a link to what is outside of it, which nobody asked for, or what is no file.
    """
    root = source.resolve()
    for path in sorted(source.rglob("*")):
        if not path.resolve().is_relative_to(root):
            raise BonsaiError(f"{path} is a link to {path.resolve()}, outside of the folder: put the file itself there")
        if not (path.is_file() or path.is_dir()):
            raise BonsaiError(f"{path} is no file: remove it, or give another folder")
    shutil.copytree(source, folder, dirs_exist_ok=True)


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
    _room_for_file(_followed(target))


def _room_for_file(target: Path) -> Path:
    """Return the folder in which a file is written before it is put in its place."""
    if target.is_dir():
        raise BonsaiError(f"{target} is a folder: name a file in it")
    if target.exists() and not target.is_file() and os.access(target, os.W_OK):
        return Path(tempfile.gettempdir())
    try:
        _check_room(target, target.parent)
    except BonsaiError:
        if target.is_file() and os.access(target, os.W_OK):  # alone can be written, as a file that is mounted
            return Path(tempfile.gettempdir())
        raise
    return target.parent


def _check_room(target: Path, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BonsaiError(f"{target} cannot be written ({error.strerror}): name another output") from error


def free_bytes(folder: Path) -> int | None:
    """Return how much can still be written where a folder is, or is to be; None where that cannot be told."""
    there = next((path for path in (folder, *folder.absolute().parents) if path.is_dir()), folder)
    try:
        found = shutil.disk_usage(there)
    except OSError:
        return None
    return found.free if found.total else None  # some mounted buckets say 0 of both


def text_in(file: Path) -> str:
    """Return a file's text without white space around it, "" if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def try_lock(file: IO) -> bool | None:
    """Lock an open file for this process; False if another one holds it, None where the file system has no locks.

    Raises:
        ImportError: this is Windows.
    """
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


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
def _scratch(target: Path, folder: Path, put: Callable[[Path, Path], None]) -> Iterator[Path]:
    """Yield a path in a new folder in `folder`, and put what is there in its place when the block ends well."""
    _check_room(target, folder)
    sweep(f".{target.name}.", folder)
    holder, lock = hold_new(f".{target.name}.", folder)
    scratch, kept = holder / target.name, False
    try:
        yield scratch
        try:
            put(scratch, target)
        except OSError as error:
            kept = scratch.exists()
            if not kept:
                raise
            _keep(holder)
            raise BonsaiError(
                f"{target} cannot be put in its place ({error.strerror or error}): what was made is whole in "
                f"{scratch}: move it from there"
            ) from error
    except Exception as error:
        if not kept and is_full_disk(error) and not str(error).startswith("no space left on the disk"):
            raise BonsaiError(f"no space left on the disk while writing {target}: free some and run again") from error
        raise
    finally:
        if not kept:
            shutil.rmtree(holder, ignore_errors=True)
        if lock:
            lock.close()


def _keep(holder: Path) -> None:
    """Let nobody remove a scratch folder, by a name that needs no room where it is given."""
    with suppress(OSError):
        (holder / HELD).touch()
        os.rename(holder / HELD, holder / KEPT)
        return
    with suppress(OSError):
        (holder / KEPT).touch()


def hold_new(prefix: str, folder: Path) -> tuple[Path, IO | None]:
    """Make a folder that this process holds, so that others can tell it from one that a killed process left.

    Returns:
        The folder, which is to go before its lock is let go of; and the lock, None where there are none.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        holder = Path(tempfile.mkdtemp(prefix=prefix, suffix=UNFINISHED, dir=folder))
        try:
            lock = (holder / HELD).open("a")
            locked = try_lock(lock)
            if locked is None:
                lock.close()
                return holder, None
            if locked and os.path.samestat(os.fstat(lock.fileno()), os.stat(lock.name)):
                return holder, lock
            lock.close()
        except FileNotFoundError:
            pass  # who sweeps took it for one that was left: it is gone, or about to go
        except (OSError, ImportError):
            return holder, None


def sweep(prefix: str, folder: Path) -> None:
    """Remove what killed processes left of this user's: such folders that nobody holds any more."""
    for one in folder.iterdir():
        if not (one.name.startswith(prefix) and one.name.endswith(UNFINISHED)):
            continue
        with suppress(OSError, ImportError):
            ours = not hasattr(os, "getuid") or one.lstat().st_uid == os.getuid()
            if not ours or (one / KEPT).exists():
                continue
            with (one / HELD).open("a") as lock:
                if try_lock(lock):
                    shutil.rmtree(one, ignore_errors=True)


def sweep_below(folder: Path) -> None:
    """Remove such folders wherever they are below one."""
    for place in {one.parent for one in folder.rglob(f".*{UNFINISHED}")}:
        with suppress(OSError):
            sweep(".", place)


def blocks(path: Path) -> Iterator[bytes]:
    """Read a file piece by piece.

    Raises:
        BonsaiError: it cannot be read.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for, and a device has no end
        raise BonsaiError(f"{path} is no file, but a folder, a pipe or a device: put the file there")
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                yield block
    except OSError as error:
        raise kind_of(error)(
            f"{path} cannot be read ({error.strerror}): check who may read it, and the disk"
        ) from error


def sha256(files: Iterable[Path]) -> str:
    """Return the hash of some files' content, one after the other.

    Raises:
        BonsaiError: one cannot be read.
    """
    digest = hashlib.sha256()
    for path in files:
        for block in blocks(path):
            digest.update(block)
    return digest.hexdigest()
