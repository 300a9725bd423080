"""The way in which rows are written: columns of which texts and labels are made, and how."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kfp_bonsai.prepare_data.convert import Tell
from kfp_bonsai.prepare_data.formats import Batch
from kfp_bonsai.prepare_data.read import Rows
from kfp_bonsai.shared.kinds.kinds import KINDS


@dataclass(frozen=True)
class Reading:
    """The way in which rows are written.

    Attributes:
        texts: names of their one or two texts, for messages.
        label: the name of their labels; "" where there are none.
        text_columns: columns that the texts come from.
        label_columns: columns that labels come from, and what else is needed to read them.
        target: what labels become, a key of TYPES; "" where the labels decide: a class or a number.
        kind: the kind of task; "" where the labels decide.
        class_names: what a data set calls its classes.
        setting: what a task has to know of the texts.
        expand: the rows' texts of one row's values, where they are not these themselves.
        answer: the labels of those rows, of the values of the label columns, where they are not one value.
    """

    texts: tuple[str, ...]
    label: str
    text_columns: tuple[str, ...]
    label_columns: tuple[str, ...] = ()
    target: str = ""
    kind: str = ""
    class_names: tuple[str, ...] = ()
    setting: str = ""
    expand: Callable[[Sequence[Any], str], list[tuple]] | None = None
    answer: Callable[[Sequence[Any], Sequence[tuple], str, Tell], list[Any]] | None = None

    @property
    def group(self) -> int:
        """Which of the texts holds rows together; -1: none does."""
        kind = KINDS.get(self.kind)
        named = next((texts for texts in kind.columns if len(texts) == len(self.texts)), ()) if kind else ()
        return named.index(kind.group) if kind and kind.group in named else -1

    def of_texts(self) -> "Reading":
        """Return the same without labels."""
        return replace(self, label="", label_columns=(), answer=None)

    def batches(self, rows: Rows, told: Callable[[str, str], None] = lambda _note, _place: None) -> Iterator[Batch]:
        """Go through texts and labels; `told` is called with what a reader should know of a row, and its place.

        Raises:
            BonsaiError: a row is not written in this way.
        """
        for batch in rows.batches([*dict.fromkeys((*self.text_columns, *self.label_columns))]):
            yield self._converted(batch, told) if self.expand or self.answer else batch

    def _converted(self, batch: Batch, told: Callable[[str, str], None]) -> Batch:
        made: list[tuple] = []
        labels: list[Any] = []
        numbers: list[int] = []
        of_texts = zip(*(batch.columns[name] for name in self.text_columns), strict=True)
        of_labels = zip(*(batch.columns[name] for name in self.label_columns), strict=True)
        for number, values in enumerate(of_texts, batch.first):
            place = f"{batch.where}, row {number}"
            rows = self.expand(values, place) if self.expand else [values]
            made += rows
            numbers += [number] * len(rows)
            if self.label:
                found = next(of_labels)
                labels += self._labels(found, rows, place, told) if self.answer else [found[0]] * len(rows)
        columns = {name: [row[place] for row in made] for place, name in enumerate(self.texts)}
        if self.label:
            columns[self.label] = labels
        return Batch(batch.where, batch.first, columns, tuple(numbers))

    def _labels(
        self, values: Sequence[Any], rows: Sequence[tuple], place: str, told: Callable[[str, str], None]
    ) -> list[Any]:
        assert self.answer
        if not all(isinstance(text, str) and text.strip() for row in rows for text in row):
            return [None] * len(rows)
        return self.answer(values, rows, place, lambda note: told(note, place))
