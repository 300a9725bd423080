"""`bonsai study`: models x data sets x levels x seeds on one's own machine."""

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kfp_bonsai.pipelines.cells import EPOCHS, Cell, Entry, Study, cells_of
from kfp_bonsai.pipelines.local.apart import Apart
from kfp_bonsai.pipelines.local.cell_run import run_cell
from kfp_bonsai.pipelines.local.run import check_kfp, run, settled
from kfp_bonsai.pipelines.local.standing import RESULTS, Standing, count, how_many_done, result_line, table, time_left
from kfp_bonsai.pipelines.local.study_folder import (
    check_same,
    clear,
    is_begun,
    is_done,
    is_of_other_code,
    study_folder,
)
from kfp_bonsai.pipelines.options import LEVELS
from kfp_bonsai.pipelines.study_file import read_study
from kfp_bonsai.report.study_record import DONE, FAILED, REFUSED, STUDY, WAITING, joules_of, read_results, write_study
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.progress import Ticker, duration, say
from kfp_bonsai.shared.core.signatures import options_of, takes

# Of a run, what all cells may be given; `name` is of a data set.
ASKED = options_of(run, but=("level", "seed", "overwrite"))
DEFAULTS = {name: one.default for name, one in ASKED.items()}
DRAW = "kfp_bonsai.pipelines.local.study_folder:draw"
SETTLE = "kfp_bonsai.pipelines.local.run:settled"
LOOK = "kfp_bonsai.pipelines.local.rehearsal:rehearse"


@takes({name: one for name, one in ASKED.items() if name != "name"}, filled=False)
def study(
    file: str = "",
    /,
    *,
    output: Path,
    model: Sequence[str] = (),
    data: Sequence[str] = (),
    level: Sequence[str] = (),
    seed: Sequence[int] = (),
    title: str = "",
    overwrite: bool = False,
    **options: Any,
) -> dict:
    """Compress several models on several data sets with several seeds, and draw what came of it into one page.

    Each model on each data set with each seed is a cell, a `bonsai run` in a process and a folder of its own: one that
    cannot be made is told of, and the others go on. All are looked at before any is begun. An interrupted study goes
    on where it was when it is started again in the same way, and tries again what failed.

    Args:
        file: The study as YAML, with `models`, `data`, `levels`, `seeds`, `options` (of `bonsai run`) and `title`; a
            model or a data set is a place, or a mapping with `model` or `data`, `name`, `levels`, options of its own,
            and of data sets `group`, the figure that they are drawn into. What is given here too wins over it.
        output: Folder for the page, its figures, and a folder for each cell.
        model: A model, as for `bonsai run`; may be given again.
        data: A data set, as for `bonsai run`; may be given again.
        level: A compression level of all cells, as for `bonsai run`; may be given again. By default each cell has those
            that are usual for its kind of task.
        seed: Seed of everything that is drawn; may be given again, for a cell each. 0 if none is given.
        title: What the study is called.
        overwrite: Start over, whatever is in the output folder of an earlier study.
        **options: The others are those of `bonsai run`, for all cells.

    Returns:
        How many cells are done, and where the page is.

    Raises:
        BonsaiError: something given is wrong, the folder is another study's, or not all cells were made.

    Example:
        bonsai study --model embedded:minilm --model google-bert/bert-base-uncased --data glue:mrpc --data glue:rte
            --seed 0 --seed 1 --seed 2 --output runs/glue
        bonsai study glue.yaml --output runs/glue
    """
    check_kfp()
    asked = _asked(file, model, data, level, seed, title, options)
    cells = cells_of(asked, DEFAULTS)
    output = Path(output)
    with study_folder(output) as before:
        with Apart() as apart:
            standings = _stand(output, cells, before, overwrite, apart)
            _look(standings, apart)
        if all(each.state == REFUSED for each in standings):
            raise BonsaiError(table(standings))
        for each in standings:
            if each.state == REFUSED:
                say(f"study  {each.cell.name} refused: {each.error}")
        if overwrite:
            clear(output, before)
        _make_all(Record(output, asked.title or output.name, before.get("started") or now(), standings))
    if any(each.state != DONE for each in standings):
        raise BonsaiError(table(standings))
    page = output / "study.html"
    return {"cells": len(standings)} | ({"page": str(page)} if page.is_file() else {})


def _asked(
    file: str,
    model: Sequence[str],
    data: Sequence[str],
    level: Sequence[str],
    seed: Sequence[int],
    title: str,
    options: Mapping[str, Any],
) -> Study:
    """Return what is asked for: what the file says, and in its place what is given beside it."""
    study = read_study(file, ASKED) if file else Study((), ())
    if "name" in study.options:
        raise BonsaiError(f"study {file}: options: name is of one data set: put it there")
    given: dict[str, Any] = {
        "models": [Entry(one) for one in model],
        "data": [Entry(one) for one in data],
        "levels": level,
        "seeds": seed,
        "title": title,
        "over": options,
    }
    return replace(study, **{name: value for name, value in given.items() if value})


