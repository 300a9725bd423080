"""What the numbers mean, in sentences: the verdict, and the reasons to believe it or not."""

import re
from dataclasses import dataclass
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
from kfp_bonsai.report.table import meets
from kfp_bonsai.shared.energy.cpu_estimate import ASSUMED
from kfp_bonsai.shared.metrics import control
from kfp_bonsai.shared.metrics.scores import in_words
from kfp_bonsai.shared.metrics.target import ROUNDING
from kfp_bonsai.shared.models.flops import agree

SURE = 0.05  # a p-value below it is more than chance

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


@dataclass(frozen=True)
class Check:
    """One reason to believe the report (True), not to (False), or a remark (None)."""

    good: bool | None
    name: str
    text: str


def metric_name(task: dict[str, Any]) -> str:
    """Return the metric as people call it."""
    return in_words(str(task.get("metric", "accuracy")))


def metric_value(value: float | None, task: dict[str, Any]) -> str:
    """Return the metric's value: accuracy and F1 as a percentage, correlations as a number."""
    return percent(value) if task.get("metric", "accuracy") in ("accuracy", "f1") else significant(value)


def name_of(row: dict[str, Any]) -> str:
    """Return what a row is called in tables and sentences."""
    name = "Baseline" if row["stage"] == "baseline" or row["level"] == "baseline" else row["level"]
    return f"{name} (int8)" if row["stage"] == "quantized" else name


def target_words(target: dict[str, Any], metric: str) -> str:
    """Say what was asked for."""
    parts = []
    if target.get("min_accuracy"):
        parts.append(f"at least {_asked(target['min_accuracy'])} of the {metric}")
    if target.get("max_emission"):
        parts.append(f"at most {_asked(target['max_emission'])} of the emission")
    return " and ".join(parts) or "none was given"


def _asked(fraction: float) -> str:
    return f"{100 * fraction:.4g}{SPACE}%"


def verdict(
    final: dict[str, Any] | None, met: bool, selection: dict[str, Any], metric: str, state: str, wanted: str
) -> str:
    """Say what was saved and what it cost, whether that is what was asked for, and what there is to doubt of it.

    Args:
        final: the row of the model that is handed over.
        met: whether it meets the target.
        selection: what select-model wrote.
        metric: as people call it.
        state: the control's.
        wanted: how narrow the emission's interval should be, where it is not; else "".
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
        text += f"; paid back after about {about(final['payback_inferences'])} inferences"
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
    return [f"At {traffic:,} inferences a day it saves {saved}{interval}{grams} a year."]


def checks(
    final: dict[str, Any] | None,
    measurements: list[tuple[str, dict[str, Any]]],
    target: dict[str, Any],
    metric: str,
) -> list[Check]:
    """Return the reasons to believe the figures or not, in plain language, the most important first."""
    found = [_control(where, measurement) for where, measurement in measurements]
    own = measurement = measurements[0][1]
    if final is not None:
        own = dict(measurements).get(final["measurement"], measurement)
        found += [
            *_accuracy(final, measurement, own, target, metric),
            *_floor(final, own, metric),
            *_precision(final, own, target),
            *_runtimes(final, own, target, metric),
            *_flops(final),
        ]
    found.append(_label(final, own))
    for where, each in measurements:
        prefix = f"{where}: " if len(measurements) > 1 else ""
        found += [Check(None, "Note", prefix + _sentence(str(flag))) for flag in each.get("flags") or []]
        for model in each["models"]:
            if model.get("error"):
                found.append(
                    Check(False, "Failed", f"{prefix}{model['level']} could not be measured: {model['error']}.")
                )
    return found


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


def _control(where: str, measurement: dict[str, Any]) -> Check:
    name = "Control, edge" if where == "edge" else "Control"
    state, margin = control.of_measurement(measurement), control.margin_of(measurement)
    if state == control.MISSING:
        return Check(False, name, "The baseline was not measured against itself, so the noise is unknown.")
    ratio, ends = measurement["control"]["ratio"], measurement["control"]["ci"]
    around = f"1{SPACE}±{SPACE}{margin:.3g}"
    if state == control.PASSED:
        shown = f"{ratio:.3f} ({plain_interval(ends)})"
        return Check(True, name, f"The baseline measured against itself gives {shown}, all within {around} as it must.")
    shown = f"{ratio:.4f} ({plain_interval(ends, 4)})"  # on which side of a limit it ends
    if state == control.FAILED:
        why = "leaves out 1: whatever moved it may have moved the emission as far (one in twenty does so by chance)"
    else:
        why = f"reaches beyond {around}: a measurement as noisy as this would not show an error of that size"
    do = _sentence(control.WHAT_TO_DO)
    return Check(False, name, f"The baseline measured against itself gives {shown}, which {why}. {do}")


def _accuracy(
    final: dict[str, Any], measurement: dict[str, Any], own: dict[str, Any], target: dict[str, Any], metric: str
) -> list[Check]:
    ends, least = final["relative_accuracy_ci"], target.get("min_accuracy")
    title = metric[:1].upper() + metric[1:]
    if not ends:
        return [Check(False, title, f"The relative {metric} has no interval, so chance cannot be told from loss.")]
    good = True
    if not least:
        text = f"The relative {metric} lies between {percent_interval(ends)} (95 % interval)."
    elif final["relative_accuracy"] < least - ROUNDING:
        good, text = False, f"The target of {_asked(least)} is missed ({percent_interval(ends)})."
    elif ends[0] >= least - ROUNDING:
        text = f"The whole interval ({percent_interval(ends)}) keeps the target of {_asked(least)}."
    else:
        good = False
        text = (
            f"The interval ({percent_interval(ends)}) reaches below the target of {_asked(least)}: with other rows "
            "it might be missed. More test rows would tell."
        )
    return [Check(good, title, text + _paired(final, own) + _of_several(measurement))]


def _of_several(measurement: dict[str, Any]) -> str:
    """Say that the best of several on the same rows looks a little better than it is."""
    levels = len({one["level"] for one in measurement["models"] if not one.get("error")} - {"baseline"})
    if levels < 2:
        return ""
    return f" It was chosen of {levels} levels by these very rows, which flatters it a little."


def _paired(final: dict[str, Any], own: dict[str, Any]) -> str:
    """Say which of model and baseline errs more often, and what McNemar's test on the same rows makes of it."""
    chance = final["mcnemar_p"]
    baseline: dict[str, Any] = next((one for one in own["models"] if one["stage"] == "baseline"), {})
    if chance is None or not final["confusion"] or not baseline.get("confusion"):
        return ""
    errors, theirs = (_errors(one["confusion"]) for one in (final, baseline))
    rows = sum(map(sum, final["confusion"]))
    shown = "p < 0.001" if chance < 0.001 else f"p = {significant(chance, 2)}"
    what = f"significantly {'more' if errors > theirs else 'less'} often" if chance < SURE else "no proven difference"
    return (
        f" It errs on {errors:,} of {rows:,} rows and the baseline on {theirs:,}: {what}, by McNemar's test on the "
        f"same rows ({shown})."
    )


