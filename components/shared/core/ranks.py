"""Which of several processes this is, as torchrun says it in the environment (parallel.py lets them work together)."""

import os

MEETING = ("MASTER_ADDR", "MASTER_PORT")


def processes() -> int:
    """Return how many processes train together."""
    return _place()[1]


def is_first() -> bool:
    """Return whether this process is the one that writes and talks."""
    return _place()[0] == 0


def is_first_here() -> bool:
    """Return whether this is the machine's first process, which reads the counters of the whole machine."""
    return processes() == 1 or number("LOCAL_RANK", 0) == 0


def _place() -> tuple[int, int]:
    """Return which process this is, and of how many: of a group only if all of it is stated that a group needs."""
    rank, size = number("RANK", -1), number("WORLD_SIZE", -1)
    whole = 0 <= rank < size and all(os.environ.get(name) for name in MEETING)
    return (rank, size) if whole else (0, 1)


def number(name: str, otherwise: int) -> int:
    """Return the number that a variable of the environment states; another one if it states none."""
    stated = os.environ.get(name, "").strip()
    return int(stated) if stated.isdecimal() else otherwise
