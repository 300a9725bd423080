"""What the benchmarks that train share: models made once and kept, and their figures on the test rows."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax

from kfp_bonsai.shared.data import encoding, rows, tasks
from kfp_bonsai.shared.inference import asking, runtimes
from kfp_bonsai.shared.kinds import kinds
from kfp_bonsai.shared.kinds.kinds import kind_of
from kfp_bonsai.shared.models import flops
from kfp_bonsai.shared.saved import checkpoint, records

BATCH = 64


def made(folder: Path, make: Callable[[Path], Any]) -> Path:
    """Make a folder unless an earlier run did."""
    if not folder.exists():
        make(folder)
    return folder


def folder_of(work: Path, label: str) -> Path:
    """Return the folder of a level."""
    return work / label.replace(" ", "-").replace("/", "-")


def figures(model: Path, base: Path, test: Path) -> dict[str, float]:
    """Return a model's accuracy and FLOPs, both relative to its baseline's, and of classes how its answers diverge."""
    record, baseline = records.read_record(model), records.read_record(base)
    right, best = accuracy(model, test), accuracy(base, test)
    share = flops.ratio(record, baseline, mean_length(model, test))
    found = {"accuracy": right, "relative_accuracy": right / best, "flops_ratio": share}
    if kind_of(tasks.read_task(test)).is_one_class:
        found["divergence"] = divergence(model, base, test)
    return found


def accuracy(model: Path, test: Path) -> float:
    """Return the score on the test rows by the task's metric, of classes the accuracy."""
    task = tasks.read_task(test)
    return kinds.score(task, answers(model, test), kind_of(task).right(tasks.read_columns(test), task))


def score(model: Path, test: Path) -> float:
    """Return a model's score on the test rows by the task's metric, whatever its kind is."""
    task = tasks.read_task(test)
    right = kind_of(task).right(tasks.read_columns(test), task)
    predicted = asking.predictions(model, task, tasks.batches(test, BATCH))
    return kinds.score_of(task, predicted, right)


def divergence(model: Path, base: Path, test: Path) -> float:
    """Return the mean Kullback-Leibler divergence of a model's classes from its baseline's, in nats a test row.

    It tells models apart of which as many rows are right, as every row counts and not only those that change sides.
    """
    wanted, found = (log_softmax(answers(one, test).astype(np.float64), axis=1) for one in (base, model))
    return float((np.exp(wanted) * (wanted - found)).sum(axis=1).mean())


def answers(model: Path, test: Path) -> np.ndarray:
    """Return a model's logits of the test rows, (rows, labels); they are kept beside the model."""
    kept = model / "test_logits.npy"
    if not kept.exists():
        task, columns, predictor = tasks.read_task(test), tasks.read_columns(test), runtimes.load_predictor(model)
        texts = [columns[name] for name in task.columns]
        logits = [
            predictor.predict(encoding.encode(model, *(side[start : start + BATCH] for side in texts)))
            for start in range(0, task.rows, BATCH)
        ]
        np.save(kept, np.concatenate(logits))
    return np.load(kept)


def mean_length(model: Path, test: Path) -> float:
    """Return the mean number of tokens of a test row."""
    _, tokenizer = checkpoint.load(model)
    return statistics.mean(rows.read_rows(test, tokenizer, records.read_record(model)["max_length"]).lengths)
