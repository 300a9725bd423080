"""The floor: what next to nothing reaches, such as a bag of words. A model near it has lost what it was for."""

import random
from pathlib import Path

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.kinds.kinds import kind_of, score_of

MOST_ROWS = 100_000


def floor(train: Path, test: Path) -> float:
    """Return the score of `floor_and_method` alone."""
    return floor_and_method(train, test)[0]


def floor_and_method(train: Path, test: Path) -> tuple[float, str]:
    """Return what costs next to nothing scores by the task's metric, and what it is: see the kind's `floor`.

    Args:
        train: the training split (of more than 100,000 rows, as many drawn at random, by a fixed seed).
        test: the test split.

    Raises:
        BonsaiError: the splits are not of one data set, or the training split, of at most 100,000 rows, has one class.
    """
    task, other = tasks.read_task(test), tasks.read_task(train)
    if not task.is_of_one_data_set_with(other):
        raise BonsaiError(f"{train} and {test} are not of one data set: give two splits of one prepare-data run")
    kind, known, asked = kind_of(task), _sample(train, other), tasks.read_columns(test)
    if other.rows <= MOST_ROWS and kind.all_alike(known["label"]):
        raise BonsaiError(f"{train} has rows of one class alone: prepare the data set again")
    predicted, method = kind.floor(known, asked, task)
    return score_of(task, predicted, kind.right(asked, task)), method


def _sample(path: Path, task: tasks.Task) -> dict[str, list]:
    """Return the columns of a split's rows, in order: of all, or of MOST_ROWS drawn at random, streaming the split."""
    chosen = set(random.Random(0).sample(range(task.rows), min(task.rows, MOST_ROWS)))
    columns: dict[str, list] = {name: [] for name in (*task.columns, "label")}
    first = 0
    for batch in tasks.batches(path):
        size = len(batch["label"])
        kept = [row for row in range(size) if first + row in chosen]
        for name, values in columns.items():
            values.extend(batch[name][row] for row in kept)
        first += size
    return columns
