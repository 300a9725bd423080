"""The measurement itself: interleaved rounds of blocks, so that whatever the machine does hits all models alike.

Each round runs the baseline, the baseline once more (the A/A control) and every candidate on the same batches. A
block is cut into slices of one batch, and all models run a slice before any runs the next, in an order that is drawn
anew for each slice: a model that always followed the same other one would pay or save what that one left in caches and
memory. A round gives one pair a candidate: (the baseline's joules a row, the candidate's).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import psutil

from kfp_bonsai.shared.core.errors import in_words
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.inference.asking import ROW_OF, rows_in
from kfp_bonsai.shared.inference.writers import TO_WRITE, Writer, of_length
from kfp_bonsai.shared.metrics import control, statistics

BASELINE = 0
# Neighbours on a host come and go within seconds. There, slices of 0.5 s gave pairs that strayed by 15 %; batch by
# batch, about 0.1 s each, it was 2 to 4 %.
SLICE_SECONDS = 0.1
WARM_ROWS = 4  # that a model runs before each slice, uncounted
WARM_TOKENS = 2  # that it writes of each then
MORE_PAIRS = 2  # rounds at the most, as a multiple of the pairs asked for, where no time budget is set
FEWEST = 2
FEWEST_BATCHES = 4  # so that short and long rows are both in every block

Batch = dict[str, np.ndarray]


@dataclass
class Subject:
    """A model under measurement.

    Attributes:
        name: for messages.
        predict: runs one batch.
        writer: what runs it, if it writes.
        reader: which reader of rows it is.
        error: why it was given up, "" while it runs.
        joules: joules a row in each round.
        ram_joules: the memory's joules a row in each round.
        seconds: wall seconds a row in each round.
        cpu_seconds: CPU seconds a row in each round.
        latency: seconds of each single-row request.
        first_token: seconds of each until the first token, of a model that writes.
        best_batch: rows of the batch at which it is fastest, 0 if that is not known.
        rows_per_second: how fast it is at that.
    """

    name: str
    predict: Callable[[Batch], Any]
    writer: Writer | None = None
    reader: int = 0
    error: str = ""
    joules: list[float] = field(default_factory=list)
    ram_joules: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)
    best_batch: int = 0
    rows_per_second: float = 0.0


@dataclass(frozen=True)
class Plan:
    """How to measure.

    Attributes:
        pairs: rounds at the least.
        block_seconds: how long each model runs in a round, at the least.
        precision: stop once every ratio's interval is no wider than plus or minus this fraction and the control passes;
            0 for no more rounds than `pairs`.
        time_budget: seconds for all rounds, 0 for twice `pairs` at the most.
        sliced: whether models take turns batch by batch, or block by block for counters that need long windows.
        seed: seed of the order.
    """

    pairs: int
    block_seconds: float
    precision: float
    time_budget: float = 0.0
    sliced: bool = True
    seed: int = 0


@dataclass
class Rounds:
    """What the rounds gave.

    Attributes:
        again: the control, the baseline once more.
        done: rounds measured.
        stopped: why no more were.
        labels: the readings' labels.
        sources: the readings' sources in words.
        neighbours: share of the machine's CPU time that others used during the blocks.
        seconds: how long the rounds took.
    """

    again: Subject
    done: int = 0
    stopped: str = ""
    labels: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    neighbours: float = 0.0
    seconds: float = 0.0


def measure(
    subjects: Sequence[Subject],
    batches: Sequence[Batch],
    plan: Plan,
    sources: Sequence[energy.Source],
    on_round: Callable[[int, float], None] = lambda done, widest: None,
) -> Rounds:
    """Measure all subjects in interleaved rounds; the first is the baseline.

    A candidate that raises is given up, with its error noted, and the others go on; the baseline's error is raised,
    and so is an energy counter's, if the pairs asked for are not measured yet.

    Args:
        subjects: the baseline, then the candidates; they keep their readings.
        batches: what every block runs, again and again.
        plan: how to measure.
        sources: what reads the energy.
        on_round: is told how many rounds are done, and the widest interval so far as a fraction.
    """
    again = Subject(subjects[BASELINE].name, subjects[BASELINE].predict)
    found = Rounds(again)
    everybody = [subjects[BASELINE], again, *subjects[1:]]
    parts = [[batch] for batch in batches] if plan.sliced else [list(batches)]
    rows = [sum(map(rows_in, part)) for part in parts]
    random = np.random.default_rng(plan.seed)
    started, busy, own, passed = time.monotonic(), 0.0, 0.0, 0.0
    while not found.stopped:
        costs = np.zeros((len(everybody), len(parts), len(_COSTS)))
        for at, part in enumerate(parts):
            for index in random.permutation(len(everybody)):
                subject = everybody[index]
                if subject.error:
                    continue
                others, ours, wall = _machine_busy(), time.process_time(), time.perf_counter()
                try:
                    reading, costs[index, at] = _slice(subject, part, plan.block_seconds / len(parts), sources)
                except energy.CounterError:  # no model's fault, and half a round is none
                    if found.done < max(FEWEST, plan.pairs):
                        raise
                    found.stopped = f"an energy counter failed after {found.done} pairs, which stand"
                    return found
                except Exception as error:
                    if index < 2:
                        raise
                    subject.error = in_words(error)
                    continue
                busy, own = busy + _machine_busy() - others, own + time.process_time() - ours
                passed += time.perf_counter() - wall
                found.labels.add(reading.label)
                found.sources.add(reading.source)
        for subject, each in zip(everybody, costs, strict=True):
            if not subject.error:
                for name, value in zip(_COSTS, np.average(each, axis=0, weights=rows), strict=True):
                    getattr(subject, name).append(float(value))
        found.done += 1
        found.seconds = time.monotonic() - started
        widest = widest_interval(subjects, again)
        found.stopped = _stop(found, plan, widest, _passes(subjects[BASELINE], again, plan))
        on_round(found.done, widest)
        found.neighbours = max(0.0, (busy - own) / (passed * (psutil.cpu_count() or 1)))
    return found


def pairs_of(subject: Subject, baseline: Subject, again: Subject) -> list[list[float]]:
    """Return the pairs (baseline's joules a row, this model's); the baseline's is the mean of its two blocks."""
    return [
        [(one + two) / 2, mine] for one, two, mine in zip(baseline.joules, again.joules, subject.joules, strict=False)
    ]


