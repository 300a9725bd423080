"""All rounds of a measurement by one kind of reading, and beside them what codecarbon's own tracker says."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from kfp_bonsai.evaluate_emissions import protocol
from kfp_bonsai.shared.core.progress import Ticker, duration, say
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.inference.asking import rows_in

STAGE = "evaluate-emissions"
IDLE_SECONDS = 1.0


def announce(models: int, batches: Sequence[protocol.Batch], pass_seconds: float, plan: protocol.Plan) -> None:
    """Say how long the rounds will take at the most, before they begin.

    Args:
        models: how many there are, the baseline among them.
        batches: what each block runs.
        pass_seconds: what the baseline takes for these.
        plan: how to measure.
    """
    least, most = protocol.longest_seconds(models, batches, pass_seconds, plan)
    rows, slices = max(map(rows_in, batches)), f"{len(batches)} slices" if plan.sliced else "one"
    say(
        f"{STAGE}  {plan.pairs} rounds or more of {models + 1} blocks (the baseline's twice), each of at least "
        f"{plan.block_seconds:g}s in {slices} of {rows} rows: up to {duration(least)}, at most {duration(most)}"
    )


@dataclass(frozen=True)
class Taken:
    """What was measured, and how.

    Attributes:
        rounds: what the rounds gave.
        sources: what read the energy of all of them.
        idle_watts: what these read while nothing is done.
        check: how far codecarbon's own tracker is apart, in words.
    """

    rounds: protocol.Rounds
    sources: Sequence[energy.Source]
    idle_watts: float
    check: str


def measured(
    subjects: Sequence[protocol.Subject],
    batches: Sequence[protocol.Batch],
    plan: protocol.Plan,
    sources: Sequence[energy.Source],
) -> Taken:
    """Measure all subjects; where a counter of the CPU fails, all rounds are done anew with the estimate.

    Raises:
        CounterError: a counter fails that has no estimate.
    """
    try:
        return _measured(subjects, batches, plan, sources)
    except energy.CounterError as error:
        sources = energy.estimates(sources, error)
        say(f"{STAGE}  note: {error}; all rounds are done anew with {sources[0].name}")
        for subject in subjects:
            protocol.forget(subject)
        return _measured(subjects, batches, plan, sources)


def _measured(
    subjects: Sequence[protocol.Subject],
    batches: Sequence[protocol.Batch],
    plan: protocol.Plan,
    sources: Sequence[energy.Source],
) -> Taken:
    idle = protocol.idle_watts(sources, IDLE_SECONDS)
    with _Check(sources) as check:
        rounds = protocol.measure(subjects, batches, plan, sources, _say_round(plan))
    return Taken(rounds, sources, idle, check.words)


class _Check:
    """codecarbon's own tracker over all rounds, beside our readings; it never ends a measurement."""

    def __init__(self, sources: Sequence[energy.Source]) -> None:
        self.words, self._stack = "", ExitStack()
        self._sources = [one for one in sources if isinstance(one, energy.ProcessCpu)]

    def __enter__(self) -> "_Check":
        if self._sources:
            try:
                self._theirs = self._stack.enter_context(energy.codecarbon_tracker())
                self._ours = self._stack.enter_context(energy.track(self._sources))
            except Exception as problem:
                self._give_up(problem)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            self._stack.close()
            if self._sources and not kind:
                apart = self._ours.reading.cpu_joules / self._theirs.reading.cpu_joules - 1
                self.words = f". codecarbon's own tracker over all rounds: {100 * apart:+.1f} % apart"
        except Exception as problem:
            self._give_up(problem)

    def _give_up(self, problem: Exception) -> None:
        self.words, self._sources = f". codecarbon's own tracker made no reading to compare with ({problem})", []


def _say_round(plan: protocol.Plan) -> Callable[[int, float], None]:
    ticker = Ticker(STAGE, plan.pairs)

    def on_round(done: int, widest: float) -> None:
        if done > ticker.total:
            ticker.total = done
        ticker.step(done, **({"widest": widest} if widest < float("inf") else {}))

    return on_round
