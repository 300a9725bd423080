"""What a block of work cost, and what reads it: the sources' labels, and how the parts add up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from kfp_bonsai.shared.core.errors import BonsaiError

MEASURED, ESTIMATED, PROXY = "measured", "estimated", "proxy"
LABELS = (PROXY, ESTIMATED, MEASURED)  # the weakest first
CPU, GPU, RAM = "cpu", "gpu", "ram"
JOULES_PER_KWH = 3.6e6
STUCK_SECONDS = 1.0
MOST_WATTS = 2_000.0  # of one CPU package: a counter that says more went back


class CounterError(BonsaiError):
    """A counter of energy cannot be read, stands still, or reads what cannot be."""


@dataclass(frozen=True)
class Reading:
    """What a block of work cost.

    Attributes:
        seconds: wall time.
        joules: energy of the processors, CPU and GPU.
        cpu_joules: the CPU's part.
        gpu_joules: the part of the GPUs in use; 0 if there is none, or if its energy cannot be read (`source` says so).
        ram_joules: the memory's, which `joules` leaves out.
        label: "measured", "estimated" or "proxy": that of the weakest part of `joules`.
        source: each part's source in words.
    """

    seconds: float
    joules: float
    cpu_joules: float
    gpu_joules: float
    ram_joules: float
    label: str
    source: str

    def __add__(self, other: "Reading") -> "Reading":
        """Return the cost of two blocks together, whose parts are read from like sources."""
        sums = {one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)[:5]}
        return Reading(**sums, label=weakest([self.label, other.label]), source=other.source)


def weakest(labels: Sequence[str]) -> str:
    """Return the label of a total whose parts have these labels."""
    if not labels:
        raise BonsaiError("nothing measures energy here: neither the CPU's nor a GPU's is read")
    return min(labels, key=LABELS.index)


class Source(Protocol):
    """One part's counter: `mark` notes a position, `between` gives the joules from one position to the next."""

    @property
    def part(self) -> str:
        """What is read: the CPU, a GPU or RAM."""

    @property
    def label(self) -> str:
        """How its joules are known."""

    @property
    def name(self) -> str:
        """The source in words."""

    def mark(self) -> Any:
        """Return the counter's position now."""

    def between(self, before: Any, after: Any) -> float:
        """Return the joules between two positions."""


@dataclass(frozen=True)
class NotCounted:
    """A part that works, and whose energy cannot be read: 0 J, so that the rest is a proxy at the best."""

    part: str
    label = PROXY
    name = "not counted, as it cannot be read"

    def mark(self) -> None:
        """Note nothing."""

    def between(self, before: None, after: None) -> float:
        """Return 0."""
        return 0.0


def checked(source: Source, joules: float, seconds: float) -> float:
    """Return the joules that a source read.

    Raises:
        CounterError: they cannot be.
    """
    if joules == 0 and source.label == MEASURED and seconds >= STUCK_SECONDS:
        raise CounterError(
            f"{source.name} did not move in {seconds:.1f} s, so it is broken: hide it, or measure elsewhere"
        )
    if not 0 <= joules < float("inf"):
        raise CounterError(f"{source.part.upper()} energy: {source.name} read {joules} J, which cannot be")
    return joules


def _not_yet() -> Reading:
    raise BonsaiError("the energy meter has no reading: the block it measures has not ended")


@dataclass
class Meter:
    """The cost of the block; `reading` is there once the block has ended, `so_far` tells it before."""

    so_far: Callable[[], Reading] = _not_yet
    _reading: Reading | None = None

    @property
    def reading(self) -> Reading:
        """What the block cost."""
        return self._reading or _not_yet()
