"""Labels as a data set writes them: names of classes, numbers, and what is told of both."""

import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError, listed

MOST_CLASSES = 10_000
SHOWN = 5


class Problem:
    """Rows that have the same thing wrong with them."""

    def __init__(self) -> None:
        self.count, self.places = 0, list[tuple[str, int]]()

    def add(self, where: str, row: int) -> None:
        """Count a row."""
        self.count += 1
        if len(self.places) < SHOWN:
            self.places.append((where, row))

    def __str__(self) -> str:
        """Return how many and which."""
        more = ", ..." if self.count > len(self.places) else ""
        one = self.count == 1
        numbers = ", ".join(str(row) for where, row in self.places if where == self.places[0][0])
        return f"{self.count} row{'' if one else 's'} (row{'' if one else 's'} {numbers}{more})"


class Names:
    """The labels of a split, each with a code: how many others were seen before.

    Attributes:
        classes: their names in order of first sight, with the place of the first ("file, row 3").
        floats: some are numbers with a fraction, or stored as such.
        named: some are no numbers.
        not_finite: rows that have a NaN or an infinity as text or number.
    """

    def __init__(self, label: str, names: Sequence[str]) -> None:
        self.label, self.names = label, names
        self.classes: dict[str, str] = {}
        self.places: dict[str, int] = {}
        self.not_finite = Problem()
        self.floats = self.named = False
        self.stripped = 0
        self.types: dict[str, type] = {}
        self.merged: dict[str, None] = {}

    def is_gold_missing(self, raw: Any) -> bool:
        """Return whether a label is -1 where classes are counted from 0, as in test rows that nobody may see."""
        return bool(self.names) and isinstance(raw, int) and not isinstance(raw, bool) and raw == -1

    def code(self, raw: Any, where: str, row: int) -> int:
        """Return a label's code, -1 if there are too many.

        Raises:
            BonsaiError: it is no label.
        """
        return self.read(raw, where, row)[0]

    def read(self, raw: Any, where: str, row: int) -> tuple[int, float]:
        """Return a label's code, -1 if there are too many, and its value as a number.

        Raises:
            BonsaiError: it is no label.
        """
        if self.names and isinstance(raw, int) and not isinstance(raw, bool):
            name, value = self._of_number(raw, where, row)
        else:
            name, value = self._label(raw, where, row)
        if name not in self.classes and len(self.classes) < MOST_CLASSES:
            self.classes[name] = f"{where}, row {row}"
            self.places[name] = len(self.places)
            self.types[name] = type(raw)
        elif self.types.get(name, type(raw)) is not type(raw):
            self.merged[name] = None
        return self.places.get(name, -1), value

    def _of_number(self, raw: int, where: str, row: int) -> tuple[str, float]:
        """Return the name that a data set gives to an integer, and its value if it is a number."""
        if not 0 <= raw < len(self.names):
            raise BonsaiError(
                f"{where}, column '{self.label}', row {row}: {raw} is none of the {len(self.names)} classes "
                f"({', '.join(self.names[:SHOWN])}), which are counted from 0: correct it"
            )
        name = self.names[raw]
        self.named |= not is_number(name)
        return name, as_number(name)

    def _label(self, raw: Any, where: str, row: int) -> tuple[str, float]:
        """Return a label's name as a class, which is a text as it is written, and its value as a number."""
        if isinstance(raw, bool):
            return str(raw).lower(), float(raw)
        if isinstance(raw, str):
            text = raw.strip()
            self.stripped += text != raw
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise BonsaiError(
                    f"{where}, column '{self.label}', row {row}: the label is no valid Unicode ({error.reason}): "
                    "correct it"
                ) from error
            if not is_number(text):
                self.named = True
            elif not text.lstrip("+-").isdecimal():
                self.floats = True
                self._check_finite(text, where, row)
            return text, as_number(text)
        if isinstance(raw, int):
            return str(raw), as_number(raw)
        if isinstance(raw, float):
            self.floats = True
            self._check_finite(raw, where, row)
            return (str(int(raw)) if raw.is_integer() else repr(raw)), raw
        if isinstance(raw, Decimal):
            whole = raw == raw.to_integral_value()
            self.floats |= not whole
            return str(int(raw)) if whole else f"{raw:f}".rstrip("0"), as_number(raw)
        raise BonsaiError(
            f"{where}, column '{self.label}', row {row}: {str(raw)[:40]} ({type(raw).__name__}) is no label: give "
            "one class name or number a row"
        )

    def _check_finite(self, raw: str | float, where: str, row: int) -> None:
        if not math.isfinite(as_number(raw)):
            self.not_finite.add(where, row)

    def notes(self) -> Iterator[str]:
        """Yield what of the labels as they are written makes no difference."""
        if self.stripped:
            yield f"{self.stripped:,} labels had white space before or behind them, which is no part of their class"
        if self.merged:
            yield (
                f'the labels {listed([*self.merged])} are there as values of several types, such as 1, 1.0 and "1": '
                "one class each"
            )


def as_number(label: str | int | float | Decimal) -> float:
    """Return a label's value: NaN where it is no number, infinity where it is beyond a float."""
    if isinstance(label, str) and not is_number(label):
        return math.nan
    try:
        return float(label)
    except OverflowError:
        return math.inf


def is_number(text: str) -> bool:
    """Return whether a label is a number. 1_1 is none, though Python reads it as 11."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text
