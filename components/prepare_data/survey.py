"""The first pass over a split: check every row, and keep 52 to 56 bytes of each."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import blake2b
from typing import Any
from unicodedata import category

import numpy as np

from kfp_bonsai.prepare_data.read import Rows
from kfp_bonsai.shared.core.errors import BonsaiError, listed

ASCII_WORD = re.compile("[a-z0-9]+")
MOST_CLASSES = 10_000
SHOWN = 5


@dataclass
class Survey:
    """What is known of a split after one pass.

    Attributes:
        where: where the rows come from, for messages.
        columns: its text columns.
        label: its label column; "" where labels are not read.
        keys: (rows, 2) uint64, hash of the normalised texts: equal for rows that are the same to a reader.
        words: (rows, 2) uint64, hash of their letters and digits alone: equal for a text that was only printed
            otherwise ("a fine film ." and "A fine film."), which no copy of a test row may hide behind.
        digests: (rows, 2) uint64, hash of the texts as they are.
        kept: rows that can be used: those with text (and a gold label).
        codes: index into `classes` for each row, -1 if none.
        values: the labels as numbers, NaN where they are none.
        classes: the labels' names in order of first sight, with the place of the first ("file, row 3").
        floats: some labels are numbers with a fraction, or stored as such.
        named: some labels are no numbers.
        not_finite: which rows have a NaN or an infinity as text or number, "" if none: names, where others are words.
        notes: what of the labels as they are written makes no difference here.
        empty: how many rows without text were left out.
        unlabelled: how many rows without a gold label (-1 of a class label) were left out.
    """

    where: str
    columns: tuple[str, ...]
    label: str
    keys: np.ndarray
    words: np.ndarray
    digests: np.ndarray
    kept: np.ndarray
    codes: np.ndarray
    values: np.ndarray
    classes: dict[str, str] = field(default_factory=dict)
    floats: bool = False
    named: bool = False
    not_finite: str = ""
    notes: tuple[str, ...] = ()
    empty: int = 0
    unlabelled: int = 0

    @property
    def rows(self) -> int:
        """How many rows were read."""
        return len(self.keys)


def normalise(text: str) -> str:
    """Return what two texts have in common when a reader would call them the same."""
    return " ".join(text.casefold().split())


def letters(text: str) -> str:
    """Return a text's letters and digits, without case, spaces and punctuation; the text itself if it has none."""
    folded = text.casefold()
    if folded.isascii():
        return "".join(ASCII_WORD.findall(folded)) or text
    return "".join(sign for sign in folded if sign.isalnum() or category(sign)[0] == "M") or text  # M: vowel signs


def survey(rows: Rows, columns: tuple[str, ...], label: str, *, drop_empty: bool = False) -> Survey:
    """Go through a split once.

    Args:
        rows: the split.
        columns: its text columns.
        label: its label column; "" for rows without labels.
        drop_empty: leave out rows without text or label instead of refusing them.

    Raises:
        BonsaiError: texts that are blank or no texts, labels that are missing or not finite, no rows.
    """
    reader = _Reader(rows.where, columns, label, rows.class_names(label) if label else (), drop_empty)
    for batch in rows.batches([*columns, *([label] if label else [])]):
        reader.read(batch.columns, batch.where, batch.first)
    return reader.done()


class _Problem:
    """Rows that have the same thing wrong with them."""

    def __init__(self) -> None:
        self.count, self.places = 0, list[tuple[str, int]]()

    def add(self, where: str, row: int) -> None:
        self.count += 1
        if len(self.places) < SHOWN:
            self.places.append((where, row))

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.places) else ""
        one = self.count == 1
        numbers = ", ".join(str(row) for where, row in self.places if where == self.places[0][0])
        return f"{self.count} row{'' if one else 's'} (row{'' if one else 's'} {numbers}{more})"


