"""`bonsai compare`: several runs in one figure and one table, as in the white paper's Figures 4 to 6."""

import csv
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from kfp_bonsai.report import table as tables
from kfp_bonsai.report import words
from kfp_bonsai.report.numbers import percent, percent_interval
from kfp_bonsai.shared.core import written
from kfp_bonsai.shared.core.documents import read_document
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import new_folder
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.metrics import control

RESULTS = "results.json"
COLOURS = ("main", "edge", "run3", "run4", "run5", "run6")
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "p": "⬟"}
MOST_NAMES, MOST_NAMES_NARROW = 10, 6  # points that are named in full; more of them get letters
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Run:
    """One run of the comparison.

    Attributes:
        name: what it is called, no other run is.
        path: its results.json.
        document: what that holds.
        rows: its models: those of the main measurement, and the quantized ones of the edge.
        colour: its colour in the figure.
        marker: its marker.
    """

    name: str
    path: Path
    document: dict[str, Any]
    rows: list[dict[str, Any]]
    colour: str
    marker: str


def compare(run: list[Path], /, output: Path, *, title: str = "") -> dict[str, str | int]:
    """Draw several runs into one figure and one table: relative accuracy against relative emission.

    Args:
        run: A run's folder, or its results.json; two or more.
        output: Folder to make, for compare.html, compare.md, compare.csv, compare.svg and compare.png.
        title: What the comparison is called.

    Returns:
        How many runs and models were drawn, and where the page is.

    Raises:
        BonsaiError: fewer than two runs, one without results.json or of another format, or output exists.

    Example:
        bonsai compare runs/reviews runs/news --output compared
    """
    if len(run) < 2:
        raise BonsaiError(f"{len(run)} run was given: give the folders of two runs or more to compare")
    runs = _read(run)
    drawn = [(each, [row for row in each.rows if _drawable(row)]) for each in runs]
    for each, rows in drawn:
        if not any(row["stage"] != "baseline" for row in rows):
            raise BonsaiError(f"{each.path} has no compressed model that was measured: leave it out, or run it again")
    title = title or f"{len(runs)} runs compared"
    letters = _letters([row for _, rows in drawn for row in rows])
    with new_folder(Path(output)) as folder:
        figure = _figure(drawn, letters, folder)
        page = _page(runs, figure, letters if figure["letters"] else {}, title)
        _write_csv(runs, folder / "compare.csv")
        page["files"] = sorted([*(path.name for path in folder.iterdir()), "compare.md"])
        (folder / "compare.md").write_text(_markdown(page), encoding="utf-8")
        from kfp_bonsai.report import page as html_page

        (folder / "compare.html").write_text(html_page.render(page, "compare.html"), encoding="utf-8")
    say(f"compare  {page['verdict']}")
    return {
        "runs": len(runs),
        "models": sum(len(rows) for _, rows in drawn),
        "page": str(Path(output) / "compare.html"),
    }


def _read(given: list[Path]) -> list[Run]:
    """Read the runs; those of the same name are numbered."""
    paths = [Path(path) / RESULTS if Path(path).is_dir() else Path(path) for path in given]
    documents = [read_document(path, "bonsai run", "rows", "task", shape=written.RESULTS) for path in paths]
    names = [str(each.get("title") or path) for each, path in zip(documents, paths, strict=True)]
    runs = []
    for at, (path, document, name) in enumerate(zip(paths, documents, names, strict=True)):
        if names.count(name) > 1:
            name = f"{name} ({names[:at].count(name) + 1})"
        rows = []
        for row in document["rows"]:
            if row["measurement"] == "main" or row["stage"] == "quantized":
                rows.append(dict.fromkeys(tables.COLUMNS) | {"error": ""} | row)
        runs.append(Run(name, path, document, rows, COLOURS[at % len(COLOURS)], [*MARKERS][at % len(MARKERS)]))
    return runs


def _drawable(row: dict[str, Any]) -> bool:
    return not row["error"] and row["relative_accuracy"] is not None and row["relative_emission"] is not None


