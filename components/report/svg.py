"""Figures as SVG and PNG: the same input gives the same bytes.

Colours are named ones: in the page they are CSS variables, so that the figures follow light and dark
mode; in the files they are the light ones on white.
"""

import io
import re
from html import escape
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import matplotlib
from matplotlib.figure import Figure

# Light colours by name; page.css gives the dark ones the same names (--f-ink ...).
COLOURS = {
    "ink": "#1b231e",
    "muted": "#5a655e",
    "rule": "#d5dcd6",
    "main": "#17694a",
    "edge": "#b3470f",
    "floor": "#7a5a00",
    "target": "#d9efe2",
    "paper": "#fefefe",
    "run3": "#2b5fa8",
    "run4": "#8a2f7c",
    "run5": "#a3153f",
    "run6": "#00707c",
}
_drawn: WeakKeyDictionary[Figure, str] = WeakKeyDictionary()  # a file and the page show one drawing


def inline_svg(figure: Figure, kind: str, title: str, description: str, name: str = "") -> str:
    """Return the figure as an SVG element for the page: named colours, no ids that could clash, read aloud.

    Args:
        figure: what was drawn.
        kind: the element's class, by which the page shows it or not.
        title: what it is.
        description: what it shows, in words.
        name: tells its ids from those of others of its kind.
    """
    text, name = _svg(figure), f"{name}-{kind}" if name else kind
    text = text[text.index("<svg") :]
    for colour, value in COLOURS.items():
        text = text.replace(value, f"var(--f-{colour})")
    text = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    width, height = (figure.get_size_inches() * 72).round().astype(int)
    head = (
        f'<svg class="{kind}" role="img" aria-labelledby="{name}-t {name}-d" viewBox="0 0 {width} {height}">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>'
    )
    return head + text[text.index(">") + 1 :]


def write(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as SVG and PNG, on white."""
    text = _svg(figure)
    start = text.index(">", text.index("<svg")) + 1
    text = f'{text[:start]}<rect width="100%" height="100%" fill="#ffffff"/>{text[start:]}'
    (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    with style():
        figure.savefig(folder / f"{name}.png", dpi=160, facecolor="white", metadata={"Software": None})


def style() -> Any:
    """Return a context in which figures are drawn and saved."""
    return matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "text.parse_math": False,
            "svg.hashsalt": "kfp-bonsai",
            "font.family": ["DejaVu Sans"],
            "font.size": 11,
            "axes.titlesize": 11,
            "axes.labelsize": 11,
            "axes.facecolor": "none",
            "axes.edgecolor": COLOURS["muted"],
            "axes.labelcolor": COLOURS["ink"],
            "axes.linewidth": 0.8,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.color": COLOURS["muted"],
            "ytick.color": COLOURS["muted"],
            "legend.fontsize": 10.5,
            "lines.dash_capstyle": "butt",
        }
    )


def _svg(figure: Figure) -> str:
    if figure in _drawn:
        return _drawn[figure]
    with style():
        file = io.StringIO()
        figure.savefig(
            file, format="svg", facecolor="none", metadata={"Date": None, "Creator": None, "Type": None, "Format": None}
        )
    text = file.getvalue()
    text = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    _drawn[figure] = "\n".join(line.strip() for line in text.splitlines() if line.strip())
    return _drawn[figure]
