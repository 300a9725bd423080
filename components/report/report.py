"""Write the report of a compression run: one page, its figures, and the numbers for programs."""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from kfp_bonsai.report import table as tables
from kfp_bonsai.report import words
from kfp_bonsai.shared.core import written
from kfp_bonsai.shared.core.documents import read_document
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import check_apart, new_file, new_folder
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.metrics import control

MEASURE = "bonsai evaluate-emissions"


def report(
    measurement: Path,
    selection: Path,
    html: Path,
    markdown: Path,
    results: Path,
    figures: Path,
    *,
    edge_measurement: str = "",
    title: str = "",
    command: str = "",
) -> dict[str, str | int | float | bool]:
    """Write what was saved, at what price, and whether to believe it.

    The figure is that of the white paper (relative accuracy against relative emission, Figures 4 to 6)
    and the table its Table 1, with intervals and with what is needed to doubt them.

    Args:
        measurement: what `bonsai evaluate-emissions` wrote for the baseline and the levels (JSON).
        selection: what `bonsai select-model` wrote (JSON).
        html: the page to write; one file that needs no network.
        markdown: the same, short, as Markdown.
        results: results.json to write, for programs.
        figures: the folder to make for the figures (SVG, PNG) and the rows (CSV, Parquet).
        edge_measurement: a second measurement, with the quantized model on the edge CPU (JSON); "" for none.
        title: what the report is called; by default the data set and the model.
        command: the command that made it all, for those who want to do it again.

    Returns:
        level, stage, meets_target, relative_accuracy, relative_emission, emission_label, believable and the verdict.

    Raises:
        BonsaiError: a file is missing or is not what it should be, or the two measurements do not belong together.

    Example:
        bonsai report --measurement gpu.json --selection selection.json --html report.html
        --markdown report.md --results results.json --figures figures --edge-measurement cpu.json
    """
    check_apart([html, markdown, results, figures], [measurement, selection, edge_measurement])
    main = read_document(measurement, MEASURE, "models", shape=written.MEASUREMENT)
    chosen = read_document(selection, "bonsai select-model", "target", shape=written.SELECTION)
    edge = read_document(Path(edge_measurement), MEASURE, shape=written.MEASUREMENT) if edge_measurement else None
    for path, each in ((measurement, main), (edge_measurement, edge)):
        if each is not None and not any(model.get("stage") == "baseline" for model in each["models"]):
            raise BonsaiError(f"{path} has no baseline, so nothing can be relative to it: measure it with the others")
        if each is not None:
            _check_labels(each, path)
    if edge is not None and edge["task"]["name"] != main["task"]["name"]:
        raise BonsaiError(
            f"{edge_measurement} is about '{edge['task']['name']}', {measurement} about '{main['task']['name']}': "
            "measure both on the same data set"
        )
    if edge is not None:
        _check_edge(edge, main, chosen, edge_measurement)
    content = _content(main, edge, chosen, title)
    document = content["document"]
    with (
        new_folder(Path(figures)) as folder,
        new_file(Path(html)) as page_file,
        new_file(Path(markdown)) as markdown_file,
        new_file(Path(results)) as results_file,
    ):
        page = content["page"] | {"command": command} | _figures(content, folder)
        tables.write_tables(content["rows"], folder)
        from kfp_bonsai.report import markdown as markdown_page
        from kfp_bonsai.report import page as html_page

        page["files"] = [
            Path(results).name,
            *(f"{Path(figures).name}/{path.name}" for path in sorted(folder.iterdir())),
        ]
        page_file.write_text(html_page.render(page), encoding="utf-8")
        markdown_file.write_text(markdown_page.render(page), encoding="utf-8")
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        results_file.write_text(text + "\n", encoding="utf-8")
    say(f"report  {document['verdict']}")
    say(f"report  {html}")
    final = content["final"] or {}
    return {
        "level": final.get("level", ""),
        "stage": final.get("stage", ""),
        "meets_target": bool(document["chosen"] and document["chosen"]["meets_target"]),
        "relative_accuracy": final.get("relative_accuracy", 0.0),
        "relative_emission": final.get("relative_emission", 0.0),
        "emission_label": final.get("emission_label") or "",
        "believable": document["control"] == control.PASSED,
        "verdict": document["verdict"],
    }


