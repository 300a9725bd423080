"""What a search stands on (ground.json): the baseline's figures, what shapes cost by a table, and what was seen before.

A point of the space is {"layers": 3, "share": 0.2, "shape": "free"}: so many layers stay, and their heads, neurons and
(stock) hidden width are pruned to this share of the baseline's emission, as the table predicts it. What matrix-prune
finds worth keeping decides how many heads and neurons of which layer those are.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp_bonsai.propose.goals import FLAGS, UNITS, Targets
from kfp_bonsai.shared.core import written
from kfp_bonsai.shared.core.documents import read_document
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.progress import say

GROUND, MADE_BY = "ground.json", "bonsai search"
FREE, STOCK, ANY = "free", "stock", "any"
SHAPES = (FREE, STOCK, ANY)
WHOLE = 0.97  # of what its layers cost: above it, matrices stay as they are
ROUND_SHARE = 4  # digits
FAR_SHORT = 0.03  # of relative accuracy
USUAL_KEEPS = ((1.0, 1.0), (0.67, 0.995), (0.33, 0.985), (0.1, 0.965), (0.05, 0.94))  # where nothing was measured


@dataclass(frozen=True)
class Ground:
    """What a search stands on.

    Attributes:
        layers: of the baseline; of the shorter stack where there are two.
        limits: by shape, for each number of layers the least and the most that they can cost, by the table.
        error: of the table, as a fraction.
        device: that the table and all figures are of, in words.
        baseline: its figures: accuracy, latency_ms, size_mb, memory_mb, and size_rest_mb, which no pruning makes less.
        int8: each figure of the baseline as int8 as a share of the baseline's; {} where int8 is not asked for.
        seen: (emission, relative accuracy) that like models had; rises.
        gains: what relative accuracy earlier searches gained from each rung to the last.
        rivals: ready-made models to try too.
        begin: points to begin with, that did well in earlier searches.
        rest: what else the file says.
    """

    layers: int
    limits: Mapping[str, Mapping[str, Sequence[float]]]
    error: float
    device: str
    baseline: Mapping[str, Any]
    int8: Mapping[str, float] = field(default_factory=dict)
    seen: Sequence[Sequence[float]] = USUAL_KEEPS
    gains: Sequence[float] = ()
    rivals: Sequence[str] = ()
    begin: Sequence[Mapping[str, Any]] = ()
    rest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shapes(self) -> list[str]:
        """The shapes that may be tried."""
        return [*self.limits]

    @property
    def vocabulary(self) -> int:
        """How many tokens models that write have in the end, as the table reckons; 0 where they have all."""
        return int(self.rest.get("vocabulary", 0))

    def bounds(self, shape: str, layers: int) -> tuple[float, float]:
        """Return the least and the most that so many layers cost."""
        least, most = self.limits[shape][str(layers)]
        return float(least), float(most)

    @property
    def least(self) -> float:
        """The least emission of any shape, as the table has it, of an int8 model where those are asked for."""
        return min(low for one in self.limits.values() for low, _ in one.values()) * self.int8.get("emission", 1.0)

    def settled(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Return a point with a share that its layers can have; 1 leaves their matrices as they are."""
        least, most = self.bounds(point["shape"], point["layers"])
        share = max(point["share"], 1.02 * least)
        share = 1.0 if share >= min(1.0, WHOLE * most) else round(share, ROUND_SHARE)
        return {"layers": int(point["layers"]), "share": share, "shape": point["shape"]}

    def emission(self, point: Mapping[str, Any]) -> float:
        """Return what a settled point is predicted to emit as a float model."""
        return min(point["share"], self.bounds(point["shape"], point["layers"])[1])

    def keeps(self, emission: float) -> float:
        """Return the relative accuracy to expect of a float model of this emission, by what was seen before."""
        import numpy as np

        found = sorted((float(one), float(kept)) for one, kept in self.seen)
        return float(np.interp(math.log(emission), [math.log(one) for one, _ in found], [kept for _, kept in found]))

    def needs(self, accuracy: float) -> float | None:
        """Return the least emission at which a float model is expected to keep that; None if none is."""
        import numpy as np

        low = min(one for limits in self.limits.values() for one, _ in limits.values())
        return next((float(one) for one in np.geomspace(low, 1.0, 60) if self.keeps(float(one)) >= accuracy), None)


