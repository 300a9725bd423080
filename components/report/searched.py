"""What a report says of the search that found its models: every trial as a point, and what each parameter was worth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kfp_bonsai.report import numbers
from kfp_bonsai.report.svg import COLOURS, inline_svg, style, write

NAME = "searched"
FEW_TICKS = 5  # within such a factor of emissions 2, 3 and 5 alone may be one tick, or none
LEAST_SHOWN = 0.6  # of the accuracy: what keeps less is drawn there
PARAMETERS = {"layers": "layers that stay", "share": "share of the emission that they are pruned to", "shape": "shape"}
STATES = {"healed": "healed to the end", "dropped": "dropped on the way", "failed": "failed"}


def searched(document: Mapping[str, Any], metric: str, folder: Path) -> dict[str, Any]:
    """Return what the page says of a search, and draw its figure into the folder.

    Args:
        document: search.json.
        metric: what is kept, as people call it.
        folder: of the figures.
    """
    trials = [one for one in document["trials"] if one.get("relative_accuracy") is not None]
    test = {one["number"]: one for one in document.get("front") or [] if one.get("relative_accuracy") is not None}
    wide, narrow = (_figure(trials, test, document["targets"], metric, small) for small in (False, True))
    write(wide, folder, NAME)
    told = "; ".join(_line(one) for one in trials)
    about = f"Relative {metric} against relative emission of all trials of the search"
    return {
        "figure": {
            "wide": inline_svg(wide, "wide", about, told, NAME),
            "narrow": inline_svg(narrow, "narrow", about, told, NAME),
            "caption": "Every trial on the validation rows: filled where it was healed to the end, hollow where it was "
            "dropped on the way. Lines lead from the measured ones to what they keep and emit on the test rows.",
            "file": f"{NAME}.svg",
            "about": about,
        },
        "trials": [_row(one, test.get(one["number"])) for one in document["trials"]],
        "worths": [(PARAMETERS.get(name, name), _percent(worth)) for name, worth in document["worths"].items()],
        "facts": _facts(document),
    }


def _figure(
    trials: Sequence[Mapping[str, Any]],
    test: Mapping[int, Mapping[str, Any]],
    targets: Mapping[str, Any],
    metric: str,
    narrow: bool,
) -> Figure:
    width, height = (360, 330) if narrow else (760, 400)
    with style():
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((52 / width, 70 / height, 1 - 68 / width, 1 - 104 / height))
        for one in trials:
            x, y = 100 * one["figures"]["emission"], 100 * max(one["relative_accuracy"], LEAST_SHOWN)
            whole = one["state"] == "healed"
            colour = COLOURS["main"] if whole else COLOURS["muted"]
            axes.plot([x], [y], "o", color=colour, markerfacecolor=colour if whole else COLOURS["paper"], markersize=7)
            found = test.get(one["number"])
            if found:
                to = 100 * found["figures"]["emission"], 100 * found["relative_accuracy"]
                axes.plot([x, to[0]], [y, to[1]], color=COLOURS["edge"], linewidth=0.9, zorder=1)
                size = 12 if found["chosen"] else 8
                axes.plot([to[0]], [to[1]], "*" if found["chosen"] else "D", color=COLOURS["edge"], markersize=size)
        axes.plot([], [], "o", color=COLOURS["main"], label="healed to the end")
        axes.plot([], [], "o", color=COLOURS["muted"], markerfacecolor=COLOURS["paper"], label="dropped")
        axes.plot([], [], "D", color=COLOURS["edge"], label="on test rows")
        axes.plot([], [], "*", color=COLOURS["edge"], markersize=12, label="the chosen one")
        if targets.get("min_accuracy"):
            axes.axhline(100 * targets["min_accuracy"], color=COLOURS["muted"], linewidth=0.9, linestyle=(0, (4, 3)))
        if targets.get("max_emission"):
            axes.axvline(100 * targets["max_emission"], color=COLOURS["muted"], linewidth=0.9, linestyle=(0, (4, 3)))
        if trials:
            axes.set_xscale("log")
            least, most = axes.get_xlim()
            named = "235" if most > FEW_TICKS * least else "23456789"
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in named else "")
            axes.tick_params(which="minor", labelsize=9)
        axes.set_xlabel("relative emission, % of the baseline's", labelpad=4)
        axes.set_title(f"relative {metric}, % of the baseline's", loc="left", color=COLOURS["ink"], pad=10)
        figure.legend(loc="lower left", ncol=2 if narrow else 4, frameon=False, bbox_to_anchor=(0.03, -0.01))
    return figure


def _line(one: Mapping[str, Any]) -> str:
    return f"{one['name']}: {_percent(one['relative_accuracy'])} at {_percent(one['figures']['emission'])}"


def _row(one: Mapping[str, Any], found: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a trial's line of the table."""
    figures = one.get("figures") or {}

    def shown(value: Any) -> str:
        return "" if value is None else _percent(value)

    return {
        "name": one["name"],
        "state": STATES.get(one["state"], one["state"])
        if one["state"] != "dropped"
        else f"healed {_percent(one['healed'])}",
        "chosen": bool(found and found["chosen"]),
        "kept": shown(one.get("relative_accuracy")),
        "believed": shown(one.get("believed_accuracy")),
        "probability": shown(one.get("probability")),
        "emission": shown(figures.get("emission")),
        "predicted": shown(one.get("predicted_emission")),
        "test": shown(found["relative_accuracy"]) if found else "",
        "cost": f"{numbers.duration(one['seconds'])}, {numbers.energy(one['joules'])}" if one["seconds"] else "",
        "error": one.get("error") or "",
    }


def _facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    test, energy, table = document.get("test") or {}, document["energy"], document["table"]
    chosen = document.get("chosen") or {}
    return [
        ("asked for", document["asked"]),
        ("probability that it is met, by validation rows", _percent(chosen["probability"]) if chosen else ""),
        ("and with the test rows", _percent(test["probability"]) if test else ""),
        ("why it ended", document.get("ended") or ""),
        ("the search took", f"{numbers.duration(energy['seconds'])}, {numbers.energy(energy['joules'])}"),
        ("of which CPU time", numbers.duration(energy["cpu_seconds"]) if energy.get("cpu_seconds") else ""),
        ("its energy", f"{energy.get('label', '')} {energy.get('source', '')}".strip()),
        ("table of costs", f"off by {_percent(table['error'])} at the most on shapes that it was not fitted to"),
        ("measured over predicted", f"{table['measured_over_predicted']:.3f}"),
    ]


def _percent(value: float) -> str:
    return numbers.percent(value)
