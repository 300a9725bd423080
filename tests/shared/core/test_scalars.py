"""What the Kubeflow UI shows of a stage's result."""

import json
from pathlib import Path

from kfp.dsl import ClassificationMetrics, Metrics

from kfp_bonsai.shared.core.scalars import log_classes, log_numbers

CURVE = {"fpr": [0.0, 0.2, 1.0], "tpr": [0.0, 0.7, 1.0], "thresholds": [1.0, 0.5, 0.0], "auc": 0.8}


def shown(tmp_path: Path, rows: list[dict]) -> dict:
    artifact = ClassificationMetrics(uri=str(tmp_path / "classes" / "classification"))
    log_classes({"task": {"labels": ["bad", "good"]}, "rows": rows}, artifact)
    assert json.loads(Path(artifact.path).read_text()) == artifact.metadata
    return artifact.metadata


def test_the_chosen_models_classes_are_shown(tmp_path):
    """The UI would show the baseline's confusion, or classes in another order."""
    base = {"chosen": False, "confusion": [[9, 0], [0, 9]], "roc": CURVE}
    found = shown(tmp_path, [base, {"chosen": True, "confusion": [[8, 1], [3, 6]], "roc": CURVE}])
    assert [one["displayName"] for one in found["confusionMatrix"]["annotationSpecs"]] == ["bad", "good"]
    assert found["confusionMatrix"]["rows"] == [{"row": [8, 1]}, {"row": [3, 6]}]
    assert [point["recall"] for point in found["confidenceMetrics"]] == CURVE["tpr"]


def test_a_task_without_classes_shows_none(tmp_path):
    """A regression would fail in its last stage, after all the work."""
    assert shown(tmp_path, [{"chosen": True, "confusion": None, "roc": None}]) == {}


def test_what_no_store_holds_is_left_out(tmp_path):
    """One NaN, or a sentence among the numbers, would make the metadata store refuse all of them."""
    artifact = Metrics(uri=str(tmp_path / "metrics"))
    log_numbers({"accuracy": 0.5, "loss": float("nan"), "verdict": "fine", "meets_target": True, "rows": 3}, artifact)
    assert artifact.metadata == {"accuracy": 0.5, "rows": 3.0}
