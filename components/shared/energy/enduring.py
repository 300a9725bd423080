"""Sources that never fail: work must not be lost for a note of what it cost."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.energy.cpu_estimate import ProcessCpu, watts_per_thread
from kfp_bonsai.shared.energy.reading import CPU, MEASURED, NotCounted, Source, checked


def enduring(sources: Sequence[Source]) -> tuple[Source, ...]:
    """Return sources for work that must not be lost for a note of its cost: where one fails, the next best is told."""
    return tuple(one if isinstance(one, Enduring) else Enduring(one) for one in sources)


class Enduring:
    """One part's source, and what takes its place for the whole block when it fails: it never raises."""

    def __init__(self, source: Source) -> None:
        self.part = source.part
        estimated = [ProcessCpu(watts_per_thread()[0])] if source.part == CPU and source.label == MEASURED else []
        self.sources: list[Source] = [source, *estimated, NotCounted(source.part)]

    @property
    def label(self) -> str:
        """The label of what is read now."""
        return self.sources[0].label

    @property
    def name(self) -> str:
        """What is read now, in words."""
        return self.sources[0].name

    def mark(self) -> tuple[float, list[Any]]:
        """Note the time, and all positions."""
        return time.perf_counter(), [(one, _attempt(one.mark)) for one in self.sources]

    def between(self, before: tuple[float, list[Any]], after: tuple[float, list[Any]]) -> float:
        """Return the joules by the best source that has not failed."""
        seconds, starts, ends = after[0] - before[0], dict(before[1]), dict(after[1])
        while True:
            best = self.sources[0]
            try:
                return checked(best, best.between(_known(starts[best]), _known(ends[best])), seconds)
            except Exception as error:
                del self.sources[0]
                say(f"note: {error}; {self.part.upper()} energy is {self.sources[0].label}: {self.sources[0].name}")


def _attempt(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return error


def _known(mark: Any) -> Any:
    if isinstance(mark, Exception):
        raise mark
    return mark
