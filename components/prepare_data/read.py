"""Where rows come from: a file, a folder, a glob, a bucket, an embedded data set, or a Hugging Face data set."""

import glob
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from kfp_bonsai.prepare_data.formats import BATCH_ROWS, Batch, DataFile, check_names
from kfp_bonsai.prepare_data.sources import bucket_files, local_file, local_files
from kfp_bonsai.shared.core.downloads import EMBEDDED
from kfp_bonsai.shared.core.errors import BonsaiError, in_words, kind_of, nearest
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.data.embedded_texts import CITATION, embedded_dataset
from kfp_bonsai.shared.data.parquet import reading, values_of
from kfp_bonsai.shared.data.tasks import HUB
from kfp_bonsai.shared.storage.bucket import GCS
from kfp_bonsai.shared.storage.fingerprint import of_folder, of_parts

SAVE_AGAIN = "save it again"
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "validation_matched"),
    "test": ("test", "test_matched"),
    "unlabelled": ("unlabelled", "unlabeled", "unsupervised"),
}
FILE_NAME = re.compile(r".*\.(parquet|csv|tsv|jsonl?|ndjson|txt|xlsx?|zip|gz|arrow|feather)", re.IGNORECASE)
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?")


class Rows(Protocol):
    """The rows of one split, which can be gone through more than once."""

    @property
    def where(self) -> str:
        """Where the rows come from, for messages."""

    def names(self) -> list[str]:
        """Return the names of the columns."""

    def class_names(self, column: str) -> tuple[str, ...]:
        """Return what the integers of a label column mean, where the source says so, else ()."""

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Go through some of the columns."""

    def digest(self) -> str:
        """Return a hash of the content, or what stands for it where the source is: a checksum, or a commit."""


@dataclass(frozen=True)
class Source:
    """What a user named: its splits ("train", and those that it has besides), and where they come from."""

    name: str
    origin: str
    splits: dict[str, Rows]


@dataclass(frozen=True)
class FileRows:
    """Files with the same columns, one after another."""

    where: str
    files: tuple[DataFile, ...]

    def names(self) -> list[str]:
        """Return the names of the columns of the first file with rows.

        Raises:
            BonsaiError: no file has rows, or even columns.
        """
        names = self._used[0].names()
        if not names:
            raise BonsaiError(f"{self.where} has no rows: give a file with rows")
        return names

    @cached_property
    def _used(self) -> tuple[DataFile, ...]:
        return tuple(file for file in self.files if not file.is_empty()) or self.files[:1]

    def class_names(self, column: str) -> tuple[str, ...]:
        """Return what the integers of a label column mean, where Parquet files say so, else ().

        Raises:
            BonsaiError: the files say different things.
        """
        first, *others = self._used
        names = first.class_names(column)
        for file in others:
            if column in file.names() and file.class_names(column) != names:
                raise BonsaiError(
                    f"{file.where}, column '{column}': its integers mean other classes "
                    f"({', '.join(file.class_names(column)) or 'unnamed'}) than those of {first.where} "
                    f"({', '.join(names) or 'unnamed'}): give files of one data set"
                )
        return names

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Go through some of the columns.

        Raises:
            BonsaiError: a file lacks a column that the first one has.
        """
        for file in self._used:
            found = file.names()
            missing = [name for name in columns if name not in found]
            if missing:
                raise BonsaiError(
                    f"{file.where} has no column '{missing[0]}'{nearest(missing[0], found)} (columns: "
                    f"{', '.join(found)}), unlike {self._used[0].where}: give files with the same columns, "
                    "or name them by a glob such as 'folder/train-*.parquet'"
                )
        for file in self._used:
            yield from file.batches(columns)

    def digest(self) -> str:
        """Return a hash of the files' names and contents."""
        return of_parts((file.where, file.digest()) for file in self.files)


