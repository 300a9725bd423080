"""How a text with delimiters may be written: what is between values, and what quotes mean."""

from dataclasses import dataclass

LONGEST_MARK = 40
DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


@dataclass(frozen=True)
class Dialect:
    r"""How values are told apart.

    Attributes:
        delimiter: between two values.
        quote: around a value that holds delimiters, line breaks or quotes; "" where quotes are text like any other.
        escape: a quote in such a value is written \" and a backslash \\, as Spark does, instead of "".
    """

    delimiter: str
    quote: str = '"'
    escape: bool = False

    def __str__(self) -> str:
        if not self.quote:
            meaning = "quotes are text"
        elif self.escape:
            meaning = 'quotes escaped by backslashes (\\")'
        else:
            meaning = f"values between {self.quote}"
        return f"{DELIMITERS[self.delimiter]} between values, {meaning}"


@dataclass(frozen=True)
class Layout:
    r"""How a file is written, and its columns' names.

    Attributes:
        dialect: how values are told apart.
        header: the line that names the columns, counted from 1.
        names: the columns, "" for one without a name.
        seen: what stands in each column at the beginning, see `mark_of`.
        backslashes: \\" is there, and its meaning settled by it.
        doubled: every backslash at the beginning is followed by another.
    """

    dialect: Dialect
    header: int
    names: tuple[str, ...]
    seen: tuple[frozenset[str], ...] = ()
    backslashes: bool = False
    doubled: bool = False

    @property
    def unnamed(self) -> tuple[int, ...]:
        """Columns without a name that must have no values: all but the first ones, where pandas has its index."""
        first = next((place for place, name in enumerate(self.names) if name), 0)
        return tuple(place for place, name in enumerate(self.names) if place > first and not name)

    @property
    def needed(self) -> int:
        """How many values a row has at the least: those of unnamed columns at the end may be left out."""
        return max((place for place, name in enumerate(self.names) if name), default=0) + 1


def mark_of(value: str) -> str:
    """Return what a column's values are known by: a short one as it is, a number with a fraction as "#", else ""."""
    bare = value.strip()
    if "." in bare and bare.replace(".", "", 1).lstrip("+-").isdecimal():
        return "#"
    return bare if len(bare) <= LONGEST_MARK else ""
