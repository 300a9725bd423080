"""Scores must be those that scikit-learn and scipy give, and nonsense must be told, not scored."""

import numpy as np
import pytest

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.metrics import scores


def test_texts_that_are_the_same_agree_without_a_word_too():
    """An int8 model of which it is said that it agrees by two thirds, as both write nothing to the other third."""
    assert scores.score_predictions("rouge_l", ["", "good", "..."], ["", "good", "..."]) == 1.0
    assert scores.score_predictions("rouge_l", ["", "good"], ["good", ""]) == 0.0


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_classification_scores_are_scikit_learns(classes):
    """A wrong formula would move every accuracy of every report."""
    from sklearn import metrics as sk

    random = np.random.default_rng(classes)
    logits, labels = random.normal(size=(200, classes)), random.integers(0, classes, 200)
    predicted = logits.argmax(1)
    average = "binary" if classes == 2 else "macro"
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "f1": sk.f1_score(labels, predicted, average=average),
        "macro_f1": sk.f1_score(labels, predicted, average="macro"),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "matthews_correlation": sk.matthews_corrcoef(labels, predicted),
    }
    for metric, value in expected.items():
        assert scores.score_predictions(metric, predicted, labels, classes=classes) == pytest.approx(value)
    assert (scores.confusion(predicted, labels, classes) == sk.confusion_matrix(labels, predicted)).all()


def test_a_class_that_never_occurs_does_not_count_in_f1():
    """The mean over classes would be dragged down by a class that is in neither side."""
    assert scores.score_predictions("f1", [0, 1, 2, 0], [0, 1, 2, 0], classes=4) == 1.0


def test_regression_scores_are_scipys():
    """Pearson and Spearman must not be swapped."""
    values = np.array([1.0, 2.0, 3.0, 10.0])
    labels = np.array([1.0, 2.0, 3.0, 4.0])
    assert scores.score_predictions("spearman", values, labels) == pytest.approx(1.0)
    assert scores.score_predictions("pearson", values, labels) == pytest.approx(np.corrcoef(values, labels)[0, 1])


def test_r2_is_scikit_learns_and_sees_what_is_added_to_all_answers():
    """A model that answers 5 too much everywhere correlates perfectly, and is of no use."""
    from sklearn.metrics import r2_score

    labels = np.array([1.0, 2.0, 3.0, 4.0])
    for values in (labels + 5, labels * 0.9, labels, labels[::-1]):
        assert scores.score_predictions("r2", values, labels) == pytest.approx(r2_score(labels, values))
    assert (
        scores.score_predictions("r2", labels + 5, labels) < 0 < scores.score_predictions("pearson", labels + 5, labels)
    )


@pytest.mark.parametrize("value", [2.0, 3.0])
def test_r2_of_labels_that_are_all_alike_is_no_nan(value):
    """Drawn again, few rows may all have one label."""
    from sklearn.metrics import r2_score

    labels, values = np.full(4, 2.0), np.full(4, value)
    assert scores.score_predictions("r2", values, labels) == r2_score(labels, values)


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy"])
def test_means_over_classes_are_of_those_that_occur(metric):
    """Rows drawn again, none of which is of a rare class, score less than all rows, and intervals are too low."""
    assert scores.score_predictions(metric, np.array([0, 1, 1]), np.array([0, 1, 1]), classes=4) == 1.0


def test_constant_predictions_score_zero_not_nan():
    """NaN in a measurement file breaks every reader of JSON."""
    assert scores.score_predictions("pearson", np.ones(5), np.arange(5.0)) == 0.0
    assert scores.score_predictions("matthews_correlation", [0] * 5, [0, 1, 0, 1, 0]) == 0.0


@pytest.mark.parametrize(("metric", "rows"), [("acuracy", 1), ("accuracy", 0)])
def test_unknown_metric_and_no_rows_are_errors(metric, rows):
    """A typo must not fall through to another metric, nor no rows to a score."""
    with pytest.raises(BonsaiError):
        scores.score_predictions(metric, np.zeros(rows, int), np.zeros(rows, int))
