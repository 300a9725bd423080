"""How fast models are beside the rounds: requests of one row, and the batch at which each is fastest."""

import time
from collections.abc import Sequence

from kfp_bonsai.evaluate_emissions.protocol import BASELINE, Batch, Subject, give_up
from kfp_bonsai.shared.inference.asking import rows_in
from kfp_bonsai.shared.inference.writers import Written

SINGLE_ROWS = 60
FEWEST_SINGLES, PASS_SECONDS = 12, 10.0  # where a pass over more would take the baseline longer
SINGLE_PASSES, SINGLE_SECONDS = 10, 3.0  # over them: at the most, and for how long a model goes on
BATCH_SIZES, SIZE_SECONDS = (1, 8, 32, 64, 128), 0.3  # that throughput is tried at, and for how long each


def single_rows(subjects: Sequence[Subject], rows: Sequence[Batch]) -> int:
    """Time single-row requests, one model after the other for each row; `latency` is the requests' seconds.

    Returns how many rows were asked: fewer than there are, from short to long as well, where they take long.

    All rows run once before, untimed: a runtime prepares itself for each length that it has not met, and a server has
    met them all after its first minutes. Then they run until all models together have taken `SINGLE_SECONDS` each, ten
    times at the most, as a 99th percentile is of hundreds of requests.

    Args:
        subjects: all models; those with an error are left out.
        rows: batches of one row.
    """
    alive = [subject for subject in subjects if not subject.error]
    for _ in range(2):  # the first of them prepares itself
        started = time.perf_counter()
        subjects[BASELINE].predict(rows[len(rows) // 2])
    affordable = max(FEWEST_SINGLES, int(PASS_SECONDS / (time.perf_counter() - started)))
    if affordable < len(rows):
        rows = [rows[at * (len(rows) - 1) // (affordable - 1)] for at in range(affordable)]
    _each_row(alive, rows, subjects[BASELINE], timed=False)
    end = time.perf_counter() + SINGLE_SECONDS * len(alive)
    for number in range(SINGLE_PASSES):
        if number and time.perf_counter() > end:
            break
        _each_row(alive, rows, subjects[BASELINE], timed=True)
    return len(rows)


def _each_row(alive: Sequence[Subject], rows: Sequence[Batch], baseline: Subject, timed: bool) -> None:
    for number, row in enumerate(rows):
        for index in order(len(alive), number):
            subject = alive[index]
            if subject.error:
                continue
            started = time.perf_counter()
            try:
                said = subject.predict(row)
            except Exception as error:
                if subject is baseline:
                    raise
                give_up(subject, error)
                continue
            if timed:
                subject.latency.append(time.perf_counter() - started)
                if isinstance(said, Written):
                    subject.first_token.append(said.first_seconds)


def order(count: int, done: int) -> list[int]:
    """Return the order of request `done`: rotated by one every other request, and backwards in between."""
    start = (done // 2) % count
    turned = [(start + index) % count for index in range(count)]
    return turned[::-1] if done % 2 else turned


def best_batches(subjects: Sequence[Subject], batches: Sequence[Batch], seconds: float) -> None:
    """Find the batch at which each model is fastest; `best_batch` and `rows_per_second` say it.

    A size is left out where one run of it would take too long to repeat, or fails for lack of memory.

    Args:
        subjects: all models; those with an error are left out.
        batches: one of each size, the smallest first, all of rows of about the same length.
        seconds: how long each model runs at each size, at the least; its fastest run counts.
    """
    for subject in subjects:
        each_row = 0.0
        for batch in batches:
            rows = rows_in(batch)
            if subject.error or rows * each_row > 2 * seconds:
                break
            try:
                fastest = _fastest(subject, batch, seconds)
            except Exception:
                break
            each_row = fastest / rows
            if 1 / each_row > subject.rows_per_second:
                subject.best_batch, subject.rows_per_second = rows, 1 / each_row


def _fastest(subject: Subject, batch: Batch, seconds: float) -> float:
    """Return the seconds of a batch's fastest run, after one that is not counted."""
    subject.predict(batch)
    started, fastest = time.perf_counter(), float("inf")
    while (began := time.perf_counter()) - started < seconds:
        subject.predict(batch)
        fastest = min(fastest, time.perf_counter() - began)
    return fastest
