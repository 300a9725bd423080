"""Everything that the outputs of a report say, worked out before anything is written."""

from importlib import metadata
from typing import Any

from kfp_bonsai.report import page, reasons, words, written_tokens
from kfp_bonsai.report import table as tables
from kfp_bonsai.report.numbers import percent
from kfp_bonsai.shared.kinds.kinds import kind_in
from kfp_bonsai.shared.metrics import control


def content_of(
    main: dict[str, Any], edge: dict[str, Any] | None, selection: dict[str, Any], title: str
) -> dict[str, Any]:
    """Return what the page says, the document for programs, and what figures and tables are made of."""
    measurements = [("main", main)] + ([("edge", edge)] if edge else [])
    parts = {where: tables.make_rows(each, where) for where, each in measurements}
    rows = [row for part in parts.values() for row in part]
    final = tables.mark_chosen(rows, selection)
    target = selection.get("target") or {}
    metric, kind = words.metric_name(main["task"]), kind_in(main["task"])
    met = final is not None and tables.meets(final, target)
    where = final["measurement"] if final else "main"
    own_rows, own = parts[where], dict(measurements)[where]
    baseline = next(row for row in own_rows if row["stage"] == "baseline")
    checks = reasons.checks(final, measurements, target, metric)
    states = {name: control.of_measurement(each) for name, each in measurements}
    state = control.worst([*states.values()])
    verdict = words.verdict(final, met, selection, metric, state, reasons.missed_precision(final, own), kind.unit)
    written = written_tokens.table(own_rows)
    title = title or f"{main['task']['name']} · {baseline['model']}"
    floor = main.get("floor") or {}
    document = _document(main, selection, rows, final, met, verdict, title)
    document["control"] = state
    document["control_covers_one"] = all(each in (control.PASSED, control.INCONCLUSIVE) for each in states.values())

    costs = page.stage_costs(_lineages(measurements, selection))
    document["cost"] = {key: sum(line[key] for line in costs if line[key] is not None) for key in ("seconds", "joules")}
    return {
        "rows": rows,
        "parts": parts,
        "measurements": measurements,
        "final": final,
        "document": document,
        "target": target,
        "metric": metric,
        "page": {
            "title": title,
            "verdict": verdict,
            "tags": _tags(final, own, met, state, words.target_words(target, metric)),
            "beside": [*_beside(final, parts, selection, metric), *words.yearly(final, own)],
            "key_figures": page.key_figures(final, baseline, metric, kind.unit),
            "unit": kind.unit,
            "writing": written and {**written, "explained": written_tokens.explained(written)},
            "written": written_tokens.as_markdown(written),
            "checks": checks,
            "metric": metric,
            "badge": "chosen" if met or selection.get("meets_target") else "nearest",
            "chosen_name": words.name_of(final) if final else "",
            "tables": [
                {
                    "caption": "On the edge device" if name == "edge" else "All levels",
                    "device": _device(each),
                    "rows": page.table(parts[name], main["task"]),
                }
                for name, each in measurements
            ],
            "classes": page.class_results(own_rows, final, list(main["task"].get("labels") or []), kind.items),
            "carbon": page.carbon(own_rows, final, own),
            "costs": costs,
            "cost_total": page.total_cost(costs),
            "facts": _facts(main, measurements),
            "again": _again(main, rows),
            "floor_name": kind.floor_name[0],
            "floor": floor.get("method") or "a linear model on counts of words",
            "version": metadata.version("kfp-bonsai"),
            "created": str(main.get("created") or "")[:16].replace("T", " "),
        },
    }