def _letters(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return a letter for each level, in the order of the runs; a letter and a number beyond Z."""
    names = dict.fromkeys(words.name_of(row) for row in rows if row["stage"] != "baseline")
    return {name: LETTERS[at % 26] + (str(at // 26) if at > 25 else "") for at, name in enumerate(names)}


def _figure(drawn: list[tuple[Run, list[dict[str, Any]]]], letters: dict[str, str], folder: Path) -> dict[str, Any]:
    """Draw the figure into the folder and into the page."""
    from kfp_bonsai.report import figures, svg
    from kfp_bonsai.report.series import Guides, Series

    series = [Series(run.name, run.colour, rows, None, run.marker) for run, rows in drawn]
    guides = Guides(None, None, None, _metric([run for run, _ in drawn]))
    points = sum(row["stage"] != "baseline" for _, rows in drawn for row in rows)
    wide = figures.accuracy_figure(series, guides, short=letters if points > MOST_NAMES else {})
    narrow = figures.accuracy_figure(series, guides, narrow=True, short=letters if points > MOST_NAMES_NARROW else {})
    svg.write(wide, folder, "compare")
    about = f"Relative {guides.metric} against relative emission of {len(drawn)} runs"
    described = figures.describe(series, guides)
    return {
        "wide": svg.inline_svg(wide, "wide", about, described),
        "narrow": svg.inline_svg(narrow, "narrow", about, described),
        "caption": "Each point is a model, each line a run. Further left emits less, further up keeps more "
        f"{guides.metric}; the bars are 95 % intervals.",
        "letters": points > MOST_NAMES_NARROW,
        "only_narrow": points <= MOST_NAMES,
    }


def _metric(runs: list[Run]) -> str:
    names = {words.metric_name(run.document["task"]) for run in runs}
    return names.pop() if len(names) == 1 else "score"


def _page(runs: list[Run], figure: dict[str, Any], letters: dict[str, str], title: str) -> dict[str, Any]:
    """Work out what the page and the Markdown say."""
    from kfp_bonsai.report import page

    told = []
    for run in runs:
        lines = page.table(run.rows, run.document["task"])
        for line in lines:
            line["letter"] = letters.get(line["name"], "")
        told.append(
            {
                "name": run.name,
                "colour": run.colour,
                "sign": MARKERS[run.marker],
                "rows": lines,
                "badge": "chosen" if _met(run) else "nearest",
                "facts": [(name, value) for name, value in _facts(run) if value],
            }
        )
    states = [(run.name, control.of_results(run.document)) for run in runs]
    return {
        "title": title,
        "verdict": _verdict(runs),
        "doubts": [f"control {state}: {name}" for name, state in states if state != control.PASSED],
        "figure": figure,
        "runs": told,
        "metric": _metric(runs),
        "version": metadata.version("kfp-bonsai"),
    }


def _met(run: Run) -> bool:
    return bool((run.document.get("chosen") or {}).get("meets_target"))


def _verdict(runs: list[Run]) -> str:
    """Say in one sentence what the runs' chosen models keep, and at what emission."""
    chosen = [row for run in runs for row in run.rows if row["chosen"] and _drawable(row)]
    if not chosen:
        return f"None of {len(runs)} runs chose a model."
    kept, emitted = ([row[name] for row in chosen] for name in ("relative_accuracy", "relative_emission"))
    whose = "The models chosen" if len(chosen) == len(runs) else f"The {len(chosen)} models chosen"
    return (
        f"{whose} in {len(runs)} runs keep {_range(kept)} of the {_metric(runs)} at {_range(emitted)} of the emission."
    )


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return percent(low) if percent(low) == percent(high) else percent_interval([low, high])


def _facts(run: Run) -> list[tuple[str, str]]:
    document = run.document
    task, energy = document["task"], document.get("energy") or {}
    target, state = document.get("target") or {}, control.of_results(document)
    return [
        ("data set", str(task.get("name", ""))),
        ("model", str(run.rows[0]["model"] or "")),
        ("test rows", f"{document.get('test_rows') or 0:,}"),
        ("device", "; ".join(dict.fromkeys(str(row["device"]) for row in run.rows if row["device"]))),
        ("energy", " · ".join(str(energy[key]) for key in ("label", "source") if energy.get(key))),
        ("target", words.target_words(target, words.metric_name(task)) + ("" if _met(run) else " (not met)")),
        ("control", state if state == control.PASSED else f"{state}: do not rely on the emission"),
        ("made", str(document.get("created") or "")[:16].replace("T", " ")),
        ("results", str(run.path)),
    ]


def _write_csv(runs: list[Run], file: Path) -> None:
    """Write all models of all runs, with the columns of the report's rows.csv."""
    with file.open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, ["run", *tables.flat_columns()], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"run": run.name} | tables.flat(row) for run in runs for row in run.rows)


def _markdown(page: dict[str, Any]) -> str:
    """Return the page's content as Markdown."""
    from kfp_bonsai.report.markdown import line, text, with_interval

    heads = ["run", "level", f"relative {page['metric']}", "relative emission", page["metric"], "FLOPs", "size"]
    heads += ["p50, ms", "paid back after"]
    lines = [f"# {text(page['title'])}", "", f"**{text(page['verdict'])}**", ""]
    lines += [f"**{text(doubt)}**\n" for doubt in page["doubts"]]
    lines += [f"![Relative {text(page['metric'])} against relative emission](compare.svg)", ""]
    lines += [line(heads), line(["---", "---"] + ["---:"] * (len(heads) - 2))]
    for run in page["runs"]:
        for row in run["rows"]:
            name = f"**{text(row['name'])}** ({run['badge']})" if row["chosen"] else text(row["name"])
            cells = [text(run["name"]), name]
            if row["error"]:
                lines.append(line([*cells, f"failed: {text(row['error'])}", *[""] * (len(heads) - 3)]))
                continue
            cells += [with_interval(row, key) for key in ("relative_accuracy", "relative_emission", "accuracy")]
            lines.append(line(cells + [row[key] for key in ("flops", "size", "p50", "payback")]))
    lines += [
        "",
        "Relative figures are to the baseline of the same run on the same device; 95 % intervals in brackets.",
    ]
    for run in page["runs"]:
        lines += ["", f"### {text(run['name'])}", ""]
        lines += [f"- {name}: {text(value)}" for name, value in run["facts"]]
    return "\n".join(lines) + "\n"
