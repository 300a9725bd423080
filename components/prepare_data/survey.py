"""The first pass over a split: check every row, and keep some 60 bytes of each, and answers that are lists."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from unicodedata import category

import numpy as np

from kfp_bonsai.prepare_data.convert import is_missing
from kfp_bonsai.prepare_data.formats import Batch
from kfp_bonsai.prepare_data.names import Names, Problem, is_number
from kfp_bonsai.prepare_data.read import Rows
from kfp_bonsai.prepare_data.row_reading import Reading
from kfp_bonsai.prepare_data.targets import TARGETS
from kfp_bonsai.shared.core.errors import BonsaiError

ASCII_WORD = re.compile("[a-z0-9]+")


@dataclass
class Survey:
    """What is known of a split after one pass.

    Attributes:
        where: where the rows come from, for messages.
        reading: in which way they are written.
        keys: (rows, 2) uint64, hash of the normalised texts: equal for rows that are the same to a reader.
        words: (rows, 2) uint64, hash of their letters and digits alone: equal for a text that was only printed
            otherwise ("a fine film ." and "A fine film."), which no copy of a test row may hide behind.
        digests: (rows, 2) uint64, hash of the texts as they are.
        kept: rows that can be used: those with text (and a gold label).
        codes: index into `classes` for each row, -1 if none.
        values: the labels as numbers, NaN where they are none.
        answers: labels that are lists, as tuples, with codes for their names; nothing where a label is one value.
        groups: (rows, 2) uint64, hash of the text that holds rows together; nothing where each stands alone.
        classes: the labels' names in order of first sight, with the place of the first ("file, row 3").
        floats: some labels are numbers with a fraction, or stored as such.
        named: some labels are no numbers.
        not_finite: which rows have a NaN or an infinity as text or number, "" if none: names, where others are words.
        notes: what of the labels as they are written makes no difference here.
        told: what else a reader should know of the rows.
        empty: how many rows without text were left out.
        unlabelled: how many rows without a gold label (-1 of a class label) were left out.
    """

    where: str
    reading: Reading
    keys: np.ndarray
    words: np.ndarray
    digests: np.ndarray
    kept: np.ndarray
    codes: np.ndarray
    values: np.ndarray
    answers: np.ndarray | None = None
    groups: np.ndarray | None = None
    classes: dict[str, str] = field(default_factory=dict)
    floats: bool = False
    named: bool = False
    not_finite: str = ""
    notes: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    empty: int = 0
    unlabelled: int = 0

    @property
    def rows(self) -> int:
        """How many rows were read."""
        return len(self.keys)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the texts."""
        return self.reading.texts

    @property
    def label(self) -> str:
        """Name of the labels; "" where they are not read."""
        return self.reading.label

    @property
    def together(self) -> np.ndarray:
        """Hashes that are equal for rows which no split may part."""
        return self.keys if self.groups is None else self.groups


def normalise(text: str) -> str:
    """Return what two texts have in common when a reader would call them the same."""
    return " ".join(text.casefold().split())


def letters(text: str) -> str:
    """Return a text's letters and digits, without case, spaces and punctuation; the text itself if it has none."""
    folded = text.casefold()
    if folded.isascii():
        return "".join(ASCII_WORD.findall(folded)) or text
    return "".join(sign for sign in folded if sign.isalnum() or category(sign)[0] == "M") or text  # M: vowel signs


def survey(rows: Rows, reading: Reading, *, drop_empty: bool = False) -> Survey:
    """Go through a split once.

    Args:
        rows: the split.
        reading: in which way its rows are written.
        drop_empty: leave out rows without text or label instead of refusing them.

    Raises:
        BonsaiError: texts that are blank or no texts, labels that are missing or not finite, no rows.
    """
    reader = _Reader(rows.where, reading, drop_empty)
    for batch in reading.batches(rows, reader.tell):
        if batch.rows:
            reader.read(batch)
    return reader.done()