class _Reader:
    def __init__(
        self, where: str, columns: tuple[str, ...], label: str, names: Sequence[str], drop_empty: bool
    ) -> None:
        self.where, self.columns, self.label, self.names, self.drop_empty = where, columns, label, names, drop_empty
        self.keys, self.letters, self.digests, self.kept = bytearray(), bytearray(), bytearray(), bytearray()
        self.codes: list[np.ndarray] = []
        self.values: list[np.ndarray] = []
        self.classes: dict[str, str] = {}
        self.places: dict[str, int] = {}
        self.numbers_only = dict.fromkeys(columns, True)
        self.blank = {column: _Problem() for column in columns}
        self.no_label, self.not_finite = _Problem(), _Problem()
        self.floats = self.named = False
        self.gold_missing = self.stripped = 0
        self.types: dict[str, type] = {}
        self.merged: dict[str, None] = {}

    def read(self, batch: dict[str, list], where: str, first: int) -> None:
        usable = self._texts([batch[column] for column in self.columns], where, first)
        if self.label:
            self._labels(batch[self.label], usable, where, first)
        self.kept += bytes(usable)

    def _texts(self, columns: list[list], where: str, first: int) -> list[bool]:
        usable = [True] * len(columns[0])
        for name, values in zip(self.columns, columns, strict=True):
            for index, value in enumerate(values):
                if isinstance(value, str):
                    if not value.strip():
                        usable[index] = False
                        self.blank[name].add(where, first + index)
                    elif self.numbers_only[name] and not is_number(value):
                        self.numbers_only[name] = False
                elif value is None:
                    usable[index] = False
                    self.blank[name].add(where, first + index)
                else:
                    raise BonsaiError(
                        f"{where}, column '{name}', row {first + index}: {str(value)[:40]} is no text "
                        f"({type(value).__name__}): choose a column of texts with --text-column"
                    )
        for index, row in enumerate(zip(*columns, strict=True)):
            whole = "\0".join(value or "" for value in row)
            same = "\0".join(normalise(value or "") for value in row)
            said = "\0".join(letters(value or "") for value in row)
            try:
                self.digests += blake2b(whole.encode(), digest_size=16).digest()
                self.keys += blake2b(same.encode(), digest_size=16).digest()
                self.letters += blake2b(said.encode(), digest_size=16).digest()
            except UnicodeEncodeError as error:
                raise BonsaiError(
                    f"{where}, row {first + index}: the text is no valid Unicode ({error.reason}): correct it"
                ) from error
        return usable

    def _labels(self, labels: list, usable: list[bool], where: str, first: int) -> None:
        codes = np.full(len(labels), -1, np.int32)
        values = np.full(len(labels), np.nan)
        for index, raw in enumerate(labels):
            if raw is None or raw != raw or (isinstance(raw, str) and not raw.strip()):  # NaN is not itself
                if usable[index]:
                    self.no_label.add(where, first + index)
                usable[index] = False
                continue
            place = (where, first + index)
            if self.names and isinstance(raw, int) and not isinstance(raw, bool):
                if raw == -1:
                    self.gold_missing += 1
                    usable[index] = False
                    continue
                name, value = self._named(raw, *place)
            else:
                name, value = self._label(raw, *place)
            values[index] = value
            if name not in self.classes and len(self.classes) < MOST_CLASSES:
                self.classes[name] = f"{where}, row {first + index}"
                self.places[name] = len(self.places)
                self.types[name] = type(raw)
            elif self.types.get(name, type(raw)) is not type(raw):
                self.merged[name] = None
            codes[index] = self.places.get(name, -1)
        self.codes.append(codes)
        self.values.append(values)

    def _named(self, raw: int, where: str, row: int) -> tuple[str, float]:
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

    def done(self) -> Survey:
        rows = len(self.kept)
        if not rows:
            raise BonsaiError(f"{self.where} has no rows: give a file with rows")
        for column, problem in self.blank.items():
            if problem.count and not self.drop_empty:
                raise BonsaiError(
                    f"{problem.places[0][0]}, column '{column}': no text in {problem}: fill them in, remove them, or "
                    "leave them out with --drop-empty"
                )
        for column, only in self.numbers_only.items():
            if only and self.blank[column].count < rows:
                raise BonsaiError(
                    f"{self.where}, column '{column}' has nothing but numbers: choose a column of texts with "
                    "--text-column"
                )
        if self.no_label.count and self.no_label.count < rows and not self.drop_empty:
            raise BonsaiError(
                f"{self.no_label.places[0][0]}, column '{self.label}': no label in {self.no_label}: fill them in, "
                "remove them, give them as --unlabelled-data, or leave them out with --drop-empty"
            )
        codes = np.concatenate(self.codes) if self.codes else np.full(rows, -1, np.int32)
        kept = np.frombuffer(self.kept, bool).copy()
        empty = rows - int(kept.sum()) - self.gold_missing
        return Survey(
            self.where,
            self.columns,
            self.label,
            np.frombuffer(self.keys, np.uint64).reshape(-1, 2),
            np.frombuffer(self.letters, np.uint64).reshape(-1, 2),
            np.frombuffer(self.digests, np.uint64).reshape(-1, 2),
            kept,
            codes,
            np.concatenate(self.values) if self.values else np.full(rows, np.nan),
            self.classes,
            self.floats,
            self.named,
            f"{self.not_finite.places[0][0]}, column '{self.label}': {self.not_finite}"
            if self.not_finite.count
            else "",
            tuple(self._notes()),
            max(empty, 0),
            self.gold_missing,
        )

    def _notes(self) -> Iterator[str]:
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
