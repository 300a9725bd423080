"""A data set split on disk: one Parquet file that explains itself.

Columns are `text` (or `text_a` and `text_b`) and `label`; what the labels mean travels as JSON in
the Parquet schema's metadata, so that a split needs no other file beside it.
"""

import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data.parquet import open_parquet, stream
from kfp_bonsai.shared.kinds.kinds import KINDS, kind_of
from kfp_bonsai.shared.kinds.task import Task

METADATA_KEY = b"kfp_bonsai.task"
CHECKSUM_KEY = b"kfp_bonsai.task.crc32"  # Parquet has checksums of its pages alone
HUB = "Hugging Face "  # what the source of rows from the hub begins with
AGAIN = "prepare the data set again"
TYPES = {  # of right answers in a file
    "class": pa.int64(),
    "number": pa.float64(),
    "classes": pa.list_(pa.int64()),
    "spans": pa.list_(pa.struct({"begin": pa.int64(), "end": pa.int64(), "label": pa.int64()})),
    "answers": pa.list_(pa.struct({"text": pa.string(), "begin": pa.int64()})),
    "text": pa.string(),
}

TEXTS = tuple(each.name for each in fields(Task) if each.type is str)
LISTS = tuple(each.name for each in fields(Task) if each.name not in (*TEXTS, "rows"))
SPLITS = ("train", "validation", "test", "unlabelled")


def schema(task: Task) -> pa.Schema:
    """Return the Parquet schema of a split: strings, and labels of the kind's type (none if unlabelled)."""
    fields = [pa.field(name, pa.string(), nullable=False) for name in task.columns]
    if task.split != "unlabelled":
        fields.append(pa.field("label", TYPES[kind_of(task).target], nullable=False))
    stored = json.dumps(asdict(task)).encode()
    return pa.schema(fields, metadata={METADATA_KEY: stored, CHECKSUM_KEY: b"%d" % zlib.crc32(stored)})


def check_unseen(task: Task, path: Path) -> None:
    """Refuse the test split where something is learnt or chosen.

    Raises:
        BonsaiError: it is the test split.
    """
    if task.split == "test":
        raise BonsaiError(f"{path} is the test split, which must stay unseen: give another split of the data set")


def read_task(path: Path) -> Task:
    """Read what a split is about, from its schema alone.

    Raises:
        BonsaiError: the file is missing, is not Parquet, or was not written by prepare-data.
    """
    with _open(path) as file:
        return _task(path, file)


def task_in(stored: Any, where: str, advice: str = AGAIN) -> Task:
    """Return the task that is stored as JSON, as `schema` writes it.

    Raises:
        BonsaiError: an entry is missing, strange, or of another type.
    """
    values = dict(stored) if isinstance(stored, dict) else {}
    for name in TEXTS:
        if not isinstance(values.setdefault(name, "" if name == "setting" else None), str):
            raise BonsaiError(f"{where} does not say its task in full ('{name}' is no text): {advice}")
    for name in LISTS:
        found = values.get(name, ())
        if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in found):
            raise BonsaiError(f"{where} does not say its task in full ('{name}' is no list of texts): {advice}")
        values[name] = tuple(found)
    task = Task(**{name: values[name] for name in (*TEXTS, *LISTS)}, rows=_count(values.get("rows")))
    kind = KINDS.get(task.kind)
    known = kind is not None and task.metric in kind.metrics and task.columns in kind.columns and task.split in SPLITS
    if not known or bool(task.labels) != kind.named or len({*task.labels}) < len(task.labels):
        raise BonsaiError(
            f"{where} does not say its task in full (no {task.kind} has such columns or labels): {advice}"
        )
    return task


def _count(found: Any) -> int:
    return found if isinstance(found, int) else 0


def batches(path: Path, rows: int = 1024) -> Iterator[dict[str, list]]:
    """Stream a split as dictionaries of columns, at most `rows` rows at a time.

    Raises:
        BonsaiError: the file is damaged, or holds what prepare-data does not write.
    """
    with _open(path) as file:
        task = _task(path, file)
        names = [field.name for field in schema(task)]
        lacking = [name for name in names if name not in file.schema_arrow.names]
        if lacking:
            raise BonsaiError(f"{path} has no column '{lacking[0]}': {AGAIN}")
        for batch in stream(file, str(path), names, rows, AGAIN):
            _check(path, task, batch)
            yield batch


def read_columns(path: Path) -> dict[str, list]:
    """Read a whole split as a dictionary of columns (for splits that fit into memory).

    Raises:
        BonsaiError: the file is damaged, or holds what prepare-data does not write.
    """
    columns: dict[str, list] = {field.name: [] for field in schema(read_task(path))}
    for batch in batches(path, 1 << 14):
        for name, values in batch.items():
            columns[name].extend(values)
    return columns


def _open(path: Path) -> pq.ParquetFile:
    if not Path(path).is_file():
        raise BonsaiError(f"no data set at {path}: give a Parquet split written by `bonsai prepare-data`")
    return open_parquet(Path(path), str(path), AGAIN)


def _task(path: Path, file: pq.ParquetFile) -> Task:
    metadata = file.schema_arrow.metadata or {}
    if METADATA_KEY not in metadata:
        raise BonsaiError(f"{path} does not say what its labels mean: make it with `bonsai prepare-data`")
    right = b"%d" % zlib.crc32(metadata[METADATA_KEY])
    if metadata.get(CHECKSUM_KEY, right) != right:
        raise BonsaiError(f"{path} is damaged where it says its task: {AGAIN}")
    try:
        stored = json.loads(metadata[METADATA_KEY])
    except (ValueError, RecursionError) as error:
        raise BonsaiError(f"{path} does not say its task in full ({error}): {AGAIN}") from error
    return replace(task_in(stored, str(path)), rows=file.metadata.num_rows)  # of a file that somebody filtered, too


def _check(path: Path, task: Task, batch: dict[str, list]) -> None:
    """Refuse what a model cannot be asked: texts that are none, and labels that are no class or no number."""
    for name in task.columns:
        if not all(isinstance(text, str) for text in batch[name]):
            raise BonsaiError(f"{path}, column '{name}' has values that are no text: {AGAIN}")
    kind = kind_of(task)
    for label in batch.get("label", ()):
        if not kind.is_answer(label, task):
            raise BonsaiError(f"{path}, column 'label': {label!r} is not {kind.means(task)}: {AGAIN}")