def control_pairs(baseline: Subject, again: Subject) -> list[list[float]]:
    """Return the control's pairs: the joules a row of the baseline's two blocks."""
    return [list(pair) for pair in zip(baseline.joules, again.joules, strict=True)]


def widest_interval(subjects: Sequence[Subject], again: Subject) -> float:
    """Return the widest half interval of the candidates' ratios as a fraction; the control's if there are none."""
    whole = [subject for subject in subjects[1:] if not subject.error and len(subject.joules) >= FEWEST]
    ratios = [pairs_of(subject, subjects[BASELINE], again) for subject in whole]
    if not ratios and len(again.joules) >= FEWEST:
        ratios = [control_pairs(subjects[BASELINE], again)]
    return max((statistics.ratio(pairs).half_width for pairs in ratios), default=float("inf"))


def _passes(baseline: Subject, again: Subject, plan: Plan) -> bool:
    """Tell whether the control passes so far."""
    if len(again.joules) < FEWEST:
        return False
    found = statistics.ratio(control_pairs(baseline, again))
    return control.state((found.low, found.high), control.margin_for(plan.precision)) == control.PASSED


def _stop(found: Rounds, plan: Plan, widest: float, passes: bool) -> str:
    """Return why to stop now, or "" to go on.

    Where the control has failed or is inconclusive, more rounds tell whether that was chance.
    """
    narrow = widest <= plan.precision
    widest_text = f"the widest interval is ±{100 * widest:.1f} %" + (
        "" if passes else ", and the control has not passed"
    )
    if found.done >= plan.pairs and ((narrow and passes) or not plan.precision):
        return f"{found.done} pairs, and {widest_text} (asked for: ±{100 * plan.precision:.1f} %)"
    if plan.time_budget:
        if found.done >= FEWEST and found.seconds * (found.done + 1) / found.done > plan.time_budget:
            return f"the time budget of {plan.time_budget:.0f} s ended after {found.done} pairs; {widest_text}"
        return ""
    if found.done >= MORE_PAIRS * plan.pairs:
        return f"{found.done} pairs are {MORE_PAIRS} times --pairs, the most without --time-budget; {widest_text}"
    return ""


_COSTS = ("joules", "ram_joules", "seconds", "cpu_seconds")  # of a Subject


def _slice(
    subject: Subject, batches: Sequence[Batch], seconds: float, sources: Sequence[energy.Source]
) -> tuple[energy.Reading, list[float]]:
    """Run whole passes over the batches until the time has passed; return the costs of a row, in _COSTS' order."""
    subject.predict(_to_warm(batches[0]))
    rows, passes = sum(map(rows_in, batches)), 0
    started, used = time.perf_counter(), time.process_time()
    with energy.track(sources) as meter:
        while time.perf_counter() - started < seconds or not passes:
            for batch in batches:
                subject.predict(batch)
            passes += 1
    used = time.process_time() - used
    reading = meter.reading
    costs = (reading.joules, reading.ram_joules, reading.seconds, used)
    return reading, [cost / (rows * passes) for cost in costs]


