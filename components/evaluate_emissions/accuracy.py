"""What models answer of the test rows, and how right that is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.evaluate_emissions import protocol
from kfp_bonsai.evaluate_emissions.common import Common, Scored
from kfp_bonsai.evaluate_emissions.given import MeasuredRows
from kfp_bonsai.evaluate_emissions.readers import read_by
from kfp_bonsai.evaluate_emissions.rounds import STAGE
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.progress import Ticker
from kfp_bonsai.shared.data import prompts, tasks
from kfp_bonsai.shared.inference.asking import together
from kfp_bonsai.shared.inference.writers import Writer, Written
from kfp_bonsai.shared.kinds.kinds import classes_of, kind_of, predict, score_of
from kfp_bonsai.shared.metrics import items, scores, statistics
from kfp_bonsai.shared.metrics.noninferiority import largest_loss

ROC_POINTS = 50
ACCURACY = (
    "accuracy",
    "scores",
    "scored",
    "accuracy_ci",
    "relative_accuracy",
    "relative_accuracy_ci",
    "mcnemar_p",
    "errors",
    "by_label",
    "confusion",
    "roc",
)


def answer_all(
    subjects: Sequence[protocol.Subject], task: tasks.Task, rows: MeasuredRows
) -> tuple[list[Scored | None], list[float]]:
    """Let all models answer all rows; return the answers, None of those given up, and the baseline's seconds a batch.

    Args:
        subjects: the baseline, then the candidates.
        task: what they answer.
        rows: the test rows.

    Raises:
        BonsaiError: the baseline gives no answers, or none that are better than chance.
    """
    scored: list[Scored | None] = []
    baseline_seconds: list[float] = []
    for index, subject in enumerate(subjects):
        try:
            answers, score, seconds = _answer(subject, task, rows)
            if index == protocol.BASELINE:
                statistics.check_baseline(score)
                baseline_seconds = seconds
            scored.append(answers)
        except Exception as error:
            if index == protocol.BASELINE:
                raise
            protocol.give_up(subject, error)
            scored.append(None)
    return scored, baseline_seconds


def _answer(subject: protocol.Subject, task: tasks.Task, rows: MeasuredRows) -> tuple[Scored, float, list[float]]:
    """Return a model's answers to all rows, their score, and the seconds that each batch took."""
    ticker = Ticker(f"{STAGE}  {Path(subject.name).name}: answers", len(rows.batches))
    found, seconds = protocol.run_all(subject, [one.batch for one in rows.batches], ticker.middle)
    if subject.writer:
        answers = _written(subject, subject.writer, found, rows, task)
        return answers, scores.score_predictions(task.metric, answers.predicted, rows.right), seconds
    logits, windows = together(found, rows.batches)
    outputs = len(kind_of(task).outputs(task))
    if any(one.shape[-1:] != (outputs,) for one in logits):
        raise BonsaiError(f"{subject.name} gives outputs of shape {logits[0].shape}, not {outputs}")
    predicted = predict(task, logits, windows)
    return Scored(logits, predicted), score_of(task, predicted, rows.right), seconds


def _written(
    subject: protocol.Subject, writer: Writer, said: Sequence[Written], rows: MeasuredRows, task: tasks.Task
) -> Scored:
    """Return what a model wrote to all rows, and how likely it finds the right answers."""
    texts, likelihoods = [], []
    for one, part, labels in zip(said, rows.batches, rows.labels, strict=True):
        right = prompts.answers(writer.tokenizer, labels, "the test split", 1)
        likelihoods.append(writer.likelihoods(read_by(subject.reader, part.batch), right))
        texts += writer.texts(one)
    each = [tokens for one in said for tokens in one.tokens]
    return Scored(
        texts,
        predict(task, texts),
        np.array([len(tokens) for tokens in each]),
        np.array([tokens[-1:] == [writer.end] for tokens in each]),
        np.concatenate(likelihoods),
    )


def accuracy_row(common: Common, scored: Scored, is_baseline: bool) -> dict[str, Any]:
    """Return how right a model's answers are, by themselves and relative to the baseline's."""
    task, right, kind = common.task, common.right, kind_of(common.task)
    classes, metric = classes_of(task), scores.find_metric(task.metric)
    ours, theirs = scored.predicted, common.baseline_scored.predicted
    table, baseline_table = (metric.table(one, right, classes) for one in (ours, theirs))

    def score(rows: np.ndarray) -> float:
        return metric.of(rows, classes)

    hits, baseline_hits = (kind.hits(one, right) if kind.hits else None for one in (ours, theirs))
    if task.metric == "accuracy" and hits is not None:
        whole = statistics.share(int(hits.sum()), len(hits))
    else:
        whole = statistics.bootstrap(score, table, common.seed)
    relative = statistics.relative_score(score, baseline_table, table, common.seed)
    loss = 0.0 if is_baseline else largest_loss(task.metric, right, theirs, ours, classes)
    paired = hits is not None and baseline_hits is not None and not is_baseline
    curve = kind.is_one_class and len(task.labels) == 2
    return {
        "accuracy": whole.value,
        "scores": {
            name: scores.score_predictions(name, ours, right, classes=classes)
            for name in kind.metrics
            if scores.is_counted(name)
        },
        "scored": len(table),
        "accuracy_ci": [whole.low, whole.high],
        "relative_accuracy": relative.value,
        "relative_accuracy_ci": [min(relative.low, 1 - loss), relative.high],
        "mcnemar_p": statistics.mcnemar(baseline_hits, hits) if paired else None,
        "errors": None if hits is None else int((~hits).sum()),
        "by_label": items.by_label(ours, right, task.labels) if kind.items else None,
        "confusion": scores.confusion(ours, right, len(task.labels)).tolist() if kind.is_one_class else None,
        "roc": roc(np.asarray(scored.logits), right) if curve else None,
    }


def roc(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any] | None:
    """Return the ROC curve of class 1 in at most 50 points, and its area; nothing if one class is missing."""
    from sklearn.metrics import roc_auc_score, roc_curve

    if len(set(labels.tolist())) < 2:
        return None
    margin = np.clip(logits[:, 1] - logits[:, 0], -500, 500)
    chance = 1 / (1 + np.exp(-margin.astype(float)))
    false, true, thresholds = roc_curve(labels, chance)
    kept = np.unique(np.linspace(0, len(false) - 1, min(ROC_POINTS, len(false))).round().astype(int))
    return {
        "fpr": false[kept].tolist(),
        "tpr": true[kept].tolist(),
        "thresholds": np.clip(thresholds[kept], 0.0, 1.0).tolist(),
        "auc": float(roc_auc_score(labels, chance)),
    }
