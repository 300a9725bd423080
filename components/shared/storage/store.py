"""Published folders and pointers to them, on a disk or in a Google Cloud Storage bucket.

A location is a folder's path or gs://bucket/prefix. A published folder never changes, and is whole once its SHA256SUMS
is there: on a disk it appears by one rename; in a bucket SHA256SUMS is written last, after all other files were found
there as they are here. No file is ever replaced, so two writers cannot mix theirs. A pointer is one small JSON document
that changes only where nobody else has changed it since it was read. Of neither is half ever taken for the whole: in a
bucket each object bears the checksum of what was sent.
"""

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError, kind_of
from kfp_bonsai.shared.core.files import new_file, new_folder
from kfp_bonsai.shared.storage.bucket import (
    GCS,
    bucket_errors,
    download_object,
    list_objects,
    open_bucket,
    patience,
    put_object,
    read_object,
    split_location,
    write_object,
)

MANIFEST = "SHA256SUMS"
CHUNK_BYTES = 32 << 20  # of a resumable upload: what is sent again when a connection is lost
LOCK_SECONDS = 30.0


def check_location(location: str) -> None:
    """Check, before any work, that something can be published at a location by its form.

    Raises:
        BonsaiError: it names no bucket, no place in it, or is of another kind.
    """
    _in_bucket(location)


def write_manifest(folder: Path) -> list[str]:
    """Write SHA256SUMS over all other files (check it with `sha256sum --check`), and return their names."""
    files = _local_files(Path(folder))
    (Path(folder) / MANIFEST).write_text(_manifest(files), encoding="utf-8")
    return [*files]


def content_sha256(folder: Path) -> str:
    """Return one hash of a folder's content: that of its SHA256SUMS, which must be there."""
    return hashlib.sha256((Path(folder) / MANIFEST).read_bytes()).hexdigest()


def upload_folder(folder: Path, destination: str) -> None:
    """Publish all files of a folder; the same folder published again changes nothing.

    Args:
        folder: the local folder; its SHA256SUMS, if it has one, must be right.
        destination: a new folder's path or gs://bucket/prefix.

    Raises:
        BonsaiError: the folder is empty or not as its SHA256SUMS says, something else is at the destination, it cannot
            be written to, or the connection was lost for good. Then no SHA256SUMS is there.
    """
    files = _local_files(Path(folder))
    manifest = _manifest(files)
    own = Path(folder) / MANIFEST
    if own.is_file() and _parse(own.read_text(encoding="utf-8"), str(own)) != _digests(files):
        raise BonsaiError(f"{folder} is not as its {MANIFEST} says: make the folder again, or remove that file")
    if _in_bucket(destination):
        _upload_to_bucket(files, manifest, destination.rstrip("/"))
    else:
        _copy_in(files, manifest, Path(destination))


def download_folder(source: str, folder: Path) -> Path:
    """Fetch a published folder into a new local one, checked against its SHA256SUMS.

    Args:
        source: the published folder's path or gs://bucket/prefix.
        folder: the folder to make; it appears whole or not at all.

    Returns:
        The folder.

    Raises:
        BonsaiError: the source is not there, is not completely published, is not as its SHA256SUMS says, or cannot be
            read.
    """
    in_bucket = _in_bucket(source)
    source = source.rstrip("/")
    text = _read(f"{source}/{MANIFEST}")[0]
    if text is None:
        raise BonsaiError(f"{source} is not completely published (it has no {MANIFEST}): publish it first, or again")
    wanted = _parse(text.decode("utf-8", "replace"), f"{source}/{MANIFEST}")
    with new_folder(Path(folder)) as scratch:
        for name, digest in wanted.items():
            path = scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if in_bucket:
                download_object(f"{source}/{name}", path)
            else:
                _copy_out(Path(source) / name, path)
            if not path.is_file() or _sha256(path) != digest:
                raise BonsaiError(f"{source}/{name} is not as its {MANIFEST} says: publish the folder again elsewhere")
        (scratch / MANIFEST).write_bytes(text)
    return Path(folder)


