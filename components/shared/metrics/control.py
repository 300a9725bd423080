"""Whether a measurement's control lets its ratios be believed.

The control is the baseline measured against itself, of which the truth is 1. That its interval covers 1 proves nothing:
the wider it is, the surer it does. So it is a test of equivalence, two one-sided tests (D. J. Schuirmann, Journal of
Pharmacokinetics and Biopharmaceutics 15, 1987, 657-680): it passes where the whole interval lies within a margin of 1.

Schuirmann's tests at 5 % belong to an interval of 90 %. Here it is that of 95 %, as it is shown, so that a reader sees
what decided; the tests are then at 2.5 %, which leaves room for looking after each round. In simulations of 10 to 20
rounds of spiky noise that go on until it passes (protocol.py), a control off by its whole margin passed in 1 to 6 of
100, and one that is right failed in up to 5.
"""

from collections.abc import Mapping, Sequence
from typing import Any

PASSED, INCONCLUSIVE, FAILED, MISSING = "passed", "inconclusive", "failed", "missing"  # the best first
STATES = (PASSED, INCONCLUSIVE, FAILED, MISSING)
USUAL_PRECISION = 0.02  # of the ratios, where none is asked for
LARGEST_MARGIN = 0.1  # whatever precision is asked for
WHAT_TO_DO = "measure again on a calmer machine, with more --pairs or a longer --time-budget"
DOUBTS = {
    INCONCLUSIVE: "the control is inconclusive",
    FAILED: "the control failed",
    MISSING: "there is no control",
}


def margin_for(precision: float | None) -> float:
    """Return how far from 1 a control's interval may reach: twice the precision asked for, at most 10 %.

    An interval of that precision, plus or minus, which covers 1 lies within it.
    """
    return min(LARGEST_MARGIN, 2 * (precision or USUAL_PRECISION))


def state(ends: Sequence[float], margin: float) -> str:
    """Return whether a control passed, failed (its interval leaves out 1), or is inconclusive.

    Args:
        ends: its 95 % interval.
        margin: as a fraction of 1.
    """
    low, high = ends
    if not low <= 1 <= high:
        return FAILED
    return PASSED if 1 - margin <= low and high <= 1 + margin else INCONCLUSIVE


def margin_of(measurement: Mapping[str, Any]) -> float:
    """Return the margin of a measurement, also of one from before it was stated."""
    stated = (measurement.get("control") or {}).get("margin")
    return stated or margin_for((measurement.get("protocol") or {}).get("precision"))


def of_measurement(measurement: Mapping[str, Any]) -> str:
    """Return the state of a measurement's control, by its interval."""
    ends = (measurement.get("control") or {}).get("ci")
    return state(ends, margin_of(measurement)) if ends else MISSING


def worst(states: Sequence[str]) -> str:
    """Return the worst of some states."""
    return max(states, key=STATES.index, default=MISSING)


def of_results(results: Mapping[str, Any]) -> str:
    """Return the state that a results.json tells; one from before it did tells whether the interval covered 1."""
    told, covered = results.get("control"), results.get("control_covers_one")
    if told in STATES:
        return str(told)
    return MISSING if covered is None else PASSED if covered is True else FAILED