def _check_labels(measurement: dict[str, Any], path: Path | str) -> None:
    """Check that every table of classes has a row for each of the task's labels.

    Raises:
        BonsaiError: one has not.
    """
    labels = len(measurement["task"]["labels"] or [])
    for model in measurement["models"]:
        if model["confusion"] and len(model["confusion"]) != labels:
            raise BonsaiError(
                f"{path} has a confusion table of {len(model['confusion'])} classes for {model['level']}, and its task "
                f"has {labels} labels: make it again with `{MEASURE}`"
            )


def _check_edge(edge: dict[str, Any], main: dict[str, Any], selection: dict[str, Any], path: str) -> None:
    """Check that the edge's measurement is of the same baseline, and of the level that was selected.

    Raises:
        BonsaiError: it is not.
    """
    baselines = [next(one for one in each["models"] if one["stage"] == "baseline") for each in (edge, main)]
    if len({one.get("sha256") for one in baselines}) > 1:
        raise BonsaiError(f"{path} has another baseline than the other measurement: measure both against the same")
    level = (selection.get("chosen") or {}).get("level")
    quantized = {one["level"] for one in edge["models"] if one["stage"] == "quantized"}
    if quantized and level not in quantized:
        raise BonsaiError(
            f"{path} is of {', '.join(sorted(quantized))}, and the selection chose {level}: quantize that level, and "
            "measure it"
        )


def _content(
    main: dict[str, Any], edge: dict[str, Any] | None, selection: dict[str, Any], title: str
) -> dict[str, Any]:
    """Work out everything the outputs say, before anything is written."""
    from kfp_bonsai.report import page

    measurements = [("main", main)] + ([("edge", edge)] if edge else [])
    parts = {where: tables.make_rows(each, where) for where, each in measurements}
    rows = [row for part in parts.values() for row in part]
    final = tables.mark_chosen(rows, selection)
    target = selection.get("target") or {}
    metric = words.metric_name(main["task"])
    met = final is not None and tables.meets(final, target)
    where = final["measurement"] if final else "main"
    own_rows, own = parts[where], dict(measurements)[where]
    baseline = next(row for row in own_rows if row["stage"] == "baseline")
    checks = words.checks(final, measurements, target, metric)
    states = {name: control.of_measurement(each) for name, each in measurements}
    state = control.worst([*states.values()])
    verdict = words.verdict(final, met, selection, metric, state, words.missed_precision(final, own))
    title = title or f"{main['task']['name']} · {baseline['model']}"
    floor = main.get("floor") or {}
    document = _document(main, selection, rows, final, met, verdict, title)
    document["control"] = state
    document["control_covers_one"] = all(each in (control.PASSED, control.INCONCLUSIVE) for each in states.values())

    costs = page.stage_costs(_lineages(measurements, selection))
    facts = [{"name": "Task", "facts": _task_facts(main)}]
    for name, each in measurements:
        for group, found in (
            ("Device", [("device", each["device"]), *page.facts(each.get("environment"))]),
            ("Energy", page.facts(each.get("energy"))),
            ("Protocol", page.facts(each.get("protocol"))),
        ):
            if found not in [known["facts"] for known in facts]:
                facts.append({"name": group if name == "main" else f"{group}, edge", "facts": found})
    again = [("seed", str(main.get("seed"))), *(main["versions"] or {}).items()]
    again += [("test rows, sha256", (main["task"]["sha256"] or "")[:16])]
    hashes = {f"{words.name_of(row)}, sha256": (row["sha256"] or "")[:16] for row in rows}
    again += list(hashes.items())
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
            "key_figures": page.key_figures(final, baseline, metric),
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
            "classes": page.class_results(own_rows, final, list(main["task"].get("labels") or [])),
            "carbon": page.carbon(own_rows, final, own),
            "costs": costs,
            "cost_total": page.total_cost(costs),
            "facts": [group for group in facts if group["facts"]],
            "again": [(name, value) for name, value in again if value],
            "floor": floor.get("method") or "a linear model on counts of words",
            "version": metadata.version("kfp-bonsai"),
            "created": str(main.get("created") or "")[:16].replace("T", " "),
        },
    }


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


