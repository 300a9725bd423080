"""Which file and runtime costs this machine least: CPU time at the shapes that serving meets, taken in turns.

CPU time of one thread, not the clock: it is what the energy follows, and other work on the machine hardly
changes it, while two threads that wait for each other on a busy machine can take ten times as long.
"""

import time
from collections.abc import Mapping

import numpy as np

from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.inference.runtimes import Predictor

ROUNDS, SECONDS = 2, 0.05
BEHIND = 1.5  # times the least CPU time, on average over the shapes so far: one so far behind is not timed further
Times = dict[str, dict[str, float]]


def shapes(max_length: int) -> list[tuple[int, int]]:
    """Return rows x tokens to time, the least work first: one row and a batch, short and long (at most 128 tokens)."""
    lengths = sorted({min(32, max_length), min(128, max_length)})
    return [(rows, length) for rows in (1, 32) for length in lengths]


def compare(predictors: Mapping[str, Predictor], max_length: int, vocabulary: int, reference: str = "") -> Times:
    """Return the CPU milliseconds of a batch, {name: {"1x32": 3.1, ...}}: the best of several runs, taken in turns.

    What is clearly behind after a shape is not timed at the later ones, which take longest.

    Args:
        predictors: what to time, each loaded with one thread.
        max_length: the most tokens that the model is given.
        vocabulary: how many tokens there are.
        reference: the name of one that is timed beside the others, and that they need not keep up with.
    """
    random = np.random.default_rng(0)
    times: Times = {name: {} for name in predictors}
    racing = [*predictors]
    for rows, length in shapes(max_length):
        batch = {
            "input_ids": random.integers(0, vocabulary, (rows, length)),
            "attention_mask": np.ones((rows, length), np.int64),
        }
        for _ in range(ROUNDS):
            for name in racing:
                best = times[name].get(f"{rows}x{length}", float("inf"))
                times[name][f"{rows}x{length}"] = min(best, _milliseconds(predictors[name], batch))
        least = min(_mean(times[name]) for name in racing if name != reference)
        racing = [name for name in racing if _mean(times[name]) <= BEHIND * least]
    return times


def ranked(times: Times) -> list[str]:
    """Return the names by their times, the best first: every shape counts the same, and more shapes mean it led."""
    return sorted(times, key=lambda name: (-len(times[name]), _mean(times[name])))


def _mean(row: Mapping[str, float]) -> float:
    """Return the geometric mean of times at different shapes."""
    return float(np.exp(np.mean(np.log(list(row.values())))))


def table(times: Times) -> None:
    """Print the timings, a line each."""
    columns = max((list(row) for row in times.values()), key=len)
    width = max(len(name) for name in times)
    say("quantize  CPU milliseconds of a batch (one thread), rows x tokens")
    say(f"  {'':{width}}" + "".join(f"{column:>10}" for column in columns))
    for name, row in times.items():
        say(f"  {name:{width}}" + "".join(f"{row[column]:10.1f}" for column in row))


def _milliseconds(predictor: Predictor, batch: dict[str, np.ndarray]) -> float:
    best, end = float("inf"), time.process_time() + SECONDS
    while True:
        started = time.process_time()
        predictor.predict(batch)
        now = time.process_time()
        best = min(best, now - started)
        if now > end:
            return best * 1000
