"""The means of a study: each level of each model over the tasks of a group, and over their seeds."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
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

    A level is one in all cells by what it is, whatever it is called there, and two where it is two things under one
    name. A task's mean is that over its seeds, and the group's that over its tasks, so that each task counts once. The
    intervals are statistics.mean_of_means'.

    Args:
        cells: of one model and one group; those that were not measured, or are kept out, count for nothing.
    """
    every = [
        (cell, row)
        for cell in cells
        for row in (cell.run.drawable if cell.run and not is_kept_out(cell) else ())
        if not (row["stage"] == "baseline" and row["measurement"] != "main")
    ]
    often = Counter((cell.name, _what(row)) for cell, row in every)
    twice = {what for (_, what), number in often.items() if number > 1}
    levels: dict[tuple[Any, ...], list[Found]] = {}
    for cell, row in every:
        what = _what(row)
        levels.setdefault((what, row["level"] if what in twice else ""), []).append((cell, row))
    names = Counter(words.name_of(found[0][1]) for found in levels.values())
    means = [_mean(found, names[words.name_of(found[0][1])] > 1) for found in levels.values()]
    return sorted(means, key=lambda row: row["stage"] != "baseline")


def _what(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return what a level is: what it was made to, where that was written; else its name."""
    made = row.get("made_to")
    return row["stage"], tuple(made.values()) if made and row["stage"] != "baseline" else row["level"]


def _in_words(made: dict[str, Any]) -> str:
    """Return what a level was made to, as `--level` says it."""
    asked = [f"layers={Fraction(made['layers']).limit_denominator(12)}"]
    asked += [f"{share}={made[share]:g}" for share in ("flops", "emission") if made[share] < 1]
    asked += ["shape=stock"] * (made["shape"] == "stock") + ["vocabulary=task"] * (made["vocabulary"] == "task")
    return ",".join(asked)


def _mean(found: Sequence[Found], explained: bool) -> dict[str, Any]:
    """Return the mean of a level; explained where another one has the same name."""
    first = found[0][1]
    tasks = [*dict.fromkeys(cell.data for cell, _ in found)]
    row: dict[str, Any] = dict.fromkeys(tables.COLUMNS)
    row |= {name: first[name] for name in ("model", "family", "level", "stage", "student", "measurement")}
    row |= {name: _same(found, name) for name in ("shape", "runtime", "device")}
    if explained and first.get("made_to"):
        row["level"] = f"{first['level']} ({_in_words(first['made_to'])})"
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
