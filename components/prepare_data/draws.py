"""Splits that were not given, drawn from train."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kfp_bonsai.prepare_data import split
from kfp_bonsai.prepare_data.asked import HASH
from kfp_bonsai.prepare_data.goal import Goal, check_enough
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
    how = "by their texts' hashes, so that a row stays in its split" if split_by == HASH else goal.shared
    notes = []
    for place, each in enumerate(wanted):
        leave = len(wanted) - place
        if split_by == HASH:
            chosen = split.by_hash(part.survey.together[kept], each.fraction, place)
            _check_both_sides(goal, part.labels[kept], chosen, each.flag)
        elif goal.together:
            count = each.rows or round(each.fraction * len(kept))
            chosen = _groups(part, goal, kept, count, seed + each.role, leave, each.flag)
        else:
            strata = goal.target.strata(part.labels[kept])
            classes = len(np.unique(strata)) if _covers_all(goal) else 1
            count = each.rows or min(max(round(each.fraction * len(kept)), classes), len(kept) - leave * classes)
            chosen = _choose(goal, strata, count, seed + each.role, leave, each.flag)
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
    flag = f"--max-rows {max_rows}"
    if goal.together:
        chosen = _groups(part, goal, kept, max_rows, seed, 0, flag, most=True)
    else:
        chosen = _choose(goal, goal.target.strata(part.labels[kept]), max_rows, seed, 0, flag)
    part.goes[kept[~chosen]] = -1
    taken = int(chosen.sum())
    return len(kept) - taken, [f"train: {taken:,} of {len(kept):,} rows taken, {goal.shared} (--max-rows)"]


def _covers_all(goal: Goal) -> bool:
    """Return whether every stratum has to be in every split: each class, or each part of the numbers' range."""
    return not goal.target.of_lists


def _check_both_sides(goal: Goal, labels: np.ndarray, chosen: np.ndarray, flag: str) -> None:
    """Refuse a split by hash that leaves a class to one side alone, or one side without rows."""
    if not chosen.any() or chosen.all():
        raise BonsaiError(f"{flag} by hash leaves a split without rows: add rows, or use --split-by random")
    if goal.together or not _covers_all(goal):
        return
    groups = goal.target.strata(labels)
    if not len(np.unique(groups)) == len(np.unique(groups[chosen])) == len(np.unique(groups[~chosen])):
        raise BonsaiError(f"{flag} by hash leaves a class out of a split: add rows, or use --split-by random")


def _groups(
    part: Part, goal: Goal, kept: np.ndarray, count: int, seed: int, leave: int, flag: str, *, most: bool = False
) -> np.ndarray:
    """Choose whole groups of rows."""
    numbers = split.groups(part.survey.together[kept])
    chosen = split.draw_groups(numbers, count, seed, leave=leave, most=most)
    if not chosen.any():
        raise BonsaiError(
            f"{flag}: {part.survey.where} has {len(np.unique(numbers)):,} different texts in '{goal.together}', and "
            "the rows of one stay together: add rows, or ask for more"
        )
    return chosen


def _choose(goal: Goal, strata: np.ndarray, count: int, seed: int, leave: int, flag: str) -> np.ndarray:
    if not _covers_all(goal):
        strata, able = split.drawable(strata, count, leave)
        chosen = np.zeros(len(strata), bool)
        chosen[able] = _of_strata(strata[able], count, seed, leave, flag)
        return chosen
    return _of_strata(strata, count, seed, leave, flag)


def _of_strata(strata: np.ndarray, count: int, seed: int, leave: int, flag: str) -> np.ndarray:
    sizes = np.unique(strata, return_counts=True)[1]
    least, most = len(sizes), int((sizes - leave).sum())
    if not least <= count <= most:
        raise BonsaiError(
            f"{flag} asks for {count:,} of {len(strata):,} rows in {len(sizes)} classes: give {least:,} to {most:,}, "
            "so that every class is in every split"
        )
    return split.draw(strata, count, seed, leave=leave)
