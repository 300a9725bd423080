"""A control must pass only where it proves something, and read the same in every file that tells of it."""

import numpy as np
import pytest

from kfp_bonsai.shared.metrics import control, statistics


@pytest.mark.parametrize(
    ("ends", "margin", "state"),
    [
        ((0.97, 1.03), 0.04, "passed"),
        ((0.96, 1.04), 0.04, "passed"),
        ((0.93, 1.35), 0.04, "inconclusive"),
        ((0.95, 1.01), 0.04, "inconclusive"),
        ((0.99, 1.05), 0.04, "inconclusive"),
        ((0.95, 1.01), 0.06, "passed"),
        ((1.001, 1.01), 0.04, "failed"),
        ((0.5, 0.99), 0.04, "failed"),
    ],
)
def test_only_an_interval_within_the_margin_passes(ends, margin, state):
    """An interval so wide that it cannot miss 1 would prove that the machine was calm."""
    assert control.state(ends, margin) == state


def test_the_margin_follows_the_precision_and_has_an_end():
    """Whoever asks for +-50 % would have every control pass; whoever asks for none would have none pass."""
    assert [control.margin_for(precision) for precision in (0, None, 0.02, 0.01, 0.5)] == [0.04, 0.04, 0.04, 0.02, 0.1]


def test_an_interval_as_narrow_as_asked_that_covers_one_passes():
    """A measurement would have all that was asked of it, and still be told to prove nothing."""
    for middle in (0.981, 1.0, 1.019):
        assert control.state((middle * 0.9805, middle * 1.0195), control.margin_for(0.02)) == "passed"


def test_a_control_that_is_off_by_its_margin_seldom_passes_however_often_one_looks():
    """Going on until it passes would pass whatever there is."""
    random, margin, passed = np.random.default_rng(0), control.margin_for(0.02), 0
    for _ in range(150):
        pairs = np.stack([np.ones(20), (1 + margin) * np.exp(0.03 * random.standard_normal(20))], axis=1)
        for rounds in range(10, 21):
            found = statistics.ratio(pairs[:rounds])
            if control.state((found.low, found.high), margin) == "passed":
                passed += 1
                break
    assert passed / 150 < 0.1


def test_older_files_are_judged_by_their_interval_and_precision():
    """Their `covers_one` says that a control passed which proves nothing."""
    old = {"control": {"ci": [0.93, 1.35], "covers_one": True}, "protocol": {"precision": 0.02}}
    assert control.of_measurement(old) == "inconclusive"
    assert control.of_measurement({"control": {"ci": [0.95, 1.02]}, "protocol": {"precision": 0.05}}) == "passed"
    assert control.of_measurement({}) == control.of_measurement({"control": None}) == "missing"


def test_results_tell_the_state_or_at_least_whether_one_was_covered():
    """A package from before there were three states would be refused, or one without any control be taken."""
    assert control.of_results({"control": "inconclusive", "control_covers_one": True}) == "inconclusive"
    told = [control.of_results({"control_covers_one": value}) for value in (True, False, None)]
    assert told == ["passed", "failed", "missing"] and control.of_results({}) == "missing"
    assert control.worst(["passed", "failed", "inconclusive"]) == "failed" and control.worst([]) == "missing"
