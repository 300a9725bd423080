"""The largest loss that test rows leave open: right for few rows, where a bootstrap sees nothing."""

import numpy as np
import pytest
from scipy import stats

from kfp_bonsai.promote.loss import largest_loss, net_loss_limit


def test_the_limit_is_the_published_one():
    """A formula with a slip: Tango's interval for 161 patients, 6 and 16 of whom changed, is -0.1240 to -0.0054.

    The patients are those of Cavo et al. (2012), the interval that of R's package contingencytables.
    """
    assert net_loss_limit(6, 16, 161) == pytest.approx(-0.0054, abs=5e-5)
    assert -net_loss_limit(16, 6, 161) == pytest.approx(-0.1240, abs=5e-5)


@pytest.mark.parametrize("rows", [1, 2, 20, 381, 5000])
def test_agreement_on_few_rows_proves_little(rows):
    """Two rows on which both models agree, and a model that is promoted for it."""
    exact = 1 - 0.025 ** (1 / rows)  # of Clopper and Pearson
    found = net_loss_limit(0, 0, rows)
    assert found == pytest.approx(1.959964**2 / (rows + 1.959964**2))
    assert found > 0.5 if rows < 20 else 0.9 * exact < found < 1.1 * exact


@pytest.mark.parametrize(("lost", "won"), [(5, 0), (0, 5), (3, 2), (5, 5), (1, 0), (0, 1)])
def test_every_table_of_few_rows_has_a_limit(lost, won):
    """A search for the limit that finds no root, in the middle of a promotion."""
    found = net_loss_limit(lost, won, max(5, lost + won))
    assert (lost - won) / max(5, lost + won) <= found <= 1


def test_the_limit_covers_the_truth():
    """A limit that the true loss exceeds more often than in 2.5 of 100, so that worse models are promoted."""
    random, rows, truth = np.random.default_rng(0), 200, 0.02
    draws = random.multinomial(rows, [0.05, 0.05 - truth, 0.9 + truth], size=2000)
    missed = np.mean([net_loss_limit(lost, won, rows) < truth for lost, won, _ in draws])
    assert missed < 0.025 + 3 * (0.025 * 0.975 / 2000) ** 0.5


def test_the_loss_is_that_of_the_right_answers():
    """A champion that is right on half of the rows can lose twice as much of its accuracy."""
    right = np.zeros(1000, int)
    champion = np.repeat([0, 1], 500)
    assert largest_loss("accuracy", right, champion, champion) == pytest.approx(2 * net_loss_limit(0, 0, 1000))
    assert largest_loss("accuracy", right, 1 - right, 1 - right) == 1  # it can only win, and nothing is known of it


@pytest.mark.parametrize("metric", ["f1", "matthews_correlation"])
def test_a_rare_class_is_a_few_rows_only(metric):
    """A thousand rows, eight of which decide about F1, and which say nothing about a loss of 1 % of it."""
    right = np.repeat([0, 1], [992, 8])
    assert largest_loss(metric, right, right, right) == pytest.approx(net_loss_limit(0, 0, 8))
    assert largest_loss("accuracy", right, right, right) < 0.01
    assert largest_loss(metric, right * 0, right * 0, right * 0) == 1  # no row that counts


def test_a_regression_needs_rows_too():
    """Two rows, on which any two models correlate perfectly."""
    right = np.array([0.1, 0.7])
    assert stats.pearsonr(right, right).statistic == pytest.approx(1)
    assert largest_loss("pearson", right, right, right) == net_loss_limit(0, 0, 2) > 0.5
