"""Scores must be those that scikit-learn and scipy give, and nonsense must be told, not scored."""

import numpy as np
import pytest

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.metrics import scores


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_classification_scores_are_scikit_learns(classes):
    """A wrong formula would move every accuracy of every report."""
    from sklearn import metrics as sk

    random = np.random.default_rng(classes)
    logits, labels = random.normal(size=(200, classes)), random.integers(0, classes, 200)
    predicted = logits.argmax(1)
    average = "binary" if classes == 2 else "macro"
    assert scores.score("accuracy", logits, labels) == pytest.approx(sk.accuracy_score(labels, predicted))
    assert scores.score("f1", logits, labels) == pytest.approx(sk.f1_score(labels, predicted, average=average))
    expected = sk.matthews_corrcoef(labels, predicted)
    assert scores.score("matthews_correlation", logits, labels) == pytest.approx(expected)
    assert (scores.confusion(predicted, labels, classes) == sk.confusion_matrix(labels, predicted)).all()


def test_a_class_that_never_occurs_does_not_count_in_f1():
    """The mean over classes would be dragged down by a class that is in neither side."""
    logits = np.eye(4)[[0, 1, 2, 0]]
    assert scores.score("f1", logits, [0, 1, 2, 0]) == 1.0


def test_regression_scores_are_scipys():
    """Pearson and Spearman must not be swapped."""
    values = np.array([[1.0], [2.0], [3.0], [10.0]])
    labels = np.array([1.0, 2.0, 3.0, 4.0])
    assert scores.score("spearman", values, labels) == pytest.approx(1.0)
    assert scores.score("pearson", values, labels) == pytest.approx(np.corrcoef(values[:, 0], labels)[0, 1])


def test_constant_predictions_score_zero_not_nan():
    """NaN in a measurement file breaks every reader of JSON."""
    assert scores.score("pearson", np.ones((5, 1)), np.arange(5.0)) == 0.0
    assert scores.score("matthews_correlation", np.eye(2)[[0] * 5], [0, 1, 0, 1, 0]) == 0.0


def test_broken_outputs_are_an_error():
    """Argmax of NaN is class 0, which would look like a result."""
    with pytest.raises(BonsaiError, match="NaN"):
        scores.score("accuracy", np.array([[np.nan, 1.0]]), [0])


@pytest.mark.parametrize(("metric", "rows"), [("acuracy", 1), ("accuracy", 0)])
def test_unknown_metric_and_no_rows_are_errors(metric, rows):
    """A typo must not fall through to another metric, nor no rows to a score."""
    with pytest.raises(BonsaiError):
        scores.score(metric, np.zeros((rows, 2)), np.zeros(rows, int))
