"""The transfer set: texts with the teacher's outputs on them, computed once and kept on disk.

A folder holds `rows.parquet` (tokens, the teacher's logits, the label where there is one, and the texts where a row is
one input, compressed, for students with tokens of their own: students.py), `hidden.npy` (the teacher's last hidden
states in float16, read through a memory map, so that memory stays bounded) and the teacher's record. Long rows keep the
hidden states of `hidden_positions` evenly spaced tokens, the first included.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from kfp_bonsai.shared.core.errors import BonsaiError, PassingError, in_words, kind_of
from kfp_bonsai.shared.core.files import sha256
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.data.parquet import reading
from kfp_bonsai.shared.kinds.kind import IGNORED, PAIR, ROW, TEXT
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.saved.records import read_record

ROWS, HIDDEN = "rows.parquet", "hidden.npy"
BLOCK = re.compile(r"rows-(\d{8})-(\d{12})-([0-9a-f]{16})\.parquet")
NOTE = b"told"  # what a block's schema holds
PARQUET: dict[str, Any] = {"compression": "zstd", "use_dictionary": False, "write_page_checksum": True}  # texts differ
NO_LABEL = IGNORED
AGAIN = "make it again with `bonsai teacher-outputs`"


def positions(length: int, most: int) -> np.ndarray:
    """Return which tokens of a row of `length` keep their hidden states: all, or `most` evenly spaced ones."""
    return np.linspace(0, length - 1, min(length, most)).round().astype(np.int64)


class Writer:
    """Write a transfer set, batch by batch, in blocks that another process can go on after.

    Hidden states are in their place at once. Rows are in a file a block, whose name says up to which batch, and up to
    which hidden state, all is there, and has a hash of the file and of its hidden states.

    Attributes:
        batches: how many are written.
        filled: how many hidden states are.
    """

    def __init__(self, folder: Path, width: int, tokens: int) -> None:
        self.folder, self.path = folder, folder / HIDDEN
        folder.mkdir(parents=True, exist_ok=True)
        self.tables: list[pa.Table] = []
        self.blocks = _whole_blocks(folder)
        self.batches, self.filled = _until(self.blocks[-1]) if self.blocks else (0, 0)
        if self.blocks:
            self.hidden = np.load(self.path, mmap_mode="r+")
            if self.hidden.shape == (tokens, width) and self.hidden.dtype == np.float16:
                return
        self.batches, self.filled, self.blocks = 0, 0, []
        _drop(folder)
        self.hidden = np.lib.format.open_memmap(self.path, "w+", np.float16, (tokens, width))
        if hasattr(os, "posix_fallocate"):  # else a full disk ends the process without a word (SIGBUS)
            try:
                with self.path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, self.path.stat().st_size)
            except OSError:
                self.path.unlink()
                raise

    def add(self, items: Sequence[rows.Item], logits: Sequence[np.ndarray], hidden: Sequence[np.ndarray]) -> None:
        """Append inputs with their targets, the teacher's logits, and each one's kept hidden states (tokens, width).

        An item may have the row's texts too, by the names of their columns.
        """
        names = [name for name in items[0] if name.endswith("_ids")]
        columns = {name: pa.array([item[name] for item in items], pa.list_(pa.int32())) for name in names}
        columns["logits"] = pa.array([one.ravel().tolist() for one in logits], pa.list_(pa.float32()))
        labels = [np.asarray(item["labels"], np.float64).tolist() for item in items]
        columns["labels"] = pa.array(labels, pa.list_(pa.float32()) if isinstance(labels[0], list) else pa.float64())
        columns |= {name: pa.array([item[name] for item in items]) for name in (*TEXT, *PAIR) if name in items[0]}
        self.tables.append(pa.table(columns))
        self.batches += 1
        for block in hidden:
            self.hidden[self.filled : self.filled + len(block)] = block
            self.filled += len(block)

    def keep(self, told: Any) -> None:
        """End a block: what was added is there for whoever goes on, with what is told of it, as JSON."""
        if not self.tables:
            return
        self.hidden.flush()
        half = self.folder / "rows.half"
        schema = self.tables[0].schema.with_metadata({NOTE: json.dumps(told)})
        with half.open("wb") as file:
            with pq.ParquetWriter(file, schema, **PARQUET) as parquet:
                for table in self.tables:
                    parquet.write_table(table.cast(schema))
            os.fsync(file.fileno())
        _, first = _until(self.blocks[-1]) if self.blocks else (0, 0)
        digest = _digest(half, self.hidden[first : self.filled])
        block = half.replace(self.folder / f"rows-{self.batches:08}-{self.filled:012}-{digest}.parquet")
        self.blocks.append(block)
        self.tables = []

    def close(self, folder: Path, told: Any) -> None:
        """Finish, with what is told of the last block, and put both files into their folder."""
        self.keep(told)
        schema = pq.read_schema(self.blocks[0]).remove_metadata()
        with pq.ParquetWriter(folder / ROWS, schema, **PARQUET) as parquet:
            for block in self.blocks:
                with pq.ParquetFile(block, page_checksum_verification=True) as file:
                    for group in range(file.num_row_groups):  # a batch each
                        parquet.write_table(file.read_row_group(group).replace_schema_metadata())
        del self.hidden
        _put(self.path, folder / HIDDEN)


def _put(path: Path, to: Path) -> None:
    """Put a file into an output, and leave it where it is: if the output gets no further, another attempt needs it."""
    try:
        os.link(path, to)
    except OSError as error:
        if error.errno == errno.EXDEV:
            shutil.copyfile(path, to)
        else:  # no file has two names there, and there may be no room for two
            path.rename(to)


def _blocks(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("rows-*.parquet") if BLOCK.fullmatch(path.name))


def _whole_blocks(folder: Path) -> list[Path]:
    """Return the blocks of an unfinished transfer set; where one or its hidden states were changed, all are removed.

    Raises:
        PassingError: the storage does not answer for one.
    """
    found, first = _blocks(folder), 0
    try:
        hidden = np.load(folder / HIDDEN, mmap_mode="r") if found and (folder / HIDDEN).is_file() else np.empty(0)
        for path in found:
            _, last = _until(path)
            if hidden[first:last].shape[0] != last - first or not path.stem.endswith(_digest(path, hidden[first:last])):
                raise ValueError(f"{path.name} was changed, or its hidden states")
            first = last
    except (OSError, ValueError, TypeError, LookupError, BufferError, BonsaiError) as error:  # numpy's are any of these
        if kind_of(error) is PassingError:
            raise PassingError(
                f"{folder} cannot be read now ({in_words(error)}): look at the storage and run again, or remove that "
                "folder to begin anew"
            ) from error
        say(f"note: what {folder} holds is damaged ({in_words(error)}): begins anew")
        _drop(folder)
        return []
    return found


def _digest(block: Path, hidden: np.ndarray) -> str:
    return hashlib.sha256(sha256([block]).encode() + hashlib.sha256(hidden.data).digest()).hexdigest()[:16]


def _drop(folder: Path) -> None:
    """Remove what of an unfinished transfer set cannot be gone on after."""
    for path in (*_blocks(folder), folder / HIDDEN):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def told_in(folder: Path) -> dict[str, Any]:
    """Return what was told of the last block of an unfinished transfer set; nothing if there is none that is whole."""
    found = _whole_blocks(folder)
    return json.loads(pq.read_schema(found[-1]).metadata[NOTE]) if found else {}


def _until(block: Path) -> tuple[int, int]:
    _, batches, filled, _ = block.stem.split("-")
    return int(batches), int(filled)


@dataclass(frozen=True)
class TransferSet(torch.utils.data.Dataset):
    """A transfer set, open for training.

    Attributes:
        inputs: arrays of tokens, as in rows.Rows.
        logits: the teacher's outputs, shape (rows, labels), or for each input one of shape (tokens, labels).
        labels: the losses' targets, NO_LABEL where there is none: shape (rows,), or an array an input.
        hidden: the teacher's hidden states, shape (tokens of all rows, width), memory-mapped; None where a
            student is not to learn them.
        starts: where each row's hidden states begin.
        most: the most hidden states a row keeps.
        record: the teacher's record.
    """

    inputs: dict[str, list[np.ndarray]]
    logits: Sequence[np.ndarray]
    labels: Sequence[Any]
    hidden: np.ndarray | None
    starts: np.ndarray
    most: int
    record: dict[str, Any]

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, index: int) -> rows.Item:
        item: rows.Item = {name: found[index] for name, found in self.inputs.items()}
        item["teacher_logits"] = self.logits[index]
        item["labels"] = self.labels[index]
        if self.hidden is not None:
            kept = positions(len(item["input_ids"]), self.most)
            item["positions"] = kept
            item["teacher_hidden"] = self.hidden[self.starts[index] : self.starts[index] + len(kept)]
        return item

    @property
    def lengths(self) -> list[int]:
        """Tokens in each row."""
        return [len(row) for row in self.inputs["input_ids"]]


def open_set(folder: Path) -> TransferSet:
    """Open a transfer set.

    Raises:
        BonsaiError: the folder is not one, or is incomplete.
    """
    folder = Path(folder)
    if not (folder / ROWS).is_file() or not (folder / HIDDEN).is_file():
        raise BonsaiError(f"{folder} holds no teacher outputs: make them with `bonsai teacher-outputs`")
    record = read_record(folder)
    with reading(str(folder), AGAIN, "is damaged"):
        names = [name for name in pq.read_schema(folder / ROWS).names if name not in (*TEXT, *PAIR)]
        table = pq.read_table(folder / ROWS, columns=names, page_checksum_verification=True)
        hidden = np.load(folder / HIDDEN, mmap_mode="r")
        inputs = {name: list(_rows(table[name])) for name in table.column_names if name.endswith("_ids")}
        most = int(record["hidden_positions"])
        kept = np.array([min(len(row), most) for row in inputs["input_ids"]])
        whole = (
            isinstance(hidden, np.ndarray)
            and hidden.ndim == 2
            and hidden.dtype == np.float16
            and kept.sum() == len(hidden)
            and kept.min() > 0
        )
        of_each = pa.types.is_list(table["labels"].type)
        labels = list(_rows(table["labels"])) if of_each else _numbers(table["labels"]).to_numpy()
        told = labels if KINDS[record["task"]["kind"]].writes else inputs["input_ids"]
        logits = _shaped(list(_rows(table["logits"])), record, [len(row) for row in told])
    if not whole or not all(len(column) == len(kept) for column in inputs.values()):
        raise BonsaiError(f"{folder} is incomplete: {AGAIN}")
    if record["hidden_sha256"] != hidden_sha256(folder):
        raise BonsaiError(f"{folder / HIDDEN} is damaged: {AGAIN}")
    starts = np.concatenate([[0], np.cumsum(kept)[:-1]])
    return TransferSet(inputs, logits, labels, hidden, starts, most, record)


def rows_in(folder: Path) -> int:
    """Return how many rows a transfer set has."""
    return int(pq.read_metadata(Path(folder) / ROWS).num_rows)


def texts_of(folder: Path) -> list[list[str]]:
    """Return the texts of a transfer set's rows, a list a column, in the rows' order.

    Raises:
        BonsaiError: it has none: an earlier version made it, or its rows may be several inputs.
    """
    with reading(str(folder), AGAIN, "is damaged"):
        names = [name for name in pq.read_schema(folder / ROWS).names if name in (*TEXT, *PAIR)]
        table = pq.read_table(folder / ROWS, columns=names, page_checksum_verification=True)
    if not names:
        raise BonsaiError(f"{folder} holds no texts for a model with tokens of its own: {AGAIN}")
    return [table[name].to_pylist() for name in names]


def _shaped(logits: Sequence[np.ndarray], record: dict[str, Any], tokens: Sequence[int]) -> Any:
    """Return the teacher's outputs in their shape: (rows, labels), or (tokens, labels) of each input or answer."""
    if KINDS[record["task"]["kind"]].head == ROW:
        return np.stack(logits).astype(np.float32)
    return [one.reshape(count, -1) for one, count in zip(logits, tokens, strict=True)]


