"""Texts that a teacher is asked beside the training rows: changed copies of these, and unlabelled text."""

import random
from collections.abc import Iterator
from pathlib import Path

from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.data.augment import augment

BLOCK = 1024  # texts that are tokenized at once: each then takes ten times the memory of its tokens


def unlabelled_texts(unlabelled: Path, task: tasks.Task, rows: int, seed: int) -> Iterator[list[list[str]]]:
    """Yield columns of texts without labels in blocks, of so many rows drawn at random, all for -1."""
    if not tasks.read_task(unlabelled).rows or not rows:
        return
    more = tasks.read_columns(unlabelled)
    order = list(range(len(more[task.columns[0]])))
    random.Random(seed).shuffle(order)
    chosen = order if rows < 0 else order[:rows]
    for start in range(0, len(chosen), BLOCK):
        yield [[more[name][index] for index in chosen[start : start + BLOCK]] for name in task.columns]


def changed_copies(columns: list[list[str]], copies: int, seed: int) -> Iterator[list[list[str]]]:
    """Yield the changed copies of all rows that are new, in blocks: some texts are too short to be changed."""
    seen = {hash(row) for row in zip(*columns, strict=True)}  # of which a whole set of long texts takes little memory
    for copy in range(copies):
        new = []
        for row in zip(*augment(columns, seed + 1 + copy), strict=True):
            if hash(row) not in seen:
                seen.add(hash(row))
                new.append(row)
        for start in range(0, len(new), BLOCK):
            yield [list(texts) for texts in zip(*new[start : start + BLOCK], strict=True)]
