"""Texts that a teacher is asked beside the training rows: changed copies of these, and unlabelled text."""

import random
from pathlib import Path

from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.data.augment import augment


def unlabelled_texts(unlabelled: Path, task: tasks.Task, rows: int, seed: int) -> list[list[str]]:
    """Return columns of texts without labels, of so many rows drawn at random, all for -1, if there are any."""
    if not tasks.read_task(unlabelled).rows or not rows:
        return []
    more = tasks.read_columns(unlabelled)
    order = list(range(len(more[task.columns[0]])))
    random.Random(seed).shuffle(order)
    chosen = order if rows < 0 else order[:rows]
    return [[more[name][index] for index in chosen] for name in task.columns]


def changed_copies(columns: list[list[str]], copies: int, seed: int) -> list[list[list[str]]]:
    """Return the changed copies of all rows that are new: some texts are too short to be changed."""
    seen, found = set(zip(*columns, strict=True)), []
    for copy in range(copies):
        new = []
        for row in zip(*augment(columns, seed + 1 + copy), strict=True):
            if row not in seen:
                seen.add(row)
                new.append(row)
        if new:
            found.append([list(texts) for texts in zip(*new, strict=True)])
    return found
