"""What the first task of a run on a cluster does, beside its place in the pipeline."""

from collections.abc import Mapping
from inspect import signature
from typing import Any

from kfp_bonsai.fetch_champion.fetch import check_champion
from kfp_bonsai.pipelines.cluster.form import in_the_forms_words, settle
from kfp_bonsai.pipelines.options import arguments
from kfp_bonsai.pipelines.values import check_model, check_taught, kind_of_rows
from kfp_bonsai.prepare_data.gather import look_at
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.storage.fingerprint import of_model


def check_form(pipeline: str, given: Mapping[str, Any], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value of every argument, and fingerprints of the data and (compress) of the model.

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
            check_champion(values["champion"], values["model"])
        else:
            check_model(values["model"], values["levels"], values["max_length"])
            values["model_fingerprint"] = of_model(values["model"])
            for level in values["levels"]:
                level["fingerprint"] = of_model(level["model"]) if level["model"] else ""
            if any(level["model"] for level in values["levels"]):
                check_taught(values["model"], values["levels"], values["max_length"], kind_of_rows(values))
        values["data_fingerprint"] = look_at(**{name: values[name] for name in signature(look_at).parameters})
    except BonsaiError as error:
        raise type(error)(in_the_forms_words(error, "", arguments(pipeline))) from error
    known = arguments(pipeline)
    for name, value in values.items():
        if name not in known or value != known[name].default:
            say(f"check-inputs  {name}: {value}")
    return values
