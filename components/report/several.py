"""Runs that are shown together: their results.json as they are read, what is drawn of them, and their table as CSV."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_bonsai.report import table as tables
from kfp_bonsai.report import words
from kfp_bonsai.shared.core import written
from kfp_bonsai.shared.core.documents import read_document

RESULTS = "results.json"
COLOURS = ("main", "edge", "run3", "run4", "run5", "run6")
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "p": "⬟"}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Run:
    """One run of several.

    Attributes:
        path: its results.json.
        document: what that holds.
        rows: its models: those of the main measurement, and the quantized ones of the edge.
    """

    path: Path
    document: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def task(self) -> dict[str, Any]:
        """What it was run for."""
        found: dict[str, Any] = self.document["task"]
        return found

    @property
    def drawable(self) -> list[dict[str, Any]]:
        """The models of which there are both figures."""
        return [
            row
            for row in self.rows
            if not row["error"] and row["relative_accuracy"] is not None and row["relative_emission"] is not None
        ]


def read_run(given: Path) -> Run:
    """Read a run's folder, or its results.json.

    Raises:
        BonsaiError: there is none, or it is not what `bonsai run` writes.
    """
    path = Path(given) / RESULTS if Path(given).is_dir() else Path(given)
    document = read_document(path, "bonsai run", "rows", "task", shape=written.RESULTS)
    rows = [
        dict.fromkeys(tables.COLUMNS) | {"error": ""} | row
        for row in document["rows"]
        if row["measurement"] == "main" or row["stage"] == "quantized"
    ]
    return Run(path, document, rows)


def look(at: int) -> tuple[str, str]:
    """Return the colour and the marker of the line with this number."""
    return COLOURS[at % len(COLOURS)], [*MARKERS][at % len(MARKERS)]


def metric_of(tasks: Iterable[Mapping[str, Any]]) -> str:
    """Return the metric of all these tasks as people call it; "score" where they have several."""
    names = {words.metric_name(dict(task)) for task in tasks}
    return names.pop() if len(names) == 1 else "score"


def letters(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return a letter for each level, in the order of the rows; a letter and a number beyond Z."""
    names = dict.fromkeys(words.name_of(dict(row)) for row in rows if row["stage"] != "baseline")
    return {name: LETTERS[at % 26] + (str(at // 26) if at > 25 else "") for at, name in enumerate(names)}


def write_csv(lines: Sequence[tuple[Mapping[str, Any], dict[str, Any]]], first: Sequence[str], file: Path) -> None:
    """Write models with the columns of the report's rows.csv, and before them what tells the runs apart.

    Args:
        lines: of each model what tells its run from others, and its row.
        first: the columns of the former.
        file: to write.
    """
    with file.open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, [*first, *tables.flat_columns()], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**own, **tables.flat(row)} for own, row in lines)
