"""Intervals must cover the truth as often as they say."""

import numpy as np
import pytest

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.metrics import scores, statistics


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
    found = statistics.relative_score(_accuracy, _table(predicted, right), _table(predicted, right))
    assert (found.value, found.low, found.high) == (1, 1, 1)


def test_paired_interval_is_narrower_than_two_separate_ones():
    """Models that err on the same rows must profit from the pairing."""
    random = np.random.default_rng(1)
    right = random.integers(0, 2, 500)
    baseline = np.where(random.random(500) < 0.8, right, 1 - right)
    candidate = np.where(random.random(500) < 0.98, baseline, 1 - baseline)
    paired = statistics.relative_score(_accuracy, _table(baseline, right), _table(candidate, right))
    alone = statistics.bootstrap(_accuracy, _table(candidate, right))
    assert paired.half_width < alone.half_width / 2


def test_a_baseline_without_a_score_is_an_error():
    """Dividing by zero, or by a negative correlation, gives relative accuracies that mean nothing."""
    with pytest.raises(BonsaiError, match="baseline"):
        statistics.relative_score(_accuracy, *[_table(np.ones(4, int), np.zeros(4, int))] * 2)


def test_mcnemar_is_the_exact_binomial_test():
    """3 rows lost and 0 won is p = 0.25; models that agree are p = 1."""
    baseline = np.array([True] * 5)
    assert statistics.mcnemar(baseline, np.array([False] * 3 + [True] * 2)) == pytest.approx(0.25)
    assert statistics.mcnemar(baseline, baseline) == 1.0


def _table(predicted, right):
    return scores.METRICS["accuracy"].table(predicted, right, 2)


def _accuracy(table):
    return scores.METRICS["accuracy"].of(table, 2)


def test_the_limit_is_the_published_one():
    """A formula with a slip: Tango's interval for 161 patients, 6 and 16 of whom changed, is -0.1240 to -0.0054.

    The patients are those of Cavo et al. (2012), the interval that of R's package contingencytables.
    """
    assert statistics.net_loss_limit(6, 16, 161) == pytest.approx(-0.0054, abs=5e-5)
    assert -statistics.net_loss_limit(16, 6, 161) == pytest.approx(-0.1240, abs=5e-5)


@pytest.mark.parametrize("rows", [1, 2, 20, 381, 5000])
def test_agreement_on_few_rows_proves_little(rows):
    """Two rows on which both models agree, and a model that is promoted for it."""
    exact = 1 - 0.025 ** (1 / rows)  # of Clopper and Pearson
    found = statistics.net_loss_limit(0, 0, rows)
    assert found == pytest.approx(1.959964**2 / (rows + 1.959964**2))
    assert found > 0.5 if rows < 20 else 0.9 * exact < found < 1.1 * exact


@pytest.mark.parametrize(("lost", "won"), [(5, 0), (0, 5), (3, 2), (5, 5), (1, 0), (0, 1)])
def test_every_table_of_few_rows_has_a_limit(lost, won):
    """A search for the limit that finds no root, in the middle of a promotion."""
    found = statistics.net_loss_limit(lost, won, max(5, lost + won))
    assert (lost - won) / max(5, lost + won) <= found <= 1


def test_the_limit_covers_the_truth():
    """A limit that the true loss exceeds more often than in 2.5 of 100, so that worse models are promoted."""
    random, rows, truth = np.random.default_rng(0), 200, 0.02
    draws = random.multinomial(rows, [0.05, 0.05 - truth, 0.9 + truth], size=2000)
    missed = np.mean([statistics.net_loss_limit(lost, won, rows) < truth for lost, won, _ in draws])
    assert missed < 0.025 + 3 * (0.025 * 0.975 / 2000) ** 0.5


@pytest.mark.parametrize("loss", [0.001, 0.01, 0.05, 0.5])
def test_rows_that_rule_out_a_loss_are_just_enough(loss):
    """A count that is one short, so that a run is told to go on which can promote nothing."""
    rows = statistics.rows_to_rule_out(loss)
    assert statistics.net_loss_limit(0, 0, rows) <= loss < statistics.net_loss_limit(0, 0, rows - 1)


def test_equal_models_pass_as_often_as_the_rows_are_said_to_allow():
    """Rows called enough with which nine in ten retrainings are in vain."""
    random, loss, differing = np.random.default_rng(0), 0.01, 0.05
    rows = statistics.rows_for_even_odds(loss, differing)
    draws = random.multinomial(rows, [differing / 2, differing / 2, 1 - differing], size=1000)
    passed = np.mean([statistics.net_loss_limit(lost, won, rows) <= loss for lost, won, _ in draws])
    assert 0.42 < passed < 0.55


def test_an_interval_of_very_many_pairs():
    """An hour of measuring, which ends with an OverflowError at the 1,024th round."""
    pairs = [(1.0, 0.5 + 0.01 * (index % 7)) for index in range(1100)]
    found = statistics.ratio(pairs)
    assert 0.528 < found.low < found.high < 0.532
