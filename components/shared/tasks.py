"""A data set split on disk: one Parquet file that explains itself.

Columns are `text` (or `text_a` and `text_b`) and `label`; what the labels mean travels as JSON in
the Parquet schema's metadata, so that a split needs no other file beside it.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kfp_bonsai.shared.errors import BonsaiError

METADATA_KEY = b"kfp_bonsai.task"
CLASSIFICATION, REGRESSION = "classification", "regression"
HUB = "Hugging Face "  # what the source of rows from the hub begins with
READ_BYTES = 8 << 20  # of a column at a time, as much as a bucket sends at once


@dataclass(frozen=True)
class Task:
    """What is to be learnt, as every split of a data set carries it.

    Attributes:
        name: a short name for people, such as "movie-reviews".
        kind: "classification" or "regression".
        columns: the text columns, ("text",) or ("text_a", "text_b").
        labels: class names in the order of the integer labels; empty for regression.
        metric: "accuracy", "f1", "matthews_correlation" (classification), "pearson" or "spearman".
        source: where the rows came from.
        split: "train", "validation", "test" or "unlabelled".
        rows: how many rows the split has.
        sha256: hash of the rows' content, in order.
        notes: what preparation did that a reader should know ("dropped 3 rows ...").
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metric: str
    source: str
    split: str
    rows: int
    sha256: str
    notes: tuple[str, ...] = field(default=())

    @property
    def num_labels(self) -> int:
        """How many outputs a model for this task has: one per class, one for regression."""
        return len(self.labels) or 1

    def is_of_one_data_set_with(self, other: "Task") -> bool:
        """Return whether rows of both have the same columns, and labels that mean the same."""
        return (self.columns, self.labels, self.kind) == (other.columns, other.labels, other.kind)


def schema(task: Task) -> pa.Schema:
    """Return the Parquet schema of a split: strings, and int64 or float64 labels (none if unlabelled)."""
    fields = [pa.field(name, pa.string(), nullable=False) for name in task.columns]
    if task.split != "unlabelled":
        fields.append(pa.field("label", pa.int64() if task.kind == CLASSIFICATION else pa.float64(), nullable=False))
    return pa.schema(fields, metadata={METADATA_KEY: json.dumps(asdict(task)).encode()})


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
    path = Path(path)
    if not path.is_file():
        raise BonsaiError(f"no data set at {path}: give a Parquet split written by `bonsai prepare-data`")
    try:
        file = pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BonsaiError(f"{path} is not a whole Parquet file ({error}): prepare the data set again") from error
    metadata = file.schema.to_arrow_schema().metadata or {}
    if METADATA_KEY not in metadata:
        raise BonsaiError(f"{path} does not say what its labels mean: make it with `bonsai prepare-data`")
    stored: dict[str, Any] = json.loads(metadata[METADATA_KEY])
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
    return Task(**{**values, "rows": file.num_rows})  # of a file that somebody filtered, too


def batches(path: Path, rows: int = 1024) -> Iterator[dict[str, list]]:
    """Stream a split as dictionaries of columns, at most `rows` rows at a time."""
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=READ_BYTES) as file:
        for batch in file.iter_batches(batch_size=rows):
            yield batch.to_pydict()


def read_columns(path: Path) -> dict[str, list]:
    """Read a whole split as a dictionary of columns (for splits that fit into memory)."""
    return pq.read_table(path).to_pydict()
