"""Which of the trials is chosen, by validation rows alone, and how sure that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna

from kfp_bonsai.propose.goals import ACCURACY, UNITS, Targets
from kfp_bonsai.propose.ground import Ground
from kfp_bonsai.propose.trials import Trial, covariance
from kfp_bonsai.shared.metrics.posterior import Belief, believed, chance_above
from kfp_bonsai.shared.metrics.statistics import Z

optuna.logging.set_verbosity(optuna.logging.ERROR)  # of every study, of which many are made

FAR = 0.15  # of relative accuracy below the best: such a model says nothing of the others
FEWEST_MEASURED, MOST_MEASURED = 3, 5  # where there are as many
HOPELESS = 0.02


@dataclass(frozen=True)
class Choice:
    """What is chosen.

    Attributes:
        trial: the trial.
        chance: the probability that it meets all targets, by the validation rows.
        accuracy: its relative accuracy as it is believed to be.
        deviation: how far that may be off.
        front: the trials to measure on test rows: the chosen one, and its neighbours on the front.
        is_sure: the chance is as large as was asked for.
    """

    trial: Trial
    chance: float
    accuracy: float
    deviation: float
    front: tuple[Trial, ...]
    is_sure: bool


def candidates(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that may be chosen: those healed to the end, or as far as any was."""
    usable = [each for each in trials if each.is_usable]
    furthest = max((each.rung for each in usable), default=0)
    return [each for each in usable if each.rung == furthest]


def beliefs(ground: Ground, trials: Sequence[Trial]) -> tuple[list[Trial], Belief | None]:
    """Return the trials that may be chosen and are not far off, and what is believed of their relative accuracies."""
    found = candidates(trials)
    best = max((each.accuracy for each in found), default=0.0)
    near = [each for each in found if each.accuracy > best - FAR]
    if not near:
        return [], None
    spread = covariance(near, int(ground.baseline["rows"]), float(ground.baseline["accuracy"]))
    emissions = [each.figures["emission"] for each in near]
    return near, believed([each.accuracy for each in near], spread, emissions)


def chances(near: Sequence[Trial], belief: Belief, targets: Targets) -> list[float]:
    """Return the probability that each trial meets all targets."""
    return [
        (belief.chance(at, targets.min_accuracy) if targets.min_accuracy else 1.0) * _affordable(each, targets)
        for at, each in enumerate(near)
    ]


def choose(ground: Ground, trials: Sequence[Trial], targets: Targets) -> Choice | None:
    """Return what is chosen: the best by the objective of those that are likely enough to meet the targets.

    Where none is, the likeliest; where none is any likely, the one that misses by least. None if there is no trial.
    """
    near, belief = beliefs(ground, trials)
    if belief is None:
        return None
    found = chances(near, belief, targets)
    sure = [at for at in range(len(near)) if found[at] >= targets.confidence]

    def worth(at: int) -> float:
        return -float(belief.means[at]) if targets.objective == ACCURACY else float(near[at].figures[targets.cost])

    def misses(at: int) -> float:
        over = sum(max(0.0, one) for one in targets.excess(near[at].figures).values())
        return over + max(0.0, targets.min_accuracy - float(belief.means[at])) * 10

    if sure:
        chosen = min(sure, key=worth)
    elif max(found) > HOPELESS:
        chosen = max(range(len(near)), key=lambda at: found[at])
    else:
        chosen = min(range(len(near)), key=misses)
    deviation = math.sqrt(float(belief.variances[chosen]))
    around = front(near, [float(one) for one in belief.means], targets, near[chosen])
    return Choice(near[chosen], found[chosen], float(belief.means[chosen]), deviation, around, bool(sure))


def front(near: Sequence[Trial], accuracies: Sequence[float], targets: Targets, chosen: Trial) -> tuple[Trial, ...]:
    """Return the chosen trial and its neighbours among those that no other beats both ways, up to five in all."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    for at, each in enumerate(near):
        study.add_trial(
            optuna.trial.create_trial(values=[accuracies[at], each.figures[targets.cost]], user_attrs={"at": at})
        )
    best = sorted((near[one.user_attrs["at"]] for one in study.best_trials), key=lambda one: one.figures[targets.cost])
    position = chosen.figures[targets.cost]
    others = [one for one in best if one.number != chosen.number]
    if len(others) < FEWEST_MEASURED - 1:
        others += [one for one in near if one.number != chosen.number and one not in others]
        others = others[: FEWEST_MEASURED - 1]
    others.sort(key=lambda one: abs(math.log(one.figures[targets.cost] / position)))
    found = [chosen, *others[: MOST_MEASURED - 1]]
    return tuple(sorted(found, key=lambda one: -one.figures[targets.cost]))


def impossible(ground: Ground, trials: Sequence[Trial], targets: Targets) -> str:
    """Return why the targets cannot be met, as far as the trials have shown it; "" while they may be.

    It is said once the smallest model is too dear, or models that cost all that they may fall far short.
    """
    usable = [each for each in trials if each.is_usable]
    smallest = min(usable, key=lambda one: one.figures["emission"], default=None)
    if smallest and "share" in smallest.point and not any(targets.affordable(one.figures) for one in usable):
        at_least = min(low for one in ground.limits.values() for low, _ in one.values())
        if smallest.point["share"] <= 1.1 * at_least:
            return _too_dear(smallest, targets)
    near, belief = beliefs(ground, [each for each in usable if each.is_whole])
    if belief is None or not targets.min_accuracy:
        return ""
    affordable = [at for at, each in enumerate(near) if targets.affordable(each.figures)]
    hopes = [belief.chance(at, targets.min_accuracy) for at in affordable]
    full = [at for at in affordable if _at_the_limit(near[at], ground, targets)]
    if len(full) >= 2 and max(hopes) < HOPELESS:
        best = max(affordable, key=lambda at: float(belief.means[at]))
        return (
            f"models that cost as much as they may keep {100 * float(belief.means[best]):.1f} % of the accuracy at the "
            f"most (trial {near[best].name}), of {100 * targets.min_accuracy:.4g} % that are asked for"
        )
    return ""


def _at_the_limit(trial: Trial, ground: Ground, targets: Targets) -> bool:
    """Return whether a trial costs about what it may, so that a larger one would be too dear."""
    room = [-over for over in targets.excess(trial.figures).values()]
    if room:
        return min(room) < 0.2
    return bool(trial.figures["emission"] > 0.75 * ground.int8.get("emission", 1.0))


def _too_dear(trial: Trial, targets: Targets) -> str:
    over = targets.excess(trial.figures)
    figure = max(over, key=lambda one: over[one])
    value, unit = trial.figures.get(figure), UNITS[figure]
    if value is None:
        return f"the smallest model's {figure.replace('_', ' ')} could not be measured"
    most = targets.limits[figure]
    return f"the smallest model takes {value:.4g}{unit} of {figure.partition('_')[0]}, more than {most:g}{unit}"


def _affordable(trial: Trial, targets: Targets) -> float:
    """Return the probability that a trial keeps to the limits: the emission was measured with an interval."""
    over = targets.excess(trial.figures)
    found = 1.0
    for figure, value in over.items():
        ends: Any = trial.figures.get("emission_ci") if figure == "emission" else None
        if ends and 0 < ends[0] < ends[1]:
            deviation = math.log(ends[1] / ends[0]) / 2 / Z
            found *= chance_above(-value, deviation, 0.0)
        else:
            found *= float(value <= 0)
    return found
