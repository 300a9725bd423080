"""What to try next: healing those further that are worth it, else new points of the space.

The study is built anew from the trials each time, by Optuna: its successive halving (arXiv 1810.05934) says which
trials are healed further, and its Gaussian process with constraints (arXiv 2310.20708, 1403.4265) which point comes
next. Nothing is kept between two calls, so that any process can go on with a search.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import optuna

from kfp_bonsai.propose.choose import impossible
from kfp_bonsai.propose.goals import ACCURACY, Targets
from kfp_bonsai.propose.ground import Ground
from kfp_bonsai.propose.trials import RUNGS, Trial, corrected, foreseen, gains

HALVING = 2
ASKS = 8  # of the sampler, for a point that was not tried yet
ALIKE = 0.04  # shares whose logarithms differ by less are one point
WORTH = 300.0  # of a miss of accuracy by 1, in logarithms of the cost: no saving makes up for more than a little
SPARE = 0.7  # what a margin is of the validation rows' own error, as the line through all trials makes that less
FIRST = 3  # points to begin with
FEWEST_WHOLE = 3  # trials healed to the end


@dataclass(frozen=True)
class Job:
    """Something to do: a new trial, or one to heal further.

    Attributes:
        number: the trial's number; -1 for nothing to do.
        rung: the rung to heal it to.
        order: how many were done before it.
        point: of a new trial.
        parent: the trial whose model it starts from; -1 for the baseline.
        share: of the whole distillation, to heal now.
    """

    number: int
    rung: int
    order: int
    point: Mapping[str, Any]
    parent: int
    share: float

    def as_record(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "point": dict(self.point)}


def next_jobs(
    ground: Ground, trials: Sequence[Trial], targets: Targets, jobs: int, seed: int, *, fresh: bool = True
) -> list[Job]:
    """Return what to do next, at most so many jobs; none where nothing is worth doing.

    Args:
        ground: what the search stands on.
        trials: all so far.
        targets: what is asked for.
        jobs: how many can be done at the same time.
        seed: of the sampler.
        fresh: whether new trials may be begun, or only those healed further that are there.
    """
    order = sum(len(each.healed) or 1 for each in trials)
    found = [_healing(each, order + at) for at, each in enumerate(promoted(ground, trials, targets)[:jobs])]
    hopeless = bool(impossible(ground, trials, targets))
    if fresh and not hopeless:
        found += _fresh(ground, trials, targets, jobs - len(found), order + len(found), seed)
    if not found and not hopeless:  # a choice, and a front, are of more than one that was healed to the end
        found = [_healing(each, order + at) for at, each in enumerate(_worth_knowing(ground, trials, targets)[:jobs])]
    return found


def _fresh(ground: Ground, trials: Sequence[Trial], targets: Targets, jobs: int, order: int, seed: int) -> list[Job]:
    """Return at most so many new trials."""
    found: list[Job] = []
    number = max((each.number for each in trials), default=-1) + 1
    asked: list[Mapping[str, Any]] = []
    while len(found) < jobs:
        point = _new_point(ground, trials, targets, asked, seed + 1000 * number)
        if point is None:
            break
        asked.append(point)
        parent = -1 if "model" in point else parent_of(ground, point, trials)
        found.append(Job(number, 0, order + len(found), point, parent, RUNGS[0]))
        number += 1
    return found


def _worth_knowing(ground: Ground, trials: Sequence[Trial], targets: Targets) -> list[Trial]:
    """Return dropped trials that are healed to the end after all, the most promising first: until there are three."""
    usable = [each for each in trials if each.is_usable and _worth_healing(each, targets)]
    if sum(each.is_whole for each in usable) >= FEWEST_WHOLE:
        return []
    gained = gains(trials, ground)
    dropped = [each for each in usable if each.may_go_on]
    return sorted(dropped, key=lambda one: score(one, foreseen(one, gained), targets))


def promoted(ground: Ground, trials: Sequence[Trial], targets: Targets) -> list[Trial]:
    """Return the trials that successive halving heals further, the most promising first."""
    gained = gains(trials, ground)
    usable = {each.number: each for each in trials if each.is_usable and _worth_healing(each, targets)}
    events = sorted((one["order"], number, at) for number, each in usable.items() for at, one in enumerate(each.healed))
    study = optuna.create_study(
        direction="minimize", pruner=optuna.pruners.SuccessiveHalvingPruner(1, reduction_factor=HALVING)
    )
    running: dict[int, optuna.Trial] = {}
    stopped: dict[int, bool] = {}
    for _, number, at in events:
        each = usable[number]
        one = each.healed[at]
        trial = running.setdefault(number, study.ask())
        value = score(each, float(one["relative_accuracy"]) + gained[one["rung"]], targets)
        trial.report(value, HALVING ** one["rung"])
        stopped[number] = trial.should_prune()
    alive = [usable[number] for number, is_stopped in stopped.items() if not is_stopped]
    alive = [each for each in alive if each.may_go_on]
    return sorted(alive, key=lambda one: score(one, foreseen(one, gained), targets))


def score(trial: Trial, accuracy: float, targets: Targets) -> float:
    """Return how a trial does by what is asked for, its accuracy surely enough; lower is better."""
    over = sum(max(0.0, one) for one in targets.excess(trial.figures).values())
    if targets.objective == ACCURACY:
        return -WORTH * accuracy + 10 * over
    missing = max(0.0, targets.min_accuracy + margin([trial], targets) - accuracy)
    return math.log(trial.figures[targets.cost]) + WORTH * missing + 10 * over


def margin(trials: Sequence[Trial], targets: Targets) -> float:
    """Return by how much validation rows must say more than the target for it to be met as surely as is asked for."""
    errors = [float(np.std(each.draws)) for each in trials]
    if not errors or not targets.min_accuracy:
        return 0.0
    return SPARE * NormalDist().inv_cdf(targets.confidence) * float(np.median(errors))


def parent_of(ground: Ground, point: Mapping[str, Any], trials: Sequence[Trial]) -> int:
    """Return the trial to start from: of as many layers, larger, and nearest; -1 for the baseline.

    What was healed there is not healed again. A free model cannot become stock, nor a stock one that is narrower free.
    """
    found = [
        each
        for each in trials
        if each.is_usable
        and each.point.get("layers") == point["layers"]
        and (each.point["share"] == 1 or each.point["shape"] == point["shape"] == "free")
        and ground.emission(each.point) > 1.05 * ground.emission(point)
    ]
    nearest = min(found, key=lambda one: (ground.emission(one.point), -one.rung), default=None)
    return nearest.number if nearest else -1


def _healing(trial: Trial, order: int) -> Job:
    rung = trial.rung + 1
    return Job(trial.number, rung, order, trial.point, trial.parent, RUNGS[rung] - RUNGS[rung - 1])


def _worth_healing(trial: Trial, targets: Targets) -> bool:
    """Return whether a trial is not too dear already: what it costs does not change while it is healed."""
    return all(over <= 0.03 for over in targets.excess(trial.figures).values())


def _new_point(
    ground: Ground, trials: Sequence[Trial], targets: Targets, asked: Sequence[Mapping[str, Any]], seed: int
) -> dict[str, Any] | None:
    """Return a point that was not tried: one to begin with, a probe of the smallest, or what the sampler asks for."""
    known = [*(each.point for each in trials), *asked]
    for model in ground.rivals:
        if not any(one.get("model") == model for one in known):
            return {"model": model}
    own = [one for one in known if "model" not in one]
    if len(own) < FIRST:
        for point in _beginnings(ground, trials, targets):
            if not any(_alike(point, one) for one in own):
                return point
    probe = _smallest(ground)
    dear = [each for each in trials if each.is_usable and "model" not in each.point]
    too_dear = len(dear) > 1 and not any(targets.affordable(one.figures) for one in dear)
    if too_dear and not any(_alike(probe, one) for one in own):
        return probe
    for point in _sampled(ground, trials, targets, [one for one in asked if "model" not in one], seed):
        if not any(_alike(point, one) for one in own):
            return point
    return None


def _beginnings(ground: Ground, trials: Sequence[Trial], targets: Targets) -> list[dict[str, Any]]:
    """Return points to begin with: at what like models needed for the target, with more or fewer layers."""
    shape = ground.shapes[0]
    share = (ground.needs(targets.min_accuracy) if targets.min_accuracy else None) or 0.5
    ratio = ground.int8.get("emission", 1.0) * corrected(trials)
    if targets.max_emission:
        limit = 0.95 * targets.max_emission / ratio
        share = limit if targets.objective == ACCURACY else min(share, limit)
    half = max(1, round(ground.layers / 2))
    counts = dict.fromkeys([half, max(1, round(ground.layers / 3)), max(1, round(ground.layers * 2 / 3))])
    begun = [dict(one) for one in ground.begin if one.get("shape") in ground.limits and one["layers"] <= ground.layers]
    found = [ground.settled(one) for one in begun]
    for layers in counts:
        most = ground.bounds(shape, layers)[1]
        if share <= 1.3 * most:
            found.append(ground.settled({"layers": layers, "share": min(share, most), "shape": shape}))
    found.append(ground.settled({"layers": half, "share": 0.6 * share, "shape": shape}))
    found.append(ground.settled({"layers": ground.layers, "share": min(1.0, 1.6 * share), "shape": shape}))
    return found


def _smallest(ground: Ground) -> dict[str, Any]:
    least = {(shape, layers): low for shape, one in ground.limits.items() for layers, (low, _) in one.items()}
    shape, layers = min(least, key=lambda key: least[key])
    return ground.settled({"layers": int(layers), "share": least[shape, layers], "shape": shape})


def _sampled(
    ground: Ground, trials: Sequence[Trial], targets: Targets, asked: Sequence[Mapping[str, Any]], seed: int
) -> Iterator[dict[str, Any]]:
    """Yield points that Optuna's sampler asks for, given the trials and what was asked for and is not tried yet."""
    space = space_of(ground)
    sampler = optuna.samplers.GPSampler(seed=seed % 2**32, n_startup_trials=1, warn_independent_sampling=False)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    for one in told(ground, trials, targets):
        study.add_trial(one)
    for point in asked:
        study.enqueue_trial(_parameters(point, space))
        study.ask(space)
    for _ in range(ASKS):
        yield ground.settled({"shape": ground.shapes[0], **study.ask(space).params})


