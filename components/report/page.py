"""The report as HTML: everything is turned into words and numbers here, the template only lays it out."""

import json
from pathlib import Path
from typing import Any

import jinja2

from kfp_bonsai.report import numbers
from kfp_bonsai.report.classes import MOST_CLASSES, of_labels, worst_first
from kfp_bonsai.report.numbers import percent_interval
from kfp_bonsai.report.series import is_ready_made
from kfp_bonsai.report.words import GLOSSARY, metric_interval, metric_name, metric_value, name_of

MOST_CONFUSION = 8


def render(page: dict[str, Any], template: str = "page.html") -> str:
    """Fill a template."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(page | {"glossary": GLOSSARY})


def key_figures(
    final: dict[str, Any] | None, baseline: dict[str, Any], metric: str, unit: str = "inference"
) -> list[dict[str, str]]:
    """Return the handful of numbers that most readers want: name, value, and what it is held against."""
    if final is None:
        return []
    label = final["emission_label"] or ""
    figures = [
        (
            f"{metric} kept",
            numbers.percent(final["relative_accuracy"]),
            percent_interval(final["relative_accuracy_ci"]),
        ),
        (
            f"emission ({label})" if label else "emission",
            numbers.percent(final["relative_emission"]),
            percent_interval(final["relative_emission_ci"]),
        ),
        (
            "latency",
            numbers.milliseconds(final["latency_ms_p50"]),
            _was(numbers.milliseconds(baseline["latency_ms_p50"])),
        ),
        ("size", numbers.size(final["size_bytes"]), _was(numbers.size(baseline["size_bytes"]))),
        ("paid back after", numbers.about(final["payback_inferences"]), f"{unit}s"),
    ]
    return [{"name": n, "value": v, "beside": b} for n, v, b in figures if v != numbers.NONE]


def table(rows: list[dict[str, Any]], task: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the main table as text."""
    return [
        {
            "name": name_of(row),
            "chosen": row["chosen"],
            "baseline": row["stage"] == "baseline",
            "error": row["error"],
            "ready_made": is_ready_made(row),
            "detail": " · ".join(part for part in (_ready_made(row), row["shape"], row["runtime"]) if part),
            "relative_accuracy": numbers.percent(row["relative_accuracy"]),
            "relative_accuracy_ci": "" if row["stage"] == "baseline" else percent_interval(row["relative_accuracy_ci"]),
            "accuracy": metric_value(row["accuracy"], task),
            "accuracy_ci": metric_interval(row["accuracy_ci"], task),
            "scores": _other_scores(row.get("scores") or {}, task),
            "relative_emission": numbers.percent(row["relative_emission"]),
            "relative_emission_ci": "" if row["stage"] == "baseline" else percent_interval(row["relative_emission_ci"]),
            "bar": f"{100 * min(1.0, row['relative_emission'] or 0):.1f}",
            "flops": numbers.percent(row["flops_ratio"]),
            "parameters": numbers.count(row["parameters"]).replace("million", "M").replace("billion", "G"),
            "size": numbers.size(row["size_bytes"]),
            "memory": numbers.size(row["peak_memory_bytes"]),
            "p50": numbers.significant(row["latency_ms_p50"]),
            "p95": numbers.significant(row["latency_ms_p95"]),
            "p99": numbers.significant(row["latency_ms_p99"]),
            "throughput": numbers.significant(row["throughput_rows_per_s"]),
            "batch": f"batch {row['best_batch_size']}" if row["best_batch_size"] else "",
            "payback": numbers.about(row["payback_inferences"]),
        }
        for row in rows
    ]


def _other_scores(scores: dict[str, float], task: dict[str, Any]) -> list[str]:
    """Return what a model scores by the kind's other metrics, in words."""
    others = [{**task, "metric": name} for name in scores if name != task["metric"]]
    return [f"{metric_name(each)} {metric_value(scores[each['metric']], each)}" for each in others]


def _ready_made(row: dict[str, Any]) -> str:
    """Return what is said of a model that was not made of the baseline."""
    return f"ready-made: {row['student']}" if is_ready_made(row) else ""


def class_results(
    rows: list[dict[str, Any]], final: dict[str, Any] | None, labels: list[str], items: str = ""
) -> dict[str, Any] | None:
    """Compare the classes of the baseline and the chosen model, or return None where there are none.

    Args:
        rows: the models of the chosen one's measurement.
        final: the chosen one.
        labels: names of the classes.
        items: what is counted of each label, where a row may have several; "" where it has one class.
    """
    baseline = next((row for row in rows if row["stage"] == "baseline"), None)
    before, after = (of_labels(row, labels) if row is not None else [] for row in (baseline, final))
    if final is None or baseline is None or not before or not after:
        return None
    lines = []
    for old, new in worst_first(before, after):
        lines.append(
            {
                "name": old.name,
                "rows": f"{old.rows:,}",
                "before": [numbers.percent(value) for value in (old.precision, old.recall, old.f1)],
                "after": [numbers.percent(value) for value in (new.precision, new.recall, new.f1)],
                "change": "–" if old.f1 is None or new.f1 is None else numbers.signed(100 * (new.f1 - old.f1)),
            }
        )
    return {
        "lines": lines,
        "left_out": max(0, len(before) - MOST_CLASSES),
        "one": "label" if items else "class",
        "several": "labels" if items else "classes",
        "counted": items or "rows",
        "confusions": [
            _confusion("Baseline", baseline["confusion"], labels),
            _confusion(name_of(final), final["confusion"], labels),
        ]
        if not items and len(labels) <= MOST_CONFUSION
        else [],
    }


