"""What a transfer set takes on disk: told before it is made, and what is left out where there is no room for all."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import free_bytes
from kfp_bonsai.shared.core.progress import megabytes, say

FEWEST_POSITIONS = 8  # hidden states a row that are kept before whole rows are left out
STATE_BYTES, TOKEN_BYTES, LOGIT_BYTES, ROW_BYTES = 2, 4, 4, 32  # of rows.parquet at the most: it is compressed
MODELS = 8  # times the teacher's weights that stay free: three levels keep three models each, most of them smaller


@dataclass(frozen=True)
class Size:
    """How large a transfer set is.

    Attributes:
        training: training rows, or windows of them.
        unlabelled: rows of unlabelled text.
        copies: changed copies.
        positions: hidden states a row at the most.
        tokens: tokens of all of them.
        bytes: what they take on disk at the most.
    """

    training: int
    unlabelled: int
    copies: int
    positions: int
    tokens: int
    bytes: int

    def __str__(self) -> str:
        rows = self.training + self.unlabelled + self.copies
        return (
            f"{rows:,} rows ({self.training:,} of training, {self.copies:,} changed copies, {self.unlabelled:,} "
            f"unlabelled) of {self.tokens:,} tokens, at most {megabytes(self.bytes)} with {self.positions} hidden "
            "states a row"
        )


@dataclass(frozen=True)
class Parts:
    """What a transfer set could hold, in the order in which it is kept where there is no room for all.

    Attributes:
        training: inputs of the training rows.
        unlabelled: of unlabelled text, in random order.
        copies: of changed copies.
        cut: how many of all these are longer than the model's inputs, and cut.
    """

    training: list[dict[str, Any]]
    unlabelled: list[dict[str, Any]]
    copies: list[dict[str, Any]]
    cut: int

    def first(self, size: Size) -> list[dict[str, Any]]:
        """Return the inputs that a set of this size holds."""
        return [*self.training, *self.copies[: size.copies], *self.unlabelled[: size.unlabelled]]


def settle(
    parts: Parts, output: Path, width: int, logits: Callable[[dict[str, Any]], int], most: int, weights: int
) -> Size:
    """Tell how large the transfer set is to be, and what of it is left out as the disk has no room for it.

    Hidden states take most of the room, and neighbours say much the same: fewer of each row are kept first, then
    fewer changed copies, then less unlabelled text.

    Args:
        parts: what there is.
        output: where it will be.
        width: of a hidden state.
        logits: how many numbers the teacher says of an input.
        most: hidden states a row at the most.
        weights: bytes of the model's weights, a multiple of which stays free.

    Raises:
        BonsaiError: there is no room for the training rows.
    """
    items = [*parts.training, *parts.unlabelled, *parts.copies]
    lengths = np.array([len(item["input_ids"]) for item in items])
    texts = np.array([sum(len(value.encode()) for value in item.values() if isinstance(value, str)) for item in items])
    rows = ROW_BYTES + TOKEN_BYTES * lengths + LOGIT_BYTES * np.array([logits(item) for item in items]) + texts

    def bytes_of(positions: int) -> np.ndarray:
        return rows + STATE_BYTES * width * np.minimum(lengths, positions)

    size = _size(parts, len(items), lengths, most, bytes_of(most))
    free = free_bytes(output)
    say(f"teacher-outputs  transfer set: {size}" + ("" if free is None else f"; the disk has {megabytes(free)} free"))
    if free is None or size.bytes + MODELS * weights <= free:
        return size
    room = free - MODELS * weights
    fewest = min(FEWEST_POSITIONS, most)
    positions = next((fewer for fewer in range(most, fewest, -1) if bytes_of(fewer).sum() <= room), fewest)
    kept = int(np.searchsorted(np.cumsum(bytes_of(positions)), room, side="right"))
    if kept < len(parts.training):
        needed = int(bytes_of(fewest)[: len(parts.training)].sum()) + MODELS * weights
        raise BonsaiError(
            f"{output} is on a disk with {megabytes(free)} free, and the teacher's outputs on the training "
            f"rows alone take {megabytes(needed)} with {fewest} hidden states a row and the models to come: free "
            "some, or name an --output on a larger disk"
        )
    smaller = _size(parts, kept, lengths, positions, bytes_of(positions))
    say(f"teacher-outputs  WARNING: the disk has no room for all of it and the models to come: keeps {smaller}")
    return smaller


def _size(parts: Parts, kept: int, lengths: np.ndarray, positions: int, each: np.ndarray) -> Size:
    training, unlabelled = len(parts.training), len(parts.unlabelled)
    found = Size(training, min(unlabelled, kept - training), max(0, kept - training - unlabelled), positions, 0, 0)
    return replace(found, tokens=int(lengths[:kept].sum()), bytes=int(each[:kept].sum()))
