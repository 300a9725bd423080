"""Whether a model's figures meet what was asked for."""

ROUNDING = 1e-9  # 360/500 of 400/500 is a bit less than 0.9 in floating point


def shortfall(
    relative_accuracy: float, relative_emission: float, min_accuracy: float | None, max_emission: float | None
) -> float:
    """Return by how much a model misses a target, in fractions of the baseline; 0 if it meets it.

    Args:
        relative_accuracy: of the baseline's.
        relative_emission: of the baseline's.
        min_accuracy: the least relative accuracy; 0 or None for no limit.
        max_emission: the largest relative emission; 0 or None for no limit.
    """
    accuracy = (min_accuracy or 0.0) - relative_accuracy
    emission = relative_emission - max_emission if max_emission else 0.0
    return sum(missing for missing in (accuracy, emission) if missing > ROUNDING)
