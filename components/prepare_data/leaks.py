"""Rows that are in more than one split, or there before: dropped, and counted by their reason."""

from collections.abc import Sequence

import numpy as np

from kfp_bonsai.prepare_data import split
from kfp_bonsai.prepare_data.write import TEST, TRAIN, UNLABELLED, VALIDATION, Part
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data.tasks import SPLITS


def drop(parts: list[Part], extra: list[Part], notes: list[str], together: str = "") -> dict[str, int]:
    """Drop what is in more than one split, and what is in train or the unlabelled rows twice.

    Args:
        parts: the labelled splits as they were given.
        extra: rows without labels.
        notes: where to note what is dropped.
        together: the text that holds rows together, so that all of them are dropped if one is.

    Returns:
        How many rows were dropped for which reason, and how many texts of train have different labels.

    Raises:
        BonsaiError: no training or no validation row is left.
    """
    numbers = _numbered([part.survey.together for part in parts])
    by_role = {part.role: index for index, part in enumerate(parts)}
    leaks = 0
    taken = np.zeros(0, np.int64)
    for role in (TEST, VALIDATION, TRAIN):
        if role not in by_role:
            continue
        part, own = parts[by_role[role]], numbers[by_role[role]]
        seen = (part.goes == role) & np.isin(own, taken)
        part.goes[seen] = -1
        leaks += int(seen.sum())
        others = "validation or test" if role == TRAIN else "test"
        which = f"their {together} is" if together else "they are"
        note(notes, int(seen.sum()), f"rows of {SPLITS[role]} dropped: {which} in {others} too (a leak)")
        taken = np.union1d(taken, own[part.goes == role])
    part = parts[by_role[TRAIN]]
    own = split.groups(part.survey.keys)
    kept = np.flatnonzero(part.goes == TRAIN)
    labels = part.labels[kept]
    pairs = np.unique(np.stack([own[kept], np.unique(labels, return_inverse=True)[1]], axis=1), axis=0)
    conflicts = int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())
    again = kept[~split.first_of_each(own[kept])]
    part.goes[again] = -1
    note(notes, len(again), "rows of train dropped: the same text is there before")
    note(notes, conflicts, "texts of train have different labels in different rows: the first one's is kept")
    if not (part.goes == TRAIN).any():
        raise BonsaiError(f"{part.survey.where}: all rows are in validation or test too: give other training rows")
    if VALIDATION in by_role and not (parts[by_role[VALIDATION]].goes == VALIDATION).any():
        where = parts[by_role[VALIDATION]].survey.where
        raise BonsaiError(f"{where}: all validation rows are in test too: give others, or none to have them drawn")
    unlabelled = _drop_unlabelled(parts, extra) if extra else 0
    note(notes, unlabelled, "unlabelled rows dropped: they are in the labelled rows, or there before")
    return {
        "dropped_leaks": leaks,
        "dropped_duplicates": len(again),
        "dropped_unlabelled": unlabelled,
        "conflicting_labels": conflicts,
    }


def _drop_unlabelled(parts: Sequence[Part], extra: Sequence[Part]) -> int:
    """Drop unlabelled rows that are among the labelled ones, or there before, however printed; return how many."""
    numbers = _numbered([part.survey.words for part in (*parts, *extra)])
    everywhere = np.concatenate(numbers[: len(parts)])
    dropped = 0
    for part, own in zip(extra, numbers[len(parts) :], strict=True):
        candidates = np.flatnonzero(part.goes == UNLABELLED)
        repeated = np.isin(own[candidates], everywhere) | ~split.first_of_each(own[candidates])
        part.goes[candidates[repeated]] = -1
        dropped += int(repeated.sum())
        everywhere = np.union1d(everywhere, own[candidates])
    return dropped


def _numbered(keys: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return a number for each key of each part, equal where the keys are."""
    return np.split(split.groups(np.concatenate(keys)), np.cumsum([len(part) for part in keys])[:-1])


def note(notes: list[str], count: int, text: str) -> None:
    """Add a note of so many rows, if there are any."""
    if count:
        notes.append(f"{count:,} {text}")
