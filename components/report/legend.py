"""The marks of points, and the legend that explains those that are there."""

import textwrap
from collections.abc import Mapping
from typing import Any

from matplotlib.lines import Line2D

from kfp_bonsai.report.series import Series, is_ready_made
from kfp_bonsai.report.svg import COLOURS

LEGEND_WIDTH = 52  # letters of a run's name
STAR = 13  # a star's size, of which much is between its points
MARKS = {"measured": "measured", "estimated": "estimated", "proxy": "proxy (FLOPs)"}


def mark(row: dict[str, Any], colour: str, own: str = "") -> dict[str, Any]:
    """Return a point's marker: a star if ready-made, else a diamond if quantized, or what a run has.

    It is filled if measured, hollow if estimated; by proxy, all but a star are a cross.
    """
    rival = is_ready_made(row)
    if row["emission_label"] == "proxy":
        return {"marker": "*" if rival else "X", "markersize": 8, "color": colour, "linestyle": "none"}
    return {
        "marker": "*" if rival else own or ("D" if row["stage"] == "quantized" else "o"),
        "markersize": STAR if rival else 7.5 if row["stage"] == "quantized" else 8.5,
        "markerfacecolor": colour if row["emission_label"] == "measured" else COLOURS["paper"],
        "markeredgecolor": colour,
        "markeredgewidth": 1.9,
        "linestyle": "none",
    }


def legend_entries(series: list[Series], narrow: bool, short: Mapping[str, str]) -> list[Any]:
    """Explain only the marks that are there."""
    rows = [row for each in series for row in each.rows]
    ink = COLOURS["ink"]
    entries: list[Any] = []
    runs = bool(series[0].marker)
    for each in series if runs else ():
        label = next(row["emission_label"] for row in each.rows)
        look = mark({"emission_label": label, "stage": "compressed"}, COLOURS[each.colour], each.marker)
        name = textwrap.shorten(each.name, LEGEND_WIDTH, placeholder=" …")
        entries.append(
            Line2D([], [], linewidth=1.4, label=name, **look | {"linestyle": "-", "color": COLOURS[each.colour]})
        )
    if len(series) > 1 and not runs:
        entries += [Line2D([], [], color=COLOURS[each.colour], linewidth=1.8, label=each.name) for each in series]
    for label, text in MARKS.items():
        if any(row["emission_label"] == label for row in rows):
            look = mark({"emission_label": label, "stage": "compressed"}, ink)
            entries.append(Line2D([], [], label=f"emission {text}", **look))
    int8 = [row for row in rows if row["stage"] == "quantized" and not is_ready_made(row)]
    if int8 and not runs:
        label = int8[0]["emission_label"]
        entries.append(Line2D([], [], label="int8", **mark({"emission_label": label, "stage": "quantized"}, ink)))
    if rivals := [row for row in rows if is_ready_made(row)]:
        entries.append(Line2D([], [], label="ready-made model", **mark(rivals[0] | {"stage": "compressed"}, ink)))
    if any(row["chosen"] for row in rows):
        ring: dict[str, Any] = {"marker": "o", "markersize": 13, "markerfacecolor": "none", "markeredgewidth": 1.4}
        entries.append(Line2D([], [], color=ink, linestyle="none", label="chosen", **ring))
    if not runs:
        entries.append(Line2D([], [], color=ink, linewidth=1, dashes=(1.5, 2), label="Pareto front"))
    if any(row["relative_emission_ci"] or row["relative_accuracy_ci"] for row in rows):
        entries.append(
            Line2D([], [], color=ink, linewidth=1.3, marker="+", markersize=10, linestyle="none", label="95 % interval")
        )
    entries += [Line2D([], [], linestyle="none", label=f"{own}: {name}") for name, own in short.items()]
    if runs and not narrow:  # the legend is filled column by column: runs in the first, what marks mean in the second
        blank = Line2D([], [], linestyle="none", label=" ")
        missing = len(entries) - 2 * len(series)
        entries[len(series) : len(series)] = [blank] * missing
        entries += [blank] * -missing
    return entries