@dataclass(frozen=True)
class HubRows:
    """A split of a Hugging Face data set, read as it is stored, whatever format it was set to give.

    Attributes:
        where: where it comes from, for messages.
        dataset: the split, whole or as a stream.
        version: gives what stands for its content.
    """

    where: str
    dataset: Any
    version: Callable[[], str]

    def names(self) -> list[str]:
        """Return the names of the columns."""
        return check_names(self.where, self.dataset.column_names or [*next(iter(self.dataset), {})])

    def digest(self) -> str:
        """Return a hash of the saved files, or the commit on the hub."""
        return self.version()

    def class_names(self, column: str) -> tuple[str, ...]:
        """Return the names of a ClassLabel column's integers, else ().

        Raises:
            BonsaiError: its names are no texts.
        """
        found = (self.dataset.features or {}).get(column)
        found = found[0] if isinstance(found, list) else getattr(found, "feature", found)  # of a list's entries
        names = tuple(getattr(found, "names", None) or ())
        if not all(isinstance(name, str) for name in names):
            raise BonsaiError(f"{self.where}, column '{column}': its classes' names are no texts: {SAVE_AGAIN}")
        return names

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Go through some of the columns.

        Raises:
            BonsaiError: its files are damaged.
        """
        first = 1
        with reading(self.where, SAVE_AGAIN):
            found = self.dataset.with_format("arrow").select_columns(list(columns)).iter(BATCH_ROWS)
        while True:
            with reading(self.where, SAVE_AGAIN):
                table = next(found, None)
                if table is None:
                    return
                table.validate(full=True)  # a damaged file may hold places outside of it
                values = {name: values_of(table.column(name), self.where, name, first) for name in columns}
            batch = Batch(self.where, first, values)
            first += batch.rows
            yield batch


def open_source(text: str, flag: str, *, streamed: bool = False) -> Source:
    """Find what a user means by `text`, the value of `flag`.

    Args:
        text: a file, a folder, a glob, gs://..., embedded:NAME or the name of a data set.
        flag: for messages.
        streamed: read a hub's data set as far as its columns only, instead of downloading it.

    Raises:
        BonsaiError: there is no such thing, or it holds no data.
    """
    if not text.strip():
        raise BonsaiError(f"{flag} is empty: give a file, a folder, a glob, gs://..., embedded:NAME or a data set name")
    if text.startswith(EMBEDDED):
        name = text.removeprefix(EMBEDDED)
        path = embedded_dataset(name)
        return Source(name, f"{text} ({CITATION})", {"train": FileRows(text, (local_file(path),))})
    if text.startswith(GCS):
        return _from_files(text, bucket_files(text))
    path = Path(text).expanduser()
    if path.is_dir() and any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return _saved_dataset(path)
    if path.is_dir() or path.is_file() or glob.has_magic(text):
        return _from_files(text, local_files(text, path, flag))
    if not is_hub_name(text):
        folder = path.parent
        near = nearest(path.name, [entry.name for entry in folder.iterdir()]) if folder.is_dir() else ""
        raise BonsaiError(f"no file or folder {text}{near}: correct {flag}")
    return _hub_dataset(text, flag, streamed)


def is_hub_name(text: str) -> bool:
    """Return whether a text is a data set's name on the hub, if it is no file here."""
    return not FILE_NAME.fullmatch(text) and not text.startswith((".", "/", "~")) and bool(HUB_NAME.fullmatch(text))


