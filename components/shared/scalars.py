"""What of a stage's result a metadata store can hold."""

import math
from collections.abc import Mapping
from typing import Any


def storable(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries without NaN and infinities, which metadata stores refuse."""
    return {key: value for key, value in result.items() if not isinstance(value, float) or math.isfinite(value)}


def numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers, to be shown as metrics."""
    return {
        key: float(value)
        for key, value in storable(result).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
