"""Published folders and pointers to them, on a disk or in a bucket; folders on the Hugging Face hub too.

A location is a folder's path, gs://bucket/prefix or s3://bucket/prefix. A published folder never changes, and is whole
once its SHA256SUMS is there: on a disk it appears by one rename; in a bucket SHA256SUMS is written last, after all
other files were found there as they are here. No file is ever replaced, so two writers cannot mix theirs. A pointer is
one small JSON document that changes only where nobody else has changed it since it was read. Of neither is half ever
taken for the whole: in a bucket each object bears the checksum of what was sent. On the hub, hf://owner/name@version, a
folder is a commit.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.cache import alone, cached
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import new_folder, sha256
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.storage import in_bucket, manifest, on_disk, on_hub
from kfp_bonsai.shared.storage.buckets import SOME, is_in_bucket, open_bucket, split_location
from kfp_bonsai.shared.storage.manifest import MANIFEST


def check_location(location: str, *, hub: bool = False) -> None:
    """Check, before any work, that something can be published at a location by its form.

    Args:
        location: where; on the hub without a version.
        hub: whether it may be on the hub.

    Raises:
        BonsaiError: it names no bucket, no place in it, or is of another kind.
    """
    if hub and on_hub.is_on_hub(location):
        if on_hub.split_name(location)[1]:
            raise BonsaiError(
                f"{location}: what is published gets a version of its own: leave out the @ and what follows"
            )
        return
    _in_bucket(location)


def version_at(location: str, version: str) -> str:
    """Return where a version of what is published at a location is."""
    location = location.rstrip("/")
    return f"{location}@{version}" if on_hub.is_on_hub(location) else f"{location}/{version}"


def storage_uri(location: str) -> str:
    """Return a published folder's location as KServe's storageUri; "" for a folder of this machine."""
    if on_hub.is_on_hub(location):
        return location.replace("@", ":")
    return location if is_in_bucket(location) else ""


def write_manifest(folder: Path) -> list[str]:
    """Write SHA256SUMS over all other files (check it with `sha256sum --check`), and return their names."""
    files = manifest.local_files(Path(folder))
    (Path(folder) / MANIFEST).write_text(manifest.text_of(files), encoding="utf-8")
    return [*files]


def check_manifest(folder: Path) -> dict[str, manifest.File]:
    """Return all other files of a folder, once they are as its SHA256SUMS says, if it has one.

    Raises:
        BonsaiError: they are not, or there are none.
    """
    files, own = manifest.local_files(folder), folder / MANIFEST
    if own.is_file() and manifest.parse(
        own.read_text(encoding="utf-8", errors="replace"), str(own)
    ) != manifest.digests(files):
        raise BonsaiError(f"{folder} is not as its {MANIFEST} says: make the folder again, or remove that file")
    return files


def content_sha256(folder: Path) -> str:
    """Return one hash of a folder's content: that of its SHA256SUMS, which must be there."""
    return hashlib.sha256((Path(folder) / MANIFEST).read_bytes()).hexdigest()


def upload_folder(folder: Path, destination: str) -> None:
    """Publish all files of a folder; the same folder published again changes nothing.

    Args:
        folder: the local folder; its SHA256SUMS, if it has one, must be right.
        destination: a new folder's path, a place in a bucket, or hf://owner/name@version.

    Raises:
        BonsaiError: the folder is empty or not as its SHA256SUMS says, something else is at the destination, it cannot
            be written to, or the connection was lost for good. Then no SHA256SUMS is there.
    """
    files = check_manifest(Path(folder))
    text = manifest.text_of(files)
    if on_hub.is_on_hub(destination):
        on_hub.upload(files, text, destination)
    elif _in_bucket(destination):
        in_bucket.upload(files, text, destination.rstrip("/"))
    else:
        on_disk.copy_in(files, text, Path(destination))


def download_folder(source: str, folder: Path) -> Path:
    """Fetch a published folder into a new local one, checked against its SHA256SUMS.

    Args:
        source: the published folder's path, or its place in a bucket or on the hub.
        folder: the folder to make; it appears whole or not at all.

    Returns:
        The folder.

    Raises:
        BonsaiError: the source is not there, is not completely published, is not as its SHA256SUMS says, or cannot be
            read.
    """
    if on_hub.is_on_hub(source):
        text, fetch = on_hub.read(source)
    else:
        remote = _in_bucket(source)
        source = source.rstrip("/")
        fetch = in_bucket.download(source) if remote else on_disk.copies_of(Path(source))
        text = _read(f"{source}/{MANIFEST}")[0]
    if text is None:
        raise BonsaiError(f"{source} is not completely published (it has no {MANIFEST}): publish it first, or again")
    wanted = manifest.parse(text.decode("utf-8", "replace"), f"{source}/{MANIFEST}")
    with new_folder(Path(folder)) as scratch:
        for name, digest in wanted.items():
            path = scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            fetch(name, path)
            if not path.is_file() or sha256([path]) != digest:
                raise BonsaiError(f"{source}/{name} is not as its {MANIFEST} says: publish the folder again elsewhere")
        (scratch / MANIFEST).write_bytes(text)
    return Path(folder)