def space_of(ground: Ground) -> dict[str, optuna.distributions.BaseDistribution]:
    """Return the space that is searched."""
    low = min(one for shape in ground.limits.values() for one, _ in shape.values())
    space: dict[str, optuna.distributions.BaseDistribution] = {
        "layers": optuna.distributions.IntDistribution(1, ground.layers),
        "share": optuna.distributions.FloatDistribution(min(low, 0.9), 1.0, log=True),
    }
    if len(ground.shapes) > 1:
        space["shape"] = optuna.distributions.CategoricalDistribution(ground.shapes)
    return space


def told(ground: Ground, trials: Sequence[Trial], targets: Targets) -> list[optuna.trial.FrozenTrial]:
    """Return the trials as Optuna's: each with the accuracy that it is likely to have at the end, as a constraint."""
    space, gained = space_of(ground), gains(trials, ground)
    usable = [each for each in trials if each.is_usable and "model" not in each.point]
    spare = margin(usable, targets)
    found = []
    for each in usable:
        accuracy = foreseen(each, gained)
        constraints = {figure: min(over, 3.0) for figure, over in targets.excess(each.figures).items()}
        if targets.min_accuracy:
            constraints["accuracy"] = targets.min_accuracy + spare - accuracy
        value = -accuracy if targets.objective == ACCURACY else math.log(each.figures[targets.cost])
        parameters = _parameters(each.point, space)
        found.append(
            optuna.trial.create_trial(
                params=parameters,
                distributions=space,
                value=value,
                constraints=constraints,
                user_attrs={"of": each.number},
            )
        )
    return found


def _parameters(point: Mapping[str, Any], space: Mapping[str, optuna.distributions.BaseDistribution]) -> dict[str, Any]:
    return {name: point[name] for name in space}


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if "model" in one or "model" in other:
        return one.get("model") == other.get("model")
    same = one["layers"] == other["layers"] and one["shape"] == other["shape"]
    return same and abs(math.log(one["share"] / other["share"])) < ALIKE


def worths(ground: Ground, trials: Sequence[Trial], targets: Targets) -> dict[str, float]:
    """Return what each parameter was worth: the share of the variance of how trials did that it explains (fANOVA).

    Nothing where there are too few trials to tell.
    """
    study = optuna.create_study(direction="minimize")
    gained = gains(trials, ground)
    by_number = {each.number: each for each in trials}
    for one in told(ground, trials, targets):
        each = by_number[one.user_attrs["of"]]
        study.add_trial(
            optuna.trial.create_trial(
                params=one.params, distributions=one.distributions, value=score(each, foreseen(each, gained), targets)
            )
        )
    if len(study.trials) < 4 or len({one.value for one in study.trials}) < 2:
        return {}
    try:
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
    except (ValueError, RuntimeError):
        return {}
    return {name: float(value) for name, value in found.items()}
