"""Published folders and pointers in a bucket: the manifest is written last, and nothing replaces what is there."""

import hashlib
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.storage.buckets import open_bucket
from kfp_bonsai.shared.storage.manifest import MANIFEST, File, file_of
from kfp_bonsai.shared.storage.objects import Bucket, Changed, Damaged, Object, is_scratch, scratch_beside, transfer


def upload(files: Mapping[str, File], manifest: str, destination: str) -> None:
    """Publish files; the same ones published again change nothing.

    Raises:
        BonsaiError: something else is there, it cannot be written to, or the connection was lost for good.
    """
    bucket, prefix = open_bucket(destination, write=True)
    with bucket.errors(destination):
        there = bucket.list(f"{prefix}/")
        left = _scratches(there, [f"{prefix}/{key}" for key in files])
        published = f"{prefix}/{MANIFEST}" in there
        if published and _read(bucket, f"{prefix}/{MANIFEST}")[0] != manifest.encode():
            raise BonsaiError(
                f"{destination} holds something else, and what is published never changes: name a new one"
            )
        if not published:
            _check_no_others(bucket, files, there, destination, prefix)
            for key, file in files.items():
                if f"{prefix}/{key}" not in there:
                    _send(bucket, f"{prefix}/{key}", file, f"{destination}/{key}")
            there = bucket.list(f"{prefix}/")
            _check_no_others(bucket, files, there, destination, prefix)
        missing = [key for key in files if f"{prefix}/{key}" not in there]
        if missing:
            raise BonsaiError(f"{destination}/{missing[0]} was removed by somebody: remove the rest, and publish again")
        if not published:
            _publish(bucket, f"{prefix}/{MANIFEST}", manifest, destination)
        _clear(bucket, left)


def _check_no_others(
    bucket: Bucket, files: Mapping[str, File], there: Mapping[str, Object], destination: str, prefix: str
) -> None:
    """Refuse objects that are not those which are being published, such as another writer's."""
    for name, found in there.items():
        key = name.removeprefix(f"{prefix}/")
        if key == MANIFEST or (key not in files and is_scratch(key)):
            continue
        if key not in files or not bucket.holds(found, files[key]):
            raise BonsaiError(
                f"{destination}/{key} is there already and is not what is to be published: name a new destination, or "
                f"remove what is left there (all below {destination})"
            )


def _send(bucket: Bucket, key: str, file: File, where: str) -> None:
    """Send a file that must not be there yet; one that is there with this content is as good."""
    try:
        _put(bucket, key, file, None, lambda mark, token: bucket.put(key, file, mark, token))
    except Changed as error:
        there = bucket.stat(key)
        if there is None or not bucket.holds(there, file):
            raise BonsaiError(f"{where} was written by somebody else meanwhile: name a new destination") from error


def _scratches(there: Mapping[str, Object], but: Iterable[str] = ()) -> list[Object]:
    """Return what writers left on their way, most likely because they were killed."""
    return [one for name, one in there.items() if is_scratch(name) and name not in {*but}]


def _clear(bucket: Bucket, left: Iterable[Object]) -> None:
    """Remove what writers left that began before this one, once its work is done: no one needs that any more."""
    for one in left:
        with suppress(Exception):
            bucket.delete(one)


def _publish(bucket: Bucket, key: str, manifest: str, destination: str) -> None:
    try:
        _write(bucket, key, manifest.encode(), None)
    except Changed as error:
        if _read(bucket, key)[0] != manifest.encode():
            raise BonsaiError(f"{destination} was published by somebody else meanwhile: name a new one") from error


def swap_object(location: str, content: bytes, token: Any) -> bool:
    """Replace a small object that is still as it was read; return whether it was.

    Raises:
        BonsaiError: it cannot be written.
    """
    bucket, key = open_bucket(location, write=True)
    with bucket.errors(location):
        left = _scratches(bucket.list(f"{key}."))
        try:
            _write(bucket, key, content, token)
        except Changed:
            return False
        _clear(bucket, left)
        return True


def read_object(location: str) -> tuple[bytes | None, Any]:
    """Return a small object's content and token; (None, None) if the bucket is there and has no such object.

    Raises:
        BonsaiError: it is there in part, or cannot be read.
    """
    bucket, key = open_bucket(location)
    with bucket.errors(location):
        return _read(bucket, key)


def _read(bucket: Bucket, key: str) -> tuple[bytes | None, Any]:
    found = bucket.get(key)
    if found is None:
        return None, None
    content, there = found
    if there.mark.get("sha256", digest := hashlib.sha256(content).hexdigest()) != digest:
        raise BonsaiError(
            f"{bucket.place}{key} is there in part (who writes it broke off, or is at it now): run again, and if that "
            "does not help remove it and write it again"
        )
    return content, there.token


def download(source: str) -> Callable[[str, Path], None]:
    """Return what fetches a file of those below a location; one that is not there leaves no file."""
    bucket, prefix = open_bucket(source)

    def fetch(name: str, path: Path) -> None:
        with bucket.errors(f"{source}/{name}"):
            bucket.download(f"{prefix}/{name}", path)

    return fetch


def _put(bucket: Bucket, key: str, file: File, token: Any, send: Callable[[Mapping[str, str], Any], Object]) -> None:
    """Send content until it is there whole, in place of one version of an object; lost answers do no harm.

    Each sending bears a mark: it tells our own object from somebody else's, and by its checksum half of one from the
    whole.

    Args:
        bucket: where it goes.
        key: the object's name.
        file: the content.
        token: that of the object which is to be replaced; None if there must be none.
        send: sends the content with a mark, on the condition that the object has this token, and returns the object as
            it then is.

    Raises:
        Changed: another object is there.
        Damaged: it does not arrive as it was sent.
    """
    mark = {"write": uuid.uuid4().hex, "sha256": file.sha256}
    expected = token

    def attempt() -> None:
        nonlocal expected
        try:
            there = send(mark, expected)
        except Changed:
            ours = bucket.stat(key)
            if ours is None or dict(ours.mark) != mark:
                raise
            there = ours
        except Damaged as error:
            expected = error.there and error.there.token
            raise
        if not bucket.holds(there, file):
            expected = there.token
            raise Damaged(f"{there.size} of {file.size} bytes are there, or others", there)

    try:
        transfer(bucket, attempt)
    except Exception:
        with suppress(Exception):  # no half of ours is left behind; one in place of an older object is at least seen
            left = bucket.stat(key)
            if token is None and left and dict(left.mark) == mark and not bucket.holds(left, file):
                bucket.delete(left)
        raise


def _write(bucket: Bucket, key: str, content: bytes, token: Any) -> None:
    """Write a small object in place of that with this token (None: there must be none), and leave no half of it.

    It is first written beside: what keeps half of all that it is sent is found out there, and nothing has changed. The
    object itself is uploaded too, for that is what a condition can be stated for on every server (not on copies);
    should half of it arrive, the server copies what lies beside over it.

    Raises:
        Changed: another object is there.
    """
    beside, file = scratch_beside(key), file_of(content)

    def swap(mark: Mapping[str, str], expected: Any) -> Object:
        if expected == token:
            return bucket.put(key, file, mark, expected)
        return bucket.copy(beside, key, mark, expected)

    try:
        _put(bucket, beside, file, None, lambda mark, expected: bucket.put(beside, file, mark, expected))
        _put(bucket, key, file, token, swap)
    finally:
        with suppress(Exception):  # it may never have been there, and what is left of it does no harm
            bucket.delete(beside)