def _confusion(name: str, matrix: list[list[int]], labels: list[str]) -> dict[str, Any]:
    lines = []
    for at, row in enumerate(matrix):
        total = sum(row) or 1
        lines.append(
            {"name": labels[at], "cells": [{"count": f"{n:,}", "share": f"{100 * n / total:.0f}"} for n in row]}
        )
    return {"name": name, "labels": labels, "lines": lines}


def stage_costs(lineages: list[tuple[str, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """Return what each stage cost, once: entries that several models share are listed for the first only.

    Args:
        lineages: the name and the lineage of each model, the baseline first.
    """
    seen: set[str] = set()
    lines = []
    for name, lineage in lineages:
        for entry in lineage:
            key = json.dumps(entry, sort_keys=True)
            if key in seen:
                continue
            seen.add(key)
            lines.append(
                {
                    "name": "Baseline" if entry.get("stage") == "fine-tune" else name,
                    "stage": entry["stage"],
                    "arguments": _arguments(entry.get("arguments") or {}),
                    "seconds": entry.get("seconds"),
                    "joules": entry.get("joules"),
                    "label": entry["energy_label"] or "",
                }
            )
    most = max([line["joules"] or 0 for line in lines], default=0)
    previous = ""
    for line in lines:
        line["bar"] = f"{100 * (line['joules'] or 0) / most:.1f}" if most else "0"
        line["time"], line["energy"] = numbers.duration(line["seconds"]), numbers.energy(line["joules"])
        line["first"] = line["name"] != previous
        previous = line["name"]
    return lines


def _arguments(arguments: dict[str, Any]) -> str:
    """Return a stage's arguments in short, without paths and what was not given."""
    shown = []
    for name, value in arguments.items():
        if isinstance(value, str) and (not value or value.startswith(("/", ".", "[")) or value.count("/") > 1):
            continue
        shown.append(f"{name.replace('_', ' ')} {f'{value:g}' if isinstance(value, float) else value}")
    return ", ".join(shown)


def total_cost(lines: list[dict[str, Any]]) -> dict[str, str]:
    """Return the sum of what the stages cost."""
    seconds = [line["seconds"] for line in lines if line["seconds"] is not None]
    joules = [line["joules"] for line in lines if line["joules"] is not None]
    return {
        "time": numbers.duration(sum(seconds)) if seconds else numbers.NONE,
        "energy": numbers.energy(sum(joules)) if joules else numbers.NONE,
    }


def carbon(
    rows: list[dict[str, Any]], final: dict[str, Any] | None, measurement: dict[str, Any]
) -> dict[str, Any] | None:
    """Return energy, CO2 and SCI of 1,000 inferences by the baseline and the chosen model."""
    baseline = next(row for row in rows if row["stage"] == "baseline")
    shown = [row for row in (baseline, final) if row is not None and row["joules_per_1000"] is not None]
    if not shown:
        return None
    stated = measurement.get("carbon")
    lines = [
        {
            "name": name_of(row),
            "energy": numbers.energy(row["joules_per_1000"]),
            "grams": numbers.grams(row["grams_co2_per_1000"]),
            "sci": numbers.grams(row["sci_grams_per_1000"]),
        }
        for row in shown
    ]
    saving = None
    if final is not None and len(shown) == 2:
        joules = 1000 * (baseline["joules_per_1000"] - final["joules_per_1000"])
        grams = None
        if baseline["grams_co2_per_1000"] is not None and final["grams_co2_per_1000"] is not None:
            grams = 1000 * (baseline["grams_co2_per_1000"] - final["grams_co2_per_1000"])
        if joules > 0:
            saving = {"energy": numbers.watt_hours(joules), "grams": numbers.grams(grams) if grams else ""}
    return {
        "lines": lines,
        "label": shown[-1]["emission_label"],
        "saving": saving,
        "embodied": numbers.unit(measurement.get("embodied_g_per_hour"), "g CO₂")
        if measurement.get("embodied_g_per_hour")
        else "",
        "stated": stated
        and {
            "intensity": numbers.unit(stated.get("intensity_g_per_kwh"), "g CO₂ per kWh"),
            "where": ", ".join(str(stated[key]) for key in ("country", "year", "source") if stated.get(key)),
        },
    }


def facts(document: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Return a flat document as names and values for a list of facts."""
    found: list[tuple[str, str]] = []
    for key, value in (document or {}).items():
        if value in ("", None) or isinstance(value, list):
            continue
        name = key.replace("_", " ")
        if isinstance(value, dict):
            found += [(f"{name}: {inner}", text) for inner, text in facts(value)]
        elif isinstance(value, bool):
            found.append((name, "yes" if value else "no"))
        elif key.endswith("_bytes"):
            found.append(
                (name.removesuffix(" bytes"), numbers.size(value) if isinstance(value, int | float) else value)
            )
        elif isinstance(value, float):
            found.append((name, f"{value:g}" if abs(value) < 1e6 else f"{value:,.0f}"))
        else:
            found.append((name, str(value)))
    return found


def _was(text: str) -> str:
    return "" if text == numbers.NONE else f"baseline {text}"
