"""What the pipelines can be given: which options of which stages, and the few that are a pipeline's own.

A stage's signature says an option's type and default, its docstring what it is. What a stage gains is here too, unless
only some of its options are. `bonsai run` and `retrain`, Kubeflow's form, its first task and the definitions read this.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from inspect import Parameter
from typing import Any, NamedTuple

from kfp_bonsai.check_drift.check import check_drift
from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions
from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.package_model.package import package_model
from kfp_bonsai.pipelines.levels import parse_levels
from kfp_bonsai.prepare_data.asked import HASH
from kfp_bonsai.prepare_data.prepare import prepare_data
from kfp_bonsai.promote.promote import promote
from kfp_bonsai.propose.propose import propose
from kfp_bonsai.quantize.quantize import quantize
from kfp_bonsai.select_model.select import select_model
from kfp_bonsai.shared.core.signatures import Option, options_of
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

COMPRESS, RETRAIN, STUDY, SEARCH = "compress", "retrain", "study", "search"
# On a cluster, the tasks that check what was given.
FIRST = {COMPRESS: "check-inputs", RETRAIN: "check-retraining", STUDY: "check-study", SEARCH: "check-search"}
EDGE, LEVELS = "edge", "levels"
COMMAND = Parameter("command", Parameter.POSITIONAL_OR_KEYWORD, annotation=str, default="")
CALLED = "called"  # what an item of the loop over cells calls an argument `name`, which the item has itself
FINGERPRINTS = {
    COMPRESS: ("data_fingerprint", "model_fingerprint"),
    RETRAIN: ("data_fingerprint",),
    SEARCH: ("data_fingerprint", "model_fingerprint"),
}

# Of each stage, what a pipeline hands on to it under the same name; all have the seed too.
PREPARING = options_of(prepare_data, but=("seed",))
TUNING = options_of(fine_tune, but=("seed",))
TEACHING = options_of(teacher_outputs, "augmentations", "unlabelled_rows")
MEASURING = options_of(evaluate_emissions, but=("batch_size", "max_rows", "seed"))
QUANTIZING = options_of(quantize, "runtime")
TARGET = options_of(select_model)
PACKING = options_of(package_model, but=("name", "images"))
DRIFTING = options_of(check_drift, but=("form",))
SEARCHING = options_of(propose, but=("jobs", "seed"))
PROMOTING = options_of(promote, "margin", "max_emission")

_TRAINING = {**TUNING, **TEACHING, "prune_steps": options_of(matrix_prune, "steps")["steps"], **MEASURING}
_SEED = options_of(prepare_data, "seed")

# What is told of a whole run otherwise than of one stage.
_TOLD = {
    "epochs": "Epochs of fine-tuning.",
    "learning_rate": "Highest learning rate of fine-tuning.",
    "batch_size": "Rows a step of fine-tuning.",
    "max_length": "Tokens at which texts are cut; 0 for the longest training text (at most 512).",
    "freeze_embeddings": "Leave the embeddings as they are while fine-tuning.",
    "prune_steps": "Training steps during which matrices are pruned.",
    "device": "Where emission is measured: cpu, cuda, or auto, which takes a GPU if there is one. Training takes one "
    "anyway.",
    "pairs": "Rounds of measuring all models at the least.",
    "wait": "Before measuring, wait while another measurement runs on this machine; --no-wait ends the run instead.",
    "upload": "Where to publish the chosen model: gs://bucket/prefix, s3://bucket/prefix, hf://owner/name or a folder; "
    "its version is added.",
    "seed": "Seed of everything that is drawn.",
}


def _told(options: dict[str, Option]) -> dict[str, Option]:
    return {name: replace(one, told=_TOLD.get(name) or _sentence(one.told)) for name, one in options.items()}


def _sentence(text: str) -> str:
    """Begin a text with a capital letter, unless it begins with a list of values."""
    return text[:1].upper() + text[1:] if re.match(r"[a-z]+ (?!or )", text) else text


PIPELINES: dict[str, dict[str, Option]] = {
    COMPRESS: _told(
        {
            "model": Option(str),
            "data": Option(str),
            **PREPARING,
            LEVELS: Option(list, parse_levels(())),
            **TARGET,
            EDGE: Option(bool, False),
            **_TRAINING,
            **QUANTIZING,
            **PACKING,
            **_SEED,
        }
    ),
    RETRAIN: _told(
        {
            "champion": Option(str),
            "data": Option(str),
            "model": Option(str, ""),
            # A split by hash has shares of the rows, not numbers of them, and keeps test rows from what was trained on.
            **{name: one for name, one in PREPARING.items() if name not in ("validation_rows", "test_rows")},
            "split_by": replace(PREPARING["split_by"], default=HASH),
            **DRIFTING,
            **TARGET,
            **PROMOTING,
            EDGE: Option(
                bool,
                False,
                "The new model is int8 for CPUs, measured there, as it is anyway where the champion is such a model.",
            ),
            **_TRAINING,
            **QUANTIZING,
            **{name: PACKING[name] for name in ("license", "ship_code", "fetch_as")},
            **_SEED,
        }
    ),
    SEARCH: _told(
        {
            "model": Option(str),
            "data": Option(str),
            **PREPARING,
            # What is chosen by few rows is chosen by luck, or by much that is not needed.
            "validation_fraction": replace(PREPARING["validation_fraction"], default=0.15),
            **SEARCHING,
            "shape": Option(
                str, "free", "free shapes keep more; stock ones load in plain transformers; any tries both."
            ),
            "rivals": Option(str, "", "Ready-made models to try too, separated by commas."),
            EDGE: Option(bool, False, "Search among int8 models for CPUs, and hold their figures against the targets."),
            **_TRAINING,
            "distill_epochs": Option(float, 0.0, "Epochs of the whole distillation of a trial; 0 chooses by its size."),
            **PACKING,
            **_SEED,
        }
    ),
    STUDY: {
        "models": Option(list),
        "data": Option(list),
        LEVELS: Option(list, []),
        "seeds": Option(list, [0]),
        "title": Option(str, ""),
        "options": Option(dict, {}),
    },
}
# Of compress, what the cells of a study may be given: the branch is compiled, the rest is what a study is made of.
OF_CELLS = {
    name: one for name, one in PIPELINES[COMPRESS].items() if name not in ("model", "data", LEVELS, EDGE, "seed")
}


def arguments(pipeline: str) -> dict[str, Parameter]:
    """Return all that a pipeline can be given, with types and defaults."""
    return {name: one.parameter(name) for name, one in PIPELINES[pipeline].items()}


def outputs(pipeline: str) -> Any:
    """Return the type of what a pipeline's first task gives: a value for every argument, and fingerprints."""
    found = [(name, one.annotation) for name, one in PIPELINES[pipeline].items()]
    return NamedTuple("Outputs", [*found, *((name, str) for name in FINGERPRINTS[pipeline])])  # type: ignore[misc]


def as_declared(pipeline: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with their types: what stands in a dictionary KFP hands to a task as text, whatever it was."""
    kinds = {name: one.annotation for name, one in PIPELINES[pipeline].items()}
    return {name: _read(value, kinds[name]) for name, value in given.items()}


def _read(value: Any, kind: type) -> Any:
    if not isinstance(value, str) or kind is str:
        return value
    return value.lower() == "true" if kind is bool else kind(float(value))