def read_pointer(location: str) -> tuple[dict | None, Any]:
    """Read a JSON document with the token of its version; (None, None) if there is none.

    Args:
        location: a file's path or gs://bucket/object.

    Raises:
        BonsaiError: it holds no JSON object, or cannot be read.
    """
    _in_bucket(location)
    content, token = _read(location)
    if content is None:
        return None, None
    try:
        document = json.loads(content)
    except ValueError as error:
        raise BonsaiError(f"{location} is damaged (it is no JSON: {error}): restore it, or remove it") from error
    if not isinstance(document, dict):
        raise BonsaiError(f"{location} holds no JSON object: give the location of a pointer, or remove it")
    return document, token


def write_pointer(location: str, document: dict, token: Any) -> None:
    """Replace a pointer that is still as it was read, in one step.

    Args:
        location: a file's path or gs://bucket/object.
        document: the new document.
        token: the token that read_pointer gave; None if there must not be one yet.

    Raises:
        BonsaiError: somebody changed or removed it meanwhile, or it cannot be written.
    """
    content = (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
    if _in_bucket(location):
        _swap_object(location, content, token)
    else:
        _swap_file(Path(location), content, token)


@dataclass(frozen=True)
class _File:
    path: Path
    size: int
    sha256: str
    crc32c: str


def _in_bucket(location: str) -> bool:
    if location.startswith(GCS):
        _, key = split_location(location)
        if not key.strip("/"):
            raise BonsaiError(f"{location} is a whole bucket: name a place in it, as {location.rstrip('/')}/models")
        return True
    scheme = location.partition("://")[0]
    if scheme != location:
        raise BonsaiError(f"{location}: {scheme}:// is not known here: give a folder or gs://bucket/prefix")
    if not location.strip():
        raise BonsaiError("the location is empty: give a folder or gs://bucket/prefix")
    return False


def _local_files(folder: Path) -> dict[str, _File]:
    """Return a folder's files but its manifest, sorted by name."""
    if not folder.is_dir():
        raise BonsaiError(f"there is no folder {folder}: give the folder that is to be published")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path for path in paths if path != folder / MANIFEST}
    if not found:
        raise BonsaiError(f"{folder} is empty: give the folder that is to be published")
    strange = [name for name in found if "\n" in name or "\\" in name]
    if strange:
        raise BonsaiError(f"{folder}: the name {strange[0]!r} has a line break or a backslash: rename the file")
    return {name: _read_through(path) for name, path in sorted(found.items())}


def _read_through(path: Path) -> _File:
    import google_crc32c

    sha256, crc32c, size = hashlib.sha256(), google_crc32c.Checksum(), 0
    for block in _blocks(path):
        sha256.update(block)
        crc32c.update(block)
        size += len(block)
    return _File(path, size, sha256.hexdigest(), base64.b64encode(crc32c.digest()).decode())


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                yield block
    except OSError as error:
        raise kind_of(error)(
            f"{path} cannot be read ({error.strerror}): check who may read it, and the disk"
        ) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _manifest(files: Mapping[str, _File]) -> str:
    return "".join(f"{file.sha256}  {name}\n" for name, file in files.items())


def _digests(files: Mapping[str, _File]) -> dict[str, str]:
    return {name: file.sha256 for name, file in files.items()}


def _parse(text: str, where: str) -> dict[str, str]:
    """Return the digest of each file that a manifest lists, by name."""
    found = {}
    for line in text.splitlines():
        digest, _, name = line.partition("  ")
        path = PurePosixPath(name)
        if len(digest) != 64 or not name or path.is_absolute() or ".." in path.parts or name == MANIFEST:
            raise BonsaiError(f"{where} is damaged, at the line '{line[:100]}': publish the folder again elsewhere")
        found[name] = digest
    if not found:
        raise BonsaiError(f"{where} lists no file: publish the folder again elsewhere")
    return found


