"""In which way rows are written: from flags, else from the names of columns and their first values."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from kfp_bonsai.prepare_data import columns, convert
from kfp_bonsai.prepare_data.formats import Batch
from kfp_bonsai.prepare_data.read import Rows
from kfp_bonsai.prepare_data.tag_schemes import join, label_names
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.kinds.units import WORDS

AUTO = "auto"
SEPARATORS = ("|", ";", ",")
VERDICT, VERDICTS = (
    "answer",
    ("accept", "reject", "ignore"),
)  # what Prodigy's users said of a row: only those are labelled
EXAMPLES = {  # of rows, by what their right answers are
    "classes": 'a column of lists of names, such as label: ["toxic", "insult"], or a column of 0 and 1 for each label, '
    "named as --label-column toxic,insult",
    "spans": 'tokens: ["In", "Oslo"] and ner_tags: ["O", "B-LOC"], a CoNLL file, or text: "In Oslo" and entities: '
    '[{"start": 3, "end": 7, "label": "LOC"}]',
    "answers": 'question, context, and answers: {"text": ["Oslo"], "answer_start": [3]}, or SQuAD\'s own file',
    "number": "query, document and relevance (a number), or query, positive and negative",
}


@dataclass(frozen=True)
class Flags:
    """The columns that were named: of texts, of second texts, of labels; "" where they are to be found by name."""

    text: str
    pair: str
    label: str


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
    answer: Callable[[Sequence[Any], Sequence[tuple], str, convert.Tell], list[Any]] | None = None
    grouped: bool = False

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


class _Columns:
    """What is there to tell the way by: names, flags, and first values."""

    def __init__(self, rows: Rows, flags: Flags, kind: str) -> None:
        self.rows, self.flags, self.kind, self.where = rows, flags, kind, rows.where
        self.names = rows.names()
        self.known: dict[str, list[Any]] = {}

    def first(self, column: str) -> list[Any]:
        """Return a column's first values, as far as there are any."""
        if column not in self.known:
            batch = next(iter(self.rows.batches([column])), None)
            values = batch.columns[column] if batch else []
            self.known[column] = [convert.parsed(one) for one in values if not convert.is_missing(one)]
        return self.known[column]

    def lists(self, column: str) -> bool:
        """Return whether a column has lists."""
        return _mostly(self.first(column), lambda one: isinstance(one, list))

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


def find(rows: Rows, flags: Flags, kind: str = AUTO) -> Reading:
    """Return in which way labelled rows are written.

    Args:
        rows: the rows.
        flags: the columns that were named.
        kind: the kind of task that they are for, or "auto".

    Raises:
        BonsaiError: they are not written in any way that is known, or not for this kind.
    """
    look = _Columns(rows, flags, kind)
    for finder in (_questions, _anchors, _words, _stretches, _lists, _ticks, _pairs):
        found = finder(look)
        if found and _fits(found, kind):
            name = next(name for name, one in KINDS.items() if _is(found, one)) if kind == AUTO else kind
            return _checked(replace(found, kind=name), rows.where)
    if kind != AUTO and not _is_plain(kind) and (KINDS[kind].target != "number" or not look.pairs(columns.PAIRS)):
        raise BonsaiError(
            f"{rows.where} has no rows for --kind {kind} (columns: {', '.join(look.names)}): they are to have "
            f"{EXAMPLES[KINDS[kind].target]}; other names are given by --text-column and --label-column"
        )
    texts = look.texts()
    label = columns.label_column(look.names, rows.where, flags.label)
    found = Reading(texts, label, texts, (label,), class_names=rows.class_names(label))
    return _checked(found if kind == AUTO else replace(found, kind=kind), rows.where)


def find_texts(rows: Rows, train: Reading, label: str) -> Reading:
    """Return in which way rows without labels are written, which are of train's columns or called as theirs.

    Raises:
        BonsaiError: they have no such columns.
    """
    names = rows.names()
    if all(column in names for column in train.text_columns):
        return train.of_texts()
    look = _Columns(rows, Flags("", "", label), train.kind)
    if train.target == "spans" and (words := [name for name in look.called(columns.WORDS) if look.lists(name)]):
        return Reading((words[0],), "", (words[0],), setting=WORDS, expand=_joined)
    pairs = look.pairs((*columns.ASKED, *columns.RANKED)) if len(train.texts) == 2 else []
    texts = pairs[0] if pairs else columns.text_columns(names, rows.where, "", "", label)
    return Reading(texts, "", texts)


