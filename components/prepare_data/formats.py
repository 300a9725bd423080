"""Files of rows as a stream of batches: some thousand rows in memory at a time, whatever their format."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import BinaryIO

import pyarrow as pa

from kfp_bonsai.prepare_data import conll, delimited, json_rows, word_rows
from kfp_bonsai.prepare_data.text import HEAD_BYTES, Lines, check_kind, is_packed, unpacked
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.data.parquet import READ_BYTES, open_parquet, stream
from kfp_bonsai.shared.data.tasks import METADATA_KEY, task_in

BATCH_ROWS = 8192
FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".conll": "conll",
    ".iob": "conll",
    ".iob2": "conll",
    ".bio": "conll",
    ".txt": "conll",
}
PACKINGS = (".gz", ".bz2", ".xz")
WHOLE = (
    "it was cut off or is of another format; copy it again, or give it the suffix of its format (.csv, .tsv, .jsonl)"
)


def format_of(name: str) -> str:
    """Return the format that a file's name says: parquet, csv, json, or ""; a packed text file's own ending counts."""
    path = PurePosixPath(name.lower())
    packed = path.suffix in PACKINGS
    found = FORMATS.get(PurePosixPath(path.stem).suffix if packed else path.suffix, "")
    return "" if packed and found == "parquet" else found


@dataclass(frozen=True)
class Batch:
    """Some consecutive rows of one file.

    Attributes:
        where: the file's name, for messages.
        first: the number of the first row in the file, counted from 1 (a header is not counted).
        columns: the values, by column.
        numbers: the number of each row in the file, where some of the file's are several here, or none.
    """

    where: str
    first: int
    columns: dict[str, list]
    numbers: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.columns.values())))

    def number(self, index: int) -> int:
        """Return the number in the file of one of the rows."""
        return self.numbers[index] if self.numbers else self.first + index


@dataclass(frozen=True)
class DataFile:
    """A file of rows that can be opened more than once, on the disk or in a bucket.

    Attributes:
        where: its name, for messages.
        open: opens it.
        folders: columns that its folders' names hold, as those of partitions do (label=good/part-0.parquet).
        checksum: what its bucket knows its content by; "" for a file of the disk.
    """

    where: str
    open: Callable[[], BinaryIO]
    folders: Mapping[str, str | None] = field(default_factory=dict)
    checksum: str = ""

    def digest(self) -> str:
        """Return the checksum that a bucket has, so that nothing is downloaded, else a hash of the content."""
        if self.checksum:
            return self.checksum
        found = hashlib.sha256()
        with self.open() as file:
            while block := file.read(READ_BYTES):
                found.update(block)
        return found.hexdigest()

    def names(self) -> list[str]:
        """Return the names of the columns, from the file's beginning alone.

        Raises:
            BonsaiError: the file is empty, broken, of another format than its name says, or has a name twice.
        """
        return [*self._own, *(name for name in self.folders if name not in self._own)]

    @cached_property
    def _own(self) -> list[str]:
        if self._format == "csv":
            return [name for name in self._named if name != self._sentences]
        if self._format == "conll":
            return [conll.WORDS, conll.TAGS]
        with self.open() as file:
            if self._format == "parquet":
                return check_names(self.where, _open(self.where, file).schema_arrow.names)
            return check_names(self.where, json_rows.json_columns(Lines(self.where, file)))

    @cached_property
    def _format(self) -> str:
        """The format that its name says; a table without a header, of words and tags, is CoNLL's whatever its name."""
        found = format_of(self.where)
        if found == "csv":
            with suppress(BonsaiError), self.open() as file:
                return "conll" if conll.is_conll(Lines(self.where, file)) else found
        return found

    @cached_property
    def _named(self) -> list[str]:
        """The columns of a table of text."""
        return check_names(self.where, [name for name in self._layout.names if name])

    @cached_property
    def _sentences(self) -> str:
        """The column by which a table's rows are words of sentences; "" where a row is a row."""
        found = word_rows.sentence_column(self._named)
        if not found:
            return ""
        with self.open() as file:
            first: dict[str, list] = next(delimited.blocks(Lines(self.where, file), self._layout, self._named, 1), {})
        if not word_rows.are_words(first):
            return ""
        say(f"prepare-data  {self.where} has a word a row: those of one '{found}' are read as one row")
        return found

    @cached_property
    def _layout(self) -> delimited.Layout:
        with self.open() as file:
            found = delimited.find_layout(Lines(self.where, file))
        if found.dialect.quote != '"' or found.dialect.escape or found.dialect.delimiter == "|":
            say(f"prepare-data  {self.where} is read as {found.dialect}")
        if found.doubled and not found.dialect.escape:
            say(
                f"prepare-data  note: every backslash in {self.where} is doubled, and read as it is written: if one is "
                "there for the other's sake alone, write it once"
            )
        if found.unnamed:
            say(f"prepare-data  note: {self.where} has {len(found.unnamed)} columns without a name or values")
        return found

    def is_empty(self) -> bool:
        """Say whether it has no rows, so that its columns and their types say nothing."""
        if self._format != "parquet":
            with self.open() as file:
                if not unpacked(self.where, file)[1]:
                    say(f"prepare-data  note: {self.where} is empty: no rows are read from it")
                    return True
            return not self._own
        with self.open() as file:
            return not _open(self.where, file).metadata.num_rows

    def class_names(self, column: str) -> tuple[str, ...]:
        """Return what a column's integers mean, where a Parquet file says so: our own splits and those of datasets."""
        if self._format != "parquet" or column in self.folders:
            return ()
        with self.open() as file:
            return _class_names(self.where, _open(self.where, file).schema_arrow, column)

    def batches(self, columns: Iterable[str]) -> Iterator[Batch]:
        """Read some of the columns.

        Raises:
            BonsaiError: a column is missing, or the file is broken.
        """
        columns, own = list(columns), self._own
        first = 1
        for values in self._blocks([name for name in columns if name in own] or own[:1]):
            rows = len(next(iter(values.values())))
            values |= {name: [self.folders[name]] * rows for name in columns if name not in values}
            yield Batch(self.where, first, values)
            first += rows

    def _blocks(self, columns: list[str]) -> Iterator[dict[str, list]]:
        if not columns:
            return
        layout = self._layout if self._format == "csv" else None
        with self.open() as file:
            if self._format == "parquet":
                yield from stream(_open(self.where, file), self.where, columns, BATCH_ROWS)
            elif layout and self._sentences:
                rows = delimited.blocks(Lines(self.where, file), layout, [self._sentences, *columns], BATCH_ROWS)
                yield from word_rows.sentences(self.where, rows, self._sentences, columns, BATCH_ROWS)
            elif layout:
                yield from delimited.blocks(Lines(self.where, file), layout, columns, BATCH_ROWS)
            elif self._format == "conll":
                yield from conll.blocks(Lines(self.where, file), columns, BATCH_ROWS)
            else:
                yield from json_rows.blocks(Lines(self.where, file), columns, BATCH_ROWS)


