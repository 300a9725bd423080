"""What a published folder holds, and how that is written down: SHA256SUMS, as `sha256sum --check` reads it."""

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import blocks, sha256

MANIFEST = "SHA256SUMS"


@dataclass(frozen=True)
class File:
    """A file as it is here: on the disk, or small and in memory, where it has no path."""

    path: Path | None
    size: int
    sha256: str
    crc32c: str
    content: bytes = b""

    def open(self) -> BinaryIO:
        """Open it for reading."""
        return self.path.open("rb") if self.path else io.BytesIO(self.content)


def local_files(folder: Path) -> dict[str, File]:
    """Return a folder's files but its manifest, sorted by name.

    Raises:
        BonsaiError: there are none, one cannot be read, or its name cannot be written down.
    """
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


def _read_through(path: Path) -> File:
    return File(path, *_digests(blocks(path)))


def file_of(content: bytes) -> File:
    """Return content that is in memory."""
    return File(None, *_digests([content]), content)


def _digests(parts: Iterable[bytes]) -> tuple[int, str, str]:
    """Return the size, the SHA-256 and the CRC32C of content."""
    import google_crc32c

    digest, crc32c, size = hashlib.sha256(), google_crc32c.Checksum(), 0
    for block in parts:
        digest.update(block)
        crc32c.update(block)
        size += len(block)
    return size, digest.hexdigest(), base64.b64encode(crc32c.digest()).decode()


def text_of(files: Mapping[str, File]) -> str:
    """Return a manifest of files."""
    return "".join(f"{file.sha256}  {name}\n" for name, file in files.items())


def digests(files: Mapping[str, File]) -> dict[str, str]:
    """Return the digest of each file."""
    return {name: file.sha256 for name, file in files.items()}


def check_listed(folder: Path, names: Iterable[str]) -> None:
    """Check some files of a folder against its manifest, if it has one: each is as listed, or neither listed nor there.

    Raises:
        BonsaiError: one is not, or the manifest is damaged.
    """
    own = folder / MANIFEST
    if not own.is_file():
        return
    listed = parse(own.read_text(encoding="utf-8", errors="replace"), str(own))
    for name in names:
        if (sha256([folder / name]) if (folder / name).is_file() else "") != listed.get(name, ""):
            raise BonsaiError(
                f"{folder / name} is not as {MANIFEST} says: it was changed, added or lost: copy the folder again, or "
                f"if that is meant, write the folder's {MANIFEST} anew or remove it"
            )


def parse(text: str, where: str) -> dict[str, str]:
    """Return the digest of each file that a manifest lists, by name.

    Raises:
        BonsaiError: it is damaged.
    """
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
