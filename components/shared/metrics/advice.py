"""Which compression levels are sensible for a family and a number of rows, from what was measured.

The white paper advises from its Table 1; this does from our own runs, which are listed here with how to repeat them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEVELS = ("2/3 layers", "1/3 layers", "1/3 layers + matrix pruning")
KEEPS, COSTS = 0.98, 0.95  # relative accuracies above which a level is sensible, or has its price
FAR = 2.0  # rows that differ by more than this factor are another situation


@dataclass(frozen=True)
class Evidence:
    """One measured level.

    Attributes:
        family: the model's family.
        start: what was fine-tuned or trained.
        rows: labelled training rows.
        level: one of LEVELS.
        flops_ratio: FLOPs relative to the baseline's.
        relative_accuracy: accuracy relative to the baseline's.
        source: what to run to see it again.
    """

    family: str
    start: str
    rows: int
    level: str
    flops_ratio: float
    relative_accuracy: float
    source: str


@dataclass(frozen=True)
class Advice:
    """What to expect of a level, and why."""

    level: str
    verdict: str
    why: str


def _measured(family: str, start: str, rows: int, source: str, *figures: tuple[float, float]) -> list[Evidence]:
    """Return the three levels of one run: (FLOPs, relative accuracy) of each."""
    return [Evidence(family, start, rows, level, *pair, source) for level, pair in zip(LEVELS, figures, strict=True)]


SCRATCH, FAMILIES_RUN = "from scratch (a weak baseline)", "tests/benchmarks/families.py"
MINILM = "pretrained MiniLM"

# Test rows: 2,000 movie reviews each, or 1,000 Amazon reviews, so that one figure is good to about +-2 %.
EVIDENCE: tuple[Evidence, ...] = (
    *_measured("bert", MINILM, 8066, "make demo", (0.667, 0.985), (0.334, 0.988), (0.099, 0.986)),
    Evidence("bert", MINILM, 2100, LEVELS[2], 0.098, 0.993, "quality.py --data embedded:amazon-reviews"),
    Evidence("bert", MINILM, 500, LEVELS[1], 0.334, 0.953, "quality.py --max-rows 500 --unlabelled ''"),
    Evidence("bert", MINILM, 500, LEVELS[2], 0.099, 0.961, "quality.py --max-rows 500 --unlabelled ''"),
    *_measured("bert", SCRATCH, 8066, FAMILIES_RUN, (0.667, 0.999), (0.334, 0.996), (0.099, 1.004)),
    *_measured("gpt2", SCRATCH, 8066, FAMILIES_RUN, (0.667, 1.002), (0.333, 1.006), (0.099, 1.003)),
    *_measured("opt", SCRATCH, 8066, FAMILIES_RUN, (0.667, 1.001), (0.333, 1.000), (0.099, 0.996)),
    *_measured("t5", SCRATCH, 8066, FAMILIES_RUN, (0.684, 0.997), (0.368, 1.013), (0.093, 0.995)),
)


def advice(family: str, rows: int, evidence: Sequence[Evidence] = EVIDENCE) -> list[Advice]:
    """Return what to expect of each level for a family and a number of labelled rows.

    Of the family's own evidence and that of pretrained models, each at the nearest number of rows, the worse decides:
    a model that was trained from scratch has less to lose.
    """
    return [_of_level(level, family, rows, evidence) for level in LEVELS]


def lines(family: str, rows: int) -> list[str]:
    """Return the advice as lines for a log."""
    return [f"{one.level:{max(map(len, LEVELS))}}  {one.verdict:11}  {one.why}" for one in advice(family, rows)]


def _of_level(level: str, family: str, rows: int, evidence: Sequence[Evidence]) -> Advice:
    there = [one for one in evidence if one.level == level]
    own = [one for one in there if one.family == family]
    pretrained = [one for one in there if one.start != SCRATCH]
    known = [_nearest(found, rows) for found in (own, pretrained) if found]
    worst = min(known, key=lambda one: one.relative_accuracy)
    kept = worst.relative_accuracy
    verdict = "sensible" if kept >= KEEPS else "at a price" if kept >= COSTS else "not advised"
    why = "; ".join(dict.fromkeys(map(_said, known)))
    doubts = [] if own else [f"{family} itself was not measured"]
    if rows * FAR < worst.rows:
        doubts.append(f"with only {rows:,} rows expect less")
    if doubts and verdict == "sensible":
        verdict = "uncertain"
    return Advice(level, verdict, "; ".join([why, *doubts]))


def _nearest(evidence: Sequence[Evidence], rows: int) -> Evidence:
    """Return the evidence with the nearest number of rows, the worst of several."""
    return min(evidence, key=lambda one: (abs(math.log(one.rows / max(rows, 1))), one.relative_accuracy))


def _said(one: Evidence) -> str:
    kept = f"{one.relative_accuracy:.1%} kept at {one.flops_ratio:.1%} FLOPs"
    return f"{kept} by {one.family}, {one.start}, {one.rows:,} rows [{one.source}]"
