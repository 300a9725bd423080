"""What the figures show: models measured together, and what they are held against."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Series:
    """The models measured together on one device, or those of one run among several: baseline first.

    Attributes:
        name: for the legend.
        colour: one of COLOURS.
        rows: the models.
        control_ci: the control's interval, drawn at the baseline.
        marker: a run's own; "" tells stages apart instead.
    """

    name: str
    colour: str
    rows: list[dict[str, Any]]
    control_ci: list[float] | None
    marker: str = ""


@dataclass(frozen=True)
class Guides:
    """What the points are held against, all relative to the baseline."""

    floor: float | None
    min_accuracy: float | None
    max_emission: float | None
    metric: str
    floor_name: str = "bag of words"


def point_name(row: dict[str, Any]) -> str:
    """Return what a model is called in the figures."""
    if row["stage"] == "baseline":
        return "baseline"
    return f"{row['level']} (int8)" if row["stage"] == "quantized" else row["level"]


def is_ready_made(row: dict[str, Any]) -> bool:
    """Tell whether a row is of a ready-made model, which was not made of the baseline."""
    return bool(row.get("student")) and row["stage"] != "baseline"
