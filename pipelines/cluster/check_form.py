"""What the first task of a run on a cluster does, beside its place in the pipeline."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from kfp_bonsai.fetch_champion.fetch import check_champion
from kfp_bonsai.pipelines.cluster.form import in_the_forms_words, settle
from kfp_bonsai.pipelines.cluster.study_form import arguments_of, cells, settle_study
from kfp_bonsai.pipelines.options import CALLED, COMPRESS, EDGE, LEVELS, arguments
from kfp_bonsai.pipelines.values import (
    check_model,
    check_taught,
    kind_of_rows,
    levels_of_kind,
    rivals_of,
)
from kfp_bonsai.prepare_data.gather import look_at
from kfp_bonsai.report.study_record import REFUSED, WAITING, group_of
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.saved.fingerprint import of_model


def check_form(pipeline: str, given: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of every argument, and fingerprints of the data and (compress) of the model.

    Where no levels are given, they are those of the kind of task.

    Args:
        pipeline: compress or retrain.
        given: the form's fields; "options" holds any other arguments.
        fixed: what was given when compiling.

    Raises:
        BonsaiError: an argument is unknown or wrong, or model, champion or data cannot be had. It is called as in the
            form.
    """
    values = settle(pipeline, given, fixed)
    try:
        if pipeline == "retrain":
            check_champion(values["champion"], values["model"], values[EDGE], values["runtime"])
        else:
            if pipeline == COMPRESS:
                values[LEVELS] = values[LEVELS] or levels_of_kind(values)
            _check_models(values["model"], values)
        values["data_fingerprint"] = _of_data(values)
    except BonsaiError as error:
        raise type(error)(in_the_forms_words(error, "", arguments(pipeline))) from error
    known = arguments(pipeline)
    for name, value in values.items():
        if name not in known or value != known[name].default:
            say(f"check-inputs  {name}: {value}")
    return values


def check_cells(given: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the cells of a study that can be made, as the loop over them reads them, and what is told of all.

    Args:
        given: the form's fields.
        fixed: what was given when compiling.

    Raises:
        BonsaiError: an argument is unknown or wrong, or no cell's model and data can be had.
    """
    found, described = [], []
    for cell in cells(settle_study(given, fixed), fixed):
        values, error = {EDGE: bool(fixed.get(EDGE)), **arguments_of(cell)}, ""
        try:
            values[LEVELS] = values[LEVELS] or levels_of_kind(values)
            _check_models(cell.model, values)
            values["data_fingerprint"] = _of_data(values)
            values[CALLED] = values.pop("name")
            found.append(values)
        except BonsaiError as problem:
            error = in_the_forms_words(problem, "", values)
        say(f"check-study  {cell.name}: {error or 'can be had'}")
        described.append(
            {
                "name": cell.name,
                "model": cell.model,
                "model_name": cell.model_name,
                "data": cell.data,
                "data_name": cell.data_name,
                "group": cell.group or group_of(cell.data, cell.data_name, None, values["max_rows"]),
                "seed": cell.seed,
                "flags": [*cell.flags(), *(["--edge"] if values[EDGE] else [])],
                "state": REFUSED if error else WAITING,
                "error": error,
            }
        )
    if not found:
        raise BonsaiError(f"no cell can be made: {described[0]['name']}: {described[0]['error']}")
    return {"cells": found, "described": described}


def _check_models(model: str, values: dict[str, Any]) -> None:
    """Refuse a model, levels or ready-made models that a stage would refuse; add fingerprints of all models."""
    levels, max_length = values.get(LEVELS) or rivals_of(values["rivals"]), values["max_length"]
    check_model(model, levels, max_length)
    values["model_fingerprint"] = of_model(model)
    for level in levels:
        if level["model"]:
            level["fingerprint"] = of_model(level["model"])
    check_taught(model, levels, max_length, kind_of_rows(values))


def _of_data(values: Mapping[str, Any]) -> str:
    """Return the fingerprint of the data, whose columns are looked at."""
    return look_at(**{name: values[name] for name in signature(look_at).parameters})
