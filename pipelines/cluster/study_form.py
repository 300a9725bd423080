"""What the pipeline study is given on a cluster: the keys of a study's file, as fields of Kubeflow's form."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kfp_bonsai.pipelines.cells import Cell, cells_of
from kfp_bonsai.pipelines.cluster.form import check_for_cluster, in_the_forms_words
from kfp_bonsai.pipelines.levels import parse_levels
from kfp_bonsai.pipelines.options import LEVELS, OF_CELLS, STUDY, arguments
from kfp_bonsai.pipelines.study_file import study_of
from kfp_bonsai.pipelines.values import check_values, fitting
from kfp_bonsai.shared.core.errors import BonsaiError, nearest

ANY = {"models": ["any/model"], "data": ["any/rows"]}  # in the place of what each run states
DEFAULTS = {name: one.default for name, one in OF_CELLS.items()}


def settle_study(
    given: Mapping[str, Any], fixed: Mapping[str, Any], flag: str = "", *, whole: bool = True
) -> dict[str, Any]:
    """Return the value of every argument of the pipeline study: what is given, else its default.

    Args:
        given: arguments by name.
        fixed: those given when compiling, of the cells too.
        flag: what stands before an argument's name in messages.
        whole: refuse what is missing, and give all values; else check what is given, and give that.

    Raises:
        BonsaiError: an argument is unknown, of another type, missing, or one that no run takes.
    """
    known = arguments(STUDY)
    found = {name: value for name, value in fixed.items() if name in known}
    for name, value in given.items():
        if name not in known:
            raise BonsaiError(f"{flag}{name} is unknown{nearest(name, [*known])} (known: {', '.join(known)})")
        found[name] = fitting(value, known[name].annotation, f"{flag}{name}")
    for name, one in known.items() if whole else ():
        found.setdefault(name, one.default)
    cells(found if whole else {**ANY, **found}, fixed, flag)
    return found


def cells(found: Mapping[str, Any], fixed: Mapping[str, Any], flag: str = "") -> list[Cell]:
    """Return the cells of a study whose arguments these are, with all that its cells are given.

    Raises:
        BonsaiError: there is none, one is there twice, or one cannot be made on any cluster.
    """
    study = study_of({name: value for name, value in found.items() if name != "title"}, OF_CELLS, flag)
    beside = {name: value for name, value in fixed.items() if name in OF_CELLS}
    try:
        check_values(beside)
        made = cells_of(replace(study, options={**beside, **study.options}), DEFAULTS)
        for cell in made:
            check_for_cluster({**cell.options, "model": cell.model, "data": cell.data}, levels_of(cell))
            if fixed.get("device") == "cpu" and cell.options.get("device") == "cuda":
                raise BonsaiError("device cuda: this pipeline was compiled to measure on a CPU: leave device out")
    except BonsaiError as error:
        raise type(error)(in_the_forms_words(error, "", {**OF_CELLS, LEVELS: None, "seed": None})) from error
    return made


def levels_of(cell: Cell) -> list[dict[str, Any]]:
    """Return the levels that are stated for a cell."""
    return parse_levels(cell.levels) if cell.levels else []


def arguments_of(cell: Cell) -> dict[str, Any]:
    """Return what compress is given of a cell, but the branch, and the levels where none are stated."""
    return {
        **DEFAULTS,
        **cell.options,
        "model": cell.model,
        "data": cell.data,
        LEVELS: levels_of(cell),
        "seed": cell.seed,
        "title": cell.name,
    }
