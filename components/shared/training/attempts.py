"""Attempts at one piece of work: each goes on where the one before it was ended, and their costs are added up.

What an attempt keeps lies in a folder of its own, beside the output or where BONSAI_SCRATCH says, whose name tells
exactly what is made of what: what other arguments, data, weights or versions left is never used.
"""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from kfp_bonsai import __version__
from kfp_bonsai.shared.core import ranks, stopping
from kfp_bonsai.shared.core.documents import kept_document
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import (
    CHECKPOINTS,
    SCRATCH,
    checkpoints_name,
    checkpoints_of,
    free_bytes,
    place_of,
)
from kfp_bonsai.shared.core.progress import megabytes, say
from kfp_bonsai.shared.energy.energy import Meter, Reading

SECONDS = "BONSAI_CHECKPOINT_SECONDS"  # between two checkpoints, which is what a process that is killed loses
USUAL_SECONDS = 120.0
SHARE = 50  # times as long as writing a checkpoint took it is at least until the next one
MOST = 3  # checkpoints at once: the newest, the one to roll back to, and one that is being written


def _seconds() -> float:
    """Return the seconds from one checkpoint to the next, which the environment may state.

    Raises:
        BonsaiError: what it states is no number of 0 or more.
    """
    stated = os.environ.get(SECONDS, "").strip()
    with suppress(ValueError):
        if 0 <= (seconds := float(stated or USUAL_SECONDS)) < math.inf:
            return seconds
    raise BonsaiError(f"{SECONDS} is '{stated}': give seconds from one checkpoint to the next, such as 60, or unset it")


class Lost(Exception):
    """What was trained is worth nothing: there is no going on from it."""


@dataclass
class Attempt:
    """One attempt.

    Attributes:
        folder: where what it keeps lies.
        meter: what this attempt costs, once it is set.
        earlier: what the attempts before it cost, up to what was kept of them.
    """

    folder: Path
    meter: Meter | None = None
    earlier: Reading | None = None
    _every: float = field(default_factory=_seconds)
    _kept_at: float = field(default_factory=time.monotonic)
    _took: float = 0.0

    def is_due(self) -> bool:
        """Say whether it is time to keep what there is."""
        return time.monotonic() - self._kept_at >= max(self._every, SHARE * self._took if self._every else 0.0)

    def keep(self, write: Callable[[], None]) -> None:
        """Write what is to be kept; where that cannot be done, say so: it costs no run.

        Args:
            write: writes it, whole or not at all.
        """
        started = time.monotonic()
        try:
            write()
        except OSError as error:
            say(
                f"WARNING: what was done so far cannot be kept in {self.folder} ({error}): the work goes on; "
                "interrupted, it would begin where it was kept last, or anew"
            )
        self._kept_at = time.monotonic()
        self._took = self._kept_at - started

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what an earlier attempt found, if it did and that is whole; else find it, and keep it: JSON.

        Args:
            name: what it is called.
            make: finds it.
        """
        file = self.folder / f"{name}.json"
        match kept_document(file):
            case {"found": str(text), "sha256": digest} if digest == _hash(text):
                return json.loads(text)
            case _ if file.exists():
                say(f"note: {file} is damaged: what it held is found again")
        found = make()
        text = json.dumps(found)

        def write() -> None:
            self.folder.mkdir(parents=True, exist_ok=True)
            half = file.with_suffix(".half")
            half.write_text(json.dumps({"found": text, "sha256": _hash(text)}), encoding="utf-8")
            half.replace(file)

        if ranks.is_first():
            self.keep(write)
        return found

    def total(self, own: Reading) -> Reading:
        """Return the cost of this attempt and those before it."""
        return self.earlier + own if self.earlier else own

    def spent(self) -> dict[str, Any] | None:
        """Return what was spent until now as JSON; None if nobody counts."""
        return asdict(self.total(self.meter.so_far())) if self.meter else None

    def resume(self, spent: dict[str, Any] | None) -> None:
        """Take over what the attempts before this one spent."""
        self.earlier = Reading(**spent) if spent else None


@contextmanager
def attempt(stage: str, output: Path, identity: Sequence[Any]) -> Iterator[Attempt]:
    """Yield an attempt; what it keeps is removed when the block ends well, or what was trained is lost.

    Args:
        stage: the stage.
        output: what is to be made.
        identity: of what and how, as JSON: only attempts of the same share what they keep.
    """
    stopping.heed()
    digest = _hash(json.dumps([__version__, torch.__version__, stage, *identity]))[:12]
    shared = os.environ.get(SCRATCH)
    folder = Path(shared or place_of(output)) / f"{checkpoints_name(output)}.{digest}{CHECKPOINTS}"
    others = [] if shared else [one for one in checkpoints_of(output, folder.parent) if one != folder]
    if others and not folder.exists():
        say(f"{stage}  an earlier attempt had other arguments, data or weights: begins anew ({others[0]} is not used)")
    try:
        yield Attempt(folder)
    except BaseException as error:
        with suppress(OSError):
            folder.rmdir()  # if it is empty
        if isinstance(error, Lost):
            shutil.rmtree(folder, ignore_errors=True)
            raise BonsaiError(str(error)) from error
        raise
    for one in (folder, *others):  # what others left was for this output too, which now is there
        if ranks.is_first():
            shutil.rmtree(one, ignore_errors=True)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def check_room(folder: Path, network: Any, epochs: float, freeze_embeddings: bool) -> None:
    """Refuse a disk that has no room for the checkpoints: float32 weights, and AdamW's two numbers of each trained one.

    Args:
        folder: where they will be, beside those that are there already.
        network: the model, of which the shapes are enough.
        epochs: passes over the rows, of which the best one's weights are kept beside the newest.
        freeze_embeddings: whether the embeddings stay.

    Raises:
        BonsaiError: there is no room.
    """
    whole = sum(each.numel() for each in network.parameters())
    frozen = sum(each.numel() for each in network.get_input_embeddings().parameters()) if freeze_embeddings else 0
    each = 4 * whole * (1 + (epochs > 1)) + 8 * (whole - frozen)
    count = MOST - len([*folder.glob("checkpoint-*")])
    free = free_bytes(folder)
    if free is not None and free < count * each:
        raise BonsaiError(
            f"{folder.parent} is on a disk with {megabytes(free)} free, and fine-tuning's checkpoints take "
            f"{megabytes(count * each)} there for a while ({count} times {megabytes(each)}): free some, name an "
            "--output on a larger disk, or give fewer --epochs"
        )
