"""A made study: cells with results.json as `bonsai run` writes them, of which only the figures are made up."""

import copy
import json
from pathlib import Path
from typing import Any

FEW, MANY = "GLUE, below 10,000 rows", "GLUE, 10,000 rows and above"
TASKS = {"CoLA": (FEW, "matthews", 7_663), "RTE": (FEW, "accuracy", 2_241), "SST-2": (MANY, "accuracy", 60_614)}
KEPT = {"2/3 layers": 0.99, "1/3 layers": 0.97, "1/3 layers + matrix pruning": 0.94}


def results(like: dict[str, Any], data: str = "CoLA", model: str = "minilm", more: float = 0.0) -> dict[str, Any]:
    """Return a results.json like a real one; `more` is added to what each level keeps."""
    document = copy.deepcopy(like)
    document["task"] |= {"name": data, "metric": TASKS.get(data, (FEW, "accuracy", 0))[1]}
    document["control"], document["floor_accuracy"] = "passed", 0.5
    document["rows"] = [row for row in document["rows"] if row["measurement"] == "main"]
    for row in document["rows"]:
        row |= {"model": model, "family": "bert", "chosen": False, "unlabelled_rows": 0}
        if row["stage"] != "baseline":
            kept = KEPT[row["level"]] + more
            row |= {"relative_accuracy": kept, "relative_accuracy_ci": [kept - 0.02, kept + 0.02]}
    return document


def cell(
    data: str = "CoLA", model: str = "MiniLM", seed: int = 0, state: str = "done", **others: Any
) -> dict[str, Any]:
    """Return a cell as study.json has it."""
    group, _, rows = TASKS.get(data, (FEW, "", 900))
    name = f"{model}-{data}-{seed}".lower()
    told = {
        "name": name,
        "model": f"embedded:{model.lower()}",
        "model_name": model,
        "data": f"glue:{data.lower()}",
        "data_name": data,
        "group": group,
        "seed": seed,
        "flags": [f"--model=embedded:{model.lower()}", f"--data=glue:{data.lower()}", "--level=a b:layers=1/2"],
        "rows": rows,
        "state": state,
        "error": "" if state in ("done", "waiting") else "it is too large",
        "results": f"{name}/results.json" if state == "done" else "",
        "seconds": 0.0 if state == "waiting" else 90.0,
        "joules": 1500.0 if state == "done" else None,
    }
    return told | others


def write(folder: Path, cells: list[tuple[dict[str, Any], dict[str, Any] | None]], **others: Any) -> Path:
    """Write a study's folder: study.json, and of each cell its results, if it has any."""
    folder.mkdir(parents=True, exist_ok=True)
    for told, found in cells:
        if found is not None:
            path = folder / told["results"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found), encoding="utf-8")
    document = {"format": 1, "title": "made", "started": "2026-11-29T08:00:00+00:00", "finished": "2026-11-29T09:00"}
    document |= {"command": "bonsai study made.yaml", "cells": [told for told, _ in cells], **others}
    (folder / "study.json").write_text(json.dumps(document), encoding="utf-8")
    return folder
