"""The same rows as several models read them: a ready-made model has tokens of its own, all others the baseline's.

A batch holds the arrays of all readers, those of the first under their own names, so that every model runs the same
rows in the same batch, whatever it makes of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.evaluate_emissions.protocol import Batch
from kfp_bonsai.shared.data.encoding import tokens_sha256
from kfp_bonsai.shared.inference.asking import Asked

Reader = tuple[Path, int]  # a model's folder, and the tokens at which it cuts rows


def readers_of(
    folders: Sequence[Path], records: Sequence[Mapping[str, Any]], max_length: int
) -> tuple[list[Reader], list[int]]:
    """Return the different readers, the baseline first, and which of them each model is.

    Args:
        folders: the models'.
        records: theirs.
        max_length: tokens at which the baseline cuts rows, and what was made of it.
    """
    known: dict[tuple[str, int], int] = {}
    readers: list[Reader] = []
    numbers = []
    for folder, record in zip(folders, records, strict=True):
        length = int(record["max_length"]) if record.get("student") else max_length
        key = (tokens_sha256(folder), length)
        if key not in known:
            known[key] = len(readers)
            readers.append((folder, length))
        numbers.append(known[key])
    return readers, numbers


def side_by_side(parts: Sequence[Asked]) -> Asked:
    """Return the same rows as all readers have them, as one batch."""
    first, *others = parts
    more = {f"{number}:{name}": array for number, part in enumerate(others, 1) for name, array in part.batch.items()}
    return Asked({**first.batch, **more}, first.windows)


def read_by(number: int, batch: Batch) -> Batch:
    """Return a batch as one of the readers has it."""
    mine = f"{number}:"
    return {name.removeprefix(mine): each for name, each in batch.items() if name.startswith(mine)} if number else batch


def mean_lengths(batches: Sequence[Batch], readers: int) -> list[float]:
    """Return the tokens an input, padding included, that each reader has."""
    seen = [[read_by(number, batch)["input_ids"] for batch in batches] for number in range(readers)]
    return [float(sum(np.size(ids) for ids in each) / sum(len(ids) for ids in each)) for each in seen]
