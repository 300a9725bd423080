"""What is believed of the best of many: as often true as it says."""

import numpy as np
import pytest

from kfp_bonsai.shared.metrics.posterior import believed, chance_above, updated
from kfp_bonsai.shared.metrics.statistics import relative_draws


def worlds(count: int, seed: int):
    """Yield made-up searches: true relative accuracies, emissions, what 400 or 1,000 rows say, and their covariance."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        models, rows = int(random.integers(3, 9)), random.choice([400, 1000])
        emissions = np.exp(random.uniform(np.log(0.05), np.log(0.7), models))
        line = 1 + random.normal(0, 0.01) + random.uniform(0.004, 0.02) * np.log(emissions)
        true = line + random.normal(0, random.choice([0.003, 0.008]), models)
        variance = 0.1 / rows / 0.85**2
        covariance = variance * (0.4 + 0.6 * np.eye(models))
        yield true, emissions, random.multivariate_normal(true, covariance), covariance, random


def test_of_models_that_are_called_80_percent_sure_about_80_percent_meet_the_target():
    """A probability that is none: the winner's curse makes the best of many seem surer than it is."""
    called, met, naive = [], [], []
    for true, emissions, seen, covariance, random in worlds(1200, seed=0):
        target = random.choice([0.99, 0.98, 0.97])
        belief = believed(seen, covariance, emissions)
        chances = [belief.chance(at, target) for at in range(len(seen))]
        sure = [at for at in range(len(seen)) if chances[at] >= 0.8]
        chosen = min(sure, key=lambda at: emissions[at]) if sure else int(np.argmax(chances))
        called.append(chances[chosen])
        met.append(true[chosen] >= target)
        meeting = np.flatnonzero(seen >= target)
        if len(meeting):
            naive.append(true[meeting[np.argmin(emissions[meeting])]] >= target)
    called, met = np.array(called), np.array(met)
    for low, high in ((0.4, 0.7), (0.7, 0.85), (0.85, 0.95), (0.95, 1.01)):
        among = (called >= low) & (called < high)
        assert among.sum() > 40 and met[among].mean() == pytest.approx(called[among].mean(), abs=0.09)
    assert met[called < 0.4].mean() == pytest.approx(called[called < 0.4].mean(), abs=0.15)
    assert np.mean(naive) < 0.7, "choosing by what the rows say would do: the test is of nothing"


def test_after_other_rows_have_spoken_it_is_still_as_often_true_as_it_says():
    """Test rows that are taken for all, or for nothing."""
    called, met = [], []
    for true, emissions, seen, covariance, random in worlds(800, seed=1):
        belief = believed(seen, covariance, emissions)
        error = float(np.sqrt(0.1 / 2000)) / 0.85
        at = int(np.argmax(belief.means))
        mean, deviation = updated(belief.means[at], belief.variances[at] ** 0.5, random.normal(true[at], error), error)
        assert deviation < min(error, belief.variances[at] ** 0.5)
        called.append(chance_above(mean, deviation, 0.985))
        met.append(true[at] >= 0.985)
    called, met = np.array(called), np.array(met)
    middle = (called > 0.3) & (called < 0.9)
    assert middle.sum() > 80 and met[middle].mean() == pytest.approx(called[middle].mean(), abs=0.1)


def test_rows_that_say_all_are_believed():
    """What thousands of rows say that is drawn away from it."""
    belief = believed([0.98, 0.95, 0.99], np.eye(3) * 1e-10, [0.3, 0.1, 0.5])
    assert belief.means == pytest.approx([0.98, 0.95, 0.99], abs=1e-4)


def test_draws_of_one_seed_are_of_the_same_rows():
    """Two models' errors that seem to be of their own, though they are those of the same hard rows."""
    random = np.random.default_rng(0)
    right = (random.random((500, 1)) < 0.9).astype(float)
    other = right.copy()
    other[:10] = 1 - other[:10]
    mean = lambda table: float(table.mean())  # noqa: E731
    value, draws = relative_draws(mean, right, other, 200)
    again = relative_draws(mean, right, other, 200)[1]
    assert draws == again and value == pytest.approx(mean(other) / mean(right))
    assert np.std(draws) < 0.012  # of pairs; unpaired it would be 0.02
