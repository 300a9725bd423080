"""The records of a text with delimiters, value by value: read as they were written, or refused with the line."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from kfp_bonsai.prepare_data.dialects import Dialect, Layout, mark_of
from kfp_bonsai.prepare_data.text import LONGEST
from kfp_bonsai.shared.core.errors import BonsaiError

UNQUOTED = "\t|"  # with these between values, most tools write quotes as text like any other
NEEDLESS = re.compile(r"[A-Za-z0-9][^,;\r]*(?<!\s)")
NULL = r"\N"
ESCAPES = re.compile(r"\\[\\btnrv0Z']")  # what databases write that write \N
ADVICE = 'a value with the delimiter, a quote or a line break goes between quotes, a quote in it doubled ("")'


class Records(Iterator[list[str]]):
    """The values of one record after another.

    Attributes:
        first: the line on which the record that was read last begins.
        always: the columns that were between quotes in every record so far.
    """

    def __init__(
        self,
        where: str,
        lines: Iterator[str],
        dialect: Dialect,
        number: int = 0,
        *,
        cut: bool = False,
        layout: Layout | None = None,
    ) -> None:
        self.where, self.lines, self.dialect, self.cut, self.layout = where, lines, dialect, cut, layout
        self.suspects = list[tuple[BonsaiError, int, str]]()  # of values over several lines: what may be other rows'
        self.first = self.number = number
        self.always: set[int] | None = None
        self.enclosed = Counter[int]()  # how many values of each column have quotes round them
        self.named = False  # there are quotes round names of columns
        self.plain = False  # tools write it without quotes
        self.proven = False  # a value on one line that needed its quotes: they are no part of the text here
        self.bare = self.inner = 0  # the first lines with needless quotes round a value, with plain ones in one
        self.needless = False  # a value has quotes round it that no tool would write that writes them where needed
        self.null = self.slash = 0  # the first lines with \N as a value, with what may be another escape

    def header(self) -> list[str]:
        """Return the names of the columns. Their quotes say nothing of the rows'."""
        names = next(self, [])
        if self.enclosed and not self.dialect.quote:
            raise self._error("there are quotes round the names of columns")
        self.named, self.plain = bool(self.enclosed), self.dialect.delimiter in UNQUOTED and len(names) > 1
        self.always, self.bare, self.inner, self.needless = None, 0, 0, False
        self.enclosed.clear()
        return names

    def settle(self, count: int) -> None:
        """Refuse to take quotes for what the rows so far, of which there are `count`, show that they are not.

        Raises:
            BonsaiError: quotes are taken for text, and are round most values of a column; or are taken for marks round
                values in a file that tools write without, where few values have them and none needs them.
        """
        mostly = any(2 * one > count for one in self.enclosed.values())
        if not self.dialect.quote and mostly:
            raise self._error("there are quotes round most values of a column")
        usual = self.plain and self.dialect == Dialect(self.dialect.delimiter)
        if usual and (self.inner or self.needless) and not (mostly or self.proven or self.named):
            raise self._error("quotes may be text, for no value needs them")

    def __next__(self) -> list[str]:
        quote, delimiter = self.dialect.quote, self.dialect.delimiter
        for line in self.lines:
            self.number += 1
            self.first = self.number
            if delimiter not in line and not line.strip():
                continue
            if (quote and quote in line) or (self.dialect.escape and "\\" in line):
                return self._quoted(line)
            self.always = set()
            values = line.rstrip("\r\n").split(delimiter)
            if not quote or "''" in line or "\\" in line:
                values = [self._plain(value, column) for column, value in enumerate(values)]
                self._check_backslashes()
            return values
        raise StopIteration

    def _quoted(self, line: str) -> list[str]:
        """Take a record with quotes apart, which may go on over further lines."""
        quote, delimiter = self.dialect.quote, self.dialect.delimiter
        values, at, between = list[str](), 0, set[int]()
        while True:
            if line.startswith(quote, at):
                between.add(len(values))
                value, line, at = self._between(line, at + 1, len(values))
                values.append(value)
                end = line[at : at + 1]
                if end not in ("", "\r", "\n", delimiter):
                    after = line[at : at + 20].rstrip()
                    raise self._error(f"after the value {value[:40]!r} comes {after!r} instead of {delimiter!r}")
            else:
                end_at = line.find(delimiter, at)
                text = line[at:end_at] if end_at >= 0 else line[at:].rstrip("\r\n")
                at += len(text)
                values.append(self._plain(text, len(values)))
            if line[at : at + 1] != delimiter:
                break
            at += 1
        if not self.layout:
            self.enclosed.update(between)
        self._check_backslashes()
        self.always = between if self.always is None else self.always & between
        if self.bare and self.inner and not self.dialect.escape:
            raise self._error(
                f"a quote is text on line {self.inner}, and stands round a value that needs none on line {self.bare}"
            )
        return values

    def _between(self, line: str, at: int, column: int) -> tuple[str, str, int]:
        """Return the value after an opening quote, the line on which it ends, and where what follows it begins."""
        quote = self.dialect.quote
        marks = re.compile(f"[{quote}\\\\]" if self.dialect.escape else quote)
        parts, size, whole = list[str](), 0, [line]
        while True:
            found = marks.search(line, at)
            if not found:
                parts.append(line[at:])
                size += len(line) - at
                line = next(self.lines, "") if size <= LONGEST else ""
                if not line and self.cut:
                    raise StopIteration
                if not line:
                    raise self._error(f"the quote before {''.join(parts)[:40]!r} is not closed")
                self.number += 1
                whole.append(line)
                at = 0
                continue
            here = found.start()
            parts.append(line[at:here])
            size += here - at
            following = line[here + 1 : here + 2]
            if found[0] == "\\":
                if following not in (quote, "\\"):
                    raise self._error(f"{line[here : here + 2]!r} in a value, where a backslash would be doubled")
                parts.append(following)
                at = here + 2
            elif following == quote and not self.dialect.escape:
                parts.append(quote)
                at = here + 2
            else:
                value = "".join(parts)
                self._judge(value, whole, column, doubled=quote in parts)
                return value, line, here + 1

    def _judge(self, value: str, lines: list[str], column: int, *, doubled: bool) -> None:
        """Keep what a value between quotes says of the file, and refuse one that may be several rows."""
        delimiter = self.dialect.delimiter
        one = len(lines) == 1
        if "\\" in value and ESCAPES.search(value):
            self.slash = self.slash or self.first
        self.proven |= one and (doubled or delimiter in value)
        if one:
            self.bare = self.bare or (self.first if value and not self.proven else 0)
            self.needless = self.needless or bool(not self.proven and NEEDLESS.fullmatch(value))
            return
        if self.layout and '\\"' in value and not (self.dialect.escape or self.layout.backslashes):
            raise self._several(value)
        if self.proven or len({line.count(delimiter) for line in lines}) > 1 or delimiter not in lines[0]:
            return
        for place, line in enumerate(lines):  # as rows, if quotes were text: the columns besides that of the value
            split = line.rstrip("\r\n").split(delimiter)
            before = enumerate(split[:column]) if place else ()
            after = enumerate(split[column + 1 :], column + 1) if place < len(lines) - 1 else ()
            self.suspects += [
                (self._several(value), at, mark) for at, found in (*before, *after) if (mark := mark_of(found))
            ]
        if self.layout:
            self.compare(self.layout.seen)
            self.suspects.clear()

    def compare(self, seen: Sequence[frozenset[str]]) -> None:
        """Refuse values over several lines which hold what otherwise stands in other columns: labels of other rows.

        Raises:
            BonsaiError: there is one.
        """
        for error, column, mark in self.suspects:
            if column < len(seen) and mark in seen[column]:
                raise error

    def _several(self, value: str) -> BonsaiError:
        return BonsaiError(
            f"{self.where}, line {self.first}: from a quote on, {value[:40]!r} is one value over several lines, or "
            f"goes over several rows: {ADVICE}; or give Parquet or JSON lines"
        )

    def _check_backslashes(self) -> None:
        if self.null and self.slash and not self.dialect.escape:
            raise self._error(
                f"\\N on line {self.null} is a missing value, as databases write it that write a backslash as two: "
                f"those on line {self.slash} may mean themselves or not"
            )

    def _plain(self, value: str, column: int) -> str:
        """Return a value without quotes round it, if there is one way to read it."""
        if value == NULL:
            self.null = self.null or self.first
            return ""
        if "\\" in value and ESCAPES.search(value):
            self.slash = self.slash or self.first
        if '\\"' in value or (self.dialect.escape and "\\" in value):
            raise self._error(f"a backslash in {value[:40]!r}, which has no quotes round it, may mean itself or not")
        bare = value.strip()
        mark, within = bare[:1], bare[1:-1]
        around = len(bare) > 1 and mark == bare[-1]
        if mark == '"' and not self.dialect.quote and '""' not in bare[1:]:
            unclear = around and not self.plain
            self.enclosed[column] += around and mark not in within
        elif mark == "'":
            inner = within.replace("''", "").replace(r"\'", "")  # quotes in it as a tool would write them
            unclear = around and inner != within and mark not in inner
        else:
            unclear = mark == '"' and (around or not self.dialect.quote)
        if unclear:
            raise self._error(f"the quotes of {value[:40]!r} may be around it or in it")
        if '"' in value:
            self.inner = self.inner or self.first
        return value

    def _error(self, said: str) -> BonsaiError:
        return BonsaiError(
            f"{self.where}, line {self.first} is malformed: {said} (read as {self.dialect}): {ADVICE}; or give Parquet "
            "or JSON lines"
        )


def rows(records: Records, layout: Layout) -> Iterator[list[str]]:
    """Yield the records that are rows, each with a value for every column.

    Raises:
        BonsaiError: a row has too many values or too few, or is the header once more.
    """
    width, needed, unnamed = len(layout.names), layout.needed, layout.unnamed
    header = [*layout.names]
    for values in records:
        if len(values) != width:
            if not needed <= len(values) < width:
                raise BonsaiError(
                    f"{records.where}, line {records.first} is malformed: it has {len(values)} values (read as "
                    f"{layout.dialect}), and the header needs {width} values: {ADVICE}"
                )
            values += [""] * (width - len(values))
        if unnamed and any(values[place].strip() for place in unnamed):
            place = next(place for place in unnamed if values[place].strip())
            raise BonsaiError(
                f"{records.where}, line {records.first}: {values[place][:40]!r} is in column {place + 1}, which has "
                "no name: name it; if it is the end of a text, put that text between quotes"
            )
        if (
            values[0].lstrip("\ufeff").strip() == header[0]
            and width > 1
            and [each.strip() for each in values[1:]] == header[1:]
        ):
            raise BonsaiError(f"{records.where}, line {records.first} is the header once more: remove it")
        yield values