def read_ground(pool: Path) -> Ground:
    """Read what a search stands on.

    Raises:
        BonsaiError: the folder is none of a search, or the file is damaged.
    """
    found = read_document(Path(pool) / GROUND, MADE_BY, shape=written.GROUND)
    return Ground(**{name: found[name] for name in Ground.__dataclass_fields__})


def write_ground(pool: Path, ground: Ground) -> None:
    """Write it."""
    text = json.dumps(ground.__dict__, indent=1, default=lambda one: dict(one))
    (Path(pool) / GROUND).write_text(text + "\n", encoding="utf-8")


def check_possible(ground: Ground, targets: Targets) -> None:
    """Refuse targets that no model can meet, as far as that is known before one is made; warn of what none like it met.

    Raises:
        BonsaiError: one cannot be met; the nearest that can is said.
    """
    as_int8 = ground.int8.get("emission", 1.0)
    emission = ground.least * (1 - min(ground.error, 0.5))
    if targets.max_emission and targets.max_emission < emission and not ground.rivals:
        raise BonsaiError(
            f"--max-emission {targets.max_emission:g} cannot be met: the smallest model that this baseline can be cut "
            f"to emits about {100 * ground.least:.2g} % of it, by the table of {ground.device} (off by up to "
            f"{100 * ground.error:.0f} %): ask for {_up(ground.least * (1 + ground.error)):g} or more"
            + ("" if ground.int8 else ", or for int8 too (--edge)")
        )
    size = float(ground.baseline.get("size_rest_mb") or 0) * ground.int8.get("size_mb", 1.0)
    if targets.max_size_mb and targets.max_size_mb < 0.95 * size and not ground.rivals:
        raise BonsaiError(
            f"--max-size-mb {targets.max_size_mb:g} cannot be met: the embeddings alone, which stay, take {size:.1f} "
            f"MB: ask for more, name a ready-made model (--rival)"
            + ("" if ground.int8 else ", or ask for int8 (--edge)")
        )
    for figure, most in targets.limits.items():
        whole = (ground.baseline.get(figure) or 0.0) * ground.int8.get(figure, 1.0)
        if targets.min_accuracy == 1 and most < 0.05 * whole:
            flag = FLAGS[figure].replace("_", "-")
            raise BonsaiError(
                f"--min-accuracy 1 and --{flag} {most:g} contradict each other: the baseline "
                f"takes {whole:.3g}{UNITS[figure]}, and no model of a twentieth of it keeps all: give one of them up"
            )
    # A request of one row does not grow with the emission of a batch only: it takes a larger share.
    latency = emission / as_int8 * (ground.baseline.get("latency_ms") or 0.0) * ground.int8.get("latency_ms", 1.0)
    if 0 < targets.max_latency_ms < latency and not ground.rivals:
        raise BonsaiError(
            f"--max-latency-ms {targets.max_latency_ms:g} cannot be met: the smallest model that this baseline can be "
            f"cut to takes about {latency:.2g} ms or more: ask for more, or name a ready-made model (--rival)"
        )
    kept, needed = ground.keeps((targets.max_emission or 1.0) / as_int8), ground.needs(targets.min_accuracy)
    if targets.min_accuracy - kept > FAR_SHORT:
        say(
            f"note: like models kept about {100 * kept:.0f} % of the accuracy at {100 * targets.max_emission:.2g} % of "
            f"the emission, and {100 * targets.min_accuracy:.4g} % are asked for: expect that none is found"
            + (f"; they needed about {100 * needed * as_int8:.2g} %" if needed else "")
        )


def _up(value: float) -> float:
    """Return a share rounded up to two digits."""
    digits = 1 - math.floor(math.log10(value))
    return math.ceil(value * 10**digits) / 10**digits
