"""Which files are meant by a file, a folder, a glob or a place in a bucket: those that are data, each once."""

import glob
import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from fnmatch import fnmatch, fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import unquote

from kfp_bonsai.prepare_data.formats import FORMATS, DataFile, format_of
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import check_plain
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.data.parquet import READ_BYTES
from kfp_bonsai.shared.storage.buckets import open_bucket, split_location
from kfp_bonsai.shared.storage.objects import Bucket, Object

TEXT_DATA = re.compile(r"(train|valid|val|dev|test)", re.IGNORECASE)
NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
TABLES = {
    f"_delta_log/{'[0-9]' * 20}.json": "Delta",
    ".hoodie/hoodie.properties": "Hudi",
    "metadata/*.metadata.json": "Iceberg",
}


def local_files(text: str, path: Path, flag: str) -> list[DataFile]:
    """List the data that a file, a folder or a glob names; folders are gone through to the bottom, links followed.

    Raises:
        BonsaiError: there is none.
    """
    if path.is_file():
        if not format_of(path.name):
            raise BonsaiError(f"{text} is of no known format: give it the suffix of its own ({', '.join(FORMATS)})")
        return [local_file(path)]
    if path.is_dir():
        found, root = _below(path), path
    else:
        found = [Path(each) for each in sorted(glob.glob(str(path), recursive=True))]
        root = Path(*_literal(path.parts))
    named = [file.relative_to(root) for file in found if not file.is_dir() and format_of(file.name)]
    seen: dict[Path, Path] = {}
    for file in _meant(text, named, "" if path.is_dir() else str(path)):
        if not (root / file).is_file():
            raise BonsaiError(f"{root / file} is a link to nothing, or no file: mend or remove it")
        if (real := (root / file).resolve()) in seen:
            say(f"prepare-data  note: {root / file} is {root / seen[real]} once more, and left alone")
        seen.setdefault(real, file)
    if not seen:
        raise BonsaiError(
            f"{text} holds no data: put {', '.join(FORMATS)} files there"
            if path.is_dir()
            else f"no {', '.join(FORMATS)} file matches {text}: correct {flag}"
        )
    for folder in {above for file in seen.values() for above in (root / file).absolute().parents}:
        for pattern, kind in TABLES.items():
            _check_table(str(folder), kind, [local_file(entry) for entry in sorted(folder.glob(pattern))])
    return [local_file(root / file, _partitions(file.parts[:-1])) for file in seen.values()]


def local_file(path: Path, folders: dict[str, str | None] | None = None) -> DataFile:
    """Return a file of the disk."""

    def opened() -> BinaryIO:
        check_plain(path)
        try:
            return path.open("rb")
        except OSError as error:
            raise BonsaiError(f"{path} cannot be opened ({error.strerror}): check who may read it") from error

    return DataFile(str(path), opened, folders or {})


def bucket_files(text: str) -> list[DataFile]:
    """List the objects that scheme://bucket/object, a prefix or a glob names; they are streamed, not copied.

    Raises:
        BonsaiError: there is none.
    """
    bucket, key = open_bucket(text)
    magic = glob.has_magic(key)
    root = "/".join(_literal(key.split("/"))) if magic else key.rstrip("/")
    inside = root + "/" if root else ""
    with bucket.errors(text):
        listed = bucket.list(inside if magic else key)
    if not magic and key in listed and format_of(key):
        return [_object(bucket, listed[key])]
    if magic:
        wanted = key.split("/")
        listed = {name: one for name, one in listed.items() if _is_like(name.split("/"), wanted)}
    named = [PurePosixPath(name.removeprefix(inside)) for name in sorted(listed) if name.startswith(inside)]
    named = [name for name in named if format_of(name.name)]
    found = _meant(text, named, key if magic else "")
    if not found:
        _, name, _ = split_location(text)
        raise BonsaiError(
            f"{text}: the bucket '{name}' has no such object, or none with a suffix of data ({', '.join(FORMATS)}): "
            "correct it"
        )
    for pattern, kind in TABLES.items():
        notes = [_object(bucket, listed[name]) for name in sorted(listed) if fnmatch(f"/{name}", f"*/{pattern}")]
        _check_table(text, kind, notes)
    return [_object(bucket, listed[f"{inside}{name}"], _partitions(name.parts[:-1])) for name in found]


def _is_like(parts: list[str], wanted: list[str]) -> bool:
    """Return whether a name is what a glob wants, part by part; ** stands for any number of folders."""
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(_is_like(parts[skipped:], wanted[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], wanted[0]) and _is_like(parts[1:], wanted[1:])


def _below(folder: Path) -> list[Path]:
    """Return all files below a folder, in order of their paths; a link back to where it is, is not followed again."""
    found, seen = list[Path](), set[Path]()

    def unreadable(error: OSError) -> None:
        raise BonsaiError(f"{error.filename} cannot be listed ({error.strerror}): check who may read it") from error

    for here, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        folders.sort(key=lambda name: Path(here, name).is_symlink())  # what is reached in two ways is found by its own
        if (real := Path(here).resolve()) in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(here) / file for file in files]
    return sorted(found)


