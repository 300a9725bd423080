"""The checkpoints of a fine-tune: the room they take, and beside them what the attempts that left them have cost."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from kfp_bonsai.shared.core import ranks
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import free_bytes
from kfp_bonsai.shared.core.progress import megabytes
from kfp_bonsai.shared.energy.energy import Meter, Reading

NOTE = "spent.json"
MOST = 3  # checkpoints at once: the best, the last, and the next one before one of them is removed


def check_room(folder: Path, network: Any, epochs: float, freeze_embeddings: bool) -> None:
    """Refuse a disk that has no room for the checkpoints: float32 weights, and AdamW's two numbers of each trained one.

    Args:
        folder: where they will be, beside those that are there already.
        network: the model, of which the shapes are enough.
        epochs: passes over the rows, of which each leaves one.
        freeze_embeddings: whether the embeddings stay.

    Raises:
        BonsaiError: there is no room.
    """
    whole = sum(each.numel() for each in network.parameters())
    frozen = sum(each.numel() for each in network.get_input_embeddings().parameters()) if freeze_embeddings else 0
    each = 4 * whole + 8 * (whole - frozen)
    count = min(MOST, math.ceil(epochs)) - len([*folder.glob("checkpoint-*")])
    free = free_bytes(folder)
    if free is not None and free < count * each:
        raise BonsaiError(
            f"{folder.parent} is on a disk with {megabytes(free)} free, and fine-tuning's checkpoints take "
            f"{megabytes(count * each)} there for a while ({count} times {megabytes(each)}): free some, name an "
            "--output on a larger disk, or give fewer --epochs"
        )


def spent(scratch: Path) -> Reading | None:
    """Return what the attempts that left checkpoints here cost up to the last of them; None if none did."""
    file = scratch / NOTE
    return Reading(**json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def total(earlier: Reading | None, own: Reading) -> Reading:
    """Return the cost of earlier attempts and this one."""
    return earlier + own if earlier else own


class Spending(TrainerCallback):
    """Notes at each checkpoint what has been spent."""

    def __init__(self, scratch: Path, meter: Meter, earlier: Reading | None) -> None:
        self.file, self.meter, self.earlier = scratch / NOTE, meter, earlier

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note it."""
        found = total(self.earlier, self.meter.so_far())
        if ranks.is_first():
            self.file.with_suffix(".new").write_text(json.dumps(asdict(found)), encoding="utf-8")
            self.file.with_suffix(".new").replace(self.file)
