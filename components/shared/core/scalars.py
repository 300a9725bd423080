"""What of a stage's result a metadata store can hold."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def storable(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries without NaN and infinities, which metadata stores refuse."""
    return {key: value for key, value in result.items() if not isinstance(value, float) or math.isfinite(value)}


def numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers, to be shown as metrics."""
    return {
        key: float(value)
        for key, value in storable(result).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def log_numbers(result: Mapping[str, Any], metrics: Any) -> None:
    """Show a result's numbers in a metrics artifact, and write them to its file.

    A cache takes an artifact without a file for one that was lost, and runs the task again.
    """
    found = numbers(result)
    for key, value in found.items():
        metrics.log_metric(key, value)
    path = Path(metrics.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def log_classes(results: Mapping[str, Any], classification: Any) -> None:
    """Show the chosen model's confusion matrix, and the ROC curve of two classes, in a classification artifact.

    Args:
        results: the report's results.json.
        classification: the artifact; it stays empty where no model was chosen, or the task has no classes.
    """
    row = next((row for row in results["rows"] if row["chosen"] and row["confusion"]), None)
    if row is not None:
        classification.log_confusion_matrix(list(results["task"]["labels"]), row["confusion"])
        if row["roc"]:
            classification.log_roc_curve(*(row["roc"][name] for name in ("fpr", "tpr", "thresholds")))
    path = Path(classification.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(classification.metadata, indent=1) + "\n", encoding="utf-8")
