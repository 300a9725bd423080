"""The largest loss that test rows leave open: right for few rows, where a bootstrap sees nothing."""

import numpy as np
import pytest
from scipy import stats

from kfp_bonsai.shared.metrics.noninferiority import largest_loss
from kfp_bonsai.shared.metrics.scores import score_predictions
from kfp_bonsai.shared.metrics.statistics import net_loss_limit


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


def test_what_f1_looks_for_may_be_the_common_class():
    """Pairs of which two thirds are alike: a loss of 2 % of 1,700 rows was said to be one of 20 % at the most."""
    right = np.array([1, 1, 0] * 600)
    champion, lost = right.copy(), right.copy()
    champion[::11] = 1 - champion[::11]
    lost[::11], lost[1::50] = champion[::11], 1 - lost[1::50]
    loss = largest_loss("f1", right, champion, lost)
    assert 1 - score_predictions("f1", lost, right) / score_predictions("f1", champion, right) < loss < 0.06


def test_a_rare_class_of_many_weighs_as_much_as_the_others():
    """Ten classes, of one of which two rows were seen: nothing is known of a tenth of the score."""
    right = np.repeat(np.arange(10), [111] * 9 + [2])
    for metric in ("f1", "macro_f1", "balanced_accuracy"):
        assert largest_loss(metric, right, right, right, 10) == pytest.approx(net_loss_limit(0, 0, 2) / 10)
    assert net_loss_limit(0, 0, 2) > 0.5
    enough = np.repeat(np.arange(10), 111)
    assert largest_loss("f1", enough, enough, enough, 10) < 0.01
    loses = np.where(right == 0, 1, right)  # all of the first class, which many rows show
    assert largest_loss("f1", right, right, loses, 10) == pytest.approx(0.1)


def test_a_regression_needs_rows_too():
    """Two rows, on which any two models correlate perfectly."""
    right = np.array([0.1, 0.7])
    assert stats.pearsonr(right, right).statistic == pytest.approx(1)
    assert largest_loss("pearson", right, right, right) == net_loss_limit(0, 0, 2) > 0.5
