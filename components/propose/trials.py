"""The trials of a search so far: what each was, how far it was healed, and what is made of that.

A trial is a folder with record.json and the model; a pool holds them as trials/NUMBER-RUNG. Healing goes by rungs, of
which the last is the whole of the distillation that a level gets.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from kfp_bonsai.propose.ground import Ground
from kfp_bonsai.shared.core.documents import read_document
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.written import TRIAL

RECORD, TRIALS, MODEL, INT8 = "record.json", "trials", "model", "int8"
FEWER_TOKENS = "fewer-tokens"  # of a trial's model that writes, what goes out, beside the one that is healed further
RUNGS = (0.1, 0.35, 1.0)  # of the whole distillation, until each
LAST = len(RUNGS) - 1
USUAL_GAINS = (0.015, 0.005)  # of relative accuracy from each rung to the last, until it is seen


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        number: its number.
        point: where it is in the space, or {"model": ...} of a ready-made model.
        parent: the trial whose model it started from; -1 for the baseline.
        healed: of each rung that it was healed to: rung, order (among all of the search), relative_accuracy, draws
            (the same on resampled rows), seconds and joules.
        figures: emission, latency_ms, size_mb, memory_mb; of an int8 model where those are asked for.
        predicted: the emission that the table predicted.
        error: why it failed, or why healing it further did, or "".
        facts: what else is told of it: its shape in words, FLOPs, parameters.
    """

    number: int
    point: Mapping[str, Any]
    parent: int = -1
    healed: Sequence[Mapping[str, Any]] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    predicted: float | None = None
    error: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rung(self) -> int:
        """The last rung that it was healed to; -1 if none."""
        return int(self.healed[-1]["rung"]) if self.healed else -1

    @property
    def accuracy(self) -> float:
        """Its relative accuracy on the validation rows."""
        return float(self.healed[-1]["relative_accuracy"])

    @property
    def draws(self) -> Sequence[float]:
        """The same on resampled rows."""
        found: Sequence[float] = self.healed[-1]["draws"]
        return found

    @property
    def is_whole(self) -> bool:
        """Whether it was healed to the end."""
        return self.rung == LAST

    @property
    def is_usable(self) -> bool:
        """Whether there is a model, and figures of it."""
        return bool(self.healed) and bool(self.figures.get("emission"))

    @property
    def may_go_on(self) -> bool:
        """Whether its model can be healed further: nothing failed, and it is not whole yet."""
        return self.is_usable and not self.error and not self.is_whole

    @property
    def name(self) -> str:
        """What it is called."""
        return self.point.get("label") or name_of(self.point, self.number)

    @property
    def cost(self) -> tuple[float, float]:
        """The seconds and joules that it took."""
        return sum(one["seconds"] for one in self.healed), sum(one["joules"] for one in self.healed)


def name_of(point: Mapping[str, Any], number: int) -> str:
    """Return what a trial is called: its number, and what makes the same of it as a level of a run."""
    if "model" in point:
        return f"{number}: {point['model'].rsplit('/', 1)[-1].rpartition(':')[2]}"
    share = "" if point["share"] == 1 else f",emission={point['share']:.3g}"
    return f"{number}: layers={point['layers']}{share}{',shape=stock' if point['shape'] == 'stock' else ''}"


def write_trial(folder: Path, trial: Trial) -> None:
    """Write a trial's record into its folder."""
    (Path(folder) / RECORD).write_text(json.dumps(asdict(trial), indent=1) + "\n", encoding="utf-8")


def read_trial(folder: Path) -> Trial:
    """Read a trial's record.

    Raises:
        BonsaiError: it is not there, or damaged.
    """
    path = Path(folder) / RECORD
    try:
        found = read_document(path, "bonsai search", shape=TRIAL)
    except BonsaiError as error:
        raise BonsaiError(f"{error}; or remove the trial's folder, {folder}, and it is forgotten") from error
    return Trial(**{name: found[name] for name in Trial.__dataclass_fields__})


def folder_of(pool: Path, number: int) -> Path | None:
    """Return a trial's folder of the last rung; None if it has none."""
    found = sorted((Path(pool) / TRIALS).glob(f"{number:03}-*"))
    return found[-1] if found else None


def model_in(folder: Path) -> Path:
    """Return the model of a trial's folder that is looked at, and goes out."""
    fewer = Path(folder) / FEWER_TOKENS
    return fewer if fewer.is_dir() else Path(folder) / MODEL


def folder_name(number: int, rung: int) -> str:
    """Return what a trial's folder is called."""
    return f"{number:03}-{rung}"


def read_trials(pool: Path) -> list[Trial]:
    """Return all trials of a pool, each as it stands after its last rung."""
    found = {}
    for folder in sorted((Path(pool) / TRIALS).glob("[0-9]*-[0-9]*")):
        if (folder / RECORD).is_file():
            one = read_trial(folder)
            found[one.number] = one
    return [found[number] for number in sorted(found)]


def gains(trials: Iterable[Trial], ground: Ground) -> list[float]:
    """Return what relative accuracy a trial gains from each rung to the last, as was seen, here or in earlier ones."""
    found = []
    whole = [each for each in trials if each.is_whole and each.is_usable]
    for rung in range(LAST):
        own = [each.accuracy - one["relative_accuracy"] for each in whole for one in each.healed if one["rung"] == rung]
        usual = ground.gains[rung] if rung < len(ground.gains) else USUAL_GAINS[rung]
        found.append(median([*own, usual]))
    return [*found, 0.0]


def foreseen(trial: Trial, gained: Sequence[float]) -> float:
    """Return the relative accuracy that a trial is likely to have when it is healed to the end."""
    return trial.accuracy + gained[trial.rung]


def corrected(trials: Iterable[Trial]) -> float:
    """Return what emissions were measured to be, as a multiple of what the table predicted."""
    ratios = [math.log(one.figures["emission"] / one.predicted) for one in trials if one.is_usable and one.predicted]
    return math.exp(median(ratios)) if ratios else 1.0


def covariance(trials: Sequence[Trial], rows: int, score: float) -> np.ndarray:
    """Return the covariance of what other rows would say of trials.

    To it is added what one row more would change that only one of both models gets right: two models that agree on
    all rows need not agree on all others.

    Args:
        trials: whose draws are of the same resamples.
        rows: validation rows.
        score: the baseline's.
    """
    drawn = np.array([one.draws for one in trials], dtype=float)
    found = np.atleast_2d(np.cov(drawn)) if len(trials) else np.zeros((0, 0))
    return found + np.eye(len(trials)) / (rows * max(score, 1e-6)) ** 2 * 2
