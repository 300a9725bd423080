"""Intervals and tests: nothing in a report stands without one."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kfp_bonsai.shared.core.errors import BonsaiError

CONFIDENCE = 0.95
Z = 1.959964  # of a two-sided interval of 95 %
SIGNED_RANK_PAIRS = 10
RESAMPLES = 2000
Score = Callable[[np.ndarray], float]  # of a table of numbers a row, as metrics make them


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval's width as a fraction of the estimate."""
        return (self.high - self.low) / 2 / abs(self.value) if self.value else float("inf")

    def covers(self, truth: float) -> bool:
        """Return whether a value lies inside the interval."""
        return self.low <= truth <= self.high


def ratio(pairs: Sequence[Sequence[float]]) -> Interval:
    """Return the ratio of the second to the first of pairs: Hodges and Lehmann's estimate on the logarithms.

    It is the median of all means of two, with the interval that belongs to Wilcoxon's signed-rank test (Hollander,
    Wolfe and Chicken, Nonparametric Statistical Methods, 3rd ed., section 3.2): a neighbour's burst spoils a pair or
    two, not the estimate. In simulations of ten pairs with normal, heavy-tailed and spiky noise it covers the truth in
    94 to 95 of 100, and strays half as far as the geometric mean where tails are heavy; the bootstrap over pairs covers
    it in 83 to 91. Fewer than ten pairs get the geometric mean and Student's t.

    Args:
        pairs: positive numbers, two or more pairs.

    Raises:
        BonsaiError: fewer than two pairs, or a number that is not above zero.
    """
    values = np.asarray(pairs, dtype=float)
    if len(values) < 2:
        raise BonsaiError(f"a ratio with an interval needs two pairs or more, not {len(values)}")
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise BonsaiError("a block's energy was not above zero: measure longer blocks (--block-seconds)")
    logs = np.log(values[:, 1] / values[:, 0])
    found = _signed_rank(logs) if len(logs) >= SIGNED_RANK_PAIRS else mean(logs)
    return Interval(*(float(np.exp(one)) for one in (found.value, found.low, found.high)))


def method(pairs: int) -> str:
    """Return the name of what `ratio` does with so many pairs."""
    return "Hodges and Lehmann's estimate with Wilcoxon's interval" if pairs >= SIGNED_RANK_PAIRS else "Student's t"


def _signed_rank(values: np.ndarray) -> Interval:
    """Return Hodges and Lehmann's estimate of the centre, with its interval."""
    count = len(values)
    first, second = np.triu_indices(count)
    means = np.sort((values[first] + values[second]) / 2)
    chances = np.zeros(len(means) + 1)  # that the positive ranks add up to 0, 1, 2, ...
    chances[0] = 1
    for rank in range(1, count + 1):
        chances[rank:] += chances[:-rank].copy()
        chances /= 2
    left_out = int(np.searchsorted(np.cumsum(chances), (1 - CONFIDENCE) / 2, side="right"))
    return Interval(float(np.median(means)), float(means[left_out - 1]), float(means[-left_out]))


def mean(values: Sequence[float]) -> Interval:
    """Return the mean with Student's interval."""
    from scipy import stats

    found = np.asarray(values, dtype=float)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found))
    return Interval(float(found.mean()), float(found.mean() - half), float(found.mean() + half))


def mean_of_means(groups: Sequence[Sequence[tuple[float, Sequence[float] | None]]]) -> tuple[float, Interval | None]:
    """Return the mean of some groups' means, each counting once, with the interval that repeating it would give.

    Groups are tasks, and what is in them seeds: each group's variance is that of its seeds, or where it has but one,
    that of the seed's own interval. Variances add up, and Student's degrees of freedom are Welch and Satterthwaite's.
    The interval is that of other seeds on these groups; what other groups would give, it does not say.

    Args:
        groups: of each its values, each with its own 95 % interval, or None.

    Returns:
        The mean, and its interval; None where a group has one value and no interval.
    """
    from scipy import stats

    value = float(np.mean([np.mean([one for one, _ in group]) for group in groups]))
    variances, freedom = [], []
    for group in groups:
        if len(group) > 1:
            variances.append(float(np.var([one for one, _ in group], ddof=1)) / len(group))
            freedom.append(len(group) - 1.0)
        elif group[0][1] is not None:
            low, high = group[0][1]
            variances.append(((high - low) / 2 / Z) ** 2)
            freedom.append(math.inf)
        else:
            return value, None
    total = sum(variances)
    parts = sum(one * one / degrees for one, degrees in zip(variances, freedom, strict=True))
    degrees = total * total / parts if parts else math.inf
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees)) * math.sqrt(total) / len(groups)
    return value, Interval(value, value - half, value + half)


