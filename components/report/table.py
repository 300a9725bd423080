"""From measurements to rows: one flat dictionary a model, the same in every output."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kfp_bonsai.report.classes import of_labels
from kfp_bonsai.report.series import is_ready_made
from kfp_bonsai.shared.metrics.target import shortfall

# The columns of rows.csv and rows.parquet, in the order of results.json (README.md explains each).
COLUMNS: dict[str, type] = {
    "model": str,
    "family": str,
    "level": str,
    "stage": str,
    "student": str,
    "shape": str,
    "runtime": str,
    "device": str,
    "measurement": str,
    "chosen": bool,
    "accuracy": float,
    "accuracy_ci": list,
    "relative_accuracy": float,
    "relative_accuracy_ci": list,
    "mcnemar_p": float,
    "relative_emission": float,
    "relative_emission_ci": list,
    "emission_label": str,
    "joules_per_1000": float,
    "grams_co2_per_1000": float,
    "sci_grams_per_1000": float,
    "flops": float,
    "flops_ratio": float,
    "parameters": int,
    "size_bytes": int,
    "peak_memory_bytes": int,
    "latency_ms_p50": float,
    "latency_ms_p95": float,
    "latency_ms_p99": float,
    "best_batch_size": int,
    "throughput_rows_per_s": float,
    "making_seconds": float,
    "making_joules": float,
    "making_label": str,
    "unlabelled_rows": int,
    "payback_inferences": int,
    "saved_kwh_per_year": float,
    "saved_kwh_per_year_ci": list,
    "saved_kg_co2_per_year": float,
    "sha256": str,
    "error": str,
}


def make_rows(measurement: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """Return a row for each measured model.

    Args:
        measurement: the document evaluate-emissions wrote.
        where: "main" or "edge", which of the report's measurements it is.
    """
    rows = []
    for model in measurement["models"]:
        making = model.get("making") or {}
        row: dict[str, Any] = {name: model.get(name) for name in COLUMNS}
        row |= {
            "device": measurement.get("device"),
            "measurement": where,
            "chosen": False,
            "making_seconds": making.get("seconds"),
            "making_joules": making.get("joules"),
            "making_label": making.get("label"),
            "unlabelled_rows": _unlabelled(model.get("lineage") or []),
            "made_to": _made_to(model),
            "pruned": any(stage["stage"] == "matrix-prune" for stage in model.get("lineage") or []),
            "error": model.get("error") or "",
            "sci_grams_per_1000": (model.get("sci_per_1000") or {}).get("sci_g"),
            "scores": model.get("scores"),
            "scored": model.get("scored"),
            "errors": model.get("errors"),
            "by_label": model.get("by_label"),
            "confusion": model.get("confusion"),
            "roc": model.get("roc"),
            "writing": model.get("writing"),
        }
        rows.append(row)
    return rows


def _made_to(model: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a level is, whatever it is called; None of ready-made models, and where it was not written."""
    if model.get("layers") is None:
        return None
    stages = {stage["stage"]: stage.get("arguments") or {} for stage in model.get("lineage") or []}
    pruned = stages.get("matrix-prune")
    return {
        "layers": round(model["layers"], 4),
        "flops": (pruned or {}).get("flops", 1.0),
        "emission": (pruned or {}).get("emission", 1.0),
        "shape": "" if pruned is None else pruned.get("shape", "free"),
        "vocabulary": stages.get("distill", {}).get("vocabulary", "whole"),
    }


def _unlabelled(lineage: list[dict[str, Any]]) -> int | None:
    """Return how many rows without labels a model was distilled with; None where its record does not say."""
    taught = [stage for stage in lineage if stage["stage"] == "teacher-outputs"]
    told = (taught[-1].get("arguments") or {}).get("unlabelled_rows") if taught else None
    return told if isinstance(told, int) and told >= 0 else None


