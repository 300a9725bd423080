"""What several models' true relative accuracies are likely to be, given what few rows say of them.

The best of many on some rows owes part of it to chance, so that what is chosen keeps less on other rows. Models made
from one baseline lie about a line over the logarithm of what they emit, each a little off it. That line and how far
models stray from it are learnt with all of them, and what the rows say of one is drawn towards it by as much as the
rows are few (empirical Bayes: Efron and Morris, JASA 70, 1975, section 2). What is believed then holds whichever of
them is chosen (Senn, Statistics in Medicine 27, 2008, section 3).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL, STEEPNESS = 0.03, 0.03  # how far, before anything is seen, the line may lie off 1, and fall per factor e
STRAYS = np.geomspace(0.001, 0.08, 40)  # how far models may stray from the line
USUAL_STRAY = 0.01


@dataclass(frozen=True)
class Belief:
    """What true values are likely to be: normal, with these means and variances."""

    means: np.ndarray
    variances: np.ndarray

    def chance(self, number: int, least: float) -> float:
        """Return the probability that a value is at least this."""
        return chance_above(float(self.means[number]), math.sqrt(float(self.variances[number])), least)


def chance_above(mean: float, deviation: float, least: float) -> float:
    """Return the probability that a normal value is at least this."""
    return 0.5 * math.erfc((least - mean) / (deviation * math.sqrt(2))) if deviation else float(mean >= least)


def believed(values: Sequence[float], covariance: np.ndarray, emissions: Sequence[float]) -> Belief:
    """Return what relative accuracies are likely to be.

    Args:
        values: as some rows say.
        covariance: of what other rows would say: the same rows, so that models err together.
        emissions: relative to the baseline's.
    """
    seen = np.asarray(values, dtype=float) - 1.0
    position = np.log(np.asarray(emissions, dtype=float))
    line = LEVEL**2 + STEEPNESS**2 * np.outer(position, position)
    one = np.eye(len(seen))

    def likelihood(stray: float) -> float:
        spread = line + stray**2 * one + covariance
        _, size = np.linalg.slogdet(spread)
        prior = -((stray / USUAL_STRAY) ** 2) / 8  # a half normal of twice the usual
        return float(prior - 0.5 * (size + seen @ np.linalg.solve(spread, seen)))

    weights = np.array([likelihood(stray) for stray in STRAYS])
    weights = np.exp(weights - weights.max())
    weights /= weights.sum()
    means, squares = np.zeros(len(seen)), np.zeros(len(seen))
    for stray, weight in zip(STRAYS, weights, strict=True):  # the mean over what the stray may be
        own = line + stray**2 * one
        gain = np.linalg.solve(own + covariance, own).T
        mean = gain @ seen
        means += weight * mean
        squares += weight * (np.diag(own - gain @ own) + mean**2)
    return Belief(means + 1.0, np.maximum(squares - means**2, 1e-12))


def updated(mean: float, deviation: float, value: float, error: float) -> tuple[float, float]:
    """Return the mean and the deviation of what is believed after other rows have said a value with an error."""
    if not error:
        return value, 0.0
    weight = deviation**2 / (deviation**2 + error**2)
    return mean + weight * (value - mean), math.sqrt(weight) * error
