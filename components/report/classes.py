"""Per-class results, of confusion matrices (rows: the true class, columns: the predicted one) or of counts by label."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_CLASSES = 20


@dataclass(frozen=True)
class ClassResult:
    """How one class fares; None where it cannot be said (no such row, or never predicted)."""

    name: str
    rows: int
    precision: float | None
    recall: float | None
    f1: float | None


def per_class(confusion: list[list[int]], labels: list[str]) -> list[ClassResult]:
    """Return precision, recall and F1 of each class."""
    results = []
    for at, true_row in enumerate(confusion):
        name = labels[at] if at < len(labels) else str(at)
        rows, predicted, hits = sum(true_row), sum(row[at] for row in confusion), true_row[at]
        precision = hits / predicted if predicted else None
        recall = hits / rows if rows else None
        f1 = 2 * hits / (rows + predicted) if rows + predicted else None
        results.append(ClassResult(name, rows, precision, recall, f1))
    return results


def of_labels(row: Mapping[str, Any], labels: list[str]) -> list[ClassResult]:
    """Return how each class or label of a model's row fares; nothing where it has none."""
    if row["confusion"]:
        return per_class(row["confusion"], labels)
    return [
        ClassResult(one["label"], one["items"], one.get("precision"), one.get("recall"), one.get("f1"))
        for one in row["by_label"] or ()
    ]


def worst_first(before: list[ClassResult], after: list[ClassResult]) -> list[tuple[ClassResult, ClassResult]]:
    """Return both models' classes side by side, those that lose most F1 first where there are many."""
    pairs = list(zip(before, after, strict=True))
    if len(pairs) > MOST_CLASSES:
        pairs.sort(key=lambda pair: (pair[1].f1 or 0) - (pair[0].f1 or 0))
    return pairs[:MOST_CLASSES]
