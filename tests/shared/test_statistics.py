"""Intervals must cover the truth as often as they say."""

import numpy as np
import pytest

from kfp_bonsai.shared import metrics, statistics
from kfp_bonsai.shared.errors import BonsaiError


@pytest.mark.parametrize("tails", [3, 100])
def test_the_ratio_of_ten_pairs_is_covered_in_95_of_100(tails):
    """An interval that is too narrow would call noise a saving."""
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(800):
        noise = 1 + 0.02 * random.standard_t(tails, (10, 2))
        pairs = np.array([3.0, 1.0]) * np.maximum(noise, 0.5) * np.exp(random.normal(0, 0.2, (10, 1)))
        hits += statistics.ratio(pairs).covers(1 / 3)
    assert 0.93 <= hits / 800 <= 0.98


def test_what_slows_both_sides_of_a_pair_does_not_matter():
    """Drift of the machine must cancel: that is why pairs are measured."""
    drift = np.array([1.0, 2.0, 5.0])
    found = statistics.ratio(np.stack([drift, drift * 0.5], axis=1))
    assert found.value == pytest.approx(0.5) and found.high - found.low < 1e-9


def test_a_burst_of_a_neighbour_does_not_move_the_ratio():
    """One pair of ten at three times its cost would move a mean by a tenth."""
    pairs = [[1.0, 0.5 + 0.001 * number] for number in range(9)] + [[1.0, 1.5]]
    found = statistics.ratio(pairs)
    assert found.value == pytest.approx(0.504, abs=0.002) and found.covers(0.504)


def test_the_interval_is_that_of_the_published_table_of_signed_ranks():
    """Wilcoxon's table gives 8 for ten pairs at 5 %: eight means are left out at either end, no more."""
    logs = np.sqrt(np.arange(1, 11))
    means = sorted((one + two) / 2 for at, one in enumerate(logs) for two in logs[at:])
    found = statistics.ratio([[1.0, np.exp(one)] for one in logs])
    assert np.log([found.low, found.high]) == pytest.approx([means[8], means[-9]])


@pytest.mark.parametrize("pairs", [[[1, 1]], [[1, 1], [0, 1]], [[1, 1], [1, float("nan")]]])
def test_pairs_that_give_no_ratio_are_errors(pairs):
    """A zero or missing reading must never become a ratio."""
    with pytest.raises(BonsaiError):
        statistics.ratio(pairs)


def test_wilson_interval_is_the_published_one():
    """Wilson's interval of 8 of 10 is 0.490 to 0.943; of 10 of 10 it must stay below 1 at its low end."""
    found = statistics.share(8, 10)
    assert (found.low, found.high) == (pytest.approx(0.490, abs=1e-3), pytest.approx(0.943, abs=1e-3))
    assert statistics.share(10, 10).low < 0.75


def test_same_predictions_have_a_relative_score_of_exactly_one():
    """If rows were drawn apart for the two models, noise would show between a model and itself."""
    right = np.arange(100) % 2
    predicted = np.where(np.arange(100) < 80, right, 1 - right)
    found = statistics.relative_score(_accuracy, predicted, predicted, right)
    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_paired_interval_is_narrower_than_two_separate_ones():
    """Models that err on the same rows must profit from the pairing."""
    random = np.random.default_rng(1)
    right = random.integers(0, 2, 500)
    baseline = np.where(random.random(500) < 0.8, right, 1 - right)
    candidate = np.where(random.random(500) < 0.98, baseline, 1 - baseline)
    paired = statistics.relative_score(_accuracy, baseline, candidate, right)
    alone = statistics.bootstrap(_accuracy, candidate, right)
    assert paired.half_width < alone.half_width / 2


def test_a_baseline_without_a_score_is_an_error():
    """Dividing by zero, or by a negative correlation, gives relative accuracies that mean nothing."""
    with pytest.raises(BonsaiError, match="baseline"):
        statistics.relative_score(_accuracy, np.ones(4, int), np.ones(4, int), np.zeros(4, int))


def test_mcnemar_is_the_exact_binomial_test():
    """3 rows lost and 0 won is p = 0.25; models that agree are p = 1."""
    baseline = np.array([True] * 5)
    assert statistics.mcnemar(baseline, np.array([False] * 3 + [True] * 2)) == pytest.approx(0.25)
    assert statistics.mcnemar(baseline, baseline) == 1.0


def _accuracy(predicted, right):
    return metrics.score_predictions("accuracy", predicted, right)
