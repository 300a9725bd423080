"""What tells the way in which rows are written: names of columns, their first values, and flags."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kfp_bonsai.prepare_data import columns, convert
from kfp_bonsai.prepare_data.read import Rows
from kfp_bonsai.shared.kinds.kinds import KINDS

AUTO = "auto"


@dataclass(frozen=True)
class Flags:
    """The columns that were named: of texts, of second texts, of labels; "" where they are to be found by name."""

    text: str
    pair: str
    label: str


class Glance:
    """What is there to tell the way by: names, flags, and first values."""

    def __init__(self, rows: Rows, flags: Flags, kind: str) -> None:
        self.rows, self.flags, self.kind, self.where = rows, flags, kind, rows.where
        self.names = rows.names()
        self.known: dict[str, list[Any]] = {}

    def read(self, names: Sequence[str]) -> None:
        """Read the first values of some columns together."""
        batch = next(iter(self.rows.batches(names)), None)
        for name in names:
            values = batch.columns[name] if batch else []
            self.known[name] = [convert.parsed(one) for one in values if not convert.is_missing(one)]

    def first(self, column: str) -> list[Any]:
        """Return a column's first values, as far as there are any."""
        if column not in self.known:
            self.read([column])
        return self.known[column]

    def lists(self, column: str) -> bool:
        """Return whether a column has lists."""
        return mostly(self.first(column), lambda one: isinstance(one, list))

    def entries(self, column: str) -> list[Any]:
        """Return the entries of a column's first lists."""
        return [each for one in self.first(column) if isinstance(one, list) for each in one]

    def called(self, wanted: Sequence[str]) -> list[str]:
        """Return the columns of these names, whatever their case, in the order of the names."""
        by_name = columns.by_name(self.names, self.where, "--text-column or --label-column", {*wanted})
        return [by_name[name] for name in wanted if name in by_name]

    def label(self, wanted: Sequence[str]) -> list[str]:
        """Return the columns that may hold labels: the one that was named, else those of these names."""
        if self.flags.label:
            return [self.flags.label] if self.flags.label in self.names else []
        return self.called(wanted)

    def lists_of_labels(self, wanted: Sequence[str]) -> list[str]:
        """Return the columns that may hold lists of labels; none where a text is there with a label of one value."""
        texts = self.called(columns.TEXTS) or self.pairs(columns.PAIRS)
        plain = self.called(columns.LABELS)[:1] if self.kind == AUTO and not self.flags.label and texts else []
        if plain and mostly(self.first(plain[0]), lambda one: not isinstance(one, list | dict)):
            return []
        return self.label(wanted)

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the columns that may be two texts: those that were named, else those of these names."""
        if self.flags.text and self.flags.pair:
            return [(self.flags.text, self.flags.pair)]
        found = [self.called(pair) for pair in pairs]
        return [(one[0], one[1]) for one in found if len(one) == 2]

    def texts(self, without: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the columns of texts, as those of one label a row are found."""
        names = [name for name in self.names if name not in without]
        return columns.text_columns(names, self.where, self.flags.text, self.flags.pair, self.flags.label)

    def asked(self, target: str) -> bool:
        """Return whether a kind was asked for whose right answers are of this type."""
        return self.kind != AUTO and KINDS[self.kind].target == target


def mostly(values: Sequence[Any], test: Callable[[Any], bool]) -> bool:
    """Return whether most values are such: a few that are not are errors in the data, which are told with their row."""
    return 2 * sum(map(test, values)) > len(values)
