"""Parquet, CSV, TSV and JSON lines as a stream of batches: a few thousand rows in memory at a time."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from kfp_bonsai.shared.errors import BonsaiError
from kfp_bonsai.shared.tasks import METADATA_KEY, READ_BYTES

BATCH_ROWS = 8192
FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}
CSV_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class Batch:
    """Some consecutive rows of one file.

    Attributes:
        where: the file's name, for messages.
        first: the number of the first row in the file, counted from 1 (a header is not counted).
        columns: the values, by column.
    """

    where: str
    first: int
    columns: dict[str, list]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True)
class DataFile:
    """A file of rows that can be opened more than once, on the disk or in a bucket."""

    where: str
    suffix: str
    open: Callable[[], BinaryIO]

    def names(self) -> list[str]:
        """Return the names of the columns, from the file's beginning alone.

        Raises:
            BonsaiError: the file is empty, broken, or of another format than its name says.
        """
        with self.open() as file:
            return _NAMES[FORMATS[self.suffix]](self.where, file)

    def class_names(self, column: str) -> tuple[str, ...]:
        """Return what a column's integers mean, where a Parquet file says so: our own splits and those of datasets."""
        if FORMATS[self.suffix] != "parquet":
            return ()
        with self.open() as file:
            return _parquet_class_names(_parquet_file(self.where, file).schema_arrow, column)

    def batches(self, columns: Iterable[str]) -> Iterator[Batch]:
        """Read some of the columns.

        Raises:
            BonsaiError: a column is missing, or the file is broken.
        """
        columns = list(columns)
        with self.open() as file:
            first = 1
            for values in _BATCHES[FORMATS[self.suffix]](self.where, file, columns):
                batch = Batch(self.where, first, values)
                first += batch.rows
                yield batch


def _parquet_file(where: str, file: BinaryIO) -> pq.ParquetFile:
    try:
        # with pre_buffer, pyarrow keeps all that it has read until the end of the file
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=READ_BYTES)
    except pa.ArrowInvalid as error:
        raise BonsaiError(
            f"{where} is not a whole Parquet file ({_first_line(error)}): it was cut off or is of another format; "
            "copy it again, or give it the suffix of its format (.csv, .tsv, .jsonl)"
        ) from error


def _parquet_names(where: str, file: BinaryIO) -> list[str]:
    _not_empty(where, file)
    return list(_parquet_file(where, file).schema_arrow.names)


def _parquet_class_names(schema: pa.Schema, column: str) -> tuple[str, ...]:
    if not pa.types.is_integer(schema.field(column).type):
        return ()
    stored = schema.metadata or {}
    if METADATA_KEY in stored and column == "label":
        return tuple(json.loads(stored[METADATA_KEY]).get("labels", ()))
    features = json.loads(stored.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    return tuple(features.get(column, {}).get("names", ()))


def _parquet_batches(where: str, file: BinaryIO, columns: list[str]) -> Iterator[dict[str, list]]:
    parquet = _parquet_file(where, file)
    try:
        for batch in parquet.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            yield {name: batch.column(name).to_pylist() for name in columns}
    except (pa.ArrowInvalid, OSError) as error:
        raise BonsaiError(f"{where} cannot be read to its end ({_first_line(error)}): copy it again") from error


def _csv_layout(where: str, file: BinaryIO) -> tuple[list[str], str]:
    """Return the header's names and the delimiter."""
    _not_empty(where, file)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        header = text.readline()
        delimiter = max("\t,;", key=header.count)
        names = next(csv.reader([header], delimiter=delimiter), [])
    except UnicodeDecodeError as error:
        raise BonsaiError(f"{where} is not UTF-8 text ({error}): convert it with `iconv -t utf-8`") from error
    except csv.Error as error:
        raise BonsaiError(f"{where}, line 1: {error}: the first line must name the columns") from error
    finally:
        text.detach()
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise BonsaiError(f"{where}, line 1: column '{doubled[0]}' is there more than once: rename one of them")
    if not any(name.strip() for name in names):
        raise BonsaiError(f"{where}, line 1 is blank: the first line must name the columns")
    return names, delimiter


def _csv_names(where: str, file: BinaryIO) -> list[str]:
    return _csv_layout(where, file)[0]


def _csv_batches(where: str, file: BinaryIO, columns: list[str]) -> Iterator[dict[str, list]]:
    names, delimiter = _csv_layout(where, file)
    file.seek(0)
    try:
        reader = pa_csv.open_csv(
            file,
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK_BYTES),
            parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), include_columns=columns, strings_can_be_null=False
            ),
        )
        for block in reader:
            for start in range(0, block.num_rows, BATCH_ROWS):
                part = block.slice(start, BATCH_ROWS)
                found = {name: part.column(name).to_pylist() for name in columns}
                if delimiter == "\t":
                    _check_quotes(where, found)
                yield found
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        said = _first_line(error)
        if "UTF8" in said:
            raise BonsaiError(f"{where} is not UTF-8 text ({said}): convert it with `iconv -t utf-8`") from error
        raise BonsaiError(
            f"{where} is malformed ({said}; the header is row 1): every line needs {len(names)} values, and a value "
            'with the delimiter, a quote or a line break goes between quotes, a quote in it doubled ("")'
        ) from error


