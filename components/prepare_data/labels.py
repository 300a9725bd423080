"""What the labels are: numbers to predict, classes, or lists with such, named as the data names them."""

import math
import unicodedata
from collections.abc import Callable, Sequence
from decimal import Decimal

import numpy as np

from kfp_bonsai.prepare_data.glance import AUTO
from kfp_bonsai.prepare_data.names import MOST_CLASSES, as_number
from kfp_bonsai.prepare_data.survey import Survey
from kfp_bonsai.prepare_data.targets import TARGETS
from kfp_bonsai.prepare_data.ways import SEPARATORS
from kfp_bonsai.shared.core.errors import BonsaiError, listed, nearest
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.kinds.task import Task

CLASSES, NUMBERS = (
    next(name for name, kind in KINDS.items() if kind.target == target and not kind.group)
    for target in ("class", "number")
)
SEVERAL = next(name for name, kind in KINDS.items() if kind.target == "classes")
DISTINCT = 10  # more distinct float labels than this are a regression


def hint(found: Survey, kind: str) -> str:
    """Return how to choose another kind, where the labels leave it open."""
    if kind != AUTO or found.answers is not None:
        return ""
    if found.reading.kind:
        return f"; to predict each row by itself: --kind {NUMBERS} or {CLASSES}"
    if joined := _joined([*found.classes]):
        return f"; to take labels like '{joined[:40]}' as several in one: --kind {SEVERAL}"
    if len(found.classes) <= 2 or not np.isfinite(found.values[found.kept]).all():
        return ""
    if found.floats and len(found.classes) > DISTINCT:
        return f"; to take the numbers as classes: --kind {CLASSES}"
    return f"; to predict them as numbers: --kind {NUMBERS}"


def _joined(names: Sequence[str]) -> str:
    """Return a label that is another one with more behind a separator, or "" if there is none."""
    whole = {*names}
    return next((one for one in names for mark in SEPARATORS if whole & {*map(str.strip, one.split(mark))} - {one}), "")


def kind_of(found: Survey, kind: str) -> str:
    """Return the kind of task, which may be asked for.

    Raises:
        BonsaiError: the labels are not of the kind that was asked for, too many, or all the same.
    """
    kind = found.reading.kind or kind
    if found.answers is not None:
        _check_lists(found)
        return kind
    target = "" if kind == AUTO else KINDS[kind].target
    if found.not_finite and not found.named and target != "class":
        raise BonsaiError(
            f"{found.not_finite} with NaN or infinite labels, or numbers too large to compute with: correct or remove "
            f"them; if these are names of classes: --kind {CLASSES}"
        )
    numbers = bool(np.isfinite(found.values[found.kept]).all())
    if target == "number":
        if not numbers:
            name, place = _no_number(found)
            raise BonsaiError(
                f"{place}, column '{found.label}': '{name}' is no number: correct it, or use --kind {CLASSES}"
            )
        _check_numbers(found, kind)
    if not target:
        floats = found.floats and numbers
        kind = NUMBERS if floats and len(found.classes) > DISTINCT else CLASSES
    if KINDS[kind].named and len(found.classes) >= MOST_CLASSES:
        raise BonsaiError(
            f"{found.where}, column '{found.label}' has {MOST_CLASSES:,} different labels or more: name another "
            f"with --label-column, or use --kind {NUMBERS}"
        )
    if len(found.classes) < 2:
        only = next(iter(found.classes), "")
        raise BonsaiError(
            f"{found.where}, column '{found.label}': every label is '{only}': there is nothing to learn; add rows of "
            "another class, or name another column with --label-column"
        )
    return kind


def _check_lists(found: Survey) -> None:
    assert found.answers is not None
    if len(found.classes) >= MOST_CLASSES:
        raise BonsaiError(
            f"{found.where}, column '{found.label}' has {MOST_CLASSES:,} different labels or more: name another "
            "with --label-column"
        )
    different = {*found.answers[found.kept].tolist()}
    if len(different) < 2:
        shown = listed([*found.classes]) or repr(next(iter(different), ""))[:40]
        only = "empty" if () in different else f"the same ({shown})"
        raise BonsaiError(
            f"{found.where}, column '{found.label}': every row's is {only}: there is nothing to learn; add other rows, "
            "or name another column with --label-column"
        )


