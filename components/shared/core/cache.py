"""What is kept from one process to the next: downloads, and what was asked once of this machine."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from kfp_bonsai.shared.core.temporary import machines_folder

CACHE_VARIABLE = "BONSAI_CACHE"


def cached(name: str) -> Path:
    """Return where a file or folder of the cache is, or where it is to be made.

    That is in $BONSAI_CACHE, else in ~/.cache/kfp-bonsai; or where that takes no files, as with a home that is
    read-only or not there at all, in a temporary folder. It never raises.
    """
    own = _own_folder()
    if own is not None and ((own / name).exists() or _takes_files(own)):
        return own / name
    return _temporary_folder() / name


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """Let one process at a time make an entry of the cache, the others wait; where locks do not work, nobody waits."""
    with ExitStack() as held:
        with suppress(OSError, ImportError):
            import fcntl

            file = cached(f"locks/{target.name}")
            file.parent.mkdir(parents=True, exist_ok=True)
            fcntl.flock(held.enter_context(file.open("a")), fcntl.LOCK_EX)
        yield


def _own_folder() -> Path | None:
    """Return the folder that the user chose or has; None for a user without a home."""
    stated = os.environ.get(CACHE_VARIABLE)
    with suppress(RuntimeError):  # nobody knows this user, as in a container that runs under any number
        return Path(stated).expanduser() if stated else Path.home() / ".cache" / "kfp-bonsai"
    return None


def _takes_files(folder: Path) -> bool:
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    return False


@cache
def _temporary_folder() -> Path:
    """Return a folder of this user's alone: the same one for each process, unless another user has taken its name."""
    folder = machines_folder() / f"kfp-bonsai-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        ours = not hasattr(os, "getuid") or found.st_uid == os.getuid()
        if stat.S_ISDIR(found.st_mode) and ours and not found.st_mode & 0o022 and _takes_files(folder):
            return folder
    return Path(tempfile.mkdtemp(prefix="kfp-bonsai-", dir=machines_folder()))
