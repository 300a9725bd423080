"""Parquet files, read as a stream: what is damaged is an error in words before its rows are used."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from kfp_bonsai.shared.core.errors import BonsaiError

READ_BYTES = 8 << 20  # of a column at a time, as much as a bucket sends at once
BATCH_BYTES, FEWEST_ROWS = 8 << 20, 64  # of all columns, read at once
# What pyarrow raises on damaged bytes, its own errors and Python's (text that is no UTF-8, numbers out of range).
DAMAGED = (pa.ArrowException, OSError, EOFError, ValueError, LookupError, TypeError, ArithmeticError, MemoryError)

BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)


@contextmanager
def reading(where: str, advice: str = "copy it again", what: str = "cannot be read to its end") -> Iterator[None]:
    """Turn what pyarrow or numpy says of a damaged file into an error in words.

    Raises:
        BonsaiError: the file is damaged.
    """
    try:
        yield
    except DAMAGED as error:
        raise BonsaiError(f"{where} {what} ({first_line(error)}): {advice}") from error


def first_line(error: Exception) -> str:
    """Return the first line of another's message, or what kind of error it is."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def open_parquet(source: Path | BinaryIO, where: str, advice: str) -> pq.ParquetFile:
    """Open a file; its pages are compared with their checksums, where it has any.

    Args:
        source: the file, or its path.
        where: its name, for messages.
        advice: what to do about a file that is not whole.

    Raises:
        BonsaiError: it is not whole, or no Parquet.
    """
    with reading(where, advice, "is not a whole Parquet file"):
        # with pre_buffer, pyarrow keeps all that it has read until the end of the file
        file = pq.ParquetFile(source, pre_buffer=False, buffer_size=READ_BYTES, page_checksum_verification=True)
        _ = file.schema_arrow.names, file.schema_arrow.metadata, file.metadata.num_rows  # decoded only when asked for
        return file


def stream(
    file: pq.ParquetFile, where: str, columns: Sequence[str] | None, rows: int, advice: str = "copy it again"
) -> Iterator[dict[str, list]]:
    """Go through some of the columns, with values as `values_of` returns them.

    They come at most `rows` rows at a time, and fewer where they are long: some `BATCH_BYTES` of them.

    Raises:
        BonsaiError: a page is damaged, or rows are missing.
    """
    read = 0
    with reading(where, advice):
        names = list(file.schema_arrow.names if columns is None else columns)
        found = _parts(file.iter_batches(batch_size=min(rows, _rows_at_once(file.metadata)), columns=names))
    while True:
        with reading(where, advice):
            batch = next(found, None)
            if batch is None:
                break
            values = {name: values_of(batch.column(name), where, name, read + 1) for name in names}
        read += batch.num_rows
        yield values
    if read != file.metadata.num_rows:
        raise BonsaiError(f"{where} has {read:,} of the {file.metadata.num_rows:,} rows that it names: {advice}")


def _rows_at_once(told: pq.FileMetaData) -> int:
    """Return how many rows have `BATCH_BYTES` as they are stored."""
    size = sum(told.row_group(at).total_byte_size for at in range(told.num_row_groups))
    return max(FEWEST_ROWS, BATCH_BYTES * told.num_rows // size) if size > 0 and told.num_rows > 0 else FEWEST_ROWS


def _parts(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches in parts of `BATCH_BYTES`, as texts that are stored once may stand in many rows."""
    for batch in batches:
        rows = max(1, BATCH_BYTES * batch.num_rows // max(1, batch.nbytes))
        yield from (batch.slice(first, rows) for first in range(0, batch.num_rows, rows))


def values_of(column: pa.Array | pa.ChunkedArray, where: str, name: str, first: int = 1) -> list:
    """Return a column's values: of dictionaries what they stand for, bytes as UTF-8 text, 0.1 of a short float as 0.1.

    Args:
        column: the column.
        where: the file, for messages.
        name: the column's name, for messages.
        first: the number of its first row, for messages.

    Raises:
        BonsaiError: bytes are no UTF-8 text.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_float16(kind) or pa.types.is_float32(kind):
        short = kind.to_pandas_dtype()
        values = column.to_pylist()
        return [value if value is None or value.is_integer() else float(str(short(value))) for value in values]
    values = column.to_pylist()
    if any(told(kind) for told in (pa.types.is_fixed_size_binary, *BINARY)):
        for row, value in enumerate(values):
            try:
                values[row] = None if value is None else value.decode()
            except UnicodeDecodeError as error:
                raise BonsaiError(
                    f"{where}, column '{name}', row {first + row}: bytes that are no UTF-8 text: write it as text, or "
                    "name another column"
                ) from error
    return values
