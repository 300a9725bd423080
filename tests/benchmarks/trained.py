"""What the benchmarks that train share: models made once and kept, and their figures on the test rows."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared import checkpoint, flops, inference, metrics, rows, tasks

BATCH = 64


def made(folder: Path, make: Callable[[Path], Any]) -> Path:
    """Make a folder unless an earlier run did."""
    if not folder.exists():
        make(folder)
    return folder


def figures(model: Path, base: Path, test: Path) -> dict[str, float]:
    """Return a model's accuracy and FLOPs, and both relative to its baseline's."""
    record, baseline = checkpoint.read_record(model), checkpoint.read_record(base)
    right, best = accuracy(model, test), accuracy(base, test)
    share = flops.ratio(record, baseline, mean_length(model, test))
    return {"accuracy": right, "relative_accuracy": right / best, "flops_ratio": share}


def accuracy(model: Path, test: Path) -> float:
    """Return the score on the test rows by the task's metric, of classes the accuracy; it is kept beside the model."""
    kept = model / "test_accuracy"
    if not kept.exists():
        task, columns, predictor = tasks.read_task(test), tasks.read_columns(test), inference.load_predictor(model)
        texts = [columns[name] for name in task.columns]
        logits = [
            predictor.predict(inference.encode(model, *(side[start : start + BATCH] for side in texts)))
            for start in range(0, task.rows, BATCH)
        ]
        kept.write_text(str(metrics.score(task.metric, np.concatenate(logits), np.array(columns["label"]))))
    return float(kept.read_text())


def mean_length(model: Path, test: Path) -> float:
    """Return the mean number of tokens of a test row."""
    _, tokenizer = checkpoint.load(model)
    return statistics.mean(rows.read_rows(test, tokenizer, checkpoint.read_record(model)["max_length"]).lengths)
