"""What stages read of each other's JSON files, as shapes (documents.py); what else is there, they leave alone."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from kfp_bonsai.shared.documents import above_zero, count, flag, number, text


def interval(value: Any) -> bool:
    """an interval of two numbers, the smaller first"""
    return isinstance(value, list) and len(value) == 2 and all(map(number, value)) and value[0] <= value[1]


def square(value: Any) -> bool:
    """a table of whole numbers with as many rows as columns"""
    return isinstance(value, list) and all(
        isinstance(row, list) and len(row) == len(value) and all(map(count, row)) for row in value
    )


def rising(value: Any) -> bool:
    """a list of numbers that do not fall"""
    return isinstance(value, list) and all(map(number, value)) and all(one <= two for one, two in pairwise(value))


_TASK = {
    "name": text,
    "kind?": text,
    "metric": text,
    "labels?": [text],
    "columns?": [text],
    "source?": text,
    "split?": text,
    "rows?": count,
    "sha256?": text,
    "notes?": [text],
}
_TARGET = {"min_accuracy?": number, "max_emission?": number}
_LINEAGE = [{"stage": text, "arguments?": {}, "seconds?": number, "joules?": number, "energy_label?": text}]
_ENERGY = {"label?": text, "source?": text, "detail?": text}
_CARBON = {"intensity_g_per_kwh": number, "country?": text, "source?": text}
_TEXTS = ("model", "shape", "runtime", "device", "sha256", "emission_label", "error")
_INTERVALS = ("accuracy_ci", "relative_accuracy_ci", "relative_emission_ci", "saved_kwh_per_year_ci")
_COUNTS = ("parameters", "size_bytes", "peak_memory_bytes", "best_batch_size", "payback_inferences")
_NUMBERS = (
    "accuracy",
    "relative_accuracy",
    "mcnemar_p",
    "joules_per_1000",
    "grams_co2_per_1000",
    "flops",
    "flops_ratio",
    "latency_ms_p50",
    "latency_ms_p95",
    "latency_ms_p99",
    "throughput_rows_per_s",
    "saved_kwh_per_year",
    "saved_kg_co2_per_year",
)
_MODEL: Mapping[str, Any] = {
    "level": text,
    "stage": text,
    "relative_emission?": above_zero,
    "confusion?": square,
    "roc?": {"fpr": rising, "tpr": rising, "thresholds": [number], "auc": number},
    **{f"{name}?": text for name in _TEXTS},
    **{f"{name}?": interval for name in _INTERVALS},
    **{f"{name}?": count for name in _COUNTS},
    **{f"{name}?": number for name in _NUMBERS},
}

MEASUREMENT = {
    "created?": text,
    "device": text,
    "device_kind?": text,
    "task": _TASK,
    "rows?": count,
    "versions?": {},
    "environment?": {},
    "floor?": {"accuracy?": number, "method?": text},
    "protocol?": {"precision?": number, "stopped_because?": text},
    "energy?": _ENERGY,
    "carbon?": _CARBON,
    "traffic_per_day?": count,
    "embodied_g_per_hour?": number,
    "control?": {"ratio": number, "ci": interval, "margin?": above_zero, "pairs?": [[number, number]]},
    "flags?": [text],
    "models": [
        {
            **_MODEL,
            "making?": {"seconds?": number, "joules?": number, "label?": text},
            "sci_per_1000?": {"sci_g?": number},
            "pairs?": [[number, number]],
            "lineage?": _LINEAGE,
        }
    ],
}
SELECTION = {
    "target": _TARGET,
    "meets_target?": flag,
    "reason?": text,
    "chosen?": {"level?": text, "sha256?": text},
    "candidates?": [{"sha256?": text, "lineage?": _LINEAGE}],
}
RESULTS = {
    "title?": text,
    "verdict?": text,
    "created?": text,
    "task": _TASK,
    "floor_accuracy?": number,
    "floor_method?": text,
    "test_rows?": count,
    "versions?": {},
    "target?": _TARGET,
    "chosen?": {"stage?": text, "meets_target?": flag},
    "control?": text,
    "control_covers_one?": flag,
    "energy?": _ENERGY,
    "carbon?": _CARBON,
    "traffic_per_day?": count,
    "embodied_g_per_hour?": number,
    "rows": [
        {
            **_MODEL,
            "measurement": text,
            "chosen?": flag,
            "sci_grams_per_1000?": number,
            "making_seconds?": number,
            "making_joules?": number,
            "making_label?": text,
        }
    ],
}
