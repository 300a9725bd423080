"""Which file and runtime costs this machine least: CPU time at the shapes that serving meets, taken in turns.

CPU time of one thread, not the clock: it is what the energy follows, and other work on the machine hardly
changes it, while two threads that wait for each other on a busy machine can take ten times as long.
"""

import time
from collections.abc import Mapping

import numpy as np

from kfp_bonsai.shared.inference import Predictor
from kfp_bonsai.shared.progress import say

ROUNDS, SECONDS = 2, 0.05
Times = dict[str, dict[str, float]]


def shapes(max_length: int) -> list[tuple[int, int]]:
    """Return rows x tokens to time: one row and a batch, short and as long as the model takes (at most 128)."""
    lengths = sorted({min(32, max_length), min(128, max_length)})
    return [(rows, length) for rows in (1, 32) for length in lengths]


def compare(predictors: Mapping[str, Predictor], max_length: int, vocabulary: int) -> Times:
    """Return the CPU milliseconds of a batch, {name: {"1x32": 3.1, ...}}: the best of several runs, taken in turns.

    Args:
        predictors: what to time, each loaded with one thread.
        max_length: the most tokens that the model is given.
        vocabulary: how many tokens there are.
    """
    random = np.random.default_rng(0)
    times: Times = {name: {} for name in predictors}
    for rows, length in shapes(max_length):
        batch = {
            "input_ids": random.integers(0, vocabulary, (rows, length)),
            "attention_mask": np.ones((rows, length), np.int64),
        }
        for _ in range(ROUNDS):
            for name, predictor in predictors.items():
                best = times[name].get(f"{rows}x{length}", float("inf"))
                times[name][f"{rows}x{length}"] = min(best, _milliseconds(predictor, batch))
    return times


def fastest(times: Times) -> str:
    """Return the name with the smallest product of its times: every shape counts the same."""
    return min(times, key=lambda name: float(np.sum(np.log(list(times[name].values())))))


def table(times: Times) -> None:
    """Print the timings, a line each."""
    columns = list(next(iter(times.values())))
    width = max(len(name) for name in times)
    say("quantize  CPU milliseconds of a batch (one thread), rows x tokens")
    say(f"  {'':{width}}" + "".join(f"{column:>10}" for column in columns))
    for name, row in times.items():
        say(f"  {name:{width}}" + "".join(f"{row[column]:10.1f}" for column in columns))


def _milliseconds(predictor: Predictor, batch: dict[str, np.ndarray]) -> float:
    best, end = float("inf"), time.process_time() + SECONDS
    while True:
        started = time.process_time()
        predictor.predict(batch)
        now = time.process_time()
        best = min(best, now - started)
        if now > end:
            return best * 1000
