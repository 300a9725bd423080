"""Scores of a model's logits against the right labels."""

from typing import Any

import numpy as np

from kfp_bonsai.shared.core.errors import BonsaiError, nearest

CLASSIFICATION_METRICS = ("accuracy", "f1", "matthews_correlation")
REGRESSION_METRICS = ("pearson", "spearman")
METRICS = (*CLASSIFICATION_METRICS, *REGRESSION_METRICS)
IN_WORDS = {
    "accuracy": "accuracy",
    "f1": "F1 score",
    "matthews_correlation": "Matthews correlation",
    "pearson": "Pearson correlation",
    "spearman": "Spearman correlation",
}


def score(metric: str, logits: Any, labels: Any) -> float:
    """Return the score of logits; higher is better.

    Args:
        metric: "accuracy", "f1" (of class 1 for two classes, else the mean over classes),
            "matthews_correlation", "pearson" or "spearman".
        logits: shape (rows, labels), or (rows, 1) for regression.
        labels: the right classes or values, shape (rows,).

    Raises:
        BonsaiError: an unknown metric, no rows, or logits that are not finite.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(logits).all():
        raise BonsaiError(
            "the model's outputs hold NaN or infinity, so its weights are broken: make the model again, with a lower "
            "--learning-rate"
        )
    classes = max(2, logits.shape[1]) if logits.ndim > 1 else 2
    return score_predictions(metric, predictions(metric, logits), labels, classes=classes)


def predictions(metric: str, logits: Any) -> np.ndarray:
    """Return what logits predict: the likeliest class, or the value for a regression metric."""
    logits = np.asarray(logits)
    if metric in REGRESSION_METRICS:
        return logits.reshape(len(logits), -1)[:, 0]
    return logits.argmax(axis=1)


def score_predictions(metric: str, predicted: Any, labels: Any, *, classes: int = 2) -> float:
    """Return the score of predicted classes or values, see `score`.

    Args:
        metric: as in `score`.
        predicted: the predicted classes or values, shape (rows,).
        labels: the right ones, shape (rows,).
        classes: how many classes the task has.
    """
    predicted, labels = np.asarray(predicted), np.asarray(labels).reshape(-1)
    if metric not in METRICS:
        raise BonsaiError(f"metric '{metric}' is unknown (known: {', '.join(METRICS)}){nearest(metric, [*METRICS])}")
    if not len(labels) or len(labels) != len(predicted):
        raise BonsaiError(f"{len(predicted)} predictions for {len(labels)} labels: give a split with labelled rows")
    if metric == "accuracy":
        return float(np.mean(predicted == labels))
    if metric in REGRESSION_METRICS:
        return _correlation(metric, predicted, labels)
    table = confusion(predicted, labels, max(classes, int(max(predicted.max(), labels.max())) + 1))
    return _f1(table) if metric == "f1" else _matthews(table)


def confusion(predicted: Any, labels: Any, classes: int) -> np.ndarray:
    """Return the confusion matrix: rows are the right classes, columns the predicted ones."""
    flat = np.asarray(labels, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def _f1(table: np.ndarray) -> float:
    """Return the F1 of class 1 of two, else the mean over the classes that occur."""
    total = table.sum(axis=0) + table.sum(axis=1)
    scores = 2 * np.diag(table) / np.maximum(total, 1)
    return float(scores[1] if len(table) == 2 else scores[total > 0].mean())


def _matthews(table: np.ndarray) -> float:
    """Return Matthews' correlation (Gorodkin's R_K for more than two classes); 0 where one side is constant."""
    table = table.astype(float)
    predicted, right, rows = table.sum(axis=0), table.sum(axis=1), table.sum()
    below = np.sqrt((rows**2 - predicted @ predicted) * (rows**2 - right @ right))
    return float((np.trace(table) * rows - predicted @ right) / below) if below else 0.0


def _correlation(metric: str, predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the correlation; 0 where one side is constant, as nothing is explained then."""
    from scipy import stats

    if np.ptp(predicted) == 0 or np.ptp(labels) == 0:
        return 0.0
    correlate = stats.pearsonr if metric == "pearson" else stats.spearmanr
    return float(correlate(predicted, labels).statistic)
