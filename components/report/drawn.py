"""The figures of a report, drawn into its folder and for its page."""

from pathlib import Path
from typing import Any

from kfp_bonsai.report.figures import accuracy_figure, describe
from kfp_bonsai.report.series import Guides, Series
from kfp_bonsai.report.strays import pairs_figure
from kfp_bonsai.report.svg import inline_svg, write


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
