"""What a trial's model keeps and costs, beside the baseline, on the validation rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_bonsai.evaluate_emissions import given, lengths, machine, memory, protocol, speed
from kfp_bonsai.evaluate_emissions.accuracy import answer_all
from kfp_bonsai.evaluate_emissions.loading import load
from kfp_bonsai.evaluate_emissions.readers import read_by, readers_of
from kfp_bonsai.shared.core.threads import threads
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.kinds.kinds import classes_of, kind_of
from kfp_bonsai.shared.metrics import scores, statistics
from kfp_bonsai.shared.saved.records import read_record
from kfp_bonsai.shared.saved.weights import size_bytes

BATCH_ROWS = 32
PAIRS, BLOCK_SECONDS = 4, 0.4  # of the emission, at the least: enough to choose by; what is told is of test rows
SINGLES = 16  # requests of one row
DRAWS = 400
LEAST_DRAWN = 1e-6


@dataclass(frozen=True)
class Found:
    """What was found of a model.

    Attributes:
        score: its own.
        relative_accuracy: its score as a share of the baseline's.
        draws: the same on resampled rows.
        figures: emission, emission_ci, latency_ms, size_mb, memory_mb; {} where only the accuracy was asked for.
        rows: how many rows there were.
        length: tokens an input, padding included.
        written: tokens of the baseline's mean answer, which all answers have where costs are measured; 0 if it does
            not write.
    """

    score: float
    relative_accuracy: float
    draws: list[float]
    figures: dict[str, Any]
    rows: int
    length: float
    written: int


def look_at(
    baseline: Path,
    model: Path,
    train: Path,
    validation: Path,
    device: str,
    *,
    costs: bool = True,
    with_memory: bool = False,
    block_seconds: float = 2.0,
    seed: int = 0,
) -> Found:
    """Let a model and its baseline answer the validation rows, and take turns.

    Args:
        baseline: the baseline's folder.
        model: the model's.
        train: the training split, which the rows must belong to.
        validation: the rows.
        device: "auto", "cpu" or "cuda".
        costs: whether emission and latency are measured too, and the sizes told.
        with_memory: measure the peak memory too, in a process of its own.
        block_seconds: of the measurement at the end, whose batches are run here too, if fewer of them.
        seed: of the order of the turns.
    """
    folders = [Path(baseline), Path(model)]
    task = given.check_task(train, validation)
    records = given.check_models(folders, task, validation)
    device = given.check_device(device, folders)
    readers, reader_of = readers_of(folders, records, int(records[0]["max_length"]))
    rows = given.read_test_rows(readers, task, validation, BATCH_ROWS, 0, SINGLES, (), seed)
    writes = kind_of(task).writes
    subjects = [load(*each, device, threads(), writes) for each in zip(folders, reader_of, strict=True)]
    scored, batch_seconds = answer_all(subjects, task, rows)
    if subjects[1].error or scored[0] is None or scored[1] is None:
        raise RuntimeError(subjects[1].error or "it answered nothing")
    metric, classes = scores.find_metric(task.metric), classes_of(task)
    tables = [metric.table(one.predicted, rows.right, classes) for one in scored if one]
    relative, drawn = statistics.relative_draws(lambda table: metric.of(table, classes), *tables, count=DRAWS)
    found: dict[str, Any] = {}
    written = lengths.of_baseline(scored[0])
    if costs:
        with machine.alone():
            batches = [one.batch for one in rows.batches]
            if written:
                batch_seconds = lengths.seconds_at(written, scored[0], batches, batch_seconds)
            found = _costs(subjects, batches, batch_seconds, rows.singles, written, device, block_seconds, seed)
        found["size_mb"] = size_bytes(folders[1]) / 1e6
    if costs and with_memory:
        longest = max((one.batch for one in rows.batches), key=lambda one: one["input_ids"].size)
        peak = memory.peaks(folders[1:], [read_by(reader_of[1], longest)], threads())[0]
        found["memory_mb"] = peak.bytes / 1e6 if peak.bytes else None
    score = metric.of(tables[1], classes)
    return Found(float(score), float(relative), drawn, found, rows.rows, float(rows.mean_lengths[0]), written)


def _costs(
    subjects: list[protocol.Subject],
    batches: list[protocol.Batch],
    batch_seconds: list[float],
    singles: list[protocol.Batch],
    written: int,
    device: str,
    block_seconds: float,
    seed: int,
) -> dict[str, Any]:
    """Return what the second model emits and takes beside the first; on a GPU, whose counter is slow, by blocks."""
    on_gpu = device == "cuda"
    seconds = given.SHORTEST_GPU_BLOCK if on_gpu else BLOCK_SECONDS
    sources = energy.find_sources(device)
    used, _ = protocol.block_batches(batches, batch_seconds, seconds, max(seconds, block_seconds))
    used = lengths.at(written, used)
    plan = protocol.Plan(PAIRS, seconds, 0.0, 0.0, not on_gpu, seed)
    try:
        rounds = protocol.measure(subjects, used, plan, sources)
    except energy.CounterError as problem:
        for one in subjects:
            protocol.forget(one)
        rounds = protocol.measure(subjects, used, plan, energy.estimates(sources, problem))
    pairs = protocol.pairs_of(subjects[1], subjects[0], rounds.again)
    ratio = statistics.ratio(pairs)
    speed.single_rows(subjects, lengths.at(written, singles))
    import numpy as np

    return {
        "emission": ratio.value,
        "emission_ci": [ratio.low, ratio.high],
        "latency_ms": float(1000 * np.median(subjects[1].latency)),
    }


def task_facts(validation: Path) -> dict[str, Any]:
    """Return what is told of the task."""
    task = tasks.read_task(validation)
    return {"name": task.name, "kind": task.kind, "metric": task.metric, "rows": task.rows}


def model_facts(model: Path) -> dict[str, Any]:
    """Return what is told of a model: its layers in words, and parameters."""
    record = read_record(model)
    layers = record["shape"]["layers"]
    return {
        "heads": ",".join(str(one["heads"]) for one in layers),
        "ffn": ",".join(str(one["ffn"]) for one in layers),
        "hidden": record["shape"]["hidden"],
        "layers": len(layers),
        "parameters": record["parameters"],
        "sha256": record["sha256"],
    }
