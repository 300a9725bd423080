"""The figure of the pairs: how far each strays."""

from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kfp_bonsai.report.series import Series, point_name
from kfp_bonsai.report.svg import COLOURS, style


def pairs_figure(series: list[Series], controls: list[list[list[float]]], narrow: bool = False) -> Figure:
    """Draw how far each pair of blocks strays: the control from 1, the models from their estimate."""
    lines: list[tuple[str, str, list[float], list[float] | None]] = []
    for each, control in zip(series, controls, strict=True):
        suffix = " (edge)" if each.colour == "edge" else ""
        if control:
            lines.append((f"control: baseline again{suffix}", each.colour, *_strays(control, 1.0, each.control_ci)))
        for row in each.rows:
            if row["stage"] != "baseline" and row.get("pairs"):
                found = _strays(row["pairs"], row["relative_emission"], row["relative_emission_ci"])
                lines.append((point_name(row) + suffix, each.colour, *found))
    width, left = (360, 16) if narrow else (760, 290)
    height = 62 + (40 if narrow else 27) * len(lines)
    far = max([5.0, *(1.08 * abs(value) for _, _, strays, ends in lines for value in [*strays, *(ends or [])])])
    with style():
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((left / width, 48 / height, 1 - (left + 16) / width, 1 - 54 / height))
        axes.set_xlim(-far, far)
        axes.set_ylim(len(lines) - 0.4, -0.75 if narrow else -0.6)
        axes.set_yticks([])
        axes.tick_params(length=0, pad=5)
        axes.spines["left"].set_visible(False)
        axes.grid(True, axis="x", color=COLOURS["rule"], linewidth=0.6)
        axes.axvline(0, color=COLOURS["muted"], linewidth=1)
        for at, (name, colour, strays, ends) in enumerate(lines):
            look: dict[str, Any] = {"markersize": 6, "markeredgewidth": 0, "alpha": 0.45, "color": COLOURS[colour]}
            axes.plot(strays, [at] * len(strays), "o", **look)
            if ends:
                axes.plot(ends, [at, at], color=COLOURS[colour], linewidth=2.4, solid_capstyle="butt")
                axes.plot(ends, [at, at], "|", color=COLOURS[colour], markersize=11, markeredgewidth=2)
            place_at: dict[str, Any] = {"xytext": (0, 9), "ha": "left"}
            if not narrow:
                place_at = {"xytext": (-14, 0), "ha": "right", "va": "center", "annotation_clip": False}
            axes.annotate(name, (-far, at), textcoords="offset points", color=COLOURS["ink"], **place_at)
        axes.set_xlabel("pairs (dots) and 95 % interval (bar), % off", labelpad=6)
    return figure


def _strays(
    pairs: list[list[float]], middle: float, ends: list[float] | None
) -> tuple[list[float], list[float] | None]:
    strays = [100 * (b / a / middle - 1) for a, b in pairs if a]
    return strays, [100 * (end / middle - 1) for end in ends] if ends else None
