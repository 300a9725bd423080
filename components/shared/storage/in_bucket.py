"""Published folders and pointers in a bucket: the manifest is written last, and nothing replaces what is there."""

from collections.abc import Mapping
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.storage.bucket import (
    GCS,
    bucket_errors,
    list_objects,
    open_bucket,
    patience,
    put_object,
    read_object,
    split_location,
    write_object,
)
from kfp_bonsai.shared.storage.manifest import MANIFEST, File

CHUNK_BYTES = 32 << 20  # of a resumable upload: what is sent again when a connection is lost


def upload(files: Mapping[str, File], manifest: str, destination: str) -> None:
    """Publish files; the same ones published again change nothing.

    Raises:
        BonsaiError: something else is there, it cannot be written to, or the connection was lost for good.
    """
    name, prefix = split_location(destination)
    with bucket_errors(destination, write=True):
        bucket = open_bucket(name, write=True)
        there = list_objects(bucket, prefix)
        published = f"{prefix}/{MANIFEST}" in there
        if published and read_object(f"{destination}/{MANIFEST}")[0] != manifest.encode():
            raise BonsaiError(
                f"{destination} holds something else, and what is published never changes: name a new one"
            )
        if not published:
            _check_no_others(files, there, destination)
            for key, file in files.items():
                if f"{prefix}/{key}" not in there:
                    _send(bucket.blob(f"{prefix}/{key}", chunk_size=CHUNK_BYTES), file)
            there = list_objects(bucket, prefix)
            _check_no_others(files, there, destination)
        missing = [key for key in files if f"{prefix}/{key}" not in there]
        if missing:
            raise BonsaiError(f"{destination}/{missing[0]} was removed by somebody: remove the rest, and publish again")
        if not published:
            _publish(bucket.blob(f"{prefix}/{MANIFEST}"), manifest, destination)


def _check_no_others(files: Mapping[str, File], there: Mapping[str, Any], destination: str) -> None:
    """Refuse objects that are not those which are being published, such as another writer's."""
    _, prefix = split_location(destination)
    for name, blob in there.items():
        key = name.removeprefix(f"{prefix}/")
        if key != MANIFEST and not (key in files and _is_same(blob, files[key])):
            raise BonsaiError(
                f"{GCS}{blob.bucket.name}/{name} is there already and is not what is to be published: name a new "
                f"destination, or remove what is left there (`gcloud storage rm --recursive {destination}`)"
            )


def _is_same(blob: Any, file: File) -> bool:
    return blob.size == file.size and blob.crc32c == file.crc32c


def _send(blob: Any, file: File) -> None:
    """Send a file that must not be there yet; one that is there with this content is as good."""
    from google.api_core.exceptions import PreconditionFailed

    def send(generation: int) -> Any:
        blob.upload_from_filename(str(file.path), if_generation_match=generation, checksum="crc32c", retry=patience())
        return blob

    try:
        put_object(blob, send, file.size, file.crc32c)
    except PreconditionFailed as error:
        there = blob.bucket.get_blob(blob.name, retry=patience())
        if there is None or not _is_same(there, file):
            raise BonsaiError(
                f"{GCS}{blob.bucket.name}/{blob.name} was written by somebody else meanwhile: name a new destination"
            ) from error


def _publish(blob: Any, manifest: str, destination: str) -> None:
    from google.api_core.exceptions import PreconditionFailed

    try:
        write_object(blob, manifest.encode(), "text/plain", 0, split_location(destination)[1])
    except PreconditionFailed as error:
        if read_object(f"{destination}/{MANIFEST}")[0] != manifest.encode():
            raise BonsaiError(f"{destination} was published by somebody else meanwhile: name a new one") from error


def swap_object(location: str, content: bytes, token: Any) -> bool:
    """Replace a small object that is still as it was read; return whether it was.

    Raises:
        BonsaiError: it cannot be written.
    """
    from google.api_core.exceptions import NotFound, PreconditionFailed

    name, key = split_location(location)
    with bucket_errors(location, write=True):
        bucket = open_bucket(name, write=True)
        blob = bucket.blob(key)
        blob.cache_control = "no-store"
        try:
            write_object(blob, content, "application/json", token or 0, key)
        except PreconditionFailed:
            return False
        except NotFound:
            if token is None:
                raise
            return False
        return True
