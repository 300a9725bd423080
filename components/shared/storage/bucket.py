"""Google Cloud Storage: its client, how it tries again, and what it refuses, in words.

STORAGE_EMULATOR_HOST names another server than Google's, which is then used without credentials.
"""

import base64
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from kfp_bonsai.shared.core.errors import BonsaiError, PassingError

GCS = "gs://"
FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 0.5, 10.0  # between tries; each waits twice as long as the one before
GIVE_UP_SECONDS = 60.0
TRANSFERS = 3  # of a file that does not arrive whole, although each request was answered
FINAL = (401, 403, 412)  # answers that another try does not change
SMALL_BYTES = 1 << 24  # what is read into memory as a whole

Found = TypeVar("Found")


def split_location(location: str) -> tuple[str, str]:
    """Return the bucket and the rest of gs://bucket/rest.

    Raises:
        BonsaiError: it names no bucket.
    """
    name, _, key = location.removeprefix(GCS).partition("/")
    if not name:
        raise BonsaiError(f"{location} names no bucket: give gs://bucket/...")
    return name, key


def open_bucket(name: str, *, write: bool = False) -> Any:
    """Return a bucket; nothing is asked of the server yet. Without credentials, public data can be read.

    Raises:
        BonsaiError: it is to be written to, and there are no credentials, or they cannot be used.
    """
    from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
    from google.cloud import storage

    try:
        client = storage.Client(project=None)
    except DefaultCredentialsError as error:
        if write:
            raise BonsaiError(
                f"gs://{name}: no credentials to write with: log in with `gcloud auth application-default login`, or "
                "give the pod a service account (Workload Identity)"
            ) from error
        client = storage.Client.create_anonymous_client()
    except TransportError:  # the network, see `bucket_errors`
        raise
    except (GoogleAuthError, ValueError, OSError) as error:
        raise BonsaiError(
            f"gs://{name}: the credentials cannot be used ({_first_line(error)}): log in again"
        ) from error
    return client.bucket(name)


def patience() -> Any:
    """Return how requests are tried again: on 429, 5xx and lost connections, after ever longer waits."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_delay(FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, 2.0).with_timeout(GIVE_UP_SECONDS)


def transfer(attempt: Callable[[], Found]) -> Found:
    """Do a transfer, anew if it broke in a way that repeating its last request does not mend.

    Such are a checksum that differs, and a resumable upload that the server has forgotten or has in part.
    """
    from google.api_core.exceptions import GoogleAPICallError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    for left in reversed(range(TRANSFERS)):
        try:
            return attempt()
        except (GoogleAPICallError, DataCorruption, InvalidResponse, ValueError) as error:
            if not left or getattr(error, "code", None) in FINAL:
                raise
    raise AssertionError("unreachable")


@contextmanager
def bucket_errors(where: str, *, write: bool = False) -> Iterator[None]:
    """Turn what a server refuses, and one that is down, into errors in words.

    Args:
        where: the location, gs://bucket/...
        write: whether it was being written to.
    """
    import requests
    import urllib3
    from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound, Unauthorized
    from google.auth.exceptions import GoogleAuthError, TransportError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    name, _ = split_location(where)
    role = "roles/storage.objectUser" if write else "roles/storage.objectViewer"
    try:
        yield
    except NotFound as error:
        raise BonsaiError(
            f"{where}: there is no bucket '{name}', or the object was removed meanwhile: correct the name, or ask for "
            "access to it"
        ) from error
    except (Forbidden, Unauthorized) as error:
        raise BonsaiError(
            f"{where}: access is denied ({int(error.code)}): log in with `gcloud auth application-default login`, or "
            f"let the pod's service account {'write to' if write else 'read'} the bucket '{name}' ({role})"
        ) from error
    except GoogleAuthError as error:
        if any(isinstance(each, TransportError) for each in (error, error.__cause__)):  # nobody was reached
            raise _unreachable(where, write, error) from error
        raise BonsaiError(f"{where}: the credentials were refused ({_first_line(error)}): log in again") from error
    except (DataCorruption, InvalidResponse) as error:
        raise PassingError(
            f"{where}: what arrived is not what was sent ({_first_line(error)}), {TRANSFERS} times over: check the "
            "network, then run again"
        ) from error
    except (GoogleAPIError, requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError) as error:
        raise _unreachable(where, write, error) from error


def _unreachable(where: str, write: bool, error: BaseException) -> BonsaiError:
    return PassingError(
        f"{where} cannot be {'written' if write else 'read'} ({_first_line(error)}): check the network and the "
        "credentials, then run again"
    )


def list_objects(bucket: Any, prefix: str) -> dict[str, Any]:
    """Return all objects below a prefix, by their names."""
    return {blob.name: blob for blob in bucket.client.list_blobs(bucket, prefix=f"{prefix}/", retry=patience())}


def read_object(location: str) -> tuple[bytes | None, int | None]:
    """Return a small object's content and generation; (None, None) if the bucket is there and has no such object."""
    from google.api_core.exceptions import NotFound

    name, key = split_location(location)
    with bucket_errors(location):
        bucket = open_bucket(name)
        for _ in range(TRANSFERS):  # it may be replaced between the two requests
            blob = bucket.get_blob(key, retry=patience())
            if blob is None:
                next(iter(bucket.client.list_blobs(bucket, prefix=key, max_results=1, retry=patience())), None)
                return None, None
            if not _is_whole(blob):
                raise BonsaiError(
                    f"{location} is there in part (who writes it broke off, or is at it now): run again, and if that "
                    "does not help remove it and write it again"
                )
            if blob.size > SMALL_BYTES:
                raise BonsaiError(f"{location} has {blob.size:,} bytes, so it is something else: name another object")
            try:
                return _content(bucket.blob(key, generation=blob.generation)), blob.generation
            except NotFound:
                continue
    raise BonsaiError(f"{location} keeps changing while it is read: look what writes there, then run again")


