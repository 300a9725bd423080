"""Write the report of a compression run: one page, its figures, and the numbers for programs."""

import json
from pathlib import Path
from typing import Any

from kfp_bonsai.report import markdown as markdown_page
from kfp_bonsai.report import page as html_page
from kfp_bonsai.report import table as tables
from kfp_bonsai.report.content import content_of
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
    search: str = "",
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
        search: the search that found the levels (search.json of `bonsai search`); "" for none.
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
    check_apart([html, markdown, results, figures], [measurement, selection, edge_measurement, search])
    main = read_document(measurement, MEASURE, "models", shape=written.MEASUREMENT)
    chosen = read_document(selection, "bonsai select-model", "target", shape=written.SELECTION)
    edge = read_document(Path(edge_measurement), MEASURE, shape=written.MEASUREMENT) if edge_measurement else None
    tried = read_document(Path(search), "bonsai search", shape=written.SEARCH) if search else None
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
    from kfp_bonsai.report.drawn import draw_figures  # which imports matplotlib
    from kfp_bonsai.report.searched import searched

    content = content_of(main, edge, chosen, title)
    document = content["document"]
    with (
        new_folder(Path(figures)) as folder,
        new_file(Path(html)) as page_file,
        new_file(Path(markdown)) as markdown_file,
        new_file(Path(results)) as results_file,
    ):
        page = content["page"] | {"command": command} | draw_figures(content, folder)
        page["search"] = searched(tried, content["metric"], folder) if tried else None
        tables.write_tables(content["rows"], folder)
        tables.write_labels(content["rows"], list(main["task"].get("labels") or []), folder)
        page["files"] = [
            Path(results).name,
            *(f"{Path(figures).name}/{path.name}" for path in sorted(folder.iterdir())),
        ]
        page_file.write_text(html_page.render(page), encoding="utf-8")
        markdown_file.write_text(markdown_page.render(page), encoding="utf-8")
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        results_file.write_text(text + "\n", encoding="utf-8")
    say(f"report  {document['verdict']}")
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
        by_label = [one["label"] for one in model["by_label"] or ()]
        if by_label and by_label != measurement["task"]["labels"]:
            raise BonsaiError(
                f"{path} has figures by label for {model['level']} that are not of its task's labels: make it again "
                f"with `{MEASURE}`"
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