def hidden_sha256(folder: Path) -> str:
    """Return the hash of a transfer set's hidden states, which its record holds; rows.parquet has checksums itself."""
    return sha256([Path(folder) / HIDDEN])


def sha256_of(folder: Path) -> str:
    """Return the hash of what a transfer set teaches; that of its hidden states is in its record."""
    return f"{read_record(folder)['hidden_sha256']} {sha256([Path(folder) / ROWS])}"


def collate(items: Sequence[rows.Item], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad items into a batch.

    Beside the model's inputs it has teacher_logits (rows, labels) or (rows, tokens, labels), labels as the kind has
    them, and, where there are any, the kept hidden states of all rows, one after the other: teacher_hidden (tokens,
    width), and where they belong in the padded batch, flattened: hidden_at (tokens,).
    """
    batch = rows.pad([{name: item[name] for name in item if name.endswith("_ids")} for item in items], pad_id)
    width = batch["input_ids"].shape[1]
    batch["teacher_logits"] = torch.from_numpy(_padded([item["teacher_logits"] for item in items], width))
    batch["labels"] = torch.from_numpy(rows.stack([item["labels"] for item in items], width))
    return {**batch, **hidden_of(items, width)}


def hidden_of(items: Sequence[rows.Item], width: int) -> dict[str, torch.Tensor]:
    """Return the kept hidden states of a batch's inputs, and where they belong in it: see `collate`."""
    if "teacher_hidden" not in items[0]:
        return {}
    places = [item["positions"] + row * width for row, item in enumerate(items)]
    return {
        "teacher_hidden": torch.from_numpy(np.concatenate([item["teacher_hidden"] for item in items])),
        "hidden_at": torch.from_numpy(np.concatenate(places)),
    }


def _padded(logits: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Return logits of a batch in one array: (rows, labels), or (rows, tokens, labels), 0 where no token is."""
    if logits[0].ndim == 1:
        return np.stack(logits)
    block = np.zeros((len(logits), width, logits[0].shape[1]), np.float32)
    for row, one in enumerate(logits):
        block[row, : len(one)] = one
    return block


def _numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column that holds numbers, or lists of them."""
    kind = column.type.value_type if pa.types.is_list(column.type) else column.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise TypeError(f"what are to be numbers are {kind}")
    return column


def _rows(column: pa.ChunkedArray) -> Any:
    if not pa.types.is_list(column.type):
        raise TypeError(f"what is to be a list in each row is {column.type}")
    for chunk in _numbers(column).chunks:
        values, offsets = chunk.values.to_numpy(zero_copy_only=False), chunk.offsets.to_numpy()
        for start, end in pairwise(offsets):
            yield values[start:end]
