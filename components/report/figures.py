"""The figure of the report: relative accuracy against relative emission, by matplotlib."""

import itertools
import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib.ticker
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kfp_bonsai.report import numbers
from kfp_bonsai.report.legend import legend_entries, mark
from kfp_bonsai.report.places import Box, along, around, place
from kfp_bonsai.report.series import Guides, Series, is_ready_made, point_name
from kfp_bonsai.report.svg import COLOURS, style
from kfp_bonsai.report.table import pareto

COMMON: dict[str, Any] = {"marker": "o", "markersize": 8.5, "color": COLOURS["ink"], "linestyle": "none"}


def accuracy_figure(
    series: list[Series], guides: Guides, narrow: bool = False, short: Mapping[str, str] | None = None
) -> Figure:
    """Draw relative accuracy against relative emission, as in the paper's Figures 4 to 6.

    Args:
        series: one line each.
        guides: what the points are held against.
        narrow: whether it is for a phone.
        short: shorter labels of levels, for figures of many points.
    """
    entries = legend_entries(series, narrow, short or {})
    columns = (2 if narrow else 4) if not series[0].marker else (1 if narrow else 2)
    below = 56 + 18 * -(-len(entries) // columns)
    width, height = (360, below + 340) if narrow else (760, below + 384)
    with style():
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((46 / width, below / height, 1 - 62 / width, 1 - (below + 34) / height))
        _limits(axes, series, guides)
        figure.draw_without_rendering()
        _floor(axes, guides)
        obstacles = [box for each in series for box in _series(axes, each)]
        obstacles += [_extent(figure, text) for text in axes.texts]
        obstacles += _target(figure, axes, guides, obstacles)
        _labels(figure, axes, series, obstacles, narrow, short or {})
        legend = figure.legend(
            handles=entries,
            loc="upper left",
            ncol=columns,
            frameon=False,
            bbox_to_anchor=(0.02 if narrow else 0.045, (below - 50) / height),
            columnspacing=1.6,
            handletextpad=0.5,
            borderpad=0.2,
            labelspacing=0.55,
        )
        for text in legend.get_texts():
            text.set_color(COLOURS["ink"])
        left_is, up_is = ("", "") if narrow else ("   (further left is better)", "   (higher is better)")
        axes.set_xlabel(f"relative emission, % of the baseline's{left_is}", labelpad=6)
        axes.set_title(
            f"relative {guides.metric}, % of the baseline's{up_is}", loc="left", color=COLOURS["ink"], pad=10
        )
    return figure


def _point(row: dict[str, Any]) -> tuple[float, float]:
    return 100 * row["relative_emission"], 100 * row["relative_accuracy"]


def _limits(axes: Axes, series: list[Series], guides: Guides) -> None:
    """Set the axes: emission from 0; accuracy around the points, with the floor when it is near enough."""
    xs, ys = [100.0], [100.0]
    for row in (row for each in series for row in each.rows):
        xs += [100 * end for end in row["relative_emission_ci"] or []] + [_point(row)[0]]
        ys += [100 * end for end in row["relative_accuracy_ci"] or []] + [_point(row)[1]]
    low, high = min(ys), max(ys)
    if guides.min_accuracy:
        low = min(low, 100 * guides.min_accuracy)
    if guides.floor is not None and low - 100 * guides.floor < 2.5 * max(high - low, 6):
        low = min(low, 100 * guides.floor)
    room = 0.09 * max(high - low, 4)
    axes.set_xlim(0, max(xs) * 1.05)
    axes.set_ylim(low - 1.3 * room, high + room)
    axes.tick_params(length=0, pad=5)
    axes.grid(True, color=COLOURS["rule"], linewidth=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6))
    axes.yaxis.set_major_locator(matplotlib.ticker.MaxNLocator(6))


def _floor(axes: Axes, guides: Guides) -> None:
    """Draw the line that a bag of words, or the like, reaches, or say where it is."""
    if guides.floor is None:
        return
    right, bottom = axes.get_xlim()[1], axes.get_ylim()[0]
    floor = 100 * guides.floor
    look: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "color": COLOURS["floor"], "fontsize": 10}
    if floor > bottom:
        axes.axhline(floor, color=COLOURS["floor"], linewidth=1.2, dashes=(5, 3))
        axes.annotate(f"{guides.floor_name}: {floor:.1f} %", (right, floor), xytext=(0, -5), va="top", **look)
    else:
        axes.annotate(f"{guides.floor_name}: {floor:.1f} %, further down", (right, bottom), xytext=(0, 5), **look)