def cached_folder(source: str) -> Path:
    """Return a folder of this machine's cache with what is below a place in a bucket; it is fetched once.

    Args:
        source: a published folder's place, or any folder's that others copied there.

    Raises:
        BonsaiError: there is nothing, it changes meanwhile, or it cannot be read.
    """
    _in_bucket(source)
    source = source.rstrip("/")
    bucket, prefix = open_bucket(source)
    with bucket.errors(source):
        there = {name.removeprefix(f"{prefix}/"): one for name, one in bucket.list(f"{prefix}/").items()}
    if not there:
        raise BonsaiError(f"{source}: there is nothing in the bucket below that: correct the place")
    content = "\n".join(f"{name} {one.size} {one.version}" for name, one in sorted(there.items()))
    folder = cached("fetched") / hashlib.sha256(f"{source}\n{content}".encode()).hexdigest()[:32]
    with alone(folder):
        if folder.is_dir():
            return folder
        say(f"fetching {source}: {sum(one.size for one in there.values()) / 1e6:,.1f} MB")
        try:
            if MANIFEST in there:
                return download_folder(source, folder)
            with new_folder(folder) as scratch, bucket.errors(source):
                for name, one in there.items():
                    (scratch / name).parent.mkdir(parents=True, exist_ok=True)
                    bucket.download(one, scratch / name)
        except BonsaiError:
            if not folder.is_dir():  # else another process was quicker, where locks do not work
                raise
    return folder


def read_pointer(location: str) -> tuple[dict | None, Any]:
    """Read a JSON document with the token of its version; (None, None) if there is none.

    Args:
        location: a file's path, or an object in a bucket.

    Raises:
        BonsaiError: it holds no JSON object, or cannot be read.
    """
    _in_bucket(location)
    content, token = _read(location)
    if content is None:
        return None, None
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BonsaiError(f"{location} is damaged (it is no JSON: {error}): restore it, or remove it") from error
    if not isinstance(document, dict):
        raise BonsaiError(f"{location} holds no JSON object: give the location of a pointer, or remove it")
    return document, token


def tidy_pointer(location: str) -> None:
    """Remove what killed writers left beside a pointer on a disk; in a bucket, who writes it next does that."""
    if not _in_bucket(location):
        on_disk.tidy(Path(location))


def write_pointer(location: str, document: dict, token: Any) -> None:
    """Replace a pointer that is still as it was read, in one step.

    Args:
        location: a file's path, or an object in a bucket.
        document: the new document.
        token: the token that read_pointer gave; None if there must not be one yet.

    Raises:
        BonsaiError: somebody changed or removed it meanwhile, or it cannot be written.
    """
    content = (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
    if _in_bucket(location):
        swapped = in_bucket.swap_object(location, content, token)
    else:
        swapped = on_disk.swap_file(Path(location), content, token)
    if not swapped:
        raise BonsaiError(f"{location} was changed or removed by somebody else meanwhile: read it and run again")


def _in_bucket(location: str) -> bool:
    if is_in_bucket(location):
        _, _, key = split_location(location)
        if not key.strip("/"):
            raise BonsaiError(f"{location} is a whole bucket: name a place in it, as {location.rstrip('/')}/models")
        return True
    if on_hub.is_on_hub(location):
        raise BonsaiError(f"{location}: the hub holds models alone, and no champion: give a folder, {SOME}")
    scheme = location.partition("://")[0]
    if scheme != location:
        raise BonsaiError(f"{location}: {scheme}:// is not known here: give a folder, {SOME}")
    if not location.strip():
        raise BonsaiError(f"the location is empty: give a folder, {SOME}")
    return False


def _read(location: str) -> tuple[bytes | None, Any]:
    """Return a small file's content and the token of its version; (None, None) if there is none."""
    return in_bucket.read_object(location) if is_in_bucket(location) else on_disk.read_file(location)