def _to_warm(batch: Batch) -> Batch:
    """Return a few rows of a batch, of whose answers a few tokens are written."""
    few = {name: array[:WARM_ROWS] for name, array in batch.items()}
    return of_length(few, WARM_TOKENS) if TO_WRITE in batch else few


def block_batches(
    batches: Sequence[Batch], seconds_each: Sequence[float], block_seconds: float, cut_for: float = 0.0
) -> tuple[list[Batch], float]:
    """Return batches for the blocks, evenly from the shortest to the longest, and the seconds of a pass over them.

    They are as many as a block has time for. Where a batch takes so long that models would take turns too seldom, all
    are cut to so many rows that the longest does not. Every block runs whole passes, so that all models run the very
    same rows.

    Args:
        batches: all batches, sorted by length.
        seconds_each: what each took the baseline.
        block_seconds: how long a block is to take.
        cut_for: how long the blocks take for which batches are cut, if these are fewer of the same batches.
    """
    rows = max(map(rows_in, batches))
    token = median(took / batch["input_ids"].size for batch, took in zip(batches, seconds_each, strict=True))
    slowest = token * max(batch["input_ids"].size for batch in batches)  # whatever a neighbour did to one batch
    fewer = max(1, min(rows, int(rows * (cut_for or block_seconds) / FEWEST_BATCHES / slowest)))
    mean = sum(seconds_each) / len(batches) * fewer / rows
    count = min(len(batches), max(FEWEST_BATCHES, int(block_seconds / max(SLICE_SECONDS, mean))))
    chosen = [batches[int((index + 0.5) * len(batches) / count)] for index in range(count)]
    return [_first_rows(batch, fewer) for batch in chosen], count * mean


def _first_rows(batch: Batch, count: int) -> Batch:
    """Return a batch of no more than so many rows, with all windows of each."""
    if rows_in(batch) <= count:
        return batch
    inputs = np.isin(batch[ROW_OF], np.unique(batch[ROW_OF])[:count]) if ROW_OF in batch else slice(count)
    return {name: array[inputs] for name, array in batch.items()}


def longest_seconds(models: int, batches: Sequence[Batch], pass_seconds: float, plan: Plan) -> tuple[float, float]:
    """Return how long the rounds asked for take, and the most of them, if no model is slower than the baseline.

    Args:
        models: how many there are, the baseline among them.
        batches: what each block runs.
        pass_seconds: what the baseline takes for these.
        plan: how to measure.
    """
    slices = len(batches) if plan.sliced else 1
    warm = slices * WARM_ROWS * pass_seconds / sum(map(rows_in, batches))
    block = pass_seconds + (plan.block_seconds if pass_seconds < plan.block_seconds else 0)  # ends with a whole pass
    each = (models + 1) * (block + warm)
    most = MORE_PAIRS * plan.pairs * each if plan.precision else plan.pairs * each
    return plan.pairs * each, plan.time_budget or most


def idle_watts(sources: Sequence[energy.Source], seconds: float) -> float:
    """Return the watts that the sources read while nothing is done: what a counter of the whole machine adds."""
    with energy.track(sources) as meter:
        time.sleep(seconds)
    return meter.reading.joules / meter.reading.seconds


def forget(subject: Subject) -> None:
    """Drop what rounds have noted, before they are done anew; that a model failed stands."""
    for name in _COSTS:
        getattr(subject, name).clear()


def drift(values: Sequence[float]) -> float:
    """Return by how much the last third of the rounds differs from the first, as a fraction."""
    third = len(values) // 3
    return median(values[-third:]) / median(values[:third]) - 1 if third else 0.0


def run_all(
    subject: Subject, batches: Sequence[Batch], on_batch: Callable[[int], None] = lambda done: None
) -> tuple[list[Any], list[float]]:
    """Return what a model gives for each batch, and the seconds that each batch took; it is warm afterwards.

    Args:
        subject: the model.
        batches: the batches.
        on_batch: is told how many are done.
    """
    given, seconds = [], []
    for batch in (batches[0], batches[-1]):
        subject.predict(batch)
    for batch in batches:
        started = time.perf_counter()
        given.append(subject.predict(batch))
        seconds.append(time.perf_counter() - started)
        on_batch(len(seconds))
    return given, seconds


def give_up(subject: Subject, error: Exception) -> None:
    """Note why a model is measured no further."""
    subject.error = in_words(error)


def _machine_busy() -> float:
    """Return the CPU seconds that all of the machine has spent, or had stolen by its host; 0 if it does not tell."""
    try:
        times = psutil.cpu_times()
    except (OSError, ValueError):  # no /proc/stat
        return 0.0
    return sum(times[:8]) - times.idle - getattr(times, "iowait", 0.0)
