"""Published folders and pointers on a disk: a folder appears by one rename, a pointer changes under a lock."""

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError, kind_of
from kfp_bonsai.shared.core.files import new_file, new_folder, sha256, sweep
from kfp_bonsai.shared.storage.manifest import MANIFEST, File

LOCK_SECONDS = 30.0


def read_file(location: str | Path) -> tuple[bytes | None, Any]:
    """Return a small file's content and the token of its version; (None, None) if there is none.

    Raises:
        BonsaiError: it cannot be read.
    """
    try:
        check_is_file(Path(location))
        content = Path(location).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        raise BonsaiError(
            f"{location} cannot be read ({error.strerror}): check the path, and who may read it"
        ) from error
    return content, hashlib.sha256(content).hexdigest()


def check_is_file(path: Path) -> None:
    """Refuse what never ends or never begins when it is read: a device, or a pipe.

    Raises:
        BonsaiError: it is there, and neither a file nor a folder.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise BonsaiError(f"{path} is no file: remove it, or give another place")


def copy_in(files: Mapping[str, File], manifest: str, target: Path) -> None:
    """Publish files; the same ones published again change nothing.

    Raises:
        BonsaiError: something else is there, or it cannot be written to.
    """
    tidy(target)
    if _is_published(files, manifest, target):
        return
    made = None
    try:
        with new_folder(target) as scratch:
            made = scratch
            for name, file in files.items():
                (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.path, scratch / name)
                if sha256([scratch / name]) != file.sha256:
                    raise BonsaiError(f"{file.path} changed while it was copied: let nobody write there meanwhile")
            (scratch / MANIFEST).write_text(manifest, encoding="utf-8")
            _to_disk(scratch)
    except BonsaiError as error:
        if not made or not isinstance(error.__cause__, FileExistsError):
            raise
        shutil.rmtree(made.parent, ignore_errors=True)  # somebody was quicker: it is a copy of what is there, or no use
        if _is_published(files, manifest, target):
            return
        raise
    except OSError as error:
        raise kind_of(error)(f"{target} cannot be written ({error.strerror}): name another place") from error
    _sync(target.parent)


def tidy(path: Path) -> None:
    """Remove what killed writers of a folder or a file left beside it."""
    with suppress(OSError):
        sweep(f".{path.name}.", path.parent)


def _is_published(files: Mapping[str, File], manifest: str, target: Path) -> bool:
    """Say whether this very folder is there already; refuse another one."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    found, _ = read_file(target / MANIFEST)
    if found != manifest.encode():
        raise BonsaiError(f"{target} holds something else already, and what is published never changes: name a new one")
    for name, file in files.items():
        if not (target / name).is_file() or sha256([target / name]) != file.sha256:
            raise BonsaiError(f"{target / name} is damaged (it is not as {MANIFEST} says): remove {target}, run again")
    return True


def copies_of(source: Path) -> Callable[[str, Path], None]:
    """Return what fetches a file of those below a folder; one that is not there leaves no file."""

    def fetch(name: str, path: Path) -> None:
        with suppress(FileNotFoundError):  # told as not being as the manifest says
            try:
                check_is_file(source / name)
                shutil.copyfile(source / name, path)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise kind_of(error)(
                    f"{source / name} cannot be read ({error.strerror}): check who may read it"
                ) from error

    return fetch


def _to_disk(folder: Path) -> None:
    """Make sure that a power cut after the rename leaves the files whole."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def swap_file(path: Path, content: bytes, token: Any) -> bool:
    """Replace a small file that is still as it was read; return whether it was.

    Raises:
        BonsaiError: it cannot be written.
    """
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
            if read_file(path)[1] != token:
                return False
            with new_file(path) as scratch:
                scratch.write_bytes(content)
                _sync(scratch)
            _sync(path.parent)
            return True
    except Timeout as error:
        raise BonsaiError(f"{path}: somebody else has been writing it for {LOCK_SECONDS:g} s: run again") from error
    except OSError as error:
        raise kind_of(error)(f"{path} cannot be written ({error.strerror}): name another place") from error
