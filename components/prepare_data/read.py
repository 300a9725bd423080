"""Where rows come from: a file, a folder, a glob, a bucket, an embedded data set, or a Hugging Face data set."""

import glob
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from kfp_bonsai.prepare_data import glue, hub_sets
from kfp_bonsai.prepare_data.formats import Batch, DataFile
from kfp_bonsai.prepare_data.hub_sets import HubRows, is_hub_name
from kfp_bonsai.prepare_data.sources import bucket_files, local_file, local_files
from kfp_bonsai.shared.core.downloads import EMBEDDED
from kfp_bonsai.shared.core.errors import BonsaiError, nearest
from kfp_bonsai.shared.core.files import check_plain
from kfp_bonsai.shared.core.hub import parted
from kfp_bonsai.shared.data.embedded_texts import CITATION, embedded_dataset
from kfp_bonsai.shared.data.tasks import HUB
from kfp_bonsai.shared.saved.fingerprint import of_parts
from kfp_bonsai.shared.storage.buckets import is_in_bucket

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "validation_matched"),
    "test": ("test", "test_matched"),
    "unlabelled": ("unlabelled", "unlabeled", "unsupervised"),
}
LEFT = "left"
OTHER_GENRES = re.compile(r"(validation|valid|val|dev|test)[_-]mismatched")  # of MNLI: for those who name them alone


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
    """What a user named.

    Attributes:
        name: what it is called.
        origin: where it comes from.
        splits: its rows, by SPLITS.
        metric: what it is known to be scored by; "" for what is usual.
        left: its splits that are none of these.
    """

    name: str
    origin: str
    splits: dict[str, Rows]
    metric: str = ""
    left: tuple[str, ...] = ()

    def pick(self, *wanted: str, purpose: str) -> Rows:
        """Return the first of some splits that there is; `purpose` is what for, such as "train on".

        Raises:
            BonsaiError: there is none of them.
        """
        for split in wanted:
            if split in self.splits:
                return self.splits[split]
        there = " and ".join(sorted([*self.splits, *self.left]))
        raise BonsaiError(
            f"{self.origin} has splits {there}, and none to {purpose}: add {wanted[0]}, or give files of it"
        )


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


def open_source(text: str, flag: str, *, streamed: bool = False) -> Source:
    """Find what a user means by `text`, the value of `flag`.

    Args:
        text: a file, a folder, a glob, gs://..., s3://..., embedded:NAME or the name of a data set.
        flag: for messages.
        streamed: read a hub's data set as far as its columns only, instead of downloading it.

    Raises:
        BonsaiError: there is no such thing, or it holds no data.
    """
    if not text.strip():
        raise BonsaiError(
            f"{flag} is empty: give a file, a folder, a glob, gs://..., s3://..., embedded:NAME or a data set's name"
        )
    if text.startswith(EMBEDDED):
        name = text.removeprefix(EMBEDDED)
        path = embedded_dataset(name)
        return Source(name, f"{text} ({CITATION})", {"train": FileRows(text, (local_file(path),))})
    if is_in_bucket(text):
        return _from_files(text, bucket_files(text))
    path = Path(text).expanduser()
    if path.is_dir() and any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        loaded, version = hub_sets.saved(path)
        return _of_datasets(path.name, str(path), loaded, version, glue.metric_of(str(path.absolute())))
    if path.is_dir() or path.is_file() or glob.has_magic(text):
        return _from_files(text, local_files(text, path, flag))
    check_plain(path)
    if not is_hub_name(text):
        folder = path.parent
        near = nearest(path.name, [entry.name for entry in folder.iterdir()]) if folder.is_dir() else ""
        raise BonsaiError(f"no file or folder {text}{near}: correct {flag}")
    return _of_hub(text, flag, streamed)


def _of_hub(text: str, flag: str, streamed: bool) -> Source:
    task = glue.task_of(text)
    tested = glue.MNLI.get(task, "")  # those have no rows to train on of their own
    loaded, version = hub_sets.load(text.replace(task, "mnli", 1) if tested else text, flag, streamed=streamed)
    if tested:
        loaded = {split: rows for split, rows in loaded.items() if split in ("train", tested)}
        loaded["validation"] = loaded.pop(tested)
    name = parted(text)[0].replace(":", "-").rpartition("/")[2]
    return _of_datasets(name, f"{HUB}{hub_sets.Name.of(text)}", loaded, version, glue.metric_of(text))


def _of_datasets(name: str, origin: str, loaded: dict[str, Any], version: Callable[[], str], metric: str) -> Source:
    """Group a data set's splits by what they are called; the only one is train."""
    own = {split: next((one for one in names if one in loaded), "") for split, names in SPLITS.items()}
    if len(loaded) == 1:
        own = {"train": next(iter(loaded))}
    splits: dict[str, Rows] = {
        split: HubRows(f"{origin}, split {one}", loaded[one], version) for split, one in own.items() if one
    }
    left = tuple(one for one in loaded if one not in own.values())
    return Source(name, origin, splits, metric, left)


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
    metric = glue.metric_of(text if is_in_bucket(text) else str(Path(text).expanduser().absolute()))
    known = [(file, _split_of(file.where)) for file in files]
    left = sorted({PurePosixPath(file.where).name for file, split in known if split == LEFT})
    if len(left) < len(known):
        known = [(file, split) for file, split in known if split != LEFT]
    of_splits = {split for _, split in known}
    if len(of_splits) == 1:
        files = [file for file, _ in known]
        where = text if len(files) > 1 else files[0].where
        return Source(name, text, {"train": FileRows(where, tuple(files))}, metric, tuple(left))
    if "train" not in of_splits:
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
    return Source(name, text, splits, metric, tuple(left))


def _split_of(where: str) -> str:
    """Return the split that a file is of by its name (train-0.csv, reviews_train.csv), else by its folder's, or ""."""
    path = PurePosixPath(where.replace("\\", "/").lower())
    if OTHER_GENRES.search(path.name) or OTHER_GENRES.fullmatch(path.parent.name):
        return LEFT
    for pattern, name in (
        (r"({})(?![a-z]).*", path.name),
        (r".*[^a-z0-9]({})", path.stem),
        (r"(?:split=)?({})", path.parent.name),
    ):
        for split, names in SPLITS.items():
            if re.fullmatch(pattern.format("|".join(names)), name):
                return split
    return ""
