"""What the labels are: numbers to predict, or classes, named as the data names them."""

import math
import unicodedata
from collections.abc import Callable, Sequence
from decimal import Decimal

import numpy as np

from kfp_bonsai.prepare_data.read import Rows
from kfp_bonsai.prepare_data.survey import MOST_CLASSES, Survey, as_number
from kfp_bonsai.shared.core.errors import BonsaiError, listed, nearest
from kfp_bonsai.shared.data import tasks

DISTINCT = 10  # more distinct float labels than this are a regression


def hint(found: Survey, kind: str) -> str:
    """Return how to choose the other kind, where the labels leave it open."""
    if kind != "auto" or len(found.classes) <= 2 or not np.isfinite(found.values[found.kept]).all():
        return ""
    if found.floats and len(found.classes) > DISTINCT:
        return "; to take the numbers as classes: --kind classification"
    return "; to predict them as numbers: --kind regression"


def kind_of(found: Survey, kind: str) -> str:
    """Return the kind of task, classification or regression, which may be asked for.

    Raises:
        BonsaiError: the labels are not of the kind that was asked for, too many, or all the same.
    """
    if found.not_finite and not found.named and kind != tasks.CLASSIFICATION:
        raise BonsaiError(
            f"{found.not_finite} with NaN or infinite labels, or numbers too large to compute with: correct or remove "
            "them; if these are names of classes: --kind classification"
        )
    numbers = bool(np.isfinite(found.values[found.kept]).all())
    if kind == tasks.REGRESSION and not numbers:
        name, place = _no_number(found)
        raise BonsaiError(
            f"{place}, column '{found.label}': '{name}' is no number: correct it, or use --kind classification"
        )
    if kind == "auto":
        floats = found.floats and numbers
        kind = tasks.REGRESSION if floats and len(found.classes) > DISTINCT else tasks.CLASSIFICATION
    if kind == tasks.CLASSIFICATION and len(found.classes) >= MOST_CLASSES:
        raise BonsaiError(
            f"{found.where}, column '{found.label}' has {MOST_CLASSES:,} different labels or more: name another "
            "with --label-column, or use --kind regression"
        )
    if len(found.classes) < 2:
        only = next(iter(found.classes), "")
        raise BonsaiError(
            f"{found.where}, column '{found.label}': every label is '{only}': there is nothing to learn; add rows of "
            "another class, or name another column with --label-column"
        )
    return kind


def class_names(found: Survey, rows: Rows, kind: str, positive: str) -> tuple[str, ...]:
    """Return the class names: in the data's own order, else by number, else by alphabet; of two, the positive last.

    Raises:
        BonsaiError: the positive class is not one of two.
    """
    if kind == tasks.REGRESSION:
        return ()
    labels = [name for name in rows.class_names(found.label) if name in found.classes]
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
    """Return the label of each row as a split holds it: the class's number, or the number to predict.

    Raises:
        BonsaiError: a label is no number, or of no class of train.
    """
    if kind == tasks.REGRESSION:
        if not np.isfinite(found.values[found.kept]).all():
            name, place = _no_number(found)
            raise BonsaiError(f"{place}, column '{found.label}': '{name}' is no number, unlike in train: correct it")
        return found.values
    unseen = [name for name in found.classes if name not in labels]
    if unseen:
        raise BonsaiError(
            f"{found.classes[unseen[0]]}, column '{found.label}': the label '{unseen[0]}' of {split} is not in "
            f"train (labels: {listed(labels)}){nearest(unseen[0], list(labels))}: correct it, or add such rows to train"
        )
    index = np.array([labels.index(name) for name in found.classes] + [-1], np.int64)
    return index[found.codes]


def _no_number(found: Survey) -> tuple[str, str]:
    """Return a label that is no number, and its place."""
    strange = ((name[:40], place) for name, place in found.classes.items() if not math.isfinite(as_number(name)))
    return next(strange, ("a label", found.not_finite or found.where))
