"""What a study ends with: the paper's figures and its Table 1 over all cells, what failed, and what it cost."""

import json
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from kfp_bonsai.report import cell_table, doubts, learnt, levels_table, markdown, numbers, several
from kfp_bonsai.report import table as tables
from kfp_bonsai.report.levels_table import Column
from kfp_bonsai.report.means import is_kept_out, mean_rows
from kfp_bonsai.report.series import Series
from kfp_bonsai.report.study_cells import STATES, Cell, Study, cells_of
from kfp_bonsai.report.study_record import DONE, FAILED, REFUSED
from kfp_bonsai.shared.core.files import new_file
from kfp_bonsai.shared.core.markup import code, text
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.metrics import evidence

TABLE_1 = (
    Column("FLOPs", "flops"),
    Column("size", "size", "size_share", "of the baseline’s"),
    Column("inference, ms", "p50", "time_share", "of the baseline’s"),
    Column("compression", "making_time", "making_energy", "energy"),
    Column("mean of", "tasks", "runs", "runs"),
)
CAPTION = (
    "Each point is the mean of a level over {tasks}, each line a model from its baseline at 100 %. The bars are 95 % "
    "intervals: of other seeds on the same tasks; where there is one seed, of other test rows."
)
RECIPES = "Each cell by itself:"
Group = tuple[str, dict[str, list[dict[str, Any]]]]  # its name, and of each model the mean rows


def study_page(study: Path, /, output: Path) -> dict[str, str | int]:
    """Write the page of a study, whether it is finished or not, with its figures, its numbers, and what it teaches.

    Args:
        study: The study's folder, or its study.json.
        output: Folder for study.html, study.md, study.csv, figure-1.svg and .png (one for each group of tasks), and
            evidence.json, which `bonsai advise` reads; what is there of an earlier page is replaced. Of a finished
            study a copy of evidence.json is left in the cache folder, where `bonsai advise` finds it by itself.

    Returns:
        How many cells there are and how many are done, the verdict, and where the page is.

    Raises:
        BonsaiError: there is no study.json, it is not what `bonsai study` writes, or output cannot be written.
    """
    found = cells_of(study)
    groups = _groups(found)
    output = Path(output)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        page = _page(found, groups, folder)
        several.write_csv(*_csv(found), folder / "study.csv")
        teaches = learnt.evidence_of(found)
        _write_json(folder / evidence.FILE, teaches)
        page["files"] = sorted([*(path.name for path in folder.iterdir()), "study.md"])
        (folder / "study.md").write_text(_markdown(page), encoding="utf-8")
        from kfp_bonsai.report import page as html_page

        (folder / "study.html").write_text(html_page.render(page, "study.html"), encoding="utf-8")
        output.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir()):
            with new_file(output / path.name) as file:
                file.write_bytes(path.read_bytes())
    if found.finished:
        evidence.leave(teaches, f"{found.title} {found.started} {found.command}")
    say(f"study  {page['verdict']}")
    return {
        "cells": len(found.cells),
        "done": len(found.of(DONE)),
        "verdict": page["verdict"],
        "page": str(output / "study.html"),
    }


def _groups(study: Study) -> list[Group]:
    """Return the means of each group of tasks and each model, in the order of the cells."""
    names = dict.fromkeys(cell.group for cell in study.cells)
    models = dict.fromkeys(cell.model for cell in study.cells)
    found = []
    for name in names:
        own = {model: [c for c in study.cells if (c.group, c.model) == (name, model)] for model in models}
        rows = {model: mean_rows(cells) for model, cells in own.items()}
        found.append((name or "All data sets", {model: means for model, means in rows.items() if len(means) > 1}))
    return found


def _page(study: Study, groups: list[Group], folder: Path) -> dict[str, Any]:
    """Draw the figures into the folder, and work out what the page and the Markdown say."""
    every = [row for _, models in groups for rows in models.values() for row in rows]
    letters = several.letters(every)
    numbered = {model: at for at, model in enumerate(dict.fromkeys(cell.model for cell in study.cells))}
    parts = []
    for at, (name, models) in enumerate(groups, 1):
        cells = [cell for cell in study.cells if (cell.group or "All data sets") == name]
        part: dict[str, Any] = {"name": name, "figure": None, "table": None, "nothing": _nothing(cells)}
        if models:
            tasks = {cell.data: cell.run.task for cell in cells if cell.run and not is_kept_out(cell)}
            metric = several.metric_of(tasks.values())
            series = [
                Series(model, colour, rows, None, marker)
                for model, rows in models.items()
                for colour, marker in [several.look(numbered[model])]
            ]
            part["figure"] = _figure(series, metric, letters, folder, f"figure-{at}", [*tasks])
            shown = letters if part["figure"]["letters"] else {}
            task = next(iter(tasks.values())) if metric != "score" else {"metric": "score"}
            table = [_part(model, numbered[model], rows, task, shown) for model, rows in models.items()]
            columns = [*levels_table.kept_and_emitted(metric), *TABLE_1]
            caption = f"Table 1, {name}: relative {metric}, emission, size and time"
            part["table"] = levels_table.table_of(caption, columns, table, part["figure"]["only_narrow"])
        parts.append(part)
    return {
        "what": "study",
        "title": study.title or "Study",
        "verdict": doubts.verdict(study, groups),
        "doubts": doubts.in_short(study, groups),
        "groups": parts,
        "checks": doubts.checks(study, groups),
        "missing": [(cell.name, cell.state, cell.error or "it says no more") for cell in _broken(study)],
        "cells": cell_table.of(study),
        "facts": _facts(study),
        "command": study.command,
        "recipes": [
            shlex.join(["bonsai", "run", *cell.flags, f"--output={cell.name}"]) for cell in study.cells if cell.flags
        ],
        "version": metadata.version("kfp-bonsai"),
    }


