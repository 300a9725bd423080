"""What earlier attempts at a fine-tune have cost, noted beside the checkpoints that they left."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from kfp_bonsai.shared.core import ranks
from kfp_bonsai.shared.energy.energy import Meter, Reading

NOTE = "spent.json"


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
