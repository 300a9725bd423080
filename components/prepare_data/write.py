"""The second pass: the rows that were chosen, as Parquet splits that explain themselves."""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kfp_bonsai.prepare_data.read import Rows
from kfp_bonsai.prepare_data.survey import Survey
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import new_file
from kfp_bonsai.shared.data import tasks

TRAIN, VALIDATION, TEST, UNLABELLED = range(4)  # places in SPLITS
GROUP_ROWS, GROUP_CHARACTERS = 32_768, 8 << 20


@dataclass
class Part:
    """A split as it was given, and where each of its rows goes.

    Attributes:
        role: which split it was given as: a place in SPLITS, and in `write_splits`' targets.
        rows: the rows.
        survey: what the first pass found.
        labels: the label of each row as it is written; tuples where that is a list.
        goes: which split each row goes to: an index into `write_splits`' targets, -1 for none.
    """

    role: int
    rows: Rows
    survey: Survey
    labels: np.ndarray
    goes: np.ndarray

    @classmethod
    def of(cls, role: int, rows: Rows, survey: Survey, labels: np.ndarray) -> "Part":
        """Return the part whose usable rows all go to the split that they were given as."""
        return cls(role, rows, survey, labels, np.where(survey.kept, role, -1).astype(np.int8))


class _Writer:
    def __init__(self, path: Path, task: tasks.Task) -> None:
        self.schema, self.columns = tasks.schema(task), task.columns
        self.file = pq.ParquetWriter(path, self.schema, compression="zstd", write_page_checksum=True)
        self.texts: list[list[str]] = [[] for _ in task.columns]
        self.labels: list = []
        self.characters = 0

    def add(self, texts: Sequence[list[str]], labels: list) -> None:
        for column, more in zip(self.texts, texts, strict=True):
            column.extend(more)
            self.characters += sum(map(len, more))
        self.labels.extend(labels)
        if len(self.texts[0]) >= GROUP_ROWS or self.characters >= GROUP_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        if self.texts[0]:
            values = dict(zip(self.columns, self.texts, strict=True))
            if "label" in self.schema.names:
                values["label"] = self.labels
            self.file.write_table(pa.table(values, schema=self.schema))
        self.texts, self.labels, self.characters = [[] for _ in self.columns], [], 0

    def close(self) -> None:
        self.flush()
        self.file.close()


def content_sha256(parts: Sequence[Part], target: int) -> str:
    """Return the hash of the texts and labels that go to a split, in order."""
    digest = hashlib.sha256()
    for part in parts:
        chosen = part.goes == target
        digest.update(part.survey.digests[chosen].tobytes())
        labels = part.labels[chosen]
        digest.update(
            repr(labels.tolist()).encode() if labels.dtype == object else np.ascontiguousarray(labels).tobytes()
        )
    return digest.hexdigest()


def write_splits(parts: Sequence[Part], targets: Sequence[tuple[Path, tasks.Task]]) -> None:
    """Write all splits together: all of them appear, or none.

    Raises:
        BonsaiError: the source changed since the first pass, or the disk is full.
    """
    with ExitStack() as stack:
        writers = [_Writer(stack.enter_context(new_file(path)), task) for path, task in targets]
        for part in parts:
            if not (part.goes >= 0).any():
                continue
            done = 0
            for batch in part.survey.reading.of_texts().batches(part.rows):
                goes = part.goes[done : done + batch.rows]
                if len(goes) < batch.rows:
                    raise BonsaiError(f"{part.survey.where} changed while it was read: run again")
                for target in np.unique(goes[goes >= 0]):
                    chosen = np.flatnonzero(goes == target)
                    texts = [[batch.columns[name][row] for row in chosen] for name in part.survey.columns]
                    writers[target].add(texts, part.labels[done + chosen].tolist())
                done += batch.rows
            if done != len(part.goes):
                raise BonsaiError(f"{part.survey.where} changed while it was read: run again")
        for writer in writers:
            writer.close()