def _figure(
    series: list[Series], metric: str, letters: Mapping[str, str], folder: Path, name: str, tasks: Sequence[str]
) -> dict[str, Any]:
    from kfp_bonsai.report.drawn import draw_lines  # which imports matplotlib

    over = tasks[0] if len(tasks) == 1 else f"{', '.join(tasks[:-1])} and {tasks[-1]}, each task counting once"
    return draw_lines(series, metric, letters, folder, name, CAPTION.format(tasks=over))


def _part(
    model: str, at: int, rows: list[dict[str, Any]], task: Mapping[str, Any], letters: Mapping[str, str]
) -> dict[str, Any]:
    """Return a model's part of Table 1."""
    part = levels_table.part(model, at, rows, dict(task), letters)
    base = rows[0]
    for line, row in zip(part["rows"], rows, strict=True):
        line["size_share"], line["time_share"] = (
            numbers.percent(row[name] / base[name]) if row is not base and row[name] and base[name] else ""
            for name in ("size_bytes", "latency_ms_p50")
        )
        line["making_time"] = numbers.duration(row["making_seconds"])
        line["making_energy"] = numbers.energy(row["making_joules"]) if row["making_joules"] else ""
        line["tasks"] = f"{len(row['tasks'])} tasks" if len(row["tasks"]) > 1 else row["tasks"][0]
        line["runs"] = f"{row['runs']} runs" if row["runs"] > 1 else "1 run"
    return part


def _nothing(cells: Sequence[Cell]) -> str:
    """Say why a group has no figure."""
    states = [cell.state for cell in cells]
    told = [f"{states.count(state)} {state}" for state in STATES if state in states]
    return f"Nothing was measured here that has a mean: of {len(cells)} cells {', '.join(told)}."


def _broken(study: Study) -> list[Cell]:
    return [*study.of(FAILED), *study.of(REFUSED)]


def _facts(study: Study) -> list[tuple[str, str]]:
    """Return what the study was, and what it cost."""
    states = [f"{len(study.of(state))} {state}" for state in STATES if study.of(state)]
    joules = [cell.joules for cell in study.cells if cell.joules is not None]
    of_these = "" if len(joules) == len(study.cells) else f", of the {len(joules)} cells of which it is known"
    done = [cell.run for cell in study.cells if cell.run]
    devices = dict.fromkeys(str(row["device"]) for run in done for row in run.rows if row["device"])
    versions = [run.document.get("versions") or {} for run in done]
    known = {name: dict.fromkeys(str(one[name]) for one in versions if name in one) for one in versions for name in one}
    return [
        ("cells", f"{len(study.cells)}: {', '.join(states)}" if states else "none"),
        ("energy", f"{numbers.energy(sum(joules))} ({numbers.watt_hours(sum(joules))}){of_these}" if joules else ""),
        ("time of the cells", numbers.duration(sum(cell.seconds for cell in study.cells))),
        ("started", study.started[:16].replace("T", " ")),
        ("finished", study.finished[:16].replace("T", " ") or "not yet"),
        ("device", "; ".join(devices)),
        *((name, ", ".join(found)) for name, found in known.items()),
    ]


def _csv(study: Study) -> tuple[list[tuple[dict[str, Any], dict[str, Any]]], list[str]]:
    """Return all models of all cells, and an empty row with the error of each cell that has none; and the columns."""
    lines = []
    for cell in study.cells:
        names = ("state", "group", "seed")
        own = {"cell": cell.name, "of_model": cell.model, "data": cell.data, "training_rows": cell.rows}
        own |= {name: getattr(cell, name) for name in names}
        rows = cell.run.rows if cell.run else [dict.fromkeys(tables.COLUMNS) | {"error": cell.error}]
        lines += [(own, row) for row in rows]
    return lines, ["cell", "state", "of_model", "data", "group", "seed", "training_rows"]


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _markdown(page: dict[str, Any]) -> str:
    """Return the page's content as Markdown."""
    lines = [f"# {text(page['title'])}", "", f"**{text(page['verdict'])}**", ""]
    lines += [f"**{text(doubt)}**\n" for doubt in page["doubts"]]
    for group in page["groups"]:
        lines += [f"## {text(group['name'])}", ""]
        if not group["figure"]:
            lines += [text(group["nothing"]), ""]
            continue
        figure = group["figure"]
        lines += [f"![{text(figure['about'])}]({figure['file']})", "", text(figure["caption"]), ""]
        lines += [*levels_table.as_markdown(group["table"], "model"), ""]
    if page["missing"]:
        lines += ["## What failed or was refused", ""]
        lines += [f"- {text(name)}: {state}: {text(error)}" for name, state, error in page["missing"]] + [""]
    lines += ["## Can this be believed?", "", *markdown.checks(page["checks"]), "", "## All cells", ""]
    lines += [*cell_table.as_markdown(page["cells"]), "", "## What it took", ""]
    lines += [f"- {name}: {text(value)}" for name, value in page["facts"] if value]
    if page["command"]:
        lines += ["", *code(page["command"])]
    if page["recipes"]:
        lines += ["", RECIPES, "", *code("\n".join(page["recipes"]))]
    return "\n".join(lines) + "\n"
