"""What stages read of each other's JSON files, as shapes (documents.py); what else is there, they leave alone."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from kfp_bonsai.shared.core.documents import ABOVE_ZERO, COUNT, FLAG, NUMBER, NUMBERS, TEXT, Kind, is_number


def _rises(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_number, value)) and all(one <= two for one, two in pairwise(value))


def _is_square(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list) and len(row) == len(value) and all(map(COUNT.holds, row)) for row in value
    )


RISING = Kind("a list of numbers that do not fall", _rises)
INTERVAL = Kind("two numbers, the smaller first", lambda value: _rises(value) and len(value) == 2)
SQUARE = Kind("a table of whole numbers with as many rows as columns", _is_square)

_TASK = {
    "name": TEXT,
    "kind?": TEXT,
    "metric": TEXT,
    "labels?": [TEXT],
    "columns?": [TEXT],
    "source?": TEXT,
    "split?": TEXT,
    "rows?": COUNT,
    "sha256?": TEXT,
    "notes?": [TEXT],
}
_TARGET = {"min_accuracy?": NUMBER, "max_emission?": NUMBER}
_FORM = Kind("float or int8", ("float", "int8").__contains__)
CHAMPION = {
    "version": TEXT,
    "previous?": TEXT,
    "level?": TEXT,
    "accuracy?": NUMBER,
    "max_emission?": Kind("a share of 0 to 1", lambda value: is_number(value) and 0 <= value <= 1),
    "max_emission_of?": _FORM,
    "data_sha256?": TEXT,
    "profile?": {},
}
DECISION = {"promoted": FLAG, "reason": TEXT, "challenger?": TEXT, "form?": _FORM}
_LINEAGE = [{"stage": TEXT, "arguments?": {}, "seconds?": NUMBER, "joules?": NUMBER, "energy_label?": TEXT}]
_ENERGY = {"label?": TEXT, "source?": TEXT, "detail?": TEXT}
_CARBON = {"intensity_g_per_kwh": NUMBER, "country?": TEXT, "source?": TEXT}
_TEXTS = ("model", "family", "student", "shape", "runtime", "device", "sha256", "emission_label", "error")
_INTERVALS = ("accuracy_ci", "relative_accuracy_ci", "relative_emission_ci", "saved_kwh_per_year_ci")
_COUNTS = ("unlabelled_rows", "parameters", "size_bytes", "peak_memory_bytes", "best_batch_size", "payback_inferences")
_NUMBERS = (
    "accuracy",
    "relative_accuracy",
    "mcnemar_p",
    "joules_per_1000",
    "grams_co2_per_1000",
    "flops",
    "flops_ratio",
    "layers",
    "latency_ms_p50",
    "latency_ms_p95",
    "latency_ms_p99",
    "throughput_rows_per_s",
    "saved_kwh_per_year",
    "saved_kg_co2_per_year",
)
_SCI = {"sci_g?": NUMBER}
_WRITING = {
    "tokens": COUNT,
    **dict.fromkeys(("joules_per_token", "mean_tokens", "relative_tokens", "perplexity"), NUMBER),
    **dict.fromkeys(("first_token_ms_p50", "first_token_ms_p95", "tokens_per_s_p50", "tokens_per_s_p95"), NUMBER),
    **dict.fromkeys(("joules_per_answer?", "relative_perplexity?", "likelihood_p?", "ended?"), NUMBER),
    **dict.fromkeys(("perplexity_ci?", "relative_perplexity_ci?"), INTERVAL),
    "sci_per_1000_tokens?": _SCI,
    "own?": {"relative_emission": ABOVE_ZERO, "relative_emission_ci?": INTERVAL, "joules_per_answer?": NUMBER},
}
_MODEL: Mapping[str, Any] = {
    "level": TEXT,
    "stage": TEXT,
    "relative_emission?": ABOVE_ZERO,
    "confusion?": SQUARE,
    "scores?": NUMBERS,
    "scored?": COUNT,
    "predicted_emission?": {"share": NUMBER, "error": NUMBER, "device": TEXT},
    "errors?": COUNT,
    "writing?": _WRITING,
    "by_label?": [{"label": TEXT, "items": COUNT, "precision?": NUMBER, "recall?": NUMBER, "f1?": NUMBER}],
    "roc?": {"fpr": RISING, "tpr": RISING, "thresholds": [NUMBER], "auc": NUMBER},
    **{f"{name}?": TEXT for name in _TEXTS},
    **{f"{name}?": INTERVAL for name in _INTERVALS},
    **{f"{name}?": COUNT for name in _COUNTS},
    **{f"{name}?": NUMBER for name in _NUMBERS},
}

MEASUREMENT = {
    "created?": TEXT,
    "device": TEXT,
    "device_kind?": TEXT,
    "task": _TASK,
    "rows?": COUNT,
    "versions?": {},
    "environment?": {},
    "floor?": {"accuracy?": NUMBER, "method?": TEXT},
    "protocol?": {"precision?": NUMBER, "stopped_because?": TEXT, "rows_left_out?": COUNT},
    "energy?": _ENERGY,
    "carbon?": _CARBON,
    "traffic_per_day?": COUNT,
    "embodied_g_per_hour?": NUMBER,
    "control?": {"ratio": NUMBER, "ci": INTERVAL, "margin?": ABOVE_ZERO, "pairs?": [[NUMBER, NUMBER]]},
    "flags?": [TEXT],
    "models": [
        {
            **_MODEL,
            "making?": {"seconds?": NUMBER, "joules?": NUMBER, "label?": TEXT},
            "sci_per_1000?": {"sci_g?": NUMBER},
            "pairs?": [[NUMBER, NUMBER]],
            "lineage?": _LINEAGE,
        }
    ],
}
SELECTION = {
    "target": _TARGET,
    "meets_target?": FLAG,
    "reason?": TEXT,
    "chosen?": {"level?": TEXT, "sha256?": TEXT},
    "candidates?": [{"sha256?": TEXT, "lineage?": _LINEAGE}],
}
RESULTS = {
    "title?": TEXT,
    "verdict?": TEXT,
    "created?": TEXT,
    "task": _TASK,
    "floor_accuracy?": NUMBER,
    "floor_method?": TEXT,
    "test_rows?": COUNT,
    "versions?": {},
    "target?": _TARGET,
    "chosen?": {"stage?": TEXT, "meets_target?": FLAG},
    "control?": TEXT,
    "control_covers_one?": FLAG,
    "energy?": _ENERGY,
    "carbon?": _CARBON,
    "traffic_per_day?": COUNT,
    "embodied_g_per_hour?": NUMBER,
    "cost?": {"seconds?": NUMBER, "joules?": NUMBER},
    "rows": [
        {
            **_MODEL,
            "measurement": TEXT,
            "chosen?": FLAG,
            "sci_grams_per_1000?": NUMBER,
            "making_seconds?": NUMBER,
            "making_joules?": NUMBER,
            "making_label?": TEXT,
            "made_to?": {"layers": NUMBER, "flops": NUMBER, "emission": NUMBER, "shape": TEXT, "vocabulary": TEXT},
        }
    ],
}
STUDY = {
    "title": TEXT,
    "started": TEXT,
    "finished": TEXT,
    "command": TEXT,
    "cells": [
        {
            **dict.fromkeys(("name", "model", "model_name", "data", "data_name", "group"), TEXT),
            "seed": COUNT,
            "flags?": [TEXT],
            "rows?": COUNT,
            "state": Kind("done, failed, refused or waiting", ("done", "failed", "refused", "waiting").__contains__),
            "error": TEXT,
            "results": TEXT,
            "seconds": NUMBER,
            "joules?": NUMBER,
        }
    ],
}
_FIGURES = {f"{name}?": NUMBER for name in ("emission", "latency_ms", "size_mb", "memory_mb")}
SEARCH = {
    "targets": {**_TARGET},
    "asked": TEXT,
    "ended?": TEXT,
    "energy": {"seconds": NUMBER, "joules": NUMBER, "cpu_seconds?": NUMBER, "label?": TEXT, "source?": TEXT},
    "table": {"error": NUMBER, "measured_over_predicted": NUMBER},
    "worths": NUMBERS,
    "chosen?": {"probability": NUMBER},
    "test?": {"probability": NUMBER},
    "trials": [
        {
            "number": COUNT,
            "name": TEXT,
            "state": TEXT,
            "healed": NUMBER,
            "seconds": NUMBER,
            "joules": NUMBER,
            "error?": TEXT,
            "figures": _FIGURES,
            **{f"{one}?": NUMBER for one in ("relative_accuracy", "believed_accuracy", "probability")},
            "predicted_emission?": NUMBER,
        }
    ],
    "front?": [{"number": COUNT, "chosen": FLAG, "relative_accuracy?": NUMBER, "figures": _FIGURES}],
}


def _is_point(value: Any) -> bool:
    if isinstance(value, dict) and "model" in value:
        return TEXT.holds(value["model"])
    return (
        isinstance(value, dict)
        and {"layers", "share", "shape"} <= value.keys()
        and COUNT.holds(value["layers"])
        and is_number(value["share"])
        and value["layers"] > 0 < value["share"] <= 1
        and TEXT.holds(value["shape"])
    )


RUNG = Kind("0, 1 or 2", lambda value: COUNT.holds(value) and value <= 2)
POINT = Kind("a point of a search: layers, share and shape, or a model", _is_point)
TRIAL = {
    "number": COUNT,
    "point": POINT,
    "parent": NUMBER,
    "healed": [
        {"rung": RUNG, "order": COUNT, "draws": [NUMBER]}
        | dict.fromkeys(("relative_accuracy", "seconds", "joules"), NUMBER)
    ],
    "figures": {**_FIGURES, "emission?": ABOVE_ZERO, "emission_ci?": INTERVAL},
    "predicted?": NUMBER,
    "error": TEXT,
    "facts": {},
}
GROUND = {
    "layers": COUNT,
    "limits": {},
    "error": NUMBER,
    "device": TEXT,
    "baseline": {**_FIGURES, "accuracy": NUMBER, "rows": COUNT, "size_rest_mb?": NUMBER},
    "int8": NUMBERS,
    "seen": [[NUMBER, NUMBER]],
    "gains": [NUMBER],
    "rivals": [TEXT],
    "begin": [POINT],
    "rest": {},
}
EARLIER_SEARCH = {
    "model_type": TEXT,
    "chosen": Kind("a point, or nothing", lambda value: value == {} or _is_point(value)),
    "trials": [{"point": POINT, "kept": [NUMBER], "emission": ABOVE_ZERO}],
}
RATES = {
    **dict.fromkeys(("row", "whole_epochs"), ABOVE_ZERO),
    **dict.fromkeys(("baseline", "look", "measuring"), NUMBER),
    **dict.fromkeys(("transfer", "prune_rows"), COUNT),
}
_SHARE = Kind("a share of the baseline's, above zero", lambda value: is_number(value) and 0 < value < 100)
EVIDENCE = {
    "evidence": [
        {
            **dict.fromkeys(("family", "model", "level", "source"), TEXT),
            "rows": COUNT,
            "flops_ratio": _SHARE,
            "relative_accuracy": NUMBER,
            **dict.fromkeys(("data?", "kind?", "metric?", "shape?", "student?", "emission_label?"), TEXT),
            **dict.fromkeys(("parameters?", "test_rows?", "seed?", "unlabelled_rows?"), COUNT),
            **dict.fromkeys(("layers?", "flops?"), _SHARE),
            **dict.fromkeys(("score?", "floor?", "divergence?"), NUMBER),
            "relative_emission?": _SHARE,
            "relative_accuracy_ci?": INTERVAL,
            "from_scratch?": FLAG,
        }
    ]
}
