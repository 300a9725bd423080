"""What numbers options take: said once, beside the stage that heeds them, for the stage and for pipelines before it."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from math import nextafter
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError


@dataclass(frozen=True)
class Range:
    """What a number is to be.

    Attributes:
        least: at the least.
        most: at the most.
        words: what to give.
    """

    least: float
    most: float = sys.float_info.max
    words: str = ""


ABOVE_ZERO = Range(nextafter(0, 1), words="a number above 0")
ZERO_OR_MORE = Range(0, words="0 or more")
ONE_OR_MORE = Range(1, words="1 or more")
FRACTION = Range(0, 1, "a fraction such as 0.98 or 0.2")
SEED = Range(0, 2**32 - 1, f"a number from 0 to {2**32 - 1}")  # what numpy takes


def check_ranges(ranges: Mapping[str, Range], given: Mapping[str, Any]) -> None:
    """Refuse a number that is out of its range, of those that are given.

    Args:
        ranges: by the options' names.
        given: what is given, by the same names, a number or several; other names are not looked at.

    Raises:
        BonsaiError: one is.
    """
    for name, one in ranges.items():
        found = given.get(name, one.least)
        for value in found if isinstance(found, list) else [found]:
            if not one.least <= value <= one.most:
                hint = f" ({value / 100:g} for {value:g} %)" if one is FRACTION and 1 < value <= 100 else ""
                raise BonsaiError(f"--{name.replace('_', '-')} is {value}: give {one.words}{hint}")