def _literal(parts: Iterable[str]) -> list[str]:
    """Return the parts of a glob's path before the first one with a wildcard, or before the last."""
    found = []
    for part in [*parts][:-1]:
        if glob.has_magic(part):
            break
        found.append(part)
    return found


def _meant(text: str, files: list[Any], pattern: str) -> list[Any]:
    """Leave out files that are hidden, or in a hidden folder, below what was named: what tools keep for themselves.

    Such are .ipynb_checkpoints, .git, __MACOSX, _delta_log, _temporary. A glob that names one itself means it.
    """
    if not pattern:  # a folder's .txt files are data if they are called so, and nothing else there is
        plain = [file for file in files if ".txt" in file.suffixes]
        of_splits = len(plain) == len(files)
        files = [file for file in files if file not in plain or (of_splits and TEXT_DATA.match(file.name))]
    named = {part[0] for part in pattern.split("/") if part and part[0] in "._"}
    meant = [file for file in files if not any(part[0] in "._" and part[0] not in named for part in file.parts)]
    if hidden := len(files) - len(meant):
        some = "is 1 data file" if hidden == 1 else f"are {hidden:,} data files"
        say(f"prepare-data  note: in {text} {some} with . or _ before the name, or in such a folder, and left alone")
    return meant


def _check_table(where: str, kind: str, notes: list[DataFile]) -> None:
    """Refuse the files of a table that is more than its files: some of their rows may be deleted, or old.

    Those of a Delta table are its rows as long as its log removes none.

    Raises:
        BonsaiError: they are of such a table.
    """
    if notes and (kind != "Delta" or not _only_adds(notes)):
        raise BonsaiError(
            f"{where} is {'an' if kind == 'Iceberg' else 'a'} {kind} table, whose files also hold rows that were "
            f"deleted or replaced: write its rows as they are now to Parquet files elsewhere, with a tool for {kind}"
        )


def _only_adds(log: list[DataFile]) -> bool:
    for commit in log:
        with commit.open() as file:
            for line in file:
                try:
                    action = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if not isinstance(action, dict):
                    continue
                added = action.get("add")
                if "remove" in action or (isinstance(added, dict) and added.get("deletionVector")):
                    return False
    return PurePosixPath(log[0].where).stem == "0" * 20  # else earlier ones were summed up in a checkpoint


def _partitions(folders: Iterable[str]) -> dict[str, str | None]:
    """Return the columns that folders of partitions name, as those of Hive and Spark do (label=good)."""
    pairs = (folder.partition("=") for folder in folders if "=" in folder)
    return {unquote(name): None if value == NO_PARTITION else unquote(value) for name, _, value in pairs if name}


def _object(bucket: Bucket, listed: Object, folders: dict[str, str | None] | None = None) -> DataFile:
    where = f"{bucket.place}{listed.name}"

    def opened() -> BinaryIO:
        part = _Object(where, bucket, listed)
        if not listed.packed:
            return io.BufferedReader(part, READ_BYTES)  # type: ignore[return-value]
        # a server may unpack it on its way, so that no place in it is known before all of it is here
        try:
            whole: Any = tempfile.NamedTemporaryFile()  # noqa: SIM115 (whoever opens it closes it)
            part.asked(lambda: bucket.download(listed, Path(whole.name)))
        except OSError as error:
            raise BonsaiError(f"{where} cannot be kept on the disk ({error.strerror}): free some space") from error
        return whole

    return DataFile(where, opened, folders or {}, listed.version)


class _Object(io.RawIOBase):
    """The bytes of one version of an object; a download that fails is an error in words."""

    def __init__(self, where: str, bucket: Bucket, listed: Object) -> None:
        super().__init__()
        self.where, self.bucket, self.listed, self.place, self.size = where, bucket, listed, 0, listed.size

    def asked(self, fetch: Callable[[], Any]) -> Any:
        """Download something of the object.

        Raises:
            BonsaiError: it is not as it was when the bucket was listed, or cannot be had.
        """
        with self.bucket.errors(self.where):
            return fetch()

    def readinto(self, target: Any) -> int:
        """Read what comes next."""
        end = min(self.place + len(target), self.size)
        if end <= self.place:
            return 0
        found = self.asked(lambda: self.bucket.read(self.listed, self.place, end - 1))
        if not 0 < len(found) <= len(target):
            raise BonsaiError(
                f"{self.where}: the server answers {len(found):,} bytes where it should have {end - self.place:,} from "
                f"{self.place:,} on: run again, or copy the object to a disk"
            )
        target[: len(found)] = found
        self.place += len(found)
        return len(found)

    def seek(self, place: int, whence: int = 0) -> int:
        """Go to a place."""
        self.place = place + (0, self.place, self.size)[whence]
        return self.place

    def tell(self) -> int:
        """Return the place."""
        return self.place

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it has places to go to."""
        return True
