"""The figures of a report, or of runs shown together, drawn into a folder and for a page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp_bonsai.report.figures import accuracy_figure, describe
from kfp_bonsai.report.series import Guides, Series, point_name
from kfp_bonsai.report.strays import pairs_figure
from kfp_bonsai.report.svg import inline_svg, write

MOST_NAMES, MOST_NAMES_NARROW = 10, 6  # points of several lines that are named in full; more of them get letters


def draw_figures(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Draw the figures into the folder; return them for the page."""
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
        series.append(Series(name, where, usable, control.get("ci")))
        controls.append(control.get("pairs") or [])
    target, document = content["target"], content["document"]
    base = next((row["accuracy"] for row in content["parts"]["main"] if row["stage"] == "baseline"), None)
    floor = document["floor_accuracy"] / base if document["floor_accuracy"] is not None and base else None
    limits = target.get("min_accuracy"), target.get("max_emission")
    guides = Guides(floor, *limits, content["metric"], content["page"]["floor_name"])
    wide, narrow = accuracy_figure(series, guides), accuracy_figure(series, guides, narrow=True)
    write(wide, folder, "accuracy-emission")
    about = f"Relative {content['metric']} against relative emission"
    described = describe(series, guides)
    made: dict[str, Any] = {
        "figure": {
            "wide": inline_svg(wide, "wide", about, described),
            "narrow": inline_svg(narrow, "narrow", about, described),
            "caption": f"Each point is a model. Further left emits less, further up keeps more {content['metric']}; "
            "the bars are 95 % intervals, the dotted steps the Pareto front.",
        },
        "pairs": None,
    }
    if any(controls) or any(row["pairs"] for each in series for row in each.rows):
        wide, narrow = pairs_figure(series, controls), pairs_figure(series, controls, narrow=True)
        write(wide, folder, "pairs")
        about = "How far the pairs of blocks stray from the estimate"
        described = "The table of the levels gives the intervals; the control is among the reasons above this figure."
        made["pairs"] = {
            "wide": inline_svg(wide, "pairs-wide", about, described),
            "narrow": inline_svg(narrow, "pairs-narrow", about, described),
            "caption": "Baseline and model are run in turns; each dot is a pair of blocks. The control "
            "is held against 1, where it must lie; the models against their own estimate.",
        }
    return made


def draw_lines(
    series: list[Series], metric: str, letters: Mapping[str, str], folder: Path, name: str, caption: str
) -> dict[str, Any]:
    """Draw several runs, or several models, a line each, into the folder and for the page.

    Args:
        series: the lines.
        metric: what is kept, as people call it.
        letters: of the levels, for where there are too many points for names.
        folder: where the files go.
        name: of the files, without an ending.
        caption: what a point is, and a line, and the bars.
    """
    guides = Guides(None, None, None, metric)
    names = [point_name(row) for each in series for row in each.rows if row["stage"] != "baseline"]
    short, points = {level: letter for level, letter in letters.items() if level in names}, len(names)
    wide = accuracy_figure(series, guides, short=short if points > MOST_NAMES else {})
    narrow = accuracy_figure(series, guides, narrow=True, short=short if points > MOST_NAMES_NARROW else {})
    write(wide, folder, name)
    about = f"Relative {metric} against relative emission of {', '.join(each.name for each in series)}"
    described = describe(series, guides)
    return {
        "wide": inline_svg(wide, "wide", about, described, name),
        "narrow": inline_svg(narrow, "narrow", about, described, name),
        "caption": f"{caption} Further left emits less, further up keeps more {metric}.",
        "file": f"{name}.svg",
        "about": about,
        "letters": points > MOST_NAMES_NARROW,
        "only_narrow": points <= MOST_NAMES,
    }