def share(hits: int, rows: int) -> Interval:
    """Return a share with Wilson's interval, which is right near 0 and 1 and for few rows too."""
    fraction = hits / rows
    centre = (fraction + Z * Z / (2 * rows)) / (1 + Z * Z / rows)
    half = Z / (1 + Z * Z / rows) * np.sqrt(fraction * (1 - fraction) / rows + Z * Z / (4 * rows * rows))
    return Interval(fraction, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def bootstrap(score: Score, table: np.ndarray, seed: int = 0) -> Interval:
    """Return a score with its percentile bootstrap interval over rows.

    Args:
        score: gives the score of a table.
        table: numbers a row.
        seed: seed of the resampling.
    """
    return _percentiles(score(table), [score(table[rows]) for rows in _resamples(len(table), seed)])


def relative_score(score: Score, baseline: np.ndarray, candidate: np.ndarray, seed: int = 0) -> Interval:
    """Return score(candidate) / score(baseline) with its interval: a bootstrap that draws the same rows for both.

    Args:
        score: gives the score of a table.
        baseline: the baseline's table, numbers a row.
        candidate: the other model's, of the same rows.
        seed: seed of the resampling.

    Raises:
        BonsaiError: the baseline's score is not above zero.
    """
    whole = score(baseline)
    check_baseline(whole)
    values = []
    for rows in _resamples(len(baseline), seed):
        below = score(baseline[rows])
        if below > 0:
            values.append(score(candidate[rows]) / below)
    return _percentiles(score(candidate) / whole, values)


def relative_draws(
    score: Score, baseline: np.ndarray, candidate: np.ndarray, count: int, seed: int = 0
) -> tuple[float, list[float]]:
    """Return score(candidate) / score(baseline), and what it is on resampled rows: of one seed the same for all models.

    Args:
        score: gives the score of a table.
        baseline: the baseline's table, numbers a row.
        candidate: the other model's, of the same rows.
        count: how many resamples.
        seed: seed of the resampling.

    Raises:
        BonsaiError: the baseline's score is not above zero.
    """
    whole = score(baseline)
    check_baseline(whole)
    random, drawn = np.random.default_rng(seed), []
    for _ in range(count):
        rows = random.integers(0, len(baseline), len(baseline))
        below = score(baseline[rows])
        drawn.append(score(candidate[rows]) / (below if below > 0 else whole))
    return score(candidate) / whole, drawn


def score_difference(score: Score, baseline: np.ndarray, candidate: np.ndarray, seed: int = 0) -> Interval:
    """Return score(candidate) - score(baseline) with its interval, for a baseline whose score nothing is relative to.

    The arguments are those of `relative_score`.
    """
    values = [score(candidate[rows]) - score(baseline[rows]) for rows in _resamples(len(baseline), seed)]
    return _percentiles(score(candidate) - score(baseline), values)


def check_baseline(score: float) -> None:
    """Check that scores can be relative to the baseline's.

    Raises:
        BonsaiError: the baseline's score is not above zero.
    """
    if not score > 0:
        raise BonsaiError(
            f"the baseline's score is {score:.3g}, so nothing can be relative to it: fine-tune it longer, or check "
            "that the test split's labels are those it was trained on"
        )


def mcnemar(baseline_right: np.ndarray, candidate_right: np.ndarray) -> float:
    """Return the exact McNemar p-value that two classifiers err equally often, from which rows each got right."""
    from scipy import stats

    lost = int(np.sum(baseline_right & ~candidate_right))
    won = int(np.sum(~baseline_right & candidate_right))
    if lost + won == 0:
        return 1.0
    return float(stats.binomtest(min(lost, won), lost + won, 0.5).pvalue)


def net_loss_limit(lost: int, won: int, rows: int) -> float:
    """Return the upper 95 % limit of (lost - won) / rows, for rows that were drawn from many more.

    It is that of Tango's score interval for paired shares (T. Tango, Statistics in Medicine 17, 1998, 891-908): the
    loss at which the rows seen would just be too good. It is right for few rows too; with none lost or won it is
    Z^2 / (rows + Z^2), a little above the rule of three.

    Args:
        lost: rows that only the first model got right.
        won: rows that only the second one did.
        rows: all rows.
    """
    from scipy.optimize import brentq

    if lost == rows:
        return 1.0

    def room(loss: float) -> float:
        """Return how far the rows seen are from being too good for this loss; below 0 they are."""
        spread = loss * (1 - loss)
        linear = (2 * rows - lost + won) * loss - lost - won
        winning = (math.sqrt(max(0.0, linear * linear + 8 * rows * won * spread)) - linear) / (4 * rows)
        return lost - won - rows * loss + Z * math.sqrt(max(0.0, rows * (2 * winning + spread)))

    return float(brentq(room, (lost - won) / rows + 1e-9, 1.0))


def rows_to_rule_out(loss: float) -> int:
    """Return how many rows `net_loss_limit` needs to be below a loss where none was lost or won."""
    return math.ceil(Z * Z * (1 - loss) / loss)


def rows_for_even_odds(loss: float, differing: float) -> int:
    """Return how many rows rule out a loss of right answers for half of the models that are in truth as good.

    Args:
        loss: share of all rows.
        differing: share of rows that only one of both models gets right; their difference has that variance a row.
    """
    return math.ceil(Z * Z * differing / loss**2)


def _percentiles(value: float, resampled: Sequence[float]) -> Interval:
    """Return a score with the interval that the scores of the resamples give."""
    low, high = np.nanquantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(value), float(low), float(high))


def _resamples(rows: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the rows of each resample; fewer resamples of very large sets, where they hardly differ."""
    random = np.random.default_rng(seed)
    count = RESAMPLES if rows <= 5000 else max(200, RESAMPLES * 5000 // rows)
    return (random.integers(0, rows, rows) for _ in range(count))
