"""Text files as numbered lines: unpacked, decoded, and refused where they are something else."""

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data.parquet import first_line

LONGEST = 1 << 24  # characters of a line or a value: what is longer is a file of another kind, or an open quote
HEAD_BYTES = 512
ICONV = "iconv, such as `iconv -f WINDOWS-1252 -t UTF-8`, which is told what it was written in"
# Regular expressions, so that a column may be called PK or <text>.
PACKED: dict[bytes, Any] = {
    rb"\x1f\x8b": gzip.open,
    rb"BZh\d(1AY&SY|\x17rE8P)": bz2.open,
    rb"\xfd7zXZ": lzma.open,
}
OTHERS = {
    rb"PAR[1E](?![,;|\s])": "Parquet: give it the suffix .parquet",
    rb"PK[\3-\b]": "a zip archive or a workbook of a spreadsheet: unpack it, or save the sheet as CSV (UTF-8)",
    rb"\xd0\xcf\x11\xe0": "a workbook of a spreadsheet: save the sheet as CSV (UTF-8)",
    rb"\x28\xb5\x2f\xfd": "packed by zstd: unpack it with `zstd -d`",
    rb"7z\xbc\xaf": "a 7z archive: unpack it",
    rb"Rar!\x1a": "a rar archive: unpack it",
    rb".{257}ustar": "a tar archive: unpack it",
    rb"ARROW1\0": "Arrow or Feather: give Parquet",
    rb"ORC[^\w ,;|\t]": "ORC: give Parquet",
    rb"Obj\x01": "Avro: give Parquet",
    rb"SQLite format 3\0": "a database of SQLite: give a table of it as CSV or Parquet",
    rb"%PDF-": "a PDF: give the rows as CSV, JSON lines or Parquet",
    rb"\{\\rtf": "rich text of a word processor: give the rows as CSV, JSON lines or Parquet",
    rb"<(?!\w+>[,;|\t])": "HTML or XML, as a server answers to who is not logged in: download the file itself",
    rb"version https://git-lfs": "the pointer that Git LFS left for it: run `git lfs pull`",
}
MARKS = {  # a UTF-32 mark begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class Lines(Iterator[str]):
    r"""The lines of a file with their ends (\n, \r\n or \r), packed by gzip, bzip2 or xz, or not.

    Attributes:
        where: the file's name, for messages.
        number: the number of the line that was read last, counted from 1.

    Raises:
        BonsaiError: the file is empty, of another format, cut off, no text, or has lines without end.
    """

    def __init__(self, where: str, file: BinaryIO) -> None:
        self.where, self.number = where, 0
        file, head = unpacked(where, file)
        if not head:
            raise BonsaiError(f"{where} is empty: give a file with rows")
        check_kind(where, head)
        self.encoding = next((name for mark, name in MARKS.items() if head.startswith(mark)), "utf-8-sig")
        self.file = file
        self.text = self._decoded("\n")
        alone = "\r" in self._line().rstrip("\r\n")  # at the end of the first line
        self.text = self._decoded("" if alone else "\n")

    def _decoded(self, ends: str) -> io.TextIOWrapper:
        """Return the text from its beginning; a lone carriage return ends no line where other lines do without."""
        if hasattr(self, "text"):
            self.text.detach()
        self.file.seek(0)
        return io.TextIOWrapper(self.file, encoding=self.encoding, newline=ends)

    def _line(self) -> str:
        try:
            return self.text.readline(LONGEST + 1)
        except _BROKEN as error:
            raise self.broken(error) from error

    def __next__(self) -> str:
        line = self._line()
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > LONGEST:
            raise BonsaiError(
                f"{self.where}, line {self.number} has more than {LONGEST:,} characters: is it a table of text?"
            )
        if "\0" in line:
            raise BonsaiError(
                f"{self.where}, line {self.number} has a NUL byte: the file is damaged, or no UTF-8 text: copy it "
                f"again, or convert it with {ICONV}"
            )
        return line

    def rest(self) -> str:
        """Return all that is left, as one text."""
        try:
            return self.text.read()
        except _BROKEN as error:
            raise self.broken(error) from error

    def broken(self, error: Exception) -> BonsaiError:
        """Return what is wrong, with the line where it is known."""
        if not isinstance(error, UnicodeDecodeError):
            return BonsaiError(f"{self.where} cannot be read to its end ({first_line(error)}): copy it again")
        name = self.encoding.removesuffix("-sig").upper()
        place = f" from line {self._undecodable()} on" if name == "UTF-8" else ""
        return BonsaiError(f"{self.where} is not {name} text{place} ({error}): convert it with {ICONV}")

    def _undecodable(self) -> int:
        self.file.seek(0)
        again = io.TextIOWrapper(self.file, encoding="utf-8", errors="surrogateescape", newline="")
        strange = (number for number, line in enumerate(again, 1) if any("\udc80" <= sign <= "\udcff" for sign in line))
        with suppress(*_BROKEN):  # it may be damaged on the way there
            return next(strange, self.number)
        return self.number


def unpacked(where: str, file: BinaryIO) -> tuple[BinaryIO, bytes]:
    """Return a file that may be packed as one that is not, and how it begins.

    Raises:
        BonsaiError: it is broken, or packed twice.
    """
    head = _head(where, file)
    unpack = _known(PACKED, head)
    if unpack:
        file = unpack(file)
        head = _head(where, file)
        if _known(PACKED, head) or head.startswith(b"PAR1"):
            raise BonsaiError(f"{where} is packed, and what is in it is packed again: unpack it")
    return file, head


def check_kind(where: str, head: bytes) -> None:
    """Refuse a file of another format by its first bytes.

    Raises:
        BonsaiError: it is of one that is known.
    """
    other = _known(OTHERS, head.lstrip(b"\xef\xbb\xbf \t\r\n"))
    if other:
        raise BonsaiError(f"{where} is {other}")


def is_packed(head: bytes) -> bool:
    """Return whether a file that begins so is packed."""
    return bool(_known(PACKED, head))


def _known(kinds: dict[bytes, Any], head: bytes) -> Any:
    return next((found for magic, found in kinds.items() if re.match(magic, head, re.DOTALL)), None)


_BROKEN = (UnicodeError, EOFError, OSError, zlib.error, lzma.LZMAError)


def _head(where: str, file: BinaryIO) -> bytes:
    try:
        head = file.read(HEAD_BYTES)
        file.seek(0)
    except _BROKEN as error:
        raise BonsaiError(f"{where} cannot be read ({first_line(error)}): copy it again") from error
    return head