def mark_chosen(rows: list[dict[str, Any]], selection: dict[str, Any]) -> dict[str, Any] | None:
    """Mark the model that is handed over, and return its row.

    That is the selected model, or its quantized form where one was measured for the edge; selected and quantized are
    the same where int8 models were held against the target.
    """
    chosen = selection.get("chosen") or {}
    selected = [row for row in rows if row["sha256"] == chosen.get("sha256") and row["stage"] != "baseline"]
    quantized = [row for row in rows if row["measurement"] == "edge" and row["stage"] == "quantized"]
    same_level = [row for row in quantized if row["level"] == chosen.get("level")]
    final = next((row for row in [*same_level, *selected] if not row["error"] and _known(row)), None)
    if final is not None:
        final["chosen"] = True
    return final


def _known(row: dict[str, Any]) -> bool:
    return row["relative_accuracy"] is not None and row["relative_emission"] is not None


def meets(row: dict[str, Any], target: dict[str, Any]) -> bool:
    """Tell whether a row meets a selection's target."""
    if not _known(row):
        return False
    figures = (row["relative_accuracy"], row["relative_emission"])
    return not shortfall(*figures, target.get("min_accuracy"), target.get("max_emission"))


def ready_made_above(row: dict[str, Any], rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the ready-made models that keep more than a level, and emit no more than its interval allows.

    Args:
        row: of a level that was made smaller.
        rows: those measured beside it.
    """
    if is_ready_made(row) or row["stage"] == "baseline" or not _known(row):
        return []
    most = (row["relative_emission_ci"] or [row["relative_emission"]])[-1]
    return [
        one
        for one in rows
        if is_ready_made(one)
        and one["stage"] == row["stage"]
        and _known(one)
        and one["relative_accuracy"] > row["relative_accuracy"]
        and one["relative_emission"] <= most
    ]


def pareto(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that no other row of the list beats, by rising emission."""
    front: list[dict[str, Any]] = []
    for row in sorted(filter(_known, rows), key=lambda row: (row["relative_emission"], -row["relative_accuracy"])):
        if not front or row["relative_accuracy"] > front[-1]["relative_accuracy"]:
            front.append(row)
    return front


def write_tables(rows: list[dict[str, Any]], folder: Path) -> None:
    """Write the rows as rows.csv (intervals as two columns, _low and _high) and rows.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {str: pa.string(), bool: pa.bool_(), float: pa.float64(), int: pa.int64()}
    lines = [flat(row) for row in rows]
    fields = [pa.field(name, kinds[kind]) for name, kind in flat_columns().items()]
    table = pa.Table.from_pylist(
        [{name: _cast(row[name], kind) for name, kind in flat_columns().items()} for row in lines],
        schema=pa.schema(fields),
    )
    pq.write_table(table, folder / "rows.parquet")
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(flat_columns()), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def write_labels(rows: list[dict[str, Any]], labels: list[str], folder: Path) -> None:
    """Write how each model fares with each class or label as labels.csv; nothing where there are none."""
    found = [(row, one) for row in rows for one in of_labels(row, labels)]
    if not found:
        return
    own = ("level", "stage", "runtime", "measurement", "chosen")
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*own, "label", "items", "precision", "recall", "f1"])
        for row, one in found:
            values = (one.name, one.rows, one.precision, one.recall, one.f1)
            writer.writerow([*(row[name] for name in own), *values])


def flat_columns() -> dict[str, type]:
    """Return the columns of tables, an interval as two."""
    columns: dict[str, type] = {}
    for name, kind in COLUMNS.items():
        columns |= {f"{name}_low": float, f"{name}_high": float} if kind is list else {name: kind}
    return columns


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row for a table, its intervals as two values."""
    values: dict[str, Any] = {}
    for name, kind in COLUMNS.items():
        if kind is list:
            values[f"{name}_low"], values[f"{name}_high"] = row[name] or (None, None)
        else:
            values[name] = row[name]
    return values


def _cast(value: Any, kind: type) -> Any:
    return None if value is None else kind(value)
