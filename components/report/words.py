"""What the numbers mean, in sentences: names, the verdict, and what is told beside it."""

import re
from typing import Any

from kfp_bonsai.report.numbers import (
    SPACE,
    about,
    percent,
    percent_beside,
    percent_interval,
    plain_interval,
    significant,
    unit,
)
from kfp_bonsai.report.numbers import grams as mass
from kfp_bonsai.report.series import is_ready_made
from kfp_bonsai.shared.kinds.kinds import kind_in
from kfp_bonsai.shared.metrics import control
from kfp_bonsai.shared.metrics.scores import in_words, is_share

GLOSSARY = {
    "measured": "read from an energy counter (NVML on a GPU, RAPL on a CPU).",
    "estimated": "worked out, at least for the CPU, by codecarbon from its rated power and the time it worked. "
    "The ratio of two models is surer than the joules, which are rough.",
    "proxy": "no reading of all the energy: counted from floating-point operations (FLOPs), or, of "
    "making a model, without the GPU's part.",
    "control": "the baseline measured against itself, of which the truth is 1. It passes where its whole 95 % interval "
    "lies within a margin of 1, twice the precision asked for; it has failed where the interval leaves out 1, and is "
    "inconclusive otherwise.",
    "95 % interval": "made so that it holds the truth in 95 of 100 such measurements.",
}


def metric_name(task: dict[str, Any]) -> str:
    """Return the metric as people call it."""
    return in_words(str(task.get("metric", "accuracy")))


def metric_value(value: float | None, task: dict[str, Any]) -> str:
    """Return the metric's value: accuracy and F1 as a percentage, correlations as a number."""
    return percent(value) if is_share(str(task.get("metric", "accuracy"))) else significant(value)


def metric_interval(ends: list[float] | None, task: dict[str, Any]) -> str:
    """Return the interval of the metric's value."""
    return percent_interval(ends) if is_share(str(task.get("metric", "accuracy"))) else plain_interval(ends)


def name_of(row: dict[str, Any]) -> str:
    """Return what a row is called in tables and sentences."""
    name = "Baseline" if row["stage"] == "baseline" or row["level"] == "baseline" else row["level"]
    return f"{name} (int8)" if row["stage"] == "quantized" else name


def test_rows(document: dict[str, Any], models: list[dict[str, Any]], rows: int | None) -> str:
    """Return how many test rows there were, and how many queries they are of, where scores are of these."""
    scored = next((one["scored"] for one in models if one.get("scored")), None)
    what = kind_in(document["task"]).scored
    of_these = f" of {scored:,} {what}" if scored and what != "rows" else ""
    return f"{rows or 0:,} test rows{of_these}"


def target_words(target: dict[str, Any], metric: str) -> str:
    """Say what was asked for."""
    parts = []
    if target.get("min_accuracy"):
        parts.append(f"at least {asked_for(target['min_accuracy'])} of the {metric}")
    if target.get("max_emission"):
        parts.append(f"at most {asked_for(target['max_emission'])} of the emission")
    return " and ".join(parts) or "none was given"


def asked_for(fraction: float) -> str:
    """Return a share as it was asked for."""
    return f"{100 * fraction:.4g}{SPACE}%"


def verdict(
    final: dict[str, Any] | None,
    met: bool,
    selection: dict[str, Any],
    metric: str,
    state: str,
    wanted: str,
    unit: str = "inference",
) -> str:
    """Say what was saved and what it cost, whether that is what was asked for, and what there is to doubt of it.

    Args:
        final: the row of the model that is handed over.
        met: whether it meets the target.
        selection: what select-model wrote.
        metric: as people call it.
        state: the control's.
        wanted: how narrow the emission's interval should be, where it is not; else "".
        unit: what one inference is.
    """
    if final is None:
        return "No compressed model could be measured, so nothing is known to be saved."
    label = {"measured": "a measured", "estimated": "an estimated", "proxy": "by proxy (FLOPs)"}
    doubtful = state != control.PASSED
    how = label.get(final["emission_label"], "") + (" but doubtful" if doubtful else "")
    target = selection.get("target") or {}
    accuracy = percent_beside(final["relative_accuracy"], None if met else target.get("min_accuracy"))
    emission = percent_beside(final["relative_emission"], None if met else target.get("max_emission"))
    text = f"{accuracy} of the {metric} at {how.strip()} {emission} of the emission"
    doubts = [f"control {state}"] * doubtful
    if wanted:
        doubts.append(f"interval wider than {wanted}: {percent_interval(final['relative_emission_ci'])}")
    text += f" ({'; '.join(doubts)})" if doubts else ""
    if final["relative_emission"] >= 1:
        text += ", so it saves nothing"
    elif final["payback_inferences"] is not None and not doubtful:
        text += f"; paid back after about {about(final['payback_inferences'])} {unit}s"
    if met:
        return f"{name_of(final)} keeps {text}."
    asked = target_words(target, metric)
    if final["stage"] == "quantized" and not chosen_as_int8(final, selection):
        before = f", which {final['level']} meets" if selection.get("meets_target") else ""
        return f"{name_of(final)} misses the target ({asked}){before}: it keeps {text}."
    return f"No model meets the target ({asked}): the nearest, {name_of(final)}, keeps {text}."


def chosen_as_int8(final: dict[str, Any], selection: dict[str, Any]) -> bool:
    """Tell whether int8 models' figures were held against the target, not those of the models they were made of."""
    return final["stage"] == "quantized" and (selection.get("chosen") or {}).get("sha256") == final["sha256"]


def why_selected(final: dict[str, Any] | None, selection: dict[str, Any]) -> str:
    """Return select-model's reason, and say whether it is of int8 models or from before int8."""
    reason = selection.get("reason") or ""
    if not reason or final is None or final["stage"] != "quantized":
        return reason
    as_int8 = chosen_as_int8(final, selection)
    whose = "As int8 on the edge device" if as_int8 else "Before int8, which was made of this level alone"
    return f"{whose}: " + re.sub(r"^No model", "no model", reason)


def not_compressed(final: dict[str, Any] | None) -> list[str]:
    """Say of a ready-made model that it is one."""
    if final is None or not is_ready_made(final):
        return []
    ready_made = f"a ready-made model ({final['student']}) that learnt from the baseline"
    return [f"{name_of(final)} is {ready_made}, not the baseline made smaller."]


def yearly(final: dict[str, Any] | None, measurement: dict[str, Any]) -> list[str]:
    """Say what the model saves in a year, where the traffic was stated and something is saved."""
    traffic = measurement.get("traffic_per_day")
    if final is None or not traffic or not (final["saved_kwh_per_year"] or 0) > 0:
        return []
    factor, name = (1, "kWh") if final["saved_kwh_per_year"] >= 1 else (1000, "Wh")
    ends = [significant(factor * end) for end in final["saved_kwh_per_year_ci"] or []]
    interval = f" ({ends[0]}{SPACE}to{SPACE}{ends[1]})" if len(set(ends)) > 1 else ""
    grams = f", or {mass(1000 * final['saved_kg_co2_per_year'])} of CO₂," if final["saved_kg_co2_per_year"] else ""
    saved = unit(factor * final["saved_kwh_per_year"], name)
    return [f"At {traffic:,} {kind_in(measurement['task']).unit}s a day it saves {saved}{interval}{grams} a year."]