def _checked(found: Reading, where: str) -> Reading:
    if not found.expand and found.label in found.texts:
        raise BonsaiError(f"{where}: the column '{found.label}' is both text and label: name the other one too")
    known = KINDS.get(found.kind)
    if known and not any(len(found.texts) == len(texts) for texts in known.columns):
        needed = " or ".join(str(len(texts)) for texts in known.columns)
        raise BonsaiError(
            f"{where}: {found.kind} needs {needed} column{'s' if needed != '1' else ''} of text, and "
            f"{', '.join(found.texts)} is named: use --text-column and --text-pair-column"
        )
    return found


def _mostly(values: Sequence[Any], test: Callable[[Any], bool]) -> bool:
    """Return whether most values are such: a few that are not are errors in the data, which are told with their row."""
    return 2 * sum(map(test, values)) > len(values)


def _is_plain(kind: str) -> bool:
    return not KINDS[kind].group and KINDS[kind].target in ("class", "number")


def _is(found: Reading, kind: Any) -> bool:
    return kind.target == found.target and (found.target != "number" or bool(kind.group) == found.grouped)


def _fits(found: Reading, kind: str) -> bool:
    return kind == AUTO or _is(found, KINDS[kind])


def _questions(look: _Columns) -> Reading | None:
    for pair in look.pairs(columns.ASKED):
        for label in look.label(columns.ANSWERS):
            found = look.first(label)
            each = look.entries(label) or found
            texts = label.strip().lower() in columns.ANSWERS[:2] and all(isinstance(one, str) for one in each)
            if any(map(convert.is_answers, found)) or (found and texts) or _asked(look, "answers"):
                return Reading(pair, label, pair, (label,), "answers", answer=_answers)
    return None


def _asked(look: _Columns, target: str) -> bool:
    return look.kind != AUTO and KINDS[look.kind].target == target


def _answers(values: Sequence[Any], rows: Sequence[tuple], place: str, tell: convert.Tell) -> list[Any]:
    return [None if values[0] is None else convert.answers_of(rows[0][1], values[0], place, tell)]


def _anchors(look: _Columns) -> Reading | None:
    """Find the rows of sentence-transformers: a query, what fits, and what does not."""
    query = [look.flags.text] if look.flags.text else look.called(columns.QUERIES)
    fit = look.called(columns.POSITIVES)
    if not query or not fit or look.flags.label:
        return None
    lower = [(name, name.strip().lower()) for name in look.names]
    others = [name for name, plain in lower if plain.startswith(columns.NEGATIVES) and name not in fit]
    if not others:
        raise BonsaiError(
            f"{look.where} has '{query[0]}' and '{fit[0]}', and no column of what does not (negative): add one, for "
            "nothing is learnt from pairs that all fit"
        )
    read = (query[0], fit[0], *others)
    return Reading(
        (query[0], f"{fit[0]} or {others[0]}"),
        "relevance",
        read,
        read,
        "number",
        expand=_expanded,
        answer=_relevant,
        grouped=True,
    )


def _expanded(values: Sequence[Any], _place: str) -> list[tuple]:
    query, fit, *others = values
    return [(query, one) for one in (*_documents(fit), *(each for other in others for each in _documents(other)))]


def _documents(value: Any) -> list[Any]:
    value = convert.parsed(value)
    return value if isinstance(value, list) else [] if convert.is_missing(value) else [value]


def _relevant(values: Sequence[Any], rows: Sequence[tuple], _place: str, _tell: convert.Tell) -> list[Any]:
    fit = len(_documents(values[1]))
    return [1.0] * fit + [0.0] * (len(rows) - fit)


def _words(look: _Columns) -> Reading | None:
    for words in [look.flags.text] if look.flags.text else look.called(columns.WORDS):
        if words not in look.names or not (look.lists(words) or not look.first(words)):
            continue
        for tags in look.label(columns.TAGS):
            if (look.lists(tags) or not look.first(words)) and tags != words:
                names = look.rows.class_names(tags)
                return Reading(
                    (words,),
                    tags,
                    (words,),
                    (words, tags),
                    "spans",
                    class_names=label_names(names),
                    setting=WORDS,
                    expand=_joined,
                    answer=partial(_tagged, names),
                )
    return None


def _joined(values: Sequence[Any], place: str) -> list[tuple]:
    words = convert.parsed(values[0])
    return [(join(words, place) if isinstance(words, list) else words,)]


def _tagged(
    names: Sequence[str], values: Sequence[Any], _rows: Sequence[tuple], place: str, _tell: convert.Tell
) -> list[Any]:
    return [None if values[1] is None else convert.tagged(*values, names, place)]