def _figures(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Draw the figures into the folder and into the page."""
    from kfp_bonsai.report import figures as draw

    series, controls = [], []
    for where, each in content["measurements"]:
        part = content["parts"][where]
        pairs = {model.get("sha256"): model.get("pairs") for model in each["models"]}
        control = each.get("control") or {}
        usable = [
            row | {"pairs": pairs.get(row["sha256"])}
            for row in part
            if not row["error"] and row["relative_accuracy"] is not None and row["relative_emission"] is not None
        ]
        kind = "GPU" if each.get("device_kind") == "cuda" else "CPU"
        name = f"{kind}, all levels" if where == "main" else f"{kind}, edge"
        series.append(draw.Series(name, where, usable, control.get("ci")))
        controls.append(control.get("pairs") or [])
    target, document = content["target"], content["document"]
    base = next((row["accuracy"] for row in content["parts"]["main"] if row["stage"] == "baseline"), None)
    floor = document["floor_accuracy"] / base if document["floor_accuracy"] is not None and base else None
    guides = draw.Guides(floor, target.get("min_accuracy"), target.get("max_emission"), content["metric"])
    wide, narrow = draw.accuracy_figure(series, guides), draw.accuracy_figure(series, guides, narrow=True)
    draw.write(wide, folder, "accuracy-emission")
    about = f"Relative {content['metric']} against relative emission"
    described = draw.describe(series, guides)
    made: dict[str, Any] = {
        "figure": {
            "wide": draw.inline_svg(wide, "wide", about, described),
            "narrow": draw.inline_svg(narrow, "narrow", about, described),
            "caption": f"Each point is a model. Further left emits less, further up keeps more {content['metric']}; "
            "the bars are 95 % intervals, the dotted steps the Pareto front.",
        },
        "pairs": None,
    }
    if any(controls) or any(row["pairs"] for each in series for row in each.rows):
        wide, narrow = draw.pairs_figure(series, controls), draw.pairs_figure(series, controls, narrow=True)
        draw.write(wide, folder, "pairs")
        about = "How far the pairs of blocks stray from the estimate"
        described = "The table of the levels gives the intervals; the control is among the reasons above this figure."
        made["pairs"] = {
            "wide": draw.inline_svg(wide, "pairs-wide", about, described),
            "narrow": draw.inline_svg(narrow, "pairs-narrow", about, described),
            "caption": "Baseline and model are run in turns; each dot is a pair of blocks. The control "
            "is held against 1, where it must lie; the models against their own estimate.",
        }
    return made


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
    found += [("classes", ", ".join(task["labels"][:10]) + (" …" if len(task["labels"]) > 10 else ""))] * bool(
        task.get("labels")
    )
    found += [("test rows", f"{main['rows'] or 0:,}")]
    floor = main.get("floor") or {}
    if floor.get("accuracy") is not None:
        found.append(("bag of words", f"{words.metric_value(floor['accuracy'], task)} ({floor['method'] or ''})"))
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
    if words.below_floor(final, measurement):
        tags.append({"kind": "bad", "text": "no better than a bag of words"})
    return tags


def _beside(
    final: dict[str, Any] | None, parts: dict[str, list[dict[str, Any]]], selection: dict[str, Any], metric: str
) -> list[str]:
    from kfp_bonsai.report.numbers import percent

    reason = words.why_selected(final, selection)
    sentences = [reason] if reason else []
    if final is not None and final["stage"] == "quantized":
        before = next((r for r in parts["edge"] if r["level"] == final["level"] and r["stage"] == "compressed"), None)
        if before is not None and not before["error"]:
            sentences.append(
                f"On the edge device, int8 then takes it from {percent(before['relative_accuracy'])} of "
                f"the {metric} at {percent(before['relative_emission'])} of the emission to "
                f"{percent(final['relative_accuracy'])} at {percent(final['relative_emission'])}."
            )
    return sentences


def _device(measurement: dict[str, Any]) -> str:
    return f"{measurement['device']}; {measurement['rows'] or 0:,} test rows"
