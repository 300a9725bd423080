"""A study's cells: what study.json says of each, and the results of those that are done."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_bonsai.report.several import Run, read_run
from kfp_bonsai.report.study_record import DONE, FAILED, REFUSED, STUDY, WAITING, read_study
from kfp_bonsai.shared.core.errors import BonsaiError

STATES = (DONE, FAILED, REFUSED, WAITING)


@dataclass(frozen=True)
class Cell:
    """One model on one data set with one seed.

    Attributes:
        name: what it is called, no other cell is.
        model: the model's name in the study, no other model's.
        data: the data set's.
        group: the group of data sets that it belongs to.
        seed: its seed.
        flags: what `bonsai run` is given to make it, but the output; empty where that was not written.
        rows: labelled rows that it was trained on; None where that is not known.
        state: one of STATES.
        error: why it is not done.
        seconds: what it took.
        joules: what it took; None where that is not known.
        run: its results, where it is done.
    """

    name: str
    model: str
    data: str
    group: str
    seed: int
    flags: list[str]
    rows: int | None
    state: str
    error: str
    seconds: float
    joules: float | None
    run: Run | None


@dataclass(frozen=True)
class Study:
    """What study.json holds, with the results of its cells."""

    title: str
    started: str
    finished: str
    command: str
    cells: list[Cell]

    def of(self, state: str) -> list[Cell]:
        """Return the cells in a state."""
        return [cell for cell in self.cells if cell.state == state]


def cells_of(given: Path) -> Study:
    """Read a study's folder, or its study.json; a cell whose results cannot be read is one that failed.

    Raises:
        BonsaiError: there is none, it is not what `bonsai study` writes, or two cells have one name.
    """
    path = Path(given) / STUDY if Path(given).is_dir() else Path(given)
    document = read_study(path)
    names = [each["name"] for each in document["cells"]]
    for name in names:
        if names.count(name) > 1:
            raise BonsaiError(f"{path} has two cells that are called '{name}': make it again with `bonsai study`")
    models = _told_apart((each["model"], each["model_name"]) for each in document["cells"])
    data = _told_apart((each["data"], each["data_name"]) for each in document["cells"])
    cells = [_cell(path.parent, each, models[each["model"]], data[each["data"]]) for each in document["cells"]]
    return Study(cells=cells, **{name: document[name] for name in ("title", "started", "finished", "command")})


def _told_apart(found: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the short name of each model or data set, or where another one has that too, all of what was given."""
    short = dict(found)
    names = [*short.values()]
    return {given: name if name and names.count(name) == 1 else given for given, name in short.items()}


def _cell(folder: Path, told: dict[str, Any], model: str, data: str) -> Cell:
    state, error, run = told["state"], told["error"], None
    if state == DONE:
        try:
            run = read_run(folder / (told["results"] or told["name"]))
        except BonsaiError as problem:
            state, error = FAILED, f"it is done, but its results cannot be read: {problem}"
    same = ("name", "group", "seed", "rows", "seconds", "joules")
    flags = told["flags"] or []
    return Cell(
        model=model, data=data, flags=flags, state=state, error=error, run=run, **{key: told[key] for key in same}
    )
