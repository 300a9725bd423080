"""The means of a study: each level of each model over the tasks of a group, and over their seeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kfp_bonsai.report import table as tables
from kfp_bonsai.report import words
from kfp_bonsai.report.study_cells import Cell
from kfp_bonsai.shared.energy.reading import weakest
from kfp_bonsai.shared.metrics import statistics

SHARES = ("relative_accuracy", "relative_emission")
FIGURES = (
    "accuracy",
    "joules_per_1000",
    "flops",
    "flops_ratio",
    "parameters",
    "size_bytes",
    "peak_memory_bytes",
    "latency_ms_p50",
    "latency_ms_p95",
    "latency_ms_p99",
    "throughput_rows_per_s",
    "making_seconds",
    "making_joules",
    "payback_inferences",
)
KEPT_OUT = "wnli"
WHY_KEPT_OUT = (
    "its validation rows repeat the sentences of its training rows with the opposite answer, so that a model that has "
    "learnt them is wrong more often than chance; the field's tables leave it out too"
)
Found = tuple[Cell, dict[str, Any]]


def is_kept_out(cell: Cell) -> bool:
    """Return whether a cell is in no mean."""
    return KEPT_OUT in cell.data.lower()


def mean_rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Return a row for each level of one model in one group, the baseline first, with what each is the mean of.

    A task's mean is that over its seeds, and the group's that over its tasks, so that each task counts once. The
    intervals are statistics.mean_of_means'.

    Args:
        cells: of one model and one group; those that were not measured, or are kept out, count for nothing.
    """
    levels: dict[tuple[str, str], list[Found]] = {}
    for cell in cells:
        for row in cell.run.drawable if cell.run and not is_kept_out(cell) else ():
            if not (row["stage"] == "baseline" and row["measurement"] != "main"):
                levels.setdefault((words.name_of(row), row["stage"]), []).append((cell, row))
    return [_mean(found) for found in sorted(levels.values(), key=lambda found: found[0][1]["stage"] != "baseline")]


def _mean(found: Sequence[Found]) -> dict[str, Any]:
    first = found[0][1]
    tasks = [*dict.fromkeys(cell.data for cell, _ in found)]
    row: dict[str, Any] = dict.fromkeys(tables.COLUMNS)
    row |= {name: first[name] for name in ("model", "family", "level", "stage", "student", "measurement")}
    row |= {name: _same(found, name) for name in ("shape", "runtime", "device")}
    row |= {"chosen": False, "error": "", "tasks": tasks, "runs": len(found)}
    row["emission_label"] = weakest([one["emission_label"] for _, one in found if one["emission_label"]] or ["proxy"])
    for name in FIGURES:
        known = all(one[name] is not None for _, one in found)
        row[name] = float(np.mean([np.mean(each) for each in _by_task(found, name)])) if known else None
    row["accuracy_ci"] = first["accuracy_ci"] if len(found) == 1 else None
    for name in SHARES:
        values, intervals = _by_task(found, name), _by_task(found, f"{name}_ci")
        row[name], interval = statistics.mean_of_means(
            [[*zip(*each, strict=True)] for each in zip(values, intervals, strict=True)]
        )
        if len(found) == 1:
            row[f"{name}_ci"] = first[f"{name}_ci"]
        elif interval is not None and first["stage"] != "baseline":
            row[f"{name}_ci"] = [max(0.0, interval.low), interval.high]
    return row


def _by_task(found: Sequence[Found], name: str) -> list[list[Any]]:
    """Return the values of a figure, those of each task together."""
    tasks: dict[str, list[Any]] = {}
    for cell, row in found:
        tasks.setdefault(cell.data, []).append(row[name])
    return [*tasks.values()]


def _same(found: Sequence[Found], name: str) -> Any:
    """Return the value that all have, or None."""
    values = {row[name] for _, row in found}
    return values.pop() if len(values) == 1 else None
