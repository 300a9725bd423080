"""Splits that were not given, drawn from train."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kfp_bonsai.prepare_data import split
from kfp_bonsai.prepare_data.asked import HASH
from kfp_bonsai.prepare_data.goal import SHARED, Goal, check_enough, strata
from kfp_bonsai.prepare_data.write import TRAIN, Part
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data.tasks import SPLITS


@dataclass(frozen=True)
class Wanted:
    """A split to draw: which (a place in SPLITS), and how many rows, or else which fraction of train."""

    role: int
    rows: int
    fraction: float

    @property
    def title(self) -> str:
        """The split's name."""
        return SPLITS[self.role]

    @property
    def flag(self) -> str:
        """What was asked for."""
        return f"--{self.title}-rows {self.rows}" if self.rows else f"--{self.title}-fraction {self.fraction:g}"


def draw(part: Part, goal: Goal, wanted: Sequence[Wanted], split_by: str, seed: int) -> list[str]:
    """Draw splits from train, one after the other; return a note on each.

    Raises:
        BonsaiError: there are too few rows, or too few of a class.
    """
    kept = np.flatnonzero(part.goes == TRAIN)
    check_enough(goal, part.labels[kept], part.survey.where, [each.title for each in wanted])
    how = "by their texts' hashes, so that a row stays in its split" if split_by == HASH else SHARED[goal.kind]
    notes = []
    for place, each in enumerate(wanted):
        groups = strata(goal, part.labels[kept])
        if split_by == HASH:
            chosen = split.by_hash(part.survey.keys[kept], each.fraction, place)
            _check_every_class(groups, chosen, each.flag)
        else:
            classes, leave = len(np.unique(groups)), len(wanted) - place
            count = each.rows or min(max(round(each.fraction * len(kept)), classes), len(kept) - leave * classes)
            chosen = _choose(groups, count, seed + each.role, leave, each.flag)
        part.goes[kept[chosen]] = each.role
        notes.append(f"{each.title}: {int(chosen.sum()):,} rows drawn from the {len(kept):,} of train, {how}")
        kept = kept[~chosen]
    return notes


def cut(part: Part, goal: Goal, max_rows: int, seed: int) -> tuple[int, list[str]]:
    """Cut train down to some rows, if it has more; return how many that drops, and a note on it.

    Raises:
        BonsaiError: so few rows leave out a class.
    """
    kept = np.flatnonzero(part.goes == TRAIN)
    if not 0 < max_rows < len(kept):
        return 0, []
    chosen = _choose(strata(goal, part.labels[kept]), max_rows, seed, 0, f"--max-rows {max_rows}")
    part.goes[kept[~chosen]] = -1
    dropped = len(kept) - max_rows
    return dropped, [f"train: {max_rows:,} of {len(kept):,} rows taken, {SHARED[goal.kind]} (--max-rows)"]


def _check_every_class(groups: np.ndarray, chosen: np.ndarray, flag: str) -> None:
    """Refuse a split by hash that leaves a class to one side alone."""
    if not len(np.unique(groups)) == len(np.unique(groups[chosen])) == len(np.unique(groups[~chosen])):
        raise BonsaiError(f"{flag} by hash leaves a class out of a split: add rows, or use --split-by random")


def _choose(groups: np.ndarray, count: int, seed: int, leave: int, flag: str) -> np.ndarray:
    sizes = np.unique(groups, return_counts=True)[1]
    least, most = len(sizes), int((sizes - leave).sum())
    if not least <= count <= most:
        raise BonsaiError(
            f"{flag} asks for {count:,} of {len(groups):,} rows in {len(sizes)} classes: give {least:,} to {most:,}, "
            "so that every class is in every split"
        )
    return split.draw(groups, count, seed, leave=leave)
