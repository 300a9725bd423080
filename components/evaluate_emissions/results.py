"""Readings become the rows of the measurement file: ratios with intervals, and plain words where something is odd."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.evaluate_emissions import lengths
from kfp_bonsai.evaluate_emissions.accuracy import ACCURACY, accuracy_row
from kfp_bonsai.evaluate_emissions.common import Common, Scored
from kfp_bonsai.evaluate_emissions.memory import Peak
from kfp_bonsai.evaluate_emissions.protocol import Rounds, Subject, control_pairs, drift, pairs_of
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.inference.runtimes import TORCH
from kfp_bonsai.shared.metrics import control, statistics
from kfp_bonsai.shared.models.configuration import family_name
from kfp_bonsai.shared.models.flops import Flops, agree
from kfp_bonsai.shared.saved.champion import made_from
from kfp_bonsai.shared.saved.records import short_name
from kfp_bonsai.shared.saved.weights import size_bytes

BUSY_NEIGHBOURS = 0.15
DRIFT_MARGIN = 0.15
DAYS_A_YEAR = 365


def model_row(
    common: Common,
    subject: Subject,
    record: dict[str, Any],
    folder: Path,
    runtime: str,
    scored: Scored | None,
    peak: Peak,
    mean_length: float,
    own: Subject | None = None,
) -> dict[str, Any]:
    """Return one model's row; only what it is, and the error, if it was given up.

    Args:
        common: what all rows are made from.
        subject: the model under measurement.
        record: its record.
        folder: where it is.
        runtime: what runs it.
        scored: its answers.
        peak: its memory.
        mean_length: tokens an input of its.
        own: its readings where it wrote to its own end.
    """
    flops, below = (
        Flops.from_record(one).at(length, common.written.tokens if common.written else 1) * common.inputs_a_row
        for one, length in ((record, mean_length), (common.baseline_record, common.mean_length))
    )
    is_baseline = subject is common.baseline
    row: dict[str, Any] = {
        "model": base_name(common.baseline_record),
        "family": family_name(record["model_type"]),
        "level": "baseline" if is_baseline else record["level"],
        "stage": "baseline" if is_baseline else "compressed" if runtime == TORCH else "quantized",
        **({"student": record["student"]} if record.get("student") and not is_baseline else {}),
        "shape": record["shape"]["kind"],
        "path": str(folder),
        "sha256": record["sha256"],
        "runtime": runtime,
        "flops": flops,
        "flops_ratio": flops / below if below else None,
        "layers": None if record.get("student") else _layers(record) / _layers(common.baseline_record),
        "predicted_emission": record.get("predicted_emission") if runtime == TORCH else None,
        "parameters": record["parameters"],
        "size_bytes": size_bytes(folder),
        "peak_memory_bytes": peak.bytes,
        "peak_memory_problem": peak.problem,
        "making": None if is_baseline else making(record, common.baseline_record),
        "lineage": record["lineage"],
        "error": subject.error,
    }
    whole = not subject.error and scored is not None
    row |= accuracy_row(common, scored, is_baseline) if whole and scored else dict.fromkeys(ACCURACY)
    row |= _energy(common, subject, is_baseline, row["making"]) if whole else dict.fromkeys(_ENERGY)
    row["pairs"] = row["pairs"] or []
    if own is not None:
        joules = (row["joules_per_1000"] or 0) / 1000
        row["writing"] = lengths.writing_row(common, subject, own, scored, joules) if whole and scored else None
    return row


def _layers(record: dict[str, Any]) -> int:
    return len(record["shape"]["layers"])


_ENERGY = (
    "relative_emission",
    "relative_emission_ci",
    "emission_label",
    "joules_per_1000",
    "joules_per_1000_net",
    "ram_joules_per_1000",
    "grams_co2_per_1000",
    "sci_per_1000",
    "latency_ms_p50",
    "latency_ms_p95",
    "latency_ms_p99",
    "best_batch_size",
    "throughput_rows_per_s",
    "payback_inferences",
    "payback_inferences_ci",
    "saved_kwh_per_million",
    "saved_kwh_per_year",
    "saved_kwh_per_year_ci",
    "saved_kg_co2_per_year",
    "pairs",
)


def _energy(common: Common, subject: Subject, is_baseline: bool, made: dict[str, Any] | None) -> dict[str, Any]:
    pairs = pairs_of(subject, common.baseline, common.rounds.again)
    ratio = statistics.Interval(1.0, 1.0, 1.0) if is_baseline else statistics.ratio(pairs)
    base = float(np.mean([pair[0] for pair in pairs]))
    joules = base * ratio.value
    net = joules - common.idle_watts * float(np.mean(subject.seconds))
    saved = base - joules
    p50, p95, p99 = (float(1000 * value) for value in np.percentile(subject.latency, [50, 95, 99]))
    grams = common.intensity.grams(1000 * joules) if common.intensity else None
    counted = f"1,000 answers of {common.written.tokens} tokens" if common.written else "1,000 inferences"
    a_year = None if is_baseline or not common.traffic else DAYS_A_YEAR * common.traffic
    return {
        "relative_emission": ratio.value,
        "relative_emission_ci": [ratio.low, ratio.high],
        "emission_label": energy.weakest(sorted(common.rounds.labels)),
        "joules_per_1000": 1000 * joules,
        "joules_per_1000_net": 1000 * max(net, 0.0),
        "ram_joules_per_1000": 1000 * float(np.mean(subject.ram_joules)),
        "grams_co2_per_1000": grams,
        "sci_per_1000": lengths.sci(common, subject, joules, 1000, counted),
        "latency_ms_p50": p50,
        "latency_ms_p95": p95,
        "latency_ms_p99": p99,
        "best_batch_size": subject.best_batch or None,
        "throughput_rows_per_s": subject.rows_per_second or None,
        "payback_inferences": payback(made, saved),
        "payback_inferences_ci": [
            payback(made, base * (1 - ratio.low)),
            payback(made, base * (1 - ratio.high)),
        ],
        "saved_kwh_per_million": saved * 1e6 / energy.JOULES_PER_KWH,
        "saved_kwh_per_year": a_year and saved * a_year / energy.JOULES_PER_KWH,
        "saved_kwh_per_year_ci": a_year
        and [base * (1 - end) * a_year / energy.JOULES_PER_KWH for end in (ratio.high, ratio.low)],
        "saved_kg_co2_per_year": common.intensity.grams(saved * a_year) / 1000 if common.intensity and a_year else None,
        "pairs": [] if is_baseline else pairs,
    }


def base_name(record: dict[str, Any]) -> str:
    """Return the name of the model that the baseline was fine-tuned from."""
    first = record["lineage"][0] if record["lineage"] else {}
    return short_name(str(first.get("arguments", {}).get("model", "") or "model"))


def making(record: dict[str, Any], baseline: dict[str, Any]) -> dict[str, Any]:
    """Return what a model's stages after the baseline's cost."""
    shared = 0
    for mine, theirs in zip(record["lineage"], baseline["lineage"], strict=False):
        if mine.get("sha256") != theirs.get("sha256"):
            break
        shared += 1
    stages = record["lineage"][shared:]
    return {
        "seconds": sum(one["seconds"] for one in stages),
        "joules": sum(one["joules"] for one in stages),
        "label": energy.weakest([one["energy_label"] for one in stages]) if stages else energy.ESTIMATED,
    }


def payback(made: dict[str, Any] | None, saved: float) -> int | None:
    """Return after how many inferences a model's making is paid back.

    Nothing if an inference saves nothing, or the making's energy was not all counted.
    """
    if not made or made.get("label") == energy.PROXY or not saved > 0:
        return None
    return math.ceil(made["joules"] / saved)


def control_row(baseline: Subject, rounds: Rounds, precision: float) -> dict[str, Any]:
    """Return the A/A control: the baseline against itself, which must give 1 within a margin."""
    pairs = control_pairs(baseline, rounds.again)
    found, margin = statistics.ratio(pairs), control.margin_for(precision)
    state = control.state((found.low, found.high), margin)
    return {
        "ratio": found.value,
        "ci": [found.low, found.high],
        "margin": margin,
        "state": state,
        "covers_one": found.covers(1.0),
        "pairs": pairs,
        "what_to_do": "" if state == control.PASSED else control.WHAT_TO_DO,
    }


def flags(models: Sequence[dict[str, Any]], common: Common) -> list[str]:
    """Return what a reader should know of the numbers beside the control and the errors, in plain sentences."""
    found = []
    for row in models[1:]:
        known = not row["error"] and row["stage"] != "quantized" and row["flops_ratio"]
        if known and not agree(row["relative_emission"], row["flops_ratio"]):
            found.append(
                f"{row['level']}: it computes {100 * row['flops_ratio']:.1f} % of the baseline's FLOPs but uses "
                f"{100 * row['relative_emission']:.1f} % of its energy. {_why_apart(row)}"
            )
    found += [
        f"The peak memory of {row['level']} is not known: {row['peak_memory_problem']}."
        for row in models
        if row["peak_memory_problem"]
    ]
    found += lengths.flags(models)
    start = made_from(models[0])
    found += [
        f"{row['level']} was made from {other}, and the baseline from {start}: unless that is one model in two places, "
        "its emission as a share of the baseline's is not that which it had beside its own."
        for row in models[1:]
        if (other := made_from(row)) and start and other != start
    ]
    if common.rounds.neighbours > BUSY_NEIGHBOURS:
        found.append(
            f"Others used {100 * common.rounds.neighbours:.0f} % of the machine's CPU time during the blocks; ratios "
            "are those of pairs, and hold where the control passes, but seconds and joules may be too high."
        )
    found += [
        f"{row['level']}: its energy was predicted to be {100 * foreseen['share']:.1f} % of the baseline's, by a table "
        f"of {foreseen['device']}; measured it is {100 * row['relative_emission']:.1f} %."
        for row in models[1:]
        if not row["error"] and (foreseen := row.get("predicted_emission"))
    ]
    change = drift([used for used in common.baseline.cpu_seconds if used > 0])
    if abs(change) > DRIFT_MARGIN:
        found.append(
            f"The baseline's CPU time a row changed by {100 * change:+.0f} % from the first to the last rounds "
            "(thermal throttling, or neighbours that came or went); ratios are those of pairs, and hold where the "
            "control passes."
        )
    return found


def _why_apart(row: dict[str, Any]) -> str:
    if row["relative_emission"] < row["flops_ratio"]:
        return "Memory traffic shrank more than arithmetic."
    return (
        "Small layers keep the processor less busy, and what every inference needs beside them (embeddings, norms, "
        "calls) does not shrink."
    )