def _from_files(text: str, files: list[DataFile]) -> Source:
    """Group files named train*, validation*, test* into splits; if none is of train, files of no split are.

    Files that are all of one split, or all of none, are one data set.
    """
    name = re.sub(r"[^\w.-]+", "-", PurePosixPath(text.rstrip("/").split("*")[0].rstrip("/")).stem) or "data"
    if {"corpus", "queries"} <= {PurePosixPath(file.where).name.split(".")[0] for file in files}:
        raise BonsaiError(
            f"{text} has queries, documents and their relevance in files of their own, as BEIR has them: join them to "
            "rows of query, document and relevance, with documents that do not fit (relevance 0) for each query"
        )
    known = [(file, _split_of(file.where)) for file in files]
    of_splits = {split for _, split in known}
    if len(of_splits) == 1:
        return Source(name, text, {"train": FileRows(text if len(files) > 1 else files[0].where, tuple(files))})
    if "train" not in of_splits:
        if "" not in of_splits:
            raise BonsaiError(
                f"{text} has files of {' and '.join(sorted(of_splits))}, and none to train on: add train..."
            )
        known = [(file, split or "train") for file, split in known]
    strange = [file.where for file, split in known if not split]
    if strange:
        raise BonsaiError(
            f"{text} has files of splits (train..., test...) and {strange[0]}, which is of none: rename it to "
            "train..., validation..., test... or unlabelled..., or choose files by a glob"
        )
    splits: dict[str, Rows] = {}
    for split in SPLITS:
        mine = tuple(file for file, own in known if own == split)
        if mine:
            splits[split] = FileRows(mine[0].where if len(mine) == 1 else f"{text} ({split})", mine)
    return Source(name, text, splits)


def _split_of(where: str) -> str:
    """Return the split that a file is of by its name (train-0.csv, reviews_train.csv), else by its folder's, or ""."""
    path = PurePosixPath(where.replace("\\", "/").lower())
    for pattern, name in (
        (r"({})(?![a-z]).*", path.name),
        (r".*[^a-z0-9]({})", path.stem),
        (r"(?:split=)?({})", path.parent.name),
    ):
        for split, names in SPLITS.items():
            if re.fullmatch(pattern.format("|".join(names)), name):
                return split
    return ""


def _saved_dataset(path: Path) -> Source:
    from datasets import load_from_disk

    try:
        return _dataset_source(path.name, str(path), load_from_disk(str(path)), lambda: of_folder(path))
    except BonsaiError:
        raise
    except Exception as error:  # of damaged files it raises a dozen kinds
        raise BonsaiError(f"{path} is not a whole saved data set ({in_words(error)}): {SAVE_AGAIN}") from error


def _hub_dataset(text: str, flag: str, streamed: bool) -> Source:
    from datasets import load_dataset

    say(f"prepare-data  loading the Hugging Face data set {text}")
    name, _, config = text.partition(":")
    try:
        try:
            loaded = load_dataset(name, config or None, streaming=streamed)
        except Exception:
            if not streamed:
                raise
            loaded = load_dataset(name, config or None)  # what was downloaded once is there without the hub too
    except Exception as error:  # the hub's client raises a dozen kinds, all of which a user should read
        said = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise kind_of(error)(
            f"no file or folder {text}, and no Hugging Face data set of this name could be loaded ({said}): correct "
            f"{flag}; a configuration goes behind a colon (glue:sst2)"
        ) from error
    return _dataset_source(text.replace(":", "-").rpartition("/")[2], f"{HUB}{text}", loaded, lambda: _commit(name))


def _commit(name: str) -> str:
    """Return the commit that a hub's data set is at; what cannot be told is like no other."""
    from huggingface_hub import HfApi

    try:
        return f"commit {HfApi().dataset_info(name).sha}"
    except Exception as error:  # of a dozen kinds; the data may be here all the same, from an earlier run
        say(f"prepare-data  note: the commit of {name} cannot be asked for ({type(error).__name__}): nothing is reused")
        return f"unknown {uuid.uuid4().hex}"


def _dataset_source(name: str, origin: str, loaded: Any, version: Callable[[], str]) -> Source:
    if hasattr(loaded, "column_names") and isinstance(loaded.column_names, list):
        loaded = {"train": loaded}
    version = cache(version)
    splits: dict[str, Rows] = {}
    for split, names in SPLITS.items():
        own = next((own for own in names if own in loaded), "")
        if own:
            splits[split] = HubRows(f"{origin}, split {own}", loaded[own], version)
    if "train" not in splits:
        if len(loaded) != 1:
            raise BonsaiError(f"{origin} has no split train (splits: {', '.join(loaded)}): give files instead")
        own, rows = next(iter(loaded.items()))
        splits = {"train": HubRows(f"{origin}, split {own}", rows, version)}
    return Source(name, origin, splits)
