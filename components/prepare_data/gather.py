"""What there is to read: labelled splits, texts without labels, and which of their columns are which."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kfp_bonsai.prepare_data import columns
from kfp_bonsai.prepare_data.glance import AUTO, Flags
from kfp_bonsai.prepare_data.names import as_number
from kfp_bonsai.prepare_data.pairing import HOW, PairedRows
from kfp_bonsai.prepare_data.read import Rows, open_source
from kfp_bonsai.prepare_data.recognise import find, find_texts
from kfp_bonsai.prepare_data.row_reading import Reading
from kfp_bonsai.prepare_data.survey import Survey, survey
from kfp_bonsai.prepare_data.write import TEST, TRAIN, UNLABELLED, VALIDATION, Part
from kfp_bonsai.shared.core.errors import BonsaiError, listed, nearest
from kfp_bonsai.shared.data.tasks import SPLITS
from kfp_bonsai.shared.saved.fingerprint import of_parts

WITHOUT_LABELS = {
    role: f"without labels, accuracy cannot be measured; leave this file out ({title} rows are then drawn from train), "
    "and give it as --unlabelled-data if it may be learnt from"
    for role, title in ((VALIDATION, "validation"), (TEST, "test"))
}


@dataclass(frozen=True)
class Given:
    """The rows that a user named.

    Attributes:
        name: what the data is called.
        origin: where it comes from.
        metric: what it is known to be scored by; "" for what is usual.
        labelled: the splits that exist (places in SPLITS): their rows, and where they come from.
        unlabelled: texts without labels.
        flagged: splits that have a flag of their own.
        notes: what of the data is not read.
    """

    name: str
    origin: str
    metric: str
    labelled: dict[int, tuple[Rows, str]]
    unlabelled: list[Rows]
    flagged: set[int]
    notes: list[str]

    @property
    def rows(self) -> list[tuple[int, Rows]]:
        """All of them, each with its split."""
        labelled = [(role, rows) for role, (rows, _) in self.labelled.items()]
        return [*labelled, *((UNLABELLED, rows) for rows in self.unlabelled)]


@dataclass(frozen=True)
class Labelled:
    """A split with labels that was gone through: its rows, where they come from, and what was found."""

    rows: Rows
    origin: str
    survey: Survey


def gather(
    data: str, test_data: str = "", validation_data: str = "", unlabelled_data: str = "", *, streamed: bool = False
) -> Given:
    """Find the rows that a user named: the data's own splits, and those of flags in their place.

    Raises:
        BonsaiError: there are no such data.
    """
    source = open_source(data, "--data", streamed=streamed)
    source.pick("train", purpose="train on")
    labelled = {
        role: (source.splits[SPLITS[role]], source.origin)
        for role in (TRAIN, VALIDATION, TEST)
        if SPLITS[role] in source.splits
    }
    if test_data:
        other = open_source(test_data, "--test-data", streamed=streamed)
        labelled[TEST] = other.pick("test", "validation", "train", purpose="test on"), other.origin
    if validation_data:
        other = open_source(validation_data, "--validation-data", streamed=streamed)
        labelled[VALIDATION] = other.pick("validation", "train", purpose="validate on"), other.origin
    flagged = {role for role, text in ((TEST, test_data), (VALIDATION, validation_data)) if text}
    unlabelled = [
        open_source(text, "--unlabelled-data", streamed=streamed).pick("unlabelled", "train", purpose="distil with")
        for text in filter(None, (part.strip() for part in unlabelled_data.split(",")))
    ]
    notes = [f"not read of {data}: {listed(source.left)}, which --test-data may name"] if source.left else []
    if own := source.splits.get(SPLITS[UNLABELLED]):
        if unlabelled:
            notes.append(f"{own.where} is not read, as --unlabelled-data is given: for both, name {data} there too")
        unlabelled = unlabelled or [own]
    return Given(source.name, source.origin, source.metric, labelled, unlabelled, flagged, notes)


def look_at(
    data: str,
    *,
    test_data: str = "",
    validation_data: str = "",
    unlabelled_data: str = "",
    text_column: str = "",
    text_pair_column: str = "",
    label_column: str = "",
    kind: str = AUTO,
) -> str:
    """Find the data and their columns without reading the rows; return a fingerprint of all that would be read.

    Args:
        data: as prepare_data takes it, and the others too.
        test_data: the test rows.
        validation_data: the validation rows.
        unlabelled_data: texts without labels.
        text_column: the column of texts.
        text_pair_column: the column of second texts.
        label_column: the column of labels.
        kind: the kind of task.

    Raises:
        BonsaiError: there are no such data, or no such columns.
    """
    given = gather(data, test_data, validation_data, unlabelled_data, streamed=True)
    _readings(given, Flags(text_column, text_pair_column, label_column), kind)
    return of_parts((f"{SPLITS[role]} {rows.where}", rows.digest()) for role, rows in given.rows)


def kind_at_a_glance(
    data: str, *, text_column: str = "", text_pair_column: str = "", label_column: str = "", kind: str = AUTO
) -> str:
    """Return the kind of task that rows are for, by their columns and first values; "" where it takes all of them.

    Args:
        data: as prepare_data takes it, and the others too.
        text_column: the column of texts.
        text_pair_column: the column of second texts.
        label_column: the column of labels.
        kind: the kind of task.

    Raises:
        BonsaiError: there are no such data, or no such columns.
    """
    rows = open_source(data, "--data", streamed=True).splits[SPLITS[TRAIN]]
    return find(rows, Flags(text_column, text_pair_column, label_column), kind).kind


def survey_labelled(given: Given, flags: Flags, kind: str, drop_empty: bool) -> tuple[dict[int, Labelled], list[str]]:
    """Go through the labelled splits once; return those that can be used in their places, and notes on that.

    Raises:
        BonsaiError: a split lacks a column, has rows that cannot be used, or no labels.
    """
    readings = _readings(given, flags, kind)
    found = {
        role: Labelled(rows, origin, survey(rows, readings[role], drop_empty=drop_empty))
        for role, (rows, origin) in sorted(given.labelled.items())
    }
    train = found[TRAIN].survey
    for each in found.values():
        if len(each.survey.columns) != len(train.columns):
            raise BonsaiError(
                f"{each.survey.where} has the text columns {', '.join(each.survey.columns)}, train has "
                f"{', '.join(train.columns)}: name them with --text-column and --text-pair-column"
            )
    return _settle(found, given.flagged)


def _readings(given: Given, flags: Flags, kind: str) -> dict[int, Reading]:
    """Return in which way each labelled split is written: train decides what the others are to be.

    Raises:
        BonsaiError: one is not written in any way that is known, or is without labels, as those of competitions.
    """
    train = find(given.labelled[TRAIN][0], flags, kind)
    found = {TRAIN: train}
    for role in sorted(given.labelled.keys() - {TRAIN}):
        rows = given.labelled[role][0]
        if train.target != "number" or not train.expand:
            _check_labelled(role, rows, train, flags.label)
        found[role] = find(rows, flags, train.kind or kind)
        if (found[role].target, found[role].setting) != (train.target, train.setting):
            raise BonsaiError(
                f"{rows.where} has its labels in '{found[role].label}', and its texts, written in another way than "
                f"train ('{train.label}'), such as lists of words beside whole texts: give both alike"
            )
    return found


def _check_labelled(role: int, rows: Rows, train: Reading, flag: str) -> None:
    """Refuse a validation or test split without labels, such as those of competitions, as what it is."""
    names = rows.names()
    if all(name in names for name in train.label_columns):
        return
    known = {*columns.LABELS, *columns.TAGS, *columns.STRETCHES, *columns.ANSWERS}
    if not flag and any(name.strip().lower() in known for name in names):
        return
    wanted = next(name for name in train.label_columns if name not in names)
    near = nearest(wanted, [name for name in names if name not in train.text_columns])
    raise BonsaiError(
        f"{rows.where} has no label column '{wanted}', unlike train (columns: {', '.join(names)}){near}: "
        f"{'rename it, if these are the labels; ' if near else ''}{WITHOUT_LABELS[role]}"
    )


def _settle(found: dict[int, Labelled], flagged: set[int]) -> tuple[dict[int, Labelled], list[str]]:
    """Where the test has no labels (as GLUE's) or there is none, the validation split of the data becomes the test."""
    notes, kept = [], dict(found)
    for role, each in found.items():
        if not _is_unlabelled(each.survey, found[TRAIN].survey):
            continue
        nothing = f"{each.survey.where}, column '{each.survey.label}' has no label at all"
        if role == TRAIN:
            raise BonsaiError(f"{nothing}: name another with --label-column, or give the rows as --unlabelled-data")
        if role in flagged:
            raise BonsaiError(f"{nothing}: {WITHOUT_LABELS[role]}")
        notes.append(f"the {SPLITS[role]} split has no labels (none are public) and is not used")
        del kept[role]
    if VALIDATION in kept and TEST not in kept and kept[VALIDATION].origin == kept[TRAIN].origin:
        notes.append(
            "the data's validation split is used as test, and validation is drawn from train, so that no test row "
            "chooses anything"
        )
        kept[TEST] = kept.pop(VALIDATION)
    return kept, notes


def _is_unlabelled(found: Survey, train: Survey) -> bool:
    """Return whether no row has a label, or all have -1 for it, which no row of train has."""
    nothing = {as_number(name) for name in found.classes} == {-1.0}
    return not found.kept.any() or (nothing and not any(as_number(name) == -1 for name in train.classes))


def survey_unlabelled(
    found: Sequence[Rows], train: Survey, label_column: str, drop_empty: bool, seed: int
) -> tuple[list[Part], list[str]]:
    """Go through the texts without labels once; return them, single ones as pairs if train has such, and notes on that.

    Raises:
        BonsaiError: they are not of train's columns, or cannot be used.
    """
    parts, notes = [], []
    for rows in found:
        reading = find_texts(rows, train.reading, label_column)
        if len(reading.texts) > len(train.columns):
            raise BonsaiError(
                f"{rows.where} has pairs ({', '.join(reading.texts)}), and the labelled rows single texts "
                f"({', '.join(train.columns)}): give single texts, in a column called so"
            )
        if len(reading.texts) < len(train.columns):
            if train.reading.group >= 0:
                raise BonsaiError(
                    f"{rows.where} has single texts ({', '.join(reading.texts)}), and nothing says which belong "
                    f"together as {' and '.join(train.columns)} do: give both columns"
                )
            rows = PairedRows(rows, reading.texts[0], seed)
            reading = Reading(tuple(rows.names()), "", tuple(rows.names()))
        seen = survey(rows, reading, drop_empty=drop_empty)
        if isinstance(rows, PairedRows):
            notes.append(f"unlabelled: {seen.rows:,} pairs of {rows.where} are {HOW}")
        parts.append(Part.of(UNLABELLED, rows, seen, np.zeros(seen.rows, np.int64)))
    return parts, notes