def _read(location: str) -> tuple[bytes | None, Any]:
    """Return a small file's content and the token of its version; (None, None) if there is none."""
    if location.startswith(GCS):
        return read_object(location)
    try:
        content = Path(location).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        raise BonsaiError(
            f"{location} cannot be read ({error.strerror}): check the path, and who may read it"
        ) from error
    return content, hashlib.sha256(content).hexdigest()


# On a disk


def _copy_in(files: Mapping[str, _File], manifest: str, target: Path) -> None:
    if _is_published(files, manifest, target):
        return
    made = None
    try:
        with new_folder(target) as scratch:
            made = scratch
            for name, file in files.items():
                (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.path, scratch / name)
                if _sha256(scratch / name) != file.sha256:
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


def _is_published(files: Mapping[str, _File], manifest: str, target: Path) -> bool:
    """Say whether this very folder is there already; refuse another one."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    found, _ = _read(str(target / MANIFEST))
    if found != manifest.encode():
        raise BonsaiError(f"{target} holds something else already, and what is published never changes: name a new one")
    for name, file in files.items():
        if not (target / name).is_file() or _sha256(target / name) != file.sha256:
            raise BonsaiError(f"{target / name} is damaged (it is not as {MANIFEST} says): remove {target}, run again")
    return True


def _copy_out(source: Path, path: Path) -> None:
    try:
        shutil.copyfile(source, path)
    except FileNotFoundError:
        return  # told as not being as the manifest says
    except PermissionError as error:
        raise kind_of(error)(f"{source} cannot be read ({error.strerror}): check who may read it") from error


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


def _swap_file(path: Path, content: bytes, token: Any) -> None:
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=LOCK_SECONDS):
            if _read(str(path))[1] != token:
                raise _changed(str(path))
            with new_file(path) as scratch:
                scratch.write_bytes(content)
                _sync(scratch)
            _sync(path.parent)
    except Timeout as error:
        raise BonsaiError(f"{path}: somebody else has been writing it for {LOCK_SECONDS:g} s: run again") from error
    except OSError as error:
        raise kind_of(error)(f"{path} cannot be written ({error.strerror}): name another place") from error


def _changed(location: str) -> BonsaiError:
    return BonsaiError(f"{location} was changed or removed by somebody else meanwhile: read it and run again")


# In a bucket


def _upload_to_bucket(files: Mapping[str, _File], manifest: str, destination: str) -> None:
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
                    _upload(bucket.blob(f"{prefix}/{key}", chunk_size=CHUNK_BYTES), file)
            there = list_objects(bucket, prefix)
            _check_no_others(files, there, destination)
        missing = [key for key in files if f"{prefix}/{key}" not in there]
        if missing:
            raise BonsaiError(f"{destination}/{missing[0]} was removed by somebody: remove the rest, and publish again")
        if not published:
            _publish(bucket.blob(f"{prefix}/{MANIFEST}"), manifest, destination)


def _check_no_others(files: Mapping[str, _File], there: Mapping[str, Any], destination: str) -> None:
    """Refuse objects that are not those which are being published, such as another writer's."""
    _, prefix = split_location(destination)
    for name, blob in there.items():
        key = name.removeprefix(f"{prefix}/")
        if key != MANIFEST and not (key in files and _is_same(blob, files[key])):
            raise BonsaiError(
                f"{GCS}{blob.bucket.name}/{name} is there already and is not what is to be published: name a new "
                f"destination, or remove what is left there (`gcloud storage rm --recursive {destination}`)"
            )


def _is_same(blob: Any, file: _File) -> bool:
    return blob.size == file.size and blob.crc32c == file.crc32c


def _upload(blob: Any, file: _File) -> None:
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


def _swap_object(location: str, content: bytes, token: Any) -> None:
    from google.api_core.exceptions import NotFound, PreconditionFailed

    name, key = split_location(location)
    with bucket_errors(location, write=True):
        bucket = open_bucket(name, write=True)
        blob = bucket.blob(key)
        blob.cache_control = "no-store"
        try:
            write_object(blob, content, "application/json", token or 0, key)
        except PreconditionFailed as error:
            raise _changed(location) from error
        except NotFound as error:
            if token is None:
                raise
            raise _changed(location) from error