def _check_quotes(where: str, columns: dict[str, list]) -> None:
    """Refuse what a quote that is plain text does to a table with tabs: rows between two of them become one value."""
    value = next((one for each in columns.values() for one in each if "\t" in one and "\n" in one), None)
    if value is not None:
        raise BonsaiError(
            f"{where}: the value {value[:40]!r}... goes over several rows: a quote at its beginning is read as one "
            "around it; double the quotes and put the value between quotes, or give Parquet or JSON lines"
        )


def _json_rows(where: str, file: BinaryIO) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield rows with their line (JSON lines) or place (an array)."""
    start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    file.seek(0)
    if start == b"[":
        try:
            rows = json.loads(file.read().decode("utf-8-sig"))
        except ValueError as error:
            raise BonsaiError(f"{where} is not a JSON array ({error}): correct it, or give JSON lines") from error
        numbered: Iterable[tuple[int, Any]] = enumerate(rows, 1)
    else:
        numbered = _json_lines(where, file)
    for number, row in numbered:
        if not isinstance(row, dict):
            raise BonsaiError(
                f"{where}, line {number}: {json.dumps(row)[:60]} is no object: every line is one object, such as "
                '{"text": "...", "label": "..."}'
            )
        yield number, row


def _json_lines(where: str, file: BinaryIO) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line.decode("utf-8-sig"))
        except ValueError as error:
            raise BonsaiError(
                f"{where}, line {number}: not valid JSON ({error}): every line is one object, such as "
                '{"text": "...", "label": "..."}'
            ) from error


def _json_names(where: str, file: BinaryIO) -> list[str]:
    _not_empty(where, file)
    for _, row in _json_rows(where, file):
        return list(row)
    raise BonsaiError(f"{where} has no rows: give a file with rows")


def _json_batches(where: str, file: BinaryIO, columns: list[str]) -> Iterator[dict[str, list]]:
    batch: dict[str, list] = {name: [] for name in columns}
    for number, row in _json_rows(where, file):
        for name in columns:
            if name not in row:
                raise BonsaiError(f"{where}, line {number}: no '{name}': every row needs it")
            batch[name].append(row[name])
        if len(batch[columns[0]]) == BATCH_ROWS:
            yield batch
            batch = {name: [] for name in columns}
    if batch[columns[0]]:
        yield batch


_NAMES = {"parquet": _parquet_names, "csv": _csv_names, "json": _json_names}
_BATCHES = {"parquet": _parquet_batches, "csv": _csv_batches, "json": _json_batches}


def _not_empty(where: str, file: BinaryIO) -> None:
    if not file.read(1):
        raise BonsaiError(f"{where} is empty: give a file with rows")
    file.seek(0)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