def check_names(where: str, names: Sequence[str]) -> list[str]:
    """Refuse two columns of one name, also where only white space tells them apart.

    Raises:
        BonsaiError: there are two.
    """
    bare = [name.strip() for name in names]
    counted = Counter(bare)
    doubled = next((name for name in bare if counted[name] > 1), None)
    if doubled is not None:
        raise BonsaiError(f"{where}: column '{doubled}' is there more than once: rename one of them")
    return list(names)


def _open(where: str, file: BinaryIO):  # type: ignore[no-untyped-def]
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if not head:
        raise BonsaiError(f"{where} is empty: give a file with rows")
    if is_packed(head):
        raise BonsaiError(f"{where} is packed as a whole: unpack it (Parquet packs its columns itself)")
    if not head.startswith(b"PAR1"):
        check_kind(where, head)
    return open_parquet(file, where, WHOLE)


def _class_names(where: str, schema: pa.Schema, column: str) -> tuple[str, ...]:
    kind = schema.field(column).type
    entries = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    if METADATA_KEY in (schema.metadata or {}) and pa.types.is_struct(entries):
        entries = next((one.type for one in entries if one.name == "label"), entries)
    if not pa.types.is_integer(entries):
        return ()
    stored = schema.metadata or {}
    if METADATA_KEY in stored and column == "label":
        return task_in(_object(stored[METADATA_KEY]), where).labels
    found = _object(stored.get(b"huggingface", b""))
    for key in ("info", "features", column):
        inner = found.get(key)
        found = inner if isinstance(inner, dict) else {}
    inner = found.get("feature")  # of a list's entries
    names = (inner if isinstance(inner, dict) else found).get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len({*names}) < len(names):
        return ()
    return tuple(names)


def _object(text: bytes) -> dict:
    """Return a JSON object, an empty one if it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
