"""The reasons to believe the figures or not, in sentences."""

from dataclasses import dataclass
from typing import Any

from kfp_bonsai.report.numbers import SPACE, percent, percent_interval, plain_interval, significant
from kfp_bonsai.report.table import meets, ready_made_above
from kfp_bonsai.report.words import asked_for, metric_value
from kfp_bonsai.shared.energy.cpu_estimate import ASSUMED
from kfp_bonsai.shared.kinds.kinds import kind_in
from kfp_bonsai.shared.metrics import control
from kfp_bonsai.shared.metrics.target import ROUNDING
from kfp_bonsai.shared.models.flops import agree

SURE = 0.05  # a p-value below it is more than chance


@dataclass(frozen=True)
class Check:
    """One reason to believe the report (True), not to (False), or a remark (None)."""

    good: bool | None
    name: str
    text: str


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
            *_ready_made(final, own, metric),
            *_precision(final, own, target),
            *_runtimes(final, own, target, metric),
            *_flops(final),
        ]
    found.append(_label(final, own))
    for where, each in measurements:
        prefix = f"{where}: " if len(measurements) > 1 else ""
        found += _left_out(each, prefix)
        found += [Check(None, "Note", prefix + _sentence(str(flag))) for flag in each.get("flags") or []]
        for model in each["models"]:
            if model.get("error"):
                found.append(
                    Check(False, "Failed", f"{prefix}{model['level']} could not be measured: {model['error']}.")
                )
    return found


def _left_out(measurement: dict[str, Any], prefix: str) -> list[Check]:
    """Say how many test rows no model was measured on."""
    count, rows = (measurement.get("protocol") or {}).get("rows_left_out") or 0, measurement.get("rows") or 0
    why = "its chat template refuses them, they are too long with their answers, or it knows no token of these"
    text = f"{count:,} of {count + rows:,} test rows were left out of all figures of models: the baseline cannot be "
    text = f"{prefix}{text}asked them ({why})."
    return [Check(None, "Rows", text)] if count else []


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
    title = metric[:1].upper() + metric[1:] if metric[1:2].islower() else metric  # nDCG
    scored = kind_in(measurement["task"]).scored
    if not ends:
        return [Check(False, title, f"The relative {metric} has no interval, so chance cannot be told from loss.")]
    good = True
    if not least:
        text = f"The relative {metric} lies between {percent_interval(ends)} (95 % interval)."
    elif final["relative_accuracy"] < least - ROUNDING:
        good, text = False, f"The target of {asked_for(least)} is missed ({percent_interval(ends)})."
    elif ends[0] >= least - ROUNDING:
        text = f"The whole interval ({percent_interval(ends)}) keeps the target of {asked_for(least)}."
    else:
        good = False
        text = (
            f"The interval ({percent_interval(ends)}) reaches below the target of {asked_for(least)}: with other "
            f"{scored} it might be missed. More test {scored} would tell."
        )
    return [Check(good, title, text + _paired(final, own) + _of_several(measurement))]


def _of_several(measurement: dict[str, Any]) -> str:
    """Say that the best of several on the same rows looks a little better than it is."""
    levels = len({one["level"] for one in measurement["models"] if not one.get("error")} - {"baseline"})
    if levels < 2:
        return ""
    scored = kind_in(measurement["task"]).scored
    return f" It was chosen of {levels} levels by these very {scored}, which flatters it a little."


def _paired(final: dict[str, Any], own: dict[str, Any]) -> str:
    """Say which of model and baseline errs more often, and what McNemar's test on the same rows makes of it."""
    chance = final["mcnemar_p"]
    baseline: dict[str, Any] = next((one for one in own["models"] if one["stage"] == "baseline"), {})
    errors, theirs = _errors(final), _errors(baseline)
    if chance is None or errors is None or theirs is None:
        return ""
    rows = own.get("rows") or own["task"].get("rows") or 0
    if final["confusion"]:
        rows = sum(map(sum, final["confusion"]))
    when = kind_in(own["task"]).errs
    when = f" (a row is wrong {when})" if when else ""
    shown = "p < 0.001" if chance < 0.001 else f"p = {significant(chance, 2)}"
    what = f"significantly {'more' if errors > theirs else 'less'} often" if chance < SURE else "no proven difference"
    return (
        f" It errs on {errors:,} of {rows:,} rows and the baseline on {theirs:,}{when}: {what}, by McNemar's test on "
        f"the same rows ({shown})."
    )


def _errors(row: dict[str, Any]) -> int | None:
    """Return how many rows a model has wrong; nothing where a row is not right or wrong."""
    confusion = row.get("confusion")
    if not confusion:
        return row.get("errors")
    return sum(map(sum, confusion)) - sum(row[at] for at, row in enumerate(confusion))


def _floor(final: dict[str, Any], measurement: dict[str, Any], metric: str) -> list[Check]:
    floor = (measurement.get("floor") or {}).get("accuracy")
    if floor is None or final["accuracy"] is None:
        return []
    task = measurement["task"]
    name, in_full = kind_in(task).floor_name
    both = f"{metric_value(final['accuracy'], task)} against {metric_value(floor, task)}"
    if final["accuracy"] <= floor:
        text = f"No better than a {in_full} ({both}), which emits next to nothing: use that."
        return [Check(False, "Floor", text)]
    if final["accuracy_ci"] and final["accuracy_ci"][0] <= floor:
        return [Check(False, "Floor", f"Hardly better than a {name} ({both}, within the interval).")]
    return [Check(True, "Floor", f"Better than a {in_full} ({both}).")]


def _ready_made(final: dict[str, Any], measurement: dict[str, Any], metric: str) -> list[Check]:
    """Say what one could take instead of the level, without compressing."""
    return [
        Check(
            False,
            "Ready-made",
            f"{one['level']} keeps {percent(one['relative_accuracy'])} of the {metric} at "
            f"{percent(one['relative_emission'])} of the emission, as it comes: use that.",
        )
        for one in ready_made_above(final, measurement["models"])
    ]


def below_floor(final: dict[str, Any], measurement: dict[str, Any]) -> bool:
    """Tell whether what costs next to nothing, such as a bag of words, does as well as the model."""
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
    return f"the ±{asked_for(wanted)} asked for" if asked else f"±{asked_for(wanted)}"


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
        text_beyond = f"The interval ({percent_interval(ends)}) reaches above the target of {asked_for(most)}."
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