def _stretches(look: _Columns) -> Reading | None:
    for label in look.label(columns.STRETCHES):
        found, inner = look.first(label), look.entries(label)
        columned = any(isinstance(one, dict) and {*one} & {*convert.BEGIN} for one in found)
        empty = look.lists(label) and not inner and label.strip().lower() in columns.STRETCHES[:2]
        if _mostly(inner, convert.is_stretch) or columned or empty or (_asked(look, "spans") and found):
            texts = look.texts([label])
            if len(texts) == 1:
                names = look.rows.class_names(label)
                read = (label, *(name for name in look.called((VERDICT,)) if {*look.first(name)} <= {*VERDICTS}))
                return Reading(texts, label, texts, read, "spans", class_names=names, answer=partial(_spanned, names))
    return None


def _spanned(
    names: Sequence[str], values: Sequence[Any], rows: Sequence[tuple], place: str, tell: convert.Tell
) -> list[Any]:
    if values[0] is None or (len(values) > 1 and values[1] != VERDICTS[0]):
        return [None]
    return [
        [
            (begin, end, _named(label, names, place))
            for begin, end, label in convert.spans_of(rows[0][0], values[0], place, tell)
        ]
    ]


def _lists(look: _Columns) -> Reading | None:
    for label in look.label(columns.LABELS):
        inner, wanted = look.entries(label), _asked(look, "classes")
        scalars = not inner or _mostly(inner, lambda one: isinstance(one, str | int | float | bool))
        if scalars and (look.lists(label) or (wanted and look.first(label))):
            separator = "" if look.lists(label) else _separator(look, label)
            names = look.rows.class_names(label)
            texts = look.texts([label])
            read = partial(_several, names, separator)
            return Reading(texts, label, texts, (label,), "classes", class_names=names, answer=read)
    return None


def _separator(look: _Columns, label: str) -> str:
    """Return what stands between several labels in one text."""
    texts = [one for one in look.first(label) if isinstance(one, str)]
    found = [mark for mark in SEPARATORS if any(mark in text for text in texts)]
    if len(found) > 1:
        raise BonsaiError(
            f"{look.where}, column '{label}' has {' and '.join(found)} in its labels, and either may part two: "
            'write them as JSON arrays (["a", "b"])'
        )
    return found[0] if found else ""


def _several(
    names: Sequence[str], separator: str, values: Sequence[Any], _rows: Sequence[tuple], place: str, tell: convert.Tell
) -> list[Any]:
    if convert.is_missing(values[0]):
        return [None]
    if separator and isinstance(values[0], str) and separator in values[0]:
        tell(f"rows have several labels in one text, with {separator!r} between")
    return [[_named(one, names, place) for one in convert.names_of(values[0], place, separator)]]


def _named(label: Any, names: Sequence[str], place: str) -> Any:
    """Return a label, by name where the data set names its numbers."""
    if not names or not isinstance(label, int) or isinstance(label, bool):
        return label
    if not 0 <= label < len(names):
        raise BonsaiError(f"{place}: {label} is none of the {len(names)} labels, which are counted from 0: correct it")
    return names[label]


def _ticks(look: _Columns) -> Reading | None:
    """Find a column of 0 and 1 for each label."""
    flag = look.flags.label
    if flag:
        ticks = [name.strip() for name in flag.split(",")]
        if flag in look.names or len(ticks) < 2:
            return None
        for name in ticks:
            columns.label_column(look.names, look.where, name)
    elif look.called(columns.LABELS):
        return None
    else:
        ticks = [name for name in look.names if name != look.flags.text and _is_tick(look.first(name))]
        if len(ticks) < 2:
            return None
    texts = look.texts(ticks) if not flag else _beside(look, ticks)
    read = partial(_ticked, ticks)
    return Reading(texts, ", ".join(ticks), texts, tuple(ticks), "classes", class_names=tuple(ticks), answer=read)


def _beside(look: _Columns, ticks: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of texts beside labels of a column each."""
    names = [name for name in look.names if name not in ticks]
    return columns.text_columns(names, look.where, look.flags.text, look.flags.pair, "")


def _is_tick(values: Sequence[Any]) -> bool:
    return bool(values) and all(convert.is_ticked(one) is not None for one in values)


def _ticked(
    names: Sequence[str], values: Sequence[Any], _rows: Sequence[tuple], place: str, _tell: convert.Tell
) -> list[Any]:
    return [convert.ticked(values, names, place)]


def _pairs(look: _Columns) -> Reading | None:
    """Find a query, a document and how relevant that is, a row each."""
    for pair in look.pairs(columns.RANKED):
        for label in look.label(columns.RELEVANCE):
            numbers = _mostly(look.first(label), _is_number)
            if numbers and (not look.flags.text or _asked(look, "number")):
                return Reading(pair, label, pair, (label,), "number", grouped=True)
    return None


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
