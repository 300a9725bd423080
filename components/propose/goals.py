"""What a user asks of a model, and how well one does by it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError, check_choice
from kfp_bonsai.shared.core.ranges import FRACTION, ZERO_OR_MORE, Range, check_ranges
from kfp_bonsai.shared.metrics.target import ROUNDING

EMISSION, ACCURACY, LATENCY, SIZE, MEMORY = "emission", "accuracy", "latency", "size", "memory"
OBJECTIVES = (EMISSION, ACCURACY, LATENCY, SIZE, MEMORY)
COSTS = {EMISSION: "emission", LATENCY: "latency_ms", SIZE: "size_mb", MEMORY: "memory_mb"}  # and figures of a trial
FLAGS = {"emission": "max_emission", "latency_ms": "max_latency_ms", "size_mb": "max_size_mb"}
FLAGS |= {"memory_mb": "max_memory_mb"}
UNITS = {"emission": "", "latency_ms": " ms", "size_mb": " MB", "memory_mb": " MB"}
LEAST_CONFIDENCE, MOST_CONFIDENCE = 0.5, 0.99
RANGES = {
    "min_accuracy": FRACTION,
    "max_emission": FRACTION,
    "max_latency_ms": ZERO_OR_MORE,
    "max_size_mb": ZERO_OR_MORE,
    "max_memory_mb": ZERO_OR_MORE,
    "confidence": Range(LEAST_CONFIDENCE, MOST_CONFIDENCE, "a probability from 0.5 to 0.99"),
}


@dataclass(frozen=True)
class Targets:
    """What is asked for; 0 stands for no limit.

    Attributes:
        min_accuracy: the share of the baseline's score to keep.
        max_emission: the largest emission as a share of the baseline's.
        max_latency_ms: the largest median of requests of one row.
        max_size_mb: the largest size of the weights.
        max_memory_mb: the largest peak memory of a process that serves the model.
        objective: what to make best among those that meet the targets.
        confidence: how probable it must be that the chosen model meets them.
    """

    min_accuracy: float = 0.0
    max_emission: float = 0.0
    max_latency_ms: float = 0.0
    max_size_mb: float = 0.0
    max_memory_mb: float = 0.0
    objective: str = EMISSION
    confidence: float = 0.9

    @property
    def cost(self) -> str:
        """The figure that is traded against accuracy: that of the objective, else of the first limit."""
        if self.objective != ACCURACY:
            return COSTS[self.objective]
        return next(iter(self.limits), "emission")

    @property
    def limits(self) -> dict[str, float]:
        """The figures that are limited, with their limits."""
        return {figure: float(getattr(self, flag)) for figure, flag in FLAGS.items() if getattr(self, flag)}

    def excess(self, figures: Mapping[str, Any]) -> dict[str, float]:
        """Return how far each limited figure is above its limit, as a logarithm; below 0 it is met."""
        found = {}
        for figure, most in self.limits.items():
            value = figures.get(figure)
            found[figure] = math.inf if value is None else math.log(max(value, 1e-9) / most) - ROUNDING
        return found

    def affordable(self, figures: Mapping[str, Any]) -> bool:
        """Return whether all limits of what it costs are met."""
        return all(value <= 0 for value in self.excess(figures).values())

    def as_record(self) -> dict[str, Any]:
        """Return what a file says of it; None for what is not asked."""
        names = ("min_accuracy", *FLAGS.values())
        return {name: getattr(self, name) or None for name in names} | {
            "objective": self.objective,
            "confidence": self.confidence,
        }

    def __str__(self) -> str:
        parts = [f"at least {100 * self.min_accuracy:.4g} % of the accuracy"] if self.min_accuracy else []
        words = {
            "emission": "of the emission",
            "latency_ms": "ms a request",
            "size_mb": "MB",
            "memory_mb": "MB of memory",
        }
        for figure, most in self.limits.items():
            shown = f"{100 * most:.4g} %" if figure == "emission" else f"{most:g}"
            parts.append(f"at most {shown} {words[figure]}")
        return " and ".join(parts)


def targets_of(given: Mapping[str, Any]) -> Targets:
    """Return what is asked for, of arguments by their names.

    Raises:
        BonsaiError: nothing is asked for, a number is out of range, or nothing would be best.
    """
    check_ranges(RANGES, given)
    names = ("min_accuracy", *FLAGS.values())
    asked = {name: float(given.get(name, 0.0)) for name in names}
    if not any(asked.values()):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in names)
        raise BonsaiError(f"no target is stated, so any model would do: give one of {flags}, or several")
    objective = given.get("objective") or (EMISSION if asked["min_accuracy"] else ACCURACY)
    check_choice("--objective", objective, OBJECTIVES)
    if objective != ACCURACY and not asked["min_accuracy"]:
        raise BonsaiError(
            f"--objective {objective}: without --min-accuracy a model that knows nothing would be best: give one, or "
            "--objective accuracy"
        )
    return Targets(**asked, objective=objective, confidence=float(given.get("confidence", Targets.confidence)))