def _content(blob: Any) -> bytes:
    return transfer(lambda: blob.download_as_bytes(checksum="crc32c", retry=patience()))


def _is_whole(blob: Any) -> bool:
    """Say whether an object is what its writer sent; one without `put_object`'s mark is taken as it is."""
    return (blob.metadata or {}).get("crc32c", blob.crc32c) == blob.crc32c


def put_object(blob: Any, send: Callable[[int], Any], size: int, crc32c: str, generation: int = 0) -> None:
    """Send content until it is there whole, in place of one generation of an object; lost answers do no harm.

    Each sending bears a mark: it tells our own object from somebody else's, and by its checksum half of one from the
    whole.

    Args:
        blob: the object.
        send: sends the content, on the condition that the object has this generation (0: that there is none), and
            returns the object as it then is.
        size: bytes of the content.
        crc32c: the content's checksum, in base64.
        generation: the generation that is to be replaced.

    Raises:
        PreconditionFailed: another object is there.
    """
    from google.api_core.exceptions import PreconditionFailed
    from google.cloud.storage.exceptions import DataCorruption

    mark = {"write": uuid.uuid4().hex, "crc32c": crc32c}
    expected = generation

    def attempt() -> None:
        nonlocal expected
        blob.metadata = mark
        try:
            there = send(expected)
        except PreconditionFailed:
            there = blob.bucket.get_blob(blob.name, retry=patience())
            if there is None or there.metadata != mark:
                raise
        except DataCorruption:  # Google's client has removed what arrived
            expected = 0
            raise
        if (there.size, there.crc32c) != (size, crc32c):
            expected = there.generation
            raise DataCorruption(None, f"{there.size} of {size} bytes are there, or others")

    try:
        transfer(attempt)
    except Exception:
        with suppress(Exception):  # no half of ours is left behind; one in place of an older object is at least seen
            there = blob.bucket.get_blob(blob.name, retry=None)
            if not generation and there.metadata == mark and (there.size, there.crc32c) != (size, crc32c):
                there.delete(if_generation_match=there.generation, retry=None)
        raise


def write_object(blob: Any, content: bytes, content_type: str, generation: int, scratch: str) -> None:
    """Write a small object in place of this generation (0: there must be none), and leave no half of it.

    It is first written beside: what keeps half of all that it is sent is found out there, and nothing has changed. The
    object itself is uploaded too, for that is what a generation can be stated for on every server (fake-gcs-server
    ignores it on copies); should half of it arrive, the server copies what lies beside over it.

    Args:
        blob: the object.
        content: what to write.
        content_type: its media type.
        generation: the generation that is to be replaced.
        scratch: the name of what is written beside; a random part is added.

    Raises:
        PreconditionFailed: another object is there.
    """
    import google_crc32c

    beside = blob.bucket.blob(f"{scratch}.{uuid.uuid4().hex}.part")
    beside.cache_control = blob.cache_control
    digest = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()

    def upload(target: Any, expected: int) -> Any:
        options = {"content_type": content_type, "if_generation_match": expected, "checksum": "crc32c"}
        target.upload_from_string(content, **options, retry=patience())
        return target

    def swap(expected: int) -> Any:
        if expected == generation:
            return upload(blob, expected)
        copy = blob.bucket.blob(blob.name)
        copy.metadata, copy.content_type, copy.cache_control = blob.metadata, content_type, blob.cache_control
        copy.rewrite(beside, if_generation_match=expected, retry=patience())
        return copy

    again = None
    try:
        put_object(beside, lambda expected: upload(beside, expected), len(content), digest)
        put_object(blob, swap, len(content), digest, generation)
        again = patience()
    finally:
        with suppress(Exception):  # it may never have been there, and what is left of it does no harm
            beside.delete(retry=again)


def download_object(location: str, path: Path) -> None:
    """Fetch an object into a file; one that is not there leaves no file."""
    from google.api_core.exceptions import NotFound

    name, key = split_location(location)
    with bucket_errors(location):
        blob = open_bucket(name).blob(key)
        try:
            transfer(lambda: blob.download_to_filename(str(path), checksum="crc32c", retry=patience()))
        except NotFound:
            path.unlink(missing_ok=True)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