@dataclass(frozen=True)
class Record:
    """What study.json is written of.

    Attributes:
        output: the study's folder.
        title: what it is called.
        started: when it was begun.
        standings: of all cells, as they are at the moment.
    """

    output: Path
    title: str
    started: str
    standings: Sequence[Standing]

    def write(self, finished: str = "") -> None:
        """Write it anew."""
        write_study(
            self.output / STUDY,
            {
                "title": self.title,
                "started": self.started,
                "finished": finished,
                "command": shlex.join(["bonsai", *sys.argv[1:]]) if sys.argv[1:2] == ["study"] else "",
                "cells": [each.entry() for each in self.standings],
            },
        )


def now() -> str:
    """Return the time as study.json has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _given(cell: Cell) -> dict[str, Any]:
    """Return what a cell's run is given, with all defaults."""
    options = {**DEFAULTS, **cell.options, "seed": cell.seed}
    epochs = options.pop(EPOCHS)
    return {
        "model": cell.model,
        "data": cell.data,
        "level": cell.levels,
        "distill_epochs": epochs,
        "options": options,
    }


def _settled(cell: Cell, apart: Apart) -> dict[str, Any]:
    """Return what tells a cell's run from others; without its levels, where what is usual for it cannot be found."""
    given = _given(cell)
    if not cell.levels:
        with suppress(BonsaiError):
            arguments, files = apart.call(SETTLE, **given)
            return {**arguments, "files": files}
    arguments, files = settled(**{**given, "level": cell.levels or ["any:layers=1"]})
    return {**{name: one for name, one in arguments.items() if cell.levels or name != LEVELS}, "files": files}


def _stand(
    output: Path, cells: Sequence[Cell], before: Mapping[str, Any], overwrite: bool, apart: Apart
) -> list[Standing]:
    """Return how the cells stand, by what an earlier attempt at this study left.

    Raises:
        BonsaiError: what is there is of another study.
    """
    if overwrite:
        return [Standing(cell) for cell in cells]
    check_same(output, before, cells)
    known = {one["name"]: one for one in before["cells"]}
    standings = []
    for cell in cells:
        kept = {key: known[cell.name][key] for key in ("rows", "seconds") if cell.name in known}
        each = Standing(cell, **kept)
        folder = output / cell.name
        if is_begun(folder) and is_done(folder, _settled(cell, apart)):
            _finish(each, folder)
        standings.append(each)
    return standings


def _look(standings: Sequence[Standing], apart: Apart) -> None:
    """Look at the models, levels and data of what is to be made; refuse what cannot be made."""
    waiting = [each for each in standings if each.state == WAITING]
    done = len(standings) - len(waiting)
    say(f"study  {count(len(standings), 'cell')}{f', {done} done already' if done else ''}")
    seen: dict[str, int | str] = {}
    ticker = Ticker("study  looks at models, levels and data", max(len(waiting), 1))
    for number, each in enumerate(waiting, 1):
        given = _given(each.cell)
        key = repr({**given, "options": {**given["options"], "seed": 0}})
        if key not in seen:
            try:
                seen[key] = apart.call(LOOK, **given)
            except BonsaiError as error:
                seen[key] = str(error)
        found = seen[key]
        if isinstance(found, str):
            each.state, each.error = REFUSED, found
        else:
            each.rows = found
        ticker.step(number)


def _make_all(record: Record) -> None:
    """Make what is to be made, one after another, and draw the page after each."""
    record.write()
    waiting = [each for each in record.standings if each.state == WAITING]
    try:
        for number, each in enumerate(waiting, 1):
            left = time_left(waiting[number - 1 :], record.standings)
            shown = f" · about {duration(left)} left for all" if left else ""
            say(f"\nstudy  [{number}/{len(waiting)}] {each.title}{shown}")
            _make(each, record)
            if each.state == DONE:
                _draw(record.output)
    except KeyboardInterrupt:
        say(f"\nstudy  stopped with {how_many_done(record.standings)} done: start it again in the same way to go on")
        raise
    record.write(now())
    if any(each.state == DONE for each in record.standings):
        _draw(record.output)


def _make(each: Standing, record: Record) -> None:
    """Make a cell, and say what came of it."""
    folder = record.output / each.cell.name
    flags = ["run", *each.cell.flags(), f"--output={folder}"]
    if is_of_other_code(folder):
        say(f"study  note: {each.cell.name} was begun by other code of kfp-bonsai: it starts over")
        flags.append("--overwrite")
    began = time.monotonic()
    try:
        each.error = run_cell(flags)
        if each.error:
            each.state = FAILED
        else:
            _finish(each, folder)
    finally:
        each.seconds += time.monotonic() - began
        record.write()
    if each.state == DONE:
        say(f"study  {each.cell.name} done in {duration(each.seconds)}: {result_line(folder / RESULTS)}")
    else:
        say(f"study  {each.cell.name} failed after {duration(each.seconds)}: {each.error}")


def _finish(each: Standing, folder: Path) -> None:
    """Read what a finished cell took; one whose results cannot be read failed."""
    try:
        each.joules = joules_of(read_results(folder / RESULTS))
        each.state = DONE
    except BonsaiError as error:
        each.state, each.error = FAILED, str(error)


def _draw(output: Path) -> None:
    """Make the page anew; one that cannot be made costs nothing but itself."""
    try:
        with Apart() as apart:
            apart.call(DRAW, output=str(output))
    except BonsaiError as error:
        say(f"study  note: the page could not be made: {error}")