def _facts(main: dict[str, Any], measurements: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the facts of the task, and of each measurement those that are not told already."""
    facts: list[dict[str, Any]] = [{"name": "Task", "facts": _task_facts(main)}]
    for name, each in measurements:
        for group, found in (
            ("Device", [("device", each["device"]), *page.facts(each.get("environment"))]),
            ("Energy", page.facts(each.get("energy"))),
            ("Protocol", page.facts(each.get("protocol"))),
        ):
            if found not in [known["facts"] for known in facts]:
                facts.append({"name": group if name == "main" else f"{group}, edge", "facts": found})
    return [group for group in facts if group["facts"]]


def _again(main: dict[str, Any], rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return what it takes to do it all again."""
    again = [("seed", str(main.get("seed"))), *(main["versions"] or {}).items()]
    again += [("test rows, sha256", (main["task"]["sha256"] or "")[:16])]
    hashes = {f"{words.name_of(row)}, sha256": (row["sha256"] or "")[:16] for row in rows}
    again += list(hashes.items())
    return [(name, value) for name, value in again if value]


def _document(
    main: dict[str, Any],
    selection: dict[str, Any],
    rows: list[dict[str, Any]],
    final: dict[str, Any] | None,
    met: bool,
    verdict: str,
    title: str,
) -> dict[str, Any]:
    """Return results.json; README.md explains every field."""
    chosen = None
    if final is not None:
        keys = ("level", "stage", "runtime", "device", "sha256", "relative_accuracy", "relative_emission")
        chosen = {key: final[key] for key in keys} | {"meets_target": met, "reason": selection["reason"] or ""}
    return {
        "format": 1,
        "title": title,
        "verdict": verdict,
        "created": main.get("created"),
        "task": main["task"],
        "floor_accuracy": (main.get("floor") or {}).get("accuracy"),
        "floor_method": (main.get("floor") or {}).get("method"),
        "test_rows": main.get("rows"),
        "versions": main["versions"] or {},
        "seed": main.get("seed"),
        "target": selection.get("target"),
        "chosen": chosen,
        "energy": main.get("energy"),
        "carbon": main.get("carbon"),
        "traffic_per_day": main.get("traffic_per_day"),
        "embodied_g_per_hour": main.get("embodied_g_per_hour"),
        "rows": rows,
    }


def _lineages(
    measurements: list[tuple[str, dict[str, Any]]], selection: dict[str, Any]
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the models' lineages: from the measurement, else from the selection."""
    kept = {entry.get("sha256"): entry.get("lineage") for entry in selection.get("candidates") or []}
    found = []
    for _, measurement in measurements:
        for model in measurement["models"]:
            lineage = model.get("lineage") or kept.get(model.get("sha256")) or []
            found.append((words.name_of(model), lineage))
    return found


def _task_facts(main: dict[str, Any]) -> list[tuple[str, str]]:
    task = main["task"]
    found = [("data set", task["name"]), ("source", task["source"]), ("metric", words.metric_name(task))]
    kind = kind_in(task)
    found += [
        (
            "labels" if kind.items else "classes",
            ", ".join(task["labels"][:10]) + (" …" if len(task["labels"]) > 10 else ""),
        )
    ] * bool(task.get("labels"))
    found += [("test rows", words.test_rows(main, main["models"], main["rows"]).replace(" test rows", ""))]
    floor = main.get("floor") or {}
    if floor.get("accuracy") is not None:
        found.append((kind.floor_name[0], f"{words.metric_value(floor['accuracy'], task)} ({floor['method'] or ''})"))
    return [*found, *(("note", note) for note in task.get("notes") or [])]


def _tags(
    final: dict[str, Any] | None, measurement: dict[str, Any], met: bool, state: str, asked: str
) -> list[dict[str, str]]:
    """Return what has to be seen in the first seconds: target, control, label, floor."""
    if final is None:
        return [{"kind": "bad", "text": "nothing measured"}]
    passed = state == control.PASSED
    tags = [
        {"kind": "good" if met else "bad", "text": f"target {'met' if met else 'not met'}: {asked}"},
        {
            "kind": "good" if passed else "bad",
            "text": f"control {state}" + ("" if passed else ": do not rely on the emission"),
        },
        {"kind": "", "text": f"emission {final['emission_label'] or 'not labelled'}"},
    ]
    if reasons.below_floor(final, measurement):
        tags.append({"kind": "bad", "text": f"no better than a {kind_in(measurement['task']).floor_name[0]}"})
    return tags


def _beside(
    final: dict[str, Any] | None, parts: dict[str, list[dict[str, Any]]], selection: dict[str, Any], metric: str
) -> list[str]:
    reason = words.why_selected(final, selection)
    sentences = [*([reason] if reason else []), *words.not_compressed(final)]
    if final is not None and final["stage"] == "quantized" and final["measurement"] == "edge":
        before = next((r for r in parts["edge"] if r["level"] == final["level"] and r["stage"] == "compressed"), None)
        if before is not None and not before["error"]:
            sentences.append(
                f"On the edge device, int8 then takes it from {percent(before['relative_accuracy'])} of "
                f"the {metric} at {percent(before['relative_emission'])} of the emission to "
                f"{percent(final['relative_accuracy'])} at {percent(final['relative_emission'])}."
            )
    return sentences


def _device(measurement: dict[str, Any]) -> str:
    return f"{measurement['device']}; {words.test_rows(measurement, measurement['models'], measurement['rows'])}"