def _errors(confusion: list[list[int]]) -> int:
    return sum(map(sum, confusion)) - sum(row[at] for at, row in enumerate(confusion))


def _floor(final: dict[str, Any], measurement: dict[str, Any], metric: str) -> list[Check]:
    floor = (measurement.get("floor") or {}).get("accuracy")
    if floor is None or final["accuracy"] is None:
        return []
    task = measurement["task"]
    both = f"{metric_value(final['accuracy'], task)} against {metric_value(floor, task)}"
    if final["accuracy"] <= floor:
        text = f"No better than a bag of words with a linear model ({both}), which emits next to nothing: use that."
        return [Check(False, "Floor", text)]
    if final["accuracy_ci"] and final["accuracy_ci"][0] <= floor:
        return [Check(False, "Floor", f"Hardly better than a bag of words ({both}, within the interval).")]
    return [Check(True, "Floor", f"Better than a bag of words with a linear model ({both}).")]


def below_floor(final: dict[str, Any], measurement: dict[str, Any]) -> bool:
    """Tell whether a bag of words does as well as the model."""
    floor = (measurement.get("floor") or {}).get("accuracy")
    return floor is not None and final["accuracy"] is not None and final["accuracy"] <= floor


def missed_precision(final: dict[str, Any] | None, measurement: dict[str, Any]) -> str:
    """Return how narrow the emission's interval should be, where it is wider; else ""."""
    half, asked = (
        _half_width(final) if final is not None else None,
        (measurement.get("protocol") or {}).get("precision"),
    )
    wanted = asked or control.USUAL_PRECISION
    if half is None or half <= 1.05 * wanted:
        return ""
    return f"the ±{_asked(wanted)} asked for" if asked else f"±{_asked(wanted)}"


def _half_width(final: dict[str, Any]) -> float | None:
    """Return half the interval of the emission as a fraction of it."""
    ends, value = final["relative_emission_ci"], final["relative_emission"]
    return (ends[1] - ends[0]) / 2 / value if ends and value else None