def _target(figure: Figure, axes: Axes, guides: Guides, obstacles: list[Box]) -> list[Box]:
    """Shade the region that meets the target, and name it in the corner where it covers least."""
    if not guides.min_accuracy and not guides.max_emission:
        return []
    (_, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    right = min(right, 100 * guides.max_emission) if guides.max_emission else right
    bottom = max(bottom, 100 * guides.min_accuracy) if guides.min_accuracy else bottom
    axes.fill_between([0, right], bottom, top, color=COLOURS["target"], linewidth=0, zorder=0.5)
    parts = [f"{guides.metric} ≥ {100 * guides.min_accuracy:g} %"] if guides.min_accuracy else []
    parts += [f"emission ≤ {100 * guides.max_emission:g} %"] if guides.max_emission else []
    look: dict[str, Any] = {"textcoords": "offset points", "color": COLOURS["muted"], "fontsize": 10}
    made = []
    for x, y, dx, dy, ha, va in (
        (right, bottom, -6, 5, "right", "bottom"),
        (0, top, 6, -5, "left", "top"),
        (right, top, -6, -5, "right", "top"),
        (0, bottom, 6, 5, "left", "bottom"),
        (right, bottom, 6, 5, "left", "bottom"),
    ):
        text = axes.annotate("target: " + ", ".join(parts), (x, y), xytext=(dx, dy), ha=ha, va=va, **look)
        made.append((_extent(figure, text), text))
    frame = axes.get_window_extent()
    inside = Box(frame.x0, frame.y0, frame.x1, frame.y1)
    costs = [sum(box.overlap(other) for other in obstacles) + 9 * (box.area - box.overlap(inside)) for box, _ in made]
    best = costs.index(min(costs))
    for at, (_, text) in enumerate(made):
        if at != best:
            text.remove()
    return [made[best][0]]


def _series(axes: Axes, series: Series) -> list[Box]:
    """Draw one device's levels; return what labels must not cover."""
    colour = COLOURS[series.colour]
    boxes: list[Box] = []
    of_one = [row for row in series.rows if row["measurement"] == series.rows[0]["measurement"]]
    line = [_point(row) for row in of_one if not is_ready_made(row)]
    axes.plot(*zip(*line, strict=True), color=colour, linewidth=1.4, alpha=0.55, zorder=2)
    pixels = [tuple(axes.transData.transform(point)) for point in line]
    for start, end in itertools.pairwise(pixels):
        boxes += along(start, end)
    front = [_point(row) for row in pareto(series.rows)]
    if len(front) > 1 and series.colour == "main" and not series.marker:
        xs, ys = zip(*front, strict=True)
        axes.step(xs, ys, where="post", color=colour, linewidth=1, dashes=(1.5, 2), zorder=1.9)
    for row in series.rows:
        x, y = _point(row)
        xci = series.control_ci if row["stage"] == "baseline" else row["relative_emission_ci"]
        yci = None if row["stage"] == "baseline" else row["relative_accuracy_ci"]
        for ends, pick in ((xci, 0), (yci, 1)):
            if ends:
                low, high = 100 * ends[0], 100 * ends[1]
                bar = ([low, high], [y, y]) if pick == 0 else ([x, x], [low, high])
                axes.plot(*bar, color=colour, linewidth=1.3, zorder=2.5, solid_capstyle="butt")
                boxes += along(*(tuple(axes.transData.transform(end)) for end in zip(*bar, strict=True)))
        if row["chosen"]:
            axes.plot(
                [x],
                [y],
                "o",
                markersize=19,
                markerfacecolor="none",
                markeredgecolor=colour,
                markeredgewidth=1.4,
                zorder=3,
            )
        common = series.marker and row["stage"] == "baseline"
        axes.plot([x], [y], zorder=4, **COMMON if common else mark(row, colour, series.marker))
        boxes.append(around(*axes.transData.transform((x, y)), 11 if row["chosen"] else 6))
    return boxes


def _labels(
    figure: Figure, axes: Axes, series: list[Series], obstacles: list[Box], narrow: bool, short: Mapping[str, str]
) -> None:
    """Name the points where that covers nothing; a level that both devices show is named once, in runs in each."""
    frame = axes.get_window_extent()
    inside = Box(frame.x0 + 3, frame.y0 + 3, frame.x1 + 8, frame.y1 + 4)
    named: dict[str, tuple[dict[str, Any], Any]] = {}
    for each in series:
        for row in sorted(each.rows, key=lambda row: not row["chosen"]):
            name = point_name(row)
            key = f"{name} of {each.name}" if each.marker and row["stage"] != "baseline" else name
            if key not in named:
                weight = "bold" if row["chosen"] else "normal"
                colour = COLOURS["ink" if each.marker and row["stage"] == "baseline" else each.colour]
                wrapped = "\n".join(textwrap.wrap(short.get(name, name), 15 if narrow else 24))
                named[key] = (
                    row,
                    axes.text(0, 0, wrapped, color=colour, weight=weight, linespacing=1.15, va="bottom"),
                )
    pixels = [tuple(axes.transData.transform(_point(row))) for row, _ in named.values()]
    boxes = [_extent(figure, text) for _, text in named.values()]
    sizes = [(box.right - box.left, box.top - box.bottom) for box in boxes]
    to_data = axes.transData.inverted().transform
    for (_, text), pixel, (box, far) in zip(
        named.values(), pixels, place(pixels, sizes, inside, obstacles), strict=True
    ):
        text.set_position(to_data((box.left, box.bottom)))
        if far:
            near = (min(max(pixel[0], box.left), box.right), min(max(pixel[1], box.bottom), box.top))
            ends = to_data([pixel, near])
            axes.plot(ends[:, 0], ends[:, 1], color=COLOURS["muted"], linewidth=0.6, zorder=1.5)


def _extent(figure: Figure, text: Any) -> Box:
    box = text.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    return Box(box.x0, box.y0, box.x1, box.y1)


def describe(series: list[Series], guides: Guides) -> str:
    """Say in words what the main figure shows, for those who cannot see it."""
    parts = []
    for each in series:
        points = "; ".join(
            f"{point_name(row)}{' (ready-made)' if is_ready_made(row) else ''}: "
            f"{numbers.percent(row['relative_accuracy'])} of the {guides.metric} at "
            f"{numbers.percent(row['relative_emission'])} of the emission"
            for row in each.rows
        )
        parts.append(f"{each.name}: {points}.")
    if guides.floor is not None:
        parts.append(f"A {guides.floor_name} keeps {numbers.percent(guides.floor)} and is drawn as a line.")
    return " ".join(parts).replace(numbers.SPACE, " ")
