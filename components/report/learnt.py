"""What a study teaches `bonsai advise`: its levels as evidence."""

from typing import Any

from kfp_bonsai.report.study_cells import Cell, Study
from kfp_bonsai.shared.core.documents import FORMAT

OF_ROW = (
    "level",
    "student",
    "flops_ratio",
    "relative_accuracy",
    "relative_accuracy_ci",
    "relative_emission",
    "emission_label",
    "unlabelled_rows",
)


def evidence_of(study: Study) -> dict[str, Any]:
    """Return evidence.json: each compressed level of each cell that was measured, as written.EVIDENCE has it."""
    source = f"study '{study.title or 'without a title'}', {(study.finished or study.started)[:10]}".rstrip(", ")
    found = [each for cell in study.cells for each in _of_cell(cell, source)]
    return {"format": FORMAT, "title": study.title, "evidence": found}


def _of_cell(cell: Cell, source: str) -> list[dict[str, Any]]:
    if cell.run is None or not cell.rows:
        return []
    base = next((row for row in cell.run.rows if row["stage"] == "baseline"), None)
    if base is None:
        return []
    situation = {
        "family": base["family"] or "",
        "model": cell.model,
        "parameters": base["parameters"],
        "data": cell.data,
        "kind": cell.run.task.get("kind") or "",
        "metric": cell.run.task["metric"],
        "rows": cell.rows,
        "test_rows": cell.run.document.get("test_rows"),
        "seed": cell.seed,
        "score": base["accuracy"],
        "floor": cell.run.document.get("floor_accuracy"),
    }
    return [
        {**situation, **{name: row[name] for name in OF_ROW}, **_made_to(row), "source": source}
        for row in cell.run.drawable
        if row["stage"] == "compressed" and row["flops_ratio"]
    ]


def _made_to(row: dict[str, Any]) -> dict[str, Any]:
    """Return what a level is; no shape of whole layers, which are both, and no more of models with fewer tokens."""
    shape = {"shape": row["shape"]} if row.get("pruned") else {}
    told = row.get("made_to")
    if not told or told["vocabulary"] != "whole":
        return shape
    return {"layers": told["layers"], **({"flops": told["flops"]} if told["flops"] < 1 else {}), **shape}
