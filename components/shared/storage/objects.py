"""Stores of objects: what is asked of one, and what it is told in when it refuses.

Each store is one file of verbs beside this one, and a line in `buckets.py`; who publishes (`in_bucket.py`) and who
reads rows (`prepare_data/sources.py`) knows nothing else of it.
"""

import math
import mimetypes
import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from kfp_bonsai.shared.core.errors import BonsaiError, PassingError
from kfp_bonsai.shared.storage.manifest import File

FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.5, 10.0  # between tries; each waits twice as long as the one before
GIVE_UP_SECONDS = 60.0  # without anything that arrives
TRANSFERS = 3  # of a file that does not arrive whole, although each request was answered
SMALL_BYTES = 1 << 24  # what is read into memory as a whole
CHUNK_BYTES = 32 << 20  # of a large file's upload: what is sent again when a connection is lost
SCRATCH = re.compile(r".+\.[0-9a-f]{32}\.part")
IN_ADDRESS = re.compile(r"//[^/\s@\"']*@")  # a user's name and password

Found = TypeVar("Found")


@dataclass(frozen=True)
class Object:
    """An object as its bucket tells of it.

    Attributes:
        name: its name in the bucket.
        size: its bytes, as they are stored.
        token: what no other content of this name has: a generation, an ETag.
        version: what stands for its content, in words.
        mark: what its writer put beside it.
        crc32c: its checksum, where the server tells it.
        packed: whether the server may unpack it on its way.
    """

    name: str
    size: int
    token: Any
    version: str
    mark: Mapping[str, str] = field(default_factory=dict)
    crc32c: str = ""
    packed: bool = False


class Changed(Exception):
    """The condition of a request does not hold: there is another object, or none."""


class Damaged(Exception):
    """What arrived is not what was sent.

    Attributes:
        there: what is there instead.
    """

    def __init__(self, said: str, there: Object | None) -> None:
        super().__init__(said)
        self.there = there


class Bucket(Protocol):
    """A bucket; nothing is asked of its server before the first verb. Each tries again what may pass.

    Attributes:
        place: what stands before its objects' names in messages, such as gs://bucket/.
    """

    place: str

    def list(self, prefix: str) -> dict[str, Object]:
        """Return all objects whose names begin so, by name; but no marks of folders, such as consoles make."""

    def stat(self, key: str) -> Object | None:
        """Return an object; None if there is none."""

    def get(self, key: str) -> tuple[bytes, Object] | None:
        """Return a small object with its content; None if the bucket is there and has no such object."""

    def read(self, found: Object, first: int, last: int) -> bytes:
        """Return bytes of an object, from the first to the last; raise Changed where it is another one now."""

    def download(self, found: Object | str, path: Path) -> None:
        """Fetch an object into a file, raise Changed where it is another one; of a name of none, leave no file."""

    def put(self, key: str, file: File, mark: Mapping[str, str], token: Any) -> Object:
        """Write an object in place of that with this token (None: of none); raise Changed, or Damaged."""

    def copy(self, source: str, key: str, mark: Mapping[str, str], token: Any) -> Object:
        """Let the server copy an object over that with this token; raise Changed."""

    def delete(self, found: Object | str) -> None:
        """Remove an object: that of a name, or only as it was found. It is tried once."""

    def holds(self, found: Object, file: File) -> bool:
        """Return whether an object's content is that of a file."""

    def may_pass(self, error: Exception) -> bool:
        """Return whether a whole transfer, begun anew, may not meet an error again."""

    def errors(self, where: str) -> AbstractContextManager[None]:
        """Turn what the server refuses, and one that is down, into errors in words."""


def patience(passes: Callable[[Exception], bool], so_far: Callable[[], int] = lambda: 0) -> Any:
    """Return how requests are tried again, after ever longer waits, and not without an end.

    That counts from the first error, or the last one before which something arrived: storage that is slow, or keeps an
    answer waiting, is not storage that is away.

    Args:
        passes: whether an error may not be met again.
        so_far: how much has arrived.
    """
    from google.api_core.retry import Retry

    since, seen = math.nan, 0

    def again(error: Exception) -> bool:
        nonlocal since, seen
        if math.isnan(since) or so_far() > seen:
            since, seen = time.monotonic(), so_far()
        return passes(error) and time.monotonic() - since < GIVE_UP_SECONDS

    return Retry(again, FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, 2.0, timeout=None)


def transfer(bucket: Bucket, attempt: Callable[[], Found]) -> Found:
    """Do a transfer, anew if it broke in a way that repeating its last request does not mend.

    Such are a checksum that differs, and an upload in parts that the server has forgotten or has in part.
    """
    for left in reversed(range(TRANSFERS)):
        try:
            return attempt()
        except Exception as error:
            if not left or not (isinstance(error, Damaged) or bucket.may_pass(error)):
                raise
    raise AssertionError("unreachable")


def scratch_beside(key: str) -> str:
    """Return a name, beside an object's, for what is written on the way to it and removed again."""
    return f"{key}.{uuid.uuid4().hex}.part"


def is_scratch(name: str) -> bool:
    """Return whether an object has such a name: where it stays, its writer was killed."""
    return bool(SCRATCH.fullmatch(name))


def is_mark(name: str) -> bool:
    """Return whether an object only stands for a folder."""
    return name.endswith("/")


def media_type(key: str) -> str:
    """Return the type that an object's name says."""
    return mimetypes.guess_type(key)[0] or "application/octet-stream"


def no_bucket(where: str, name: str) -> BonsaiError:
    """Return what to do about a bucket that is not there."""
    return BonsaiError(
        f"{where}: there is no bucket '{name}', or the object was removed meanwhile: correct the name, or ask for "
        "access to it"
    )


def not_small(where: str, size: int) -> BonsaiError:
    """Return what to do about an object that is read as a whole, and too large for that."""
    return BonsaiError(f"{where} has {size:,} bytes, so it is something else: name another object")


def changed(where: str) -> BonsaiError:
    """Return what to do about an object that is no longer what it was."""
    return BonsaiError(f"{where} changed or was removed while it was read: run again")


def unreachable(where: str, write: bool, error: BaseException) -> BonsaiError:
    """Return what to do about a server that does not answer."""
    return PassingError(
        f"{where} cannot be {'written' if write else 'read'} ({first_line(error)}): check the network and the "
        "credentials, then run again"
    )


def damaged(where: str, error: BaseException) -> BonsaiError:
    """Return what to do about content that does not arrive as it was sent."""
    return PassingError(
        f"{where}: what arrived is not what was sent ({first_line(error)}), {TRANSFERS} times over: check the "
        "network, then run again"
    )


def first_line(error: BaseException) -> str:
    """Return an error in one line, without the passwords of addresses in it."""
    line = " ".join(str(error).split()) or type(error).__name__
    return IN_ADDRESS.sub("//", line)[:200]