def _precision(final: dict[str, Any], measurement: dict[str, Any], target: dict[str, Any]) -> list[Check]:
    ends = final["relative_emission_ci"]
    if not ends or not final["relative_emission"]:
        return [Check(False, "Emission", "The relative emission has no interval, so noise cannot be told from saving.")]
    stopped = (measurement.get("protocol") or {}).get("stopped_because")
    text = f"{percent_interval(ends)}, that is ±{percent(_half_width(final))} of the figure itself"
    most = target.get("max_emission")
    beyond = []
    if most and final["relative_emission"] <= most + ROUNDING < ends[1]:
        text_beyond = f"The interval ({percent_interval(ends)}) reaches above the target of {_asked(most)}."
        beyond = [Check(False, "Emission", text_beyond)]
    wanted = missed_precision(final, measurement)
    if not wanted:
        return beyond or [Check(True, "Emission", f"The interval is narrow: {text}.")]
    reason = f"; measuring stopped because {stopped}" if stopped else ""
    return [*beyond, Check(False, "Emission", f"The interval is wider than {wanted}: {text}{reason}.")]


def _runtimes(final: dict[str, Any], measurement: dict[str, Any], target: dict[str, Any], metric: str) -> list[Check]:
    """Say what part of the saving is the runtime's and int8's, where the baseline runs in another one."""
    theirs = next((one.get("runtime") for one in measurement["models"] if one.get("stage") == "baseline"), None)
    if not theirs or final["runtime"] == theirs:
        return []
    text = f"It runs in {final['runtime']} as int8 and the baseline in {theirs}, as each is served"
    alone = next(
        (
            one
            for one in measurement["models"]
            if one["stage"] == "quantized" and one["level"] == "baseline" and not one.get("error")
        ),
        None,
    )
    if alone is None:
        why = "a part of what is saved comes of the runtime and of int8, and a quantized baseline would save that too"
        return [Check(None, "Runtime", f"{text}: {why}.")]
    figures = [(one["relative_accuracy"], one["relative_emission"]) for one in (alone, final)]
    text += (
        f". The baseline as int8 keeps {percent(figures[0][0])} of the {metric} at {percent(figures[0][1])} of the "
        f"emission: so much is the runtime's and int8's, and compression takes it to {percent(figures[1][1])}."
    )
    if not meets(alone, target):
        return [Check(None, "Runtime", text)]
    if not meets(final, target):
        return [Check(False, "Runtime", f"{text} It meets the target, so that int8 alone would do.")]
    if not target.get("min_accuracy") and figures[0][0] > figures[1][0]:
        return [Check(False, "Runtime", f"{text} It meets the target and keeps more, so that int8 alone would do.")]
    return [Check(None, "Runtime", text)]


def _flops(final: dict[str, Any]) -> list[Check]:
    flops, emission = final["flops_ratio"], final["relative_emission"]
    if not flops or not emission or final["stage"] == "quantized":
        return []
    if agree(emission, flops):
        return [Check(True, "FLOPs", f"Its work ({percent(flops)} of the FLOPs) agrees with its emission.")]
    why = (
        "small matrices keep a processor less busy, and what is not counted (embeddings, softmax, overhead) weighs more"
        if emission > flops
        else "memory traffic shrank more than arithmetic"
    )
    return [
        Check(False, "FLOPs", f"It does {percent(flops)} of the FLOPs at {percent(emission)} of the emission: {why}.")
    ]


def _label(final: dict[str, Any] | None, measurement: dict[str, Any]) -> Check:
    label = (final or {}).get("emission_label") or (measurement.get("energy") or {}).get("label") or "proxy"
    rely = ": rely on the ratio, less on the joules" if control.of_measurement(measurement) == control.PASSED else ""
    text = {
        "measured": "Energy was read from a counter, not estimated.",
        "estimated": f"{_what_is_estimated(measurement)}, not read from a counter{rely}.",
        "proxy": "Energy was not read at all: the ratio is that of the FLOPs.",
    }
    return Check(True if label == "measured" else None, label.capitalize(), text.get(label, label))


def _what_is_estimated(measurement: dict[str, Any]) -> str:
    energy = measurement.get("energy") or {}
    power = "a power that was assumed" if ASSUMED in str(energy.get("source")) else "rated power"
    what = "The CPU's energy" if "GPU measured" in str(energy.get("detail")) else "Energy"
    return f"{what} is estimated from {power} and working time"
