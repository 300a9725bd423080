"""Scores of predictions against right answers: each is a table of numbers a row, and a figure of such tables.

A table can be drawn from again, row by row, so that a score, its interval and its ratio to another model's all come
from the same two functions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.errors import BonsaiError, nearest
from kfp_bonsai.shared.metrics import items, ordering, squad, texts


@dataclass(frozen=True)
class Metric:
    """A way to score; higher is better.

    Attributes:
        words: its name in sentences.
        table: numbers a row (or whatever is drawn again as one, such as a query), of predictions, right answers and
            the number of classes: shape (rows, ...).
        of: the score of such a table, given the number of classes.
        is_share: whether it is shown as a percentage.
        needs: the package that counts it, which kfp-bonsai[generation] brings.
    """

    words: str
    table: Callable[[Any, Any, int], np.ndarray]
    of: Callable[[np.ndarray, int], float]
    is_share: bool = True
    needs: str = ""


def score_predictions(metric: str, predicted: Any, right: Any, *, classes: int = 2) -> float:
    """Return the score of predictions.

    Args:
        metric: a key of METRICS.
        predicted: one prediction a row.
        right: the right answers, one a row.
        classes: how many classes the task has.

    Raises:
        BonsaiError: an unknown metric, no rows, or not as many predictions.
    """
    found = find_metric(metric)
    if not len(right) or len(right) != len(predicted):
        raise BonsaiError(f"{len(predicted)} predictions for {len(right)} labels: give a split with labelled rows")
    return found.of(found.table(predicted, right, classes), classes)


def find_metric(name: str) -> Metric:
    """Return a metric.

    Raises:
        BonsaiError: there is none of that name.
    """
    if name not in METRICS:
        raise BonsaiError(f"metric '{name}' is unknown (known: {', '.join(METRICS)}){nearest(name, [*METRICS])}")
    return METRICS[name]


def check_counted(name: str) -> None:
    """Refuse a metric that nothing here can count.

    Raises:
        BonsaiError: there is none of that name, or its package is not installed.
    """
    if not is_counted(name):
        needs = find_metric(name).needs
        raise BonsaiError(f"the metric {name} needs {needs}: pip install 'kfp-bonsai[generation]', or choose another")


def is_counted(name: str) -> bool:
    """Return whether what counts a metric is installed."""
    needs = find_metric(name).needs
    return not needs or find_spec(needs) is not None


def in_words(name: str) -> str:
    """Return a metric's name in sentences."""
    return METRICS[name].words if name in METRICS else name.replace("_", " ")


def is_share(name: str) -> bool:
    """Return whether a metric is shown as a percentage; one that is not known is not."""
    return name in METRICS and METRICS[name].is_share


def confusion(predicted: Any, labels: Any, classes: int) -> np.ndarray:
    """Return the confusion matrix: rows are the right classes, columns the predicted ones."""
    flat = np.asarray(labels, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(flat, minlength=classes * classes).reshape(classes, classes)


def _side_by_side(predicted: Any, right: Any, _classes: int) -> np.ndarray:
    """Return (prediction, right answer) a row."""
    return np.stack([np.asarray(predicted), np.asarray(right).reshape(-1)], axis=1)


def _accuracy(table: np.ndarray, _classes: int) -> float:
    return float(np.mean(table[:, 0] == table[:, 1]))


def _confused(table: np.ndarray, classes: int) -> np.ndarray:
    return confusion(table[:, 0], table[:, 1], max(classes, int(table.max()) + 1))


def _f1(table: np.ndarray, classes: int) -> float:
    """Return the F1 of class 1 of two, else the mean over the classes that occur."""
    table = _confused(table, classes)
    total = table.sum(axis=0) + table.sum(axis=1)
    found = 2 * np.diag(table) / np.maximum(total, 1)
    return float(found[1] if len(table) == 2 else found[total > 0].mean())


def _balanced(table: np.ndarray, classes: int) -> float:
    """Return the mean share of each class's rows that are right, of the classes that occur."""
    table = _confused(table, classes)
    there = table.sum(axis=1) > 0
    return float((np.diag(table)[there] / table.sum(axis=1)[there]).mean())


def _matthews(table: np.ndarray, classes: int) -> float:
    """Return Matthews' correlation (Gorodkin's R_K for more than two classes); 0 where one side is constant."""
    table = _confused(table, classes).astype(float)
    predicted, right, rows = table.sum(axis=0), table.sum(axis=1), table.sum()
    below = np.sqrt((rows**2 - predicted @ predicted) * (rows**2 - right @ right))
    return float((np.trace(table) * rows - predicted @ right) / below) if below else 0.0


def _explained(table: np.ndarray, _classes: int) -> float:
    """Return 1 less the squared errors over those of the mean, below 0 of what is worse than that (R squared)."""
    errors, apart = np.square(table[:, 0] - table[:, 1]).sum(), np.square(table[:, 1] - table[:, 1].mean()).sum()
    return float(1 - errors / apart) if apart else float(not errors)


def _correlation(correlate: str) -> Callable[[np.ndarray, int], float]:
    """Return what gives a correlation of scipy; 0 where one side is constant, as nothing is explained then."""

    def of(table: np.ndarray, _classes: int) -> float:
        from scipy import stats

        if (np.ptp(table, axis=0) == 0).any():
            return 0.0
        return float(getattr(stats, correlate)(table[:, 0], table[:, 1]).statistic)

    return of


def _mean_of(column: int) -> Callable[[np.ndarray, int], float]:
    return lambda table, _classes: float(table[:, column].mean())


METRICS = {
    "accuracy": Metric("accuracy", _side_by_side, _accuracy),
    "f1": Metric("F1 score", _side_by_side, _f1),
    "balanced_accuracy": Metric("balanced accuracy", _side_by_side, _balanced),
    "matthews_correlation": Metric("Matthews correlation", _side_by_side, _matthews, is_share=False),
    "pearson": Metric("Pearson correlation", _side_by_side, _correlation("pearsonr"), is_share=False),
    "spearman": Metric("Spearman correlation", _side_by_side, _correlation("spearmanr"), is_share=False),
    "r2": Metric("R²", _side_by_side, _explained, is_share=False),
    "micro_f1": Metric("micro F1", items.counted, items.micro_f1),
    "macro_f1": Metric("macro F1", items.counted_by_label, items.macro_f1),
    "span_f1": Metric("F1 of spans", items.counted, items.micro_f1),
    "exact_match": Metric("exact match", squad.compared, _mean_of(0)),
    "answer_f1": Metric("F1 of answers", squad.compared, _mean_of(1)),
    "mrr@10": Metric("MRR@10", ordering.by_query(ordering.reciprocal_rank), ordering.mean, is_share=False),
    "ndcg@10": Metric("nDCG@10", ordering.by_query(ordering.gain), ordering.mean, is_share=False),
    "rouge_l": Metric("ROUGE-L", texts.rouge_l, _mean_of(0), needs="rouge_score"),
    "chrf": Metric("chrF", texts.counted_characters, texts.chrf, needs="sacrebleu"),
    "exact_text": Metric("exact match", texts.same, _mean_of(0)),
}
