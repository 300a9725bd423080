"""What a study is: cells, each a run of its own of one model on one data set with one seed.

What is given for all is narrowed by what a model's entry says, that by the data set's, and that by the command line's.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from kfp_bonsai.pipelines.levels import parse_levels
from kfp_bonsai.pipelines.options import LEVELS
from kfp_bonsai.pipelines.place_names import last_parts
from kfp_bonsai.pipelines.values import check_values
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.saved.embedded import EMBEDDED

PLURALS = {"model": "models", "data": "data", "seed": "seeds"}
LONGEST_NAME = 120
EPOCHS = "distill_epochs"  # an option of runs here, of levels that do not state them


@dataclass(frozen=True)
class Entry:
    """A model or a data set of a study.

    Attributes:
        place: as `bonsai run` takes it.
        name: what it is called, or "".
        group: of data sets that are drawn into one figure, or "".
        options: of `bonsai run`, for its cells alone.
        levels: of its cells, where they have others than the study.
    """

    place: str
    name: str = ""
    group: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    levels: Sequence[str] = ()


@dataclass(frozen=True)
class Study:
    """What is asked for.

    Attributes:
        models: the models.
        data: the data sets.
        levels: of all cells; none for those that each cell's run has for its kind of task.
        seeds: each cell is made with each of them.
        options: of `bonsai run`, for all cells.
        title: what it is called, or "".
        over: options that win over those of models and data sets.
    """

    models: Sequence[Entry]
    data: Sequence[Entry]
    levels: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    options: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    over: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        name: no other cell has it; its folder's too.
        model: as given, and what it is called.
        data: as given, what it is called, and its group if that was said.
        seed: of all that is drawn.
        levels: to compress to, as texts; none for those of its kind of task.
        options: those of `bonsai run` that were given.
    """

    name: str
    model: str
    model_name: str
    data: str
    data_name: str
    group: str
    seed: int
    levels: tuple[str, ...]
    options: Mapping[str, Any]

    def flags(self) -> list[str]:
        """Return all that `bonsai run` is given of it, but the output."""
        given = [f"--model={self.model}", f"--data={self.data}", *(f"--level={level}" for level in self.levels)]
        for name, value in self.options.items():
            flag = name.replace("_", "-")
            given.append(f"--{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f"--{flag}={value}")
        return [*given, f"--seed={self.seed}"]


def cells_of(study: Study, defaults: Mapping[str, Any]) -> list[Cell]:
    """Return a study's cells, a model after another.

    Args:
        study: what is asked for.
        defaults: of all options that a cell may have.

    Raises:
        BonsaiError: there is none, a cell is there twice, two have one name, or a level or an option is one that no run
            takes.
    """
    for what, found in (("model", study.models), ("data", study.data), ("seed", study.seeds)):
        if not found:
            raise BonsaiError(f"a study needs a {what} at the least: give --{what}, or {PLURALS[what]} in its file")
    models, data = _named(study.models, "models"), _named(study.data, "data")
    cells: list[Cell] = []
    known: dict[str, str] = {}
    for (model, model_name), (rows, data_name), seed in product(models, data, study.seeds):
        options = {**study.options, **model.options, **rows.options, **study.over}
        levels = tuple(rows.levels or model.levels or study.levels)
        where = f"{model_name} on {data_name} with seed {seed}"
        settled = {**defaults, **options}
        try:
            check_values({**options, "seed": seed})
            parsed = parse_levels(levels, settled.get(EPOCHS, 0)) if levels else []
        except BonsaiError as error:
            raise type(error)(f"{where}: {error}") from error
        same = repr([_real(model.place), _real(rows.place), {**settled, LEVELS: parsed, "name": ""}, seed])
        if same in known:
            raise BonsaiError(f"a cell is there twice: {where} is {known[same]}: leave one of them out")
        known[same] = where
        name = re.sub(r"[^\w.+-]+", "-", f"{model_name}-{data_name}"[:LONGEST_NAME] + f"-{seed}").strip("-.")
        taken = [cell.name.lower() for cell in cells]
        while name.lower() in taken:
            name += "-other"
        cells.append(Cell(name, model.place, model_name, rows.place, data_name, rows.group, seed, levels, options))
    return cells


def _real(place: str) -> str:
    """Return a place as others write it too: a path here in full."""
    path = Path(place).expanduser()
    return str(path.resolve()) if path.exists() else place


def _named(entries: Sequence[Entry], what: str) -> list[tuple[Entry, str]]:
    """Return entries with names: as many of the last parts of their places as tell them from each other.

    Raises:
        BonsaiError: two have one name.
    """
    found = []
    for entry in entries:
        others = [one.place for one in entries if one is not entry and not one.name]
        name = entry.name
        for parts in range(1, 9) if not name else ():
            name = last_parts(entry.place.removeprefix(EMBEDDED), parts)
            if name not in [last_parts(place.removeprefix(EMBEDDED), parts) for place in others]:
                break
        found.append((entry, name))
    for entry, name in found:
        same = [one for one, other in found if other.lower() == name.lower()]
        if len(same) > 1:
            twice = "there twice" if len({one.place for one in same}) == 1 else f"called '{name}' as another is"
            raise BonsaiError(f"{what}: {entry.place} is {twice}: leave one out, or give each a name of its own")
    return found
