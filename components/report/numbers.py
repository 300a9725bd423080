"""Numbers as people read them: few digits, a unit, a dash where there is nothing."""

import math
from collections.abc import Sequence

NONE = "–"
SPACE = "\u00a0"  # no-break: a number stays with its unit
MOST = 10.0  # a fraction above which an interval of too few pairs has no end that says anything


def significant(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits: 0.0123, 1.92, 48.2, 1,240."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    rounded = round(value, digits - 1 - magnitude)
    magnitude = math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, digits - 1 - magnitude)}f}"


def unit(value: float | None, name: str, digits: int = 3) -> str:
    """Return a number with its unit, or a dash."""
    text = significant(value, digits)
    return text if text == NONE else f"{text}{SPACE}{name}"


def _share(value: float) -> str:
    """Return 100 times a fraction: one decimal, or two digits where one decimal says too little."""
    hundred = 100 * value
    return f"{hundred:.1f}" if abs(hundred) >= 1 or hundred == 0 else significant(hundred, 2)


def percent(value: float | None) -> str:
    """Return a fraction as a percentage: 97.1 %."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{_share(value)}{SPACE}%"


def percent_beside(value: float | None, limit: float | None) -> str:
    """Return a fraction as a percentage, with as many digits as tell it from a limit that it misses: 97.97 %."""
    if value is None or not limit or percent(value) != percent(limit):
        return percent(value)
    texts = (f"{100 * value:.{digits}f}" for digits in (2, 3, 4) if round(100 * value, digits) != 100 * limit)
    return f"{next(texts, _share(value))}{SPACE}%"


def percent_interval(ends: Sequence[float] | None) -> str:
    """Return an interval of fractions: "95.9 to 98.2 %", or "" where there is none."""
    if not ends or any(end is None or not math.isfinite(end) for end in ends):
        return ""
    upper = _share(ends[1]) if ends[1] <= MOST else f"over{SPACE}{100 * MOST:,.0f}"
    return f"{_share(ends[0])}{SPACE}to{SPACE}{upper}{SPACE}%"


def percent_span(values: Sequence[float]) -> str:
    """Return from where to where some fractions go, or the one that they all are."""
    low, high = min(values), max(values)
    return percent(low) if percent(low) == percent(high) else percent_interval([low, high])


def plain_interval(ends: Sequence[float] | None, decimals: int = 3) -> str:
    """Return an interval of plain numbers: "0.991 to 1.008"."""
    if not ends or any(end is None or not math.isfinite(end) for end in ends):
        return ""
    return f"{ends[0]:.{decimals}f}{SPACE}to{SPACE}{ends[1]:.{decimals}f}"


def size(value: float | None) -> str:
    """Return bytes as people read them: 24.1 MB (a MB is a million bytes)."""
    for name, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value is not None and value >= factor:
            return unit(value / factor, name)
    return unit(value, "bytes")


def count(value: float | None) -> str:
    """Return a large count: 22.7 million; small ones in full."""
    for name, factor in (("billion", 1e9), ("million", 1e6)):
        if value is not None and value >= factor:
            return unit(value / factor, name)
    return NONE if value is None else f"{round(value):,}"


def about(value: float | None) -> str:
    """Return an estimated count with the digits it deserves: 210,000; 3.2 million."""
    if value is None:
        return NONE
    return unit(value / 1e6, "million", 2) if value >= 1e6 else significant(value, 2)


def energy(joules: float | None) -> str:
    """Return energy: 3.21 mJ, 12.3 J, 4.56 kJ, 1.20 MJ."""
    for name, factor in (("MJ", 1e6), ("kJ", 1e3), ("J", 1.0), ("mJ", 1e-3)):
        if joules is not None and abs(joules) >= factor:
            return unit(joules / factor, name)
    return unit(joules, "J")


def watt_hours(joules: float | None) -> str:
    """Return energy as on an electricity bill: 6.18 Wh, 1.24 kWh."""
    hours = None if joules is None else joules / 3600
    return unit(hours / 1000, "kWh") if hours is not None and abs(hours) >= 1000 else unit(hours, "Wh")


def signed(value: float) -> str:
    """Return a difference with its sign: +0.3, −3.0."""
    return f"{value:+.1f}".replace("-", "\u2212")


def grams(value: float | None) -> str:
    """Return a mass: 3.21 mg, 12.3 g, 4.56 kg."""
    for name, factor in (("t", 1e6), ("kg", 1e3), ("g", 1.0), ("mg", 1e-3)):
        if value is not None and abs(value) >= factor:
            return unit(value / factor, name)
    return unit(value if not value else value / 1e-6, "µg") if value else unit(value, "g")


def milliseconds(value: float | None) -> str:
    """Return a latency: 1.92 ms, or 1.20 s."""
    return unit(value / 1e3, "s") if value is not None and value >= 1000 else unit(value, "ms")


def duration(seconds: float | None) -> str:
    """Return a time: 0.42 s, 38 s, 1 min 40 s, 2 h 05 min."""
    if seconds is None:
        return NONE
    if seconds < 10:
        return unit(seconds, "s", 2)
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{SPACE}s"
    if whole < 3600:
        return f"{whole // 60}{SPACE}min{SPACE}{whole % 60:02d}{SPACE}s"
    return f"{whole // 3600}{SPACE}h{SPACE}{whole % 3600 // 60:02d}{SPACE}min"