class _Reader:
    def __init__(self, where: str, reading: Reading, drop_empty: bool) -> None:
        self.where, self.reading, self.drop_empty = where, reading, drop_empty
        self.columns, self.label = reading.texts, reading.label
        self.keys, self.letters, self.digests, self.kept = bytearray(), bytearray(), bytearray(), bytearray()
        self.groups = bytearray()
        self.codes: list[np.ndarray] = []
        self.values: list[np.ndarray] = []
        self.answers: list[tuple] = []
        self.names = Names(reading.label, () if reading.answer else reading.class_names)
        self.numbers_only = dict.fromkeys(self.columns, True)
        self.blank = {column: Problem() for column in self.columns}
        self.no_label = Problem()
        self.gold_missing = 0
        self.told: dict[str, tuple[int, str]] = {}

    @property
    def of_lists(self) -> bool:
        return bool(self.reading.target) and TARGETS[self.reading.target].of_lists

    def tell(self, note: str, place: str) -> None:
        count, first = self.told.get(note, (0, place))
        self.told[note] = count + 1, first

    def read(self, batch: Batch) -> None:
        usable = self._texts([batch.columns[column] for column in self.columns], batch)
        if self.label and self.of_lists:
            self._answers(batch.columns[self.label], usable, batch)
        elif self.label:
            self._labels(batch.columns[self.label], usable, batch)
        self.kept += bytes(usable)

    def _texts(self, columns: list[list], batch: Batch) -> list[bool]:
        usable = [True] * len(columns[0])
        for name, values in zip(self.columns, columns, strict=True):
            for index, value in enumerate(values):
                if isinstance(value, str):
                    if not value.strip():
                        usable[index] = False
                        self.blank[name].add(batch.where, batch.number(index))
                    elif self.numbers_only[name] and not is_number(value):
                        self.numbers_only[name] = False
                elif value is None:
                    usable[index] = False
                    self.blank[name].add(batch.where, batch.number(index))
                else:
                    raise BonsaiError(
                        f"{batch.where}, column '{name}', row {batch.number(index)}: {str(value)[:40]} is no text "
                        f"({type(value).__name__}): choose a column of texts with --text-column"
                    )
        group = self.reading.group
        for index, row in enumerate(zip(*columns, strict=True)):
            whole = "\0".join(value or "" for value in row)
            same = "\0".join(normalise(value or "") for value in row)
            said = "\0".join(letters(value or "") for value in row)
            try:
                self.digests += blake2b(whole.encode(), digest_size=16).digest()
                self.keys += blake2b(same.encode(), digest_size=16).digest()
                self.letters += blake2b(said.encode(), digest_size=16).digest()
                if group >= 0:
                    self.groups += blake2b(normalise(row[group] or "").encode(), digest_size=16).digest()
            except UnicodeEncodeError as error:
                raise BonsaiError(
                    f"{batch.where}, row {batch.number(index)}: the text is no valid Unicode ({error.reason}): "
                    "correct it"
                ) from error
        return usable

    def _labels(self, labels: list, usable: list[bool], batch: Batch) -> None:
        codes = np.full(len(labels), -1, np.int32)
        values = np.full(len(labels), np.nan)
        for index, raw in enumerate(labels):
            if is_missing(raw):
                if usable[index]:
                    self.no_label.add(batch.where, batch.number(index))
                usable[index] = False
                continue
            if self.names.is_gold_missing(raw):
                self.gold_missing += 1
                usable[index] = False
                continue
            codes[index], values[index] = self.names.read(raw, batch.where, batch.number(index))
        self.codes.append(codes)
        self.values.append(values)

    def _answers(self, answers: list, usable: list[bool], batch: Batch) -> None:
        """Keep answers that are lists, with their labels' codes."""
        for index, raw in enumerate(answers):
            if raw is None and usable[index]:
                self.no_label.add(batch.where, batch.number(index))
            if raw is None:
                usable[index] = False
                self.answers.append(())
                continue
            read = partial(self.names.code, where=batch.where, row=batch.number(index))
            self.answers.append(TARGETS[self.reading.target].coded(raw, read))

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
            self.reading,
            _hashes(self.keys),
            _hashes(self.letters),
            _hashes(self.digests),
            kept,
            codes,
            np.concatenate(self.values) if self.values else np.full(rows, np.nan),
            np.fromiter(self.answers, object, rows) if self.answers else None,
            _hashes(self.groups) if self.groups else None,
            self.names.classes,
            self.names.floats,
            self.names.named,
            self._not_finite(),
            tuple(self.names.notes()),
            tuple(self._told()),
            max(empty, 0),
            self.gold_missing,
        )

    def _not_finite(self) -> str:
        found = self.names.not_finite
        return f"{found.places[0][0]}, column '{self.label}': {found}" if found.count else ""

    def _told(self) -> Iterator[str]:
        for note, (count, place) in self.told.items():
            yield f"{count:,} {note} (first in {place})"


def _hashes(found: bytearray) -> np.ndarray:
    return np.frombuffer(found, np.uint64).reshape(-1, 2)