def _check_numbers(found: Survey, kind: str) -> None:
    """Refuse numbers that are no right answers of the kind, such as a relevance below 0."""
    task = Task("", kind, (), (), "", "", "train", 0, "")
    for name, place in found.classes.items():
        if math.isfinite(as_number(name)) and not KINDS[kind].is_answer(as_number(name), task):
            means = KINDS[kind].means(task)
            raise BonsaiError(f"{place}, column '{found.label}': {name} is not {means}: correct it")


def class_names(found: Survey, kind: str, positive: str) -> tuple[str, ...]:
    """Return the class names: in the data's own order, else by number, else by alphabet; of two, the positive last.

    Raises:
        BonsaiError: the positive class is not one of two.
    """
    if not KINDS[kind].named:
        return ()
    labels = [name for name in found.reading.class_names if name in found.classes]
    if not labels:
        numbers = all(math.isfinite(as_number(name)) for name in found.classes if name not in ("true", "false"))
        by_value = numbers and not {"true", "false"} & found.classes.keys()
        labels = sorted(found.classes, key=(lambda name: (Decimal(name), name)) if by_value else None)
    if positive and (positive not in labels or len(labels) != 2):
        raise BonsaiError(
            f"--positive-class '{positive}' is not one of two classes: the labels are {listed(labels)}"
            f"{nearest(positive, labels)}"
        )
    return tuple(sorted(labels, key=lambda name: name == positive)) if positive else tuple(labels)


def alike(labels: Sequence[str]) -> list[str]:
    """Return a note on each group of classes that a reader would call the same, or that are the same number."""
    groups: dict[object, list[str]] = {}
    for name in labels:
        number = math.isfinite(as_number(name))
        same = Decimal(name) if number else _seen(name)
        groups.setdefault(same, []).append(name)
    return [
        f"the labels {', '.join(map(_shown(group), group))} are {len(group)} classes, for they are written differently:"
        " write them alike if they mean the same"
        for group in groups.values()
        if len(group) > 1
    ]


def _seen(name: str) -> str:
    """Return what a reader sees of a label: no case, no space, and no sign that takes no place (category Cf)."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(sign for sign in folded if not sign.isspace() and unicodedata.category(sign) != "Cf")


def _shown(names: Sequence[str]) -> Callable[[str], str]:
    """Return how names are printed so that they differ."""
    return repr if len({unicodedata.normalize("NFC", name) for name in names}) == len(names) else ascii


def written(found: Survey, labels: tuple[str, ...], kind: str, split: str) -> np.ndarray:
    """Return the right answer of each row as a split holds it, a list as a tuple.

    Raises:
        BonsaiError: a label is no number, or of no class of train.
    """
    target = KINDS[kind].target
    if target == "number":
        if not np.isfinite(found.values[found.kept]).all():
            name, place = _no_number(found)
            raise BonsaiError(f"{place}, column '{found.label}': '{name}' is no number, unlike in train: correct it")
        _check_numbers(found, kind)
        return found.values
    unseen = [name for name in found.classes if name not in labels]
    if unseen:
        raise BonsaiError(
            f"{found.classes[unseen[0]]}, column '{found.label}': the label '{unseen[0]}' of {split} is not in "
            f"train (labels: {listed(labels)}){nearest(unseen[0], list(labels))}: correct it, or add such rows to train"
        )
    numbers = [labels.index(name) for name in found.classes]
    if found.answers is None:
        return np.array([*numbers, -1], np.int64)[found.codes]
    numbered = TARGETS[target].numbered
    return np.fromiter((numbered(answer, numbers) for answer in found.answers), object, found.rows)


def _no_number(found: Survey) -> tuple[str, str]:
    """Return a label that is no number, and its place."""
    strange = ((name[:40], place) for name, place in found.classes.items() if not math.isfinite(as_number(name)))
    return next(strange, ("a label", found.not_finite or found.where))
