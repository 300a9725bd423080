"""What was measured of compression levels: shipped with this package, left by studies on this machine, or given.

A file of evidence is what a study writes as evidence.json (written.EVIDENCE says its fields): each compressed level of
each cell, with what it was made from. Those in measured/ are shipped; a finished study leaves a copy
of its own in the cache folder (core/cache.py), under evidence/.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core import written
from kfp_bonsai.shared.core.cache import cached
from kfp_bonsai.shared.core.documents import read_document
from kfp_bonsai.shared.core.errors import BonsaiError, in_words
from kfp_bonsai.shared.core.files import new_file
from kfp_bonsai.shared.core.progress import say

SHIPPED = Path(__file__).parent / "measured"
FILE = "evidence.json"
MADE_BY = "bonsai study"
TENTH = Fraction(1, 10)  # of the FLOPs, which the white paper prunes to
PRUNED_TO = (Fraction(1, 2), Fraction(1, 3), Fraction(1, 5), TENTH, Fraction(1, 20), Fraction(1, 50))


@dataclass(frozen=True)
class Evidence:
    """One level that was measured once.

    Attributes:
        family: the model's family; "" where that was not told.
        model: what was fine-tuned.
        rows: labelled training rows.
        level: what it was called.
        flops_ratio: FLOPs relative to the baseline's.
        relative_accuracy: score relative to the baseline's.
        source: where it was measured, or what to run to see it again.
        from_scratch: whether the baseline was not pretrained, and so has less to lose.
        parameters: of the baseline.
        data: the data set.
        kind: of task.
        metric: of the score.
        test_rows: of the test split.
        seed: of the run.
        layers: share of the layers that stayed; None of ready-made models, and where it was not told.
        flops: share of the FLOPs that matrices were to be pruned to; None of whole layers, and where it was not told.
        shape: "stock" or "free"; "" for whole layers and ready-made models, which are both.
        student: the ready-made model that was taught instead of compressing the baseline; "" for none.
        unlabelled_rows: of text without labels that it was distilled with.
        relative_accuracy_ci: its 95 % interval.
        relative_emission: relative to the baseline's.
        emission_label: measured, estimated or proxy.
        divergence: of its answers from the baseline's (KL, nats a row).
        score: the baseline's.
        floor: the score of what costs next to nothing.
    """

    family: str
    model: str
    rows: int
    level: str
    flops_ratio: float
    relative_accuracy: float
    source: str
    from_scratch: bool = False
    parameters: int | None = None
    data: str = ""
    kind: str = ""
    metric: str = ""
    test_rows: int | None = None
    seed: int | None = None
    layers: float | None = None
    flops: float | None = None
    shape: str = ""
    student: str = ""
    unlabelled_rows: int | None = None
    relative_accuracy_ci: tuple[float, float] | None = None
    relative_emission: float | None = None
    emission_label: str = ""
    divergence: float | None = None
    score: float | None = None
    floor: float | None = None

    @property
    def what(self) -> str:
        """What it is, whatever it was called, as the white paper calls its levels; its name where that was not told."""
        if self.student or self.layers is None:
            return self.level
        name = f"{Fraction(self.layers).limit_denominator(12)} layers"
        if not self.shape:
            return name
        share = self.flops or self.flops_ratio
        to = min(PRUNED_TO, key=lambda one: abs(math.log(share / one)))
        return f"{name} + matrix pruning{'' if to == TENTH else f' to {to}'}{', stock' * (self.shape == 'stock')}"

    @property
    def is_weak(self) -> bool:
        """Whether the baseline has little to lose: not pretrained, or no better than what costs next to nothing."""
        return self.from_scratch or (self.floor is not None and self.score is not None and self.score <= self.floor)


def read_evidence(given: Path) -> list[Evidence]:
    """Read a file of evidence, or that of a study's folder.

    Raises:
        BonsaiError: there is none, it is damaged or something else, or it holds nothing.
    """
    path = Path(given) / FILE if Path(given).is_dir() else Path(given)
    found = [_made(each) for each in read_document(path, MADE_BY, "evidence", shape=written.EVIDENCE)["evidence"]]
    if not found:
        raise BonsaiError(f"{path} holds no evidence, as none of the study's cells is done: give one of which some are")
    return found


def _made(entry: Mapping[str, Any]) -> Evidence:
    known = {field.name: entry[field.name] for field in fields(Evidence) if entry.get(field.name) is not None}
    if "relative_accuracy_ci" in known:
        known["relative_accuracy_ci"] = tuple(known["relative_accuracy_ci"])
    return Evidence(**known)


def shipped() -> list[Evidence]:
    """Return the evidence of this package."""
    return [one for path in sorted(SHIPPED.glob("*.json")) for one in read_evidence(path)]


def left_here() -> list[Evidence]:
    """Return what studies on this machine left; a file that cannot be read is told of, and left out."""
    found = []
    for path in sorted(cached("evidence").glob("*.json")):
        try:
            found += read_evidence(path)
        except BonsaiError as error:
            say(f"note: evidence of an earlier study is left out: {error}")
    return found


def own_evidence(given: Sequence[str | Path]) -> list[Evidence]:
    """Return what was given and what was left here, each once.

    Raises:
        BonsaiError: something given cannot be read.
    """
    stated = [one for path in given for one in read_evidence(Path(path))]
    return [*dict.fromkeys([*stated, *left_here()])]


def leave(document: Mapping[str, Any], name: str) -> None:
    """Leave a copy of a study's evidence here, under a name that only this study has; that it fails costs nothing.

    Args:
        document: what evidence.json holds.
        name: what tells the study from others.
    """
    if not document["evidence"]:
        return
    path = cached("evidence") / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as file:
            file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except (OSError, BonsaiError) as error:
        say(f"note: `bonsai advise` will not know of this study unless it is given: {in_words(error)}")
