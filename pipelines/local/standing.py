"""How the cells of a study stand: what is written of them, and what is said."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from kfp_bonsai.pipelines.cells import Cell
from kfp_bonsai.report.study_record import DONE, REFUSED, WAITING, group_of, read_results
from kfp_bonsai.shared.core.documents import is_number

RESULTS = "results.json"


@dataclass
class Standing:
    """How a cell stands.

    Attributes:
        cell: which one.
        state: done, failed, refused or waiting.
        error: why it failed or was refused.
        rows: that it trains on, as far as known.
        seconds: that all attempts took.
        joules: that making its models took.
    """

    cell: Cell
    state: str = WAITING
    error: str = ""
    rows: int | None = None
    seconds: float = 0.0
    joules: float | None = None

    @property
    def title(self) -> str:
        """The cell as it is spoken of."""
        return f"{self.cell.model_name} on {self.cell.data_name}, seed {self.cell.seed}"

    def entry(self) -> dict[str, Any]:
        """Return what study.json says of it."""
        cell = self.cell
        most = cell.options.get("max_rows", 0)
        return {
            "name": cell.name,
            "model": cell.model,
            "model_name": cell.model_name,
            "data": cell.data,
            "data_name": cell.data_name,
            "group": cell.group or group_of(cell.data, cell.data_name, self.rows, most),
            "seed": cell.seed,
            "flags": cell.flags(),
            "rows": self.rows,
            "state": self.state,
            "error": self.error,
            "results": f"{cell.name}/{RESULTS}" if self.state == DONE else "",
            "seconds": self.seconds,
            "joules": self.joules,
        }


def time_left(waiting: Sequence[Standing], standings: Sequence[Standing]) -> float:
    """Return about how many seconds some cells take, by the finished ones that are most like each; 0 if there is none.

    Like is the same model on the same data; else the same model; else any; in those two cases by the rows.
    """
    done = [each for each in standings if each.state == DONE and each.seconds]
    return sum(_estimate(each, done) for each in waiting) if done else 0.0


def _estimate(wanted: Standing, done: Sequence[Standing]) -> float:
    of_model = [each for each in done if each.cell.model_name == wanted.cell.model_name]
    same = [each.seconds for each in of_model if each.cell.data_name == wanted.cell.data_name]
    if same:
        return fmean(same)
    return fmean(
        each.seconds * (wanted.rows / each.rows if wanted.rows and each.rows else 1) for each in of_model or done
    )


def result_line(results: Path) -> str:
    """Return what a cell's levels keep, in one line.

    Raises:
        BonsaiError: its results are not there, or damaged.
    """
    rows = [row for row in read_results(results)["rows"] if row["measurement"] == "main" and row["stage"] != "baseline"]
    found = []
    for row in rows:
        kept, emitted = row["relative_accuracy"], row["relative_emission"]
        if is_number(kept) and is_number(emitted):
            found.append(f"{row['level']} keeps {kept:.1%} at {emitted:.1%} of the emission")
        else:
            found.append(f"{row['level']} was not measured")
    return "; ".join(found)


def count(number: int, what: str) -> str:
    """Return such as "1 cell" or "3 cells"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def how_many_done(standings: Sequence[Standing]) -> str:
    """Return such as "2 of 6 cells"."""
    return f"{sum(each.state == DONE for each in standings)} of {count(len(standings), 'cell')}"


def table(standings: Sequence[Standing]) -> str:
    """Return what was not made, and why: a line a cell."""
    lacking = [each for each in standings if each.state != DONE]
    width = max(len(each.cell.name) for each in lacking)
    lines = [f"  {each.cell.name.ljust(width)}  {each.state.ljust(len(REFUSED))}  {each.error}" for each in lacking]
    return "\n".join([f"{how_many_done(standings)} done, these are not:", *lines])
