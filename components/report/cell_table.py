"""The table of all cells of a study: a line a cell, a column a level."""

from typing import Any

from kfp_bonsai.report import numbers, words
from kfp_bonsai.report.markdown import line
from kfp_bonsai.report.study_cells import Cell, Study
from kfp_bonsai.shared.core.markup import text


def of(study: Study) -> dict[str, Any]:
    """Return the table as the page takes it."""
    levels = dict.fromkeys(words.name_of(row) for cell in study.cells if cell.run for row in _levels(cell))
    models = dict.fromkeys(cell.model for cell in study.cells)
    return {
        "heads": [*levels],
        "parts": [
            {"name": model, "cells": [_line(cell, [*levels]) for cell in study.cells if cell.model == model]}
            for model in models
        ],
    }


def _levels(cell: Cell) -> list[dict[str, Any]]:
    return [row for row in cell.run.rows if words.name_of(row) != "Baseline"] if cell.run else []


def _line(cell: Cell, levels: list[str]) -> dict[str, Any]:
    """Return a cell as text: the baseline's score, and what each level keeps, at which emission."""
    line: dict[str, Any] = {
        "name": f"{cell.data}, seed {cell.seed}",
        "cell": cell.name,
        "rows": numbers.NONE if cell.rows is None else f"{cell.rows:,}",
        "cost": (numbers.duration(cell.seconds) if cell.seconds else numbers.NONE, numbers.energy(cell.joules)),
        "state": f"{cell.state}: {cell.error}" if cell.error else cell.state,
        "baseline": None,
    }
    if cell.run is None:
        return line
    base = next((row for row in cell.run.rows if row["stage"] == "baseline"), None)
    found = {words.name_of(row): _kept(row) for row in _levels(cell)}
    metric = words.metric_name(cell.run.task)
    line["baseline"] = (words.metric_value(base["accuracy"] if base else None, cell.run.task), metric)
    line["levels"] = [found.get(name, (numbers.NONE, "")) for name in levels]
    return line


def _kept(row: dict[str, Any]) -> tuple[str, str]:
    if row["error"]:
        return "failed", ""
    return numbers.percent(row["relative_accuracy"]), f"at {numbers.percent(row['relative_emission'])}"


def as_markdown(table: dict[str, Any]) -> list[str]:
    """Return the table as lines of Markdown."""
    heads = ["model", "cell", "training rows", "baseline", *table["heads"], "time", "energy"]
    lines = [line([text(head) for head in heads]), line(["---", "---"] + ["---:"] * (len(heads) - 2))]
    for part in table["parts"]:
        for cell in part["cells"]:
            start = [text(part["name"]), text(cell["name"]), cell["rows"]]
            if cell["baseline"] is None:
                middle = [text(cell["state"]), *[""] * len(table["heads"])]
            else:
                middle = [f"{cell['baseline'][0]} ({text(cell['baseline'][1])})"]
                middle += [f"{kept} {text(beside)}".strip() for kept, beside in cell["levels"]]
            lines.append(line([*start, *middle, *cell["cost"]]))
    return lines
