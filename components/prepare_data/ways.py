"""Ways in which people write rows, each found by a function of the columns: a Reading, or nothing."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from kfp_bonsai.prepare_data import columns, conversations, convert
from kfp_bonsai.prepare_data.glance import Glance, mostly
from kfp_bonsai.prepare_data.row_reading import Reading
from kfp_bonsai.prepare_data.tag_schemes import join, label_names
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.kinds.units import WORDS

SEPARATORS = ("|", ";", ",")
VERDICT, VERDICTS = "answer", ("accept", "reject", "ignore")  # of Prodigy's users, on a row: only the first is labelled


def _questions(look: Glance) -> Reading | None:
    for pair in look.pairs(columns.ASKED):
        for label in look.label(columns.ANSWERS):
            found = look.first(label)
            each = look.entries(label) or found
            texts = label.strip().lower() in columns.ANSWERS[:2] and all(isinstance(one, str) for one in each)
            if any(map(convert.is_answers, found)) or (found and texts) or look.asked("answers"):
                return Reading(pair, label, pair, (label,), "answers", answer=_answers)
    return None


def _answers(values: Sequence[Any], rows: Sequence[tuple], place: str, tell: convert.Tell) -> list[Any]:
    return [None if values[0] is None else convert.answers_of(rows[0][1], values[0], place, tell)]


def _anchors(look: Glance) -> Reading | None:
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
    )


def _expanded(values: Sequence[Any], _place: str) -> list[tuple]:
    query, fit, *others = values
    return [(query, one) for one in (*_documents(fit), *(each for other in others for each in _documents(other)))]


def _documents(value: Any) -> list[Any]:
    value = convert.texts_of(value)
    return value if isinstance(value, list) else [] if convert.is_missing(value) else [value]


def _relevant(values: Sequence[Any], rows: Sequence[tuple], _place: str, _tell: convert.Tell) -> list[Any]:
    fit = len(_documents(values[1]))
    return [1.0] * fit + [0.0] * (len(rows) - fit)


def _words(look: Glance) -> Reading | None:
    for words in [look.flags.text] if look.flags.text else look.called(columns.WORDS):
        if words not in look.names or not (look.lists(words) or not look.first(words)):
            continue
        for tags in look.lists_of_labels(columns.TAGS):
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
                    expand=joined,
                    answer=partial(_tagged, names),
                )
    return None


def joined(values: Sequence[Any], place: str) -> list[tuple]:
    """Return a row's words as one text; a text stays as it is."""
    words = convert.texts_of(values[0])
    return [(join(words, place) if isinstance(words, list) else words,)]


def _tagged(
    names: Sequence[str], values: Sequence[Any], _rows: Sequence[tuple], place: str, _tell: convert.Tell
) -> list[Any]:
    return [None if values[1] is None else convert.tagged(*values, names, place)]


def _stretches(look: Glance) -> Reading | None:
    for label in look.lists_of_labels(columns.STRETCHES):
        found, inner = look.first(label), look.entries(label)
        columned = any(isinstance(one, dict) and {*one} & {*convert.BEGIN} for one in found)
        empty = look.lists(label) and not inner and label.strip().lower() in columns.STRETCHES[:2]
        if mostly(inner, convert.is_stretch) or columned or empty or (look.asked("spans") and found):
            texts = look.texts([label])
            if len(texts) == 1:
                names = look.rows.class_names(label)
                read = (
                    label,
                    *(name for name in look.called((VERDICT,)) if all(one in VERDICTS for one in look.first(name))),
                )
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


def _lists(look: Glance) -> Reading | None:
    for label in look.lists_of_labels(columns.LABELS):
        inner, wanted = look.entries(label), look.asked("classes")
        scalars = not inner or mostly(inner, lambda one: isinstance(one, str | int | float | bool))
        if scalars and (look.lists(label) or (wanted and look.first(label))):
            separator = "" if look.lists(label) else _separator(look, label)
            names = look.rows.class_names(label)
            texts = look.texts([label])
            read = partial(_several, names, separator)
            return Reading(texts, label, texts, (label,), "classes", class_names=names, answer=read)
    return None


def _separator(look: Glance, label: str) -> str:
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


def _ticks(look: Glance) -> Reading | None:
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
        look.read(look.names)
        ticks = [name for name in look.names if name != look.flags.text and _is_tick(look.first(name))]
        if len(ticks) < 2:
            return None
    texts = look.texts(ticks) if not flag else _beside(look, ticks)
    read = partial(_ticked, ticks)
    return Reading(texts, ", ".join(ticks), texts, tuple(ticks), "classes", class_names=tuple(ticks), answer=read)


def _beside(look: Glance, ticks: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of texts beside labels of a column each."""
    names = [name for name in look.names if name not in ticks]
    return columns.text_columns(names, look.where, look.flags.text, look.flags.pair, "")


def _is_tick(values: Sequence[Any]) -> bool:
    return bool(values) and all(convert.is_ticked(one) is not None for one in values)


def _ticked(
    names: Sequence[str], values: Sequence[Any], _rows: Sequence[tuple], place: str, _tell: convert.Tell
) -> list[Any]:
    return [convert.ticked(values, names, place)]


def _pairs(look: Glance) -> Reading | None:
    """Find a query, a document and how relevant that is, a row each."""
    for pair in look.pairs(columns.RANKED):
        for label in look.label(columns.RELEVANCE):
            numbers = mostly(look.first(label), _is_number)
            if numbers and (not look.flags.text or look.asked("number")):
                return Reading(pair, label, pair, (label,), "number")
    return None


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


# By the type of the right answers; a way that is only for kinds whose rows belong together says so. The first is taken.
WAYS = (
    ("text", False, conversations.find),
    ("answers", False, _questions),
    ("number", True, _anchors),
    ("spans", False, _words),
    ("spans", False, _stretches),
    ("classes", False, _lists),
    ("classes", False, _ticks),
    ("number", True, _pairs),
)
