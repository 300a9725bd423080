"""What a search proposes and chooses, on trials that are made up: no model is trained here."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from propose_ground import GROUND

from kfp_bonsai.propose.choose import choose, impossible
from kfp_bonsai.propose.goals import targets_of
from kfp_bonsai.propose.ground import Ground, check_possible, read_ground, write_ground
from kfp_bonsai.propose.next import next_jobs, parent_of, promoted, worths
from kfp_bonsai.propose.propose import JOBS, NOTHING, propose
from kfp_bonsai.propose.trials import LAST, RECORD, RUNGS, TRIALS, Trial, gains, read_trials, write_trial
from kfp_bonsai.shared.core.errors import BonsaiError


def keeps(layers: int, share: float) -> float:
    """The truth of this world: more costs more, and layers that are narrow keep more than few that are wide."""
    return 1.0 + 0.012 * math.log(share) - 0.004 * abs(layers - 3)


def trial(
    number: int, layers: int, share: float, rung: int = LAST, kept: float | None = None, error: str = ""
) -> Trial:
    """A trial that was healed so far, with what its rows say drawn about the truth."""
    chance = np.random.default_rng(number)
    truth = keeps(layers, share) if kept is None else kept
    spread = 0.008
    healed = []
    for at in range(rung + 1):
        value = truth - (0.02, 0.006, 0.0)[at] + chance.normal(0, 0.002)
        draws = [float(one) for one in value + chance.normal(0, spread, 100)]
        healed.append(
            {
                "rung": at,
                "order": 10 * number + at,
                "relative_accuracy": value,
                "draws": draws,
                "seconds": 1.0,
                "joules": 2.0,
            }
        )
    figures = {
        "emission": share * 1.02,
        "emission_ci": [share, share * 1.04],
        "latency_ms": 10 * share,
        "size_mb": 45 + 45 * share,
    }
    point = {"layers": layers, "share": share, "shape": "free"}
    return Trial(number, point, healed=[] if error else healed, figures=figures, predicted=share, error=error)


def searched(targets, trials: int, seed: int = 0) -> list[Trial]:
    """Do what is proposed in this world, one job after another."""
    known: dict[int, Trial] = {}
    for _ in range(3 * trials):
        jobs = next_jobs(GROUND, [*known.values()], targets, 1, seed, fresh=len(known) < trials)
        if not jobs:
            break
        (job,) = jobs
        point = job.point
        known[job.number] = trial(job.number, point["layers"], min(point["share"], point["layers"] / 6), job.rung)
    return [*known.values()]


def test_a_search_comes_near_the_best_that_meets_the_target():
    """A sampler that never sees the target: it spends its trials where nothing meets it, or far above it."""
    targets = targets_of({"min_accuracy": 0.97, "confidence": 0.8})
    trials = searched(targets, 12)
    choice = choose(GROUND, trials, targets)
    assert choice.is_sure and keeps(choice.trial.point["layers"], choice.trial.point["share"]) >= 0.965
    best = math.exp(-0.03 / 0.012)  # of three layers
    assert choice.trial.figures["emission"] < 3.2 * best


def test_few_are_healed_to_the_end():
    """Successive halving that promotes all: every trial gets the whole distillation."""
    trials = searched(targets_of({"min_accuracy": 0.97}), 12)
    assert 1 <= sum(each.is_whole for each in trials) <= 7 < len(trials)


def test_what_is_proposed_depends_on_the_trials_alone(tmp_path):
    """A search that cannot go on in another process, as what it knew is lost."""
    targets, trials = targets_of({"min_accuracy": 0.97}), [trial(at, 2 + at % 3, 0.1 * (at + 1)) for at in range(5)]
    one, two = (next_jobs(GROUND, trials, targets, 3, seed=4) for _ in range(2))
    assert one == two and len({json.dumps(dict(job.point), sort_keys=True) for job in one}) == 3


def test_healing_that_was_seen_is_expected_of_others():
    """Ranks flip after distillation: a trial that was healed shortly is held against the target as if it were done."""
    trials = [trial(at, 3, 0.2 + 0.1 * at) for at in range(4)]
    short, longer, none = gains(trials, GROUND)
    assert 0.01 < short < 0.03 and 0.002 < longer < 0.012 and none == 0


def test_a_trial_that_is_too_dear_is_healed_no_further():
    """Healing changes no cost: what emits too much now still does after hours."""
    targets = targets_of({"min_accuracy": 0.9, "max_emission": 0.2})
    assert not promoted(GROUND, [trial(0, 3, 0.5, rung=0)], targets)
    assert promoted(GROUND, [trial(0, 3, 0.15, rung=0)], targets)


def test_a_trial_starts_from_the_nearest_larger_one_of_as_many_layers():
    """A warm start from another depth, from a smaller model, or from one that is not there."""
    trials = [trial(0, 3, 0.5), trial(1, 3, 0.3), trial(2, 2, 0.3), trial(3, 3, 0.1), trial(4, 3, 0.25, error="broken")]
    assert parent_of(GROUND, {"layers": 3, "share": 0.2, "shape": "free"}, trials) == 1
    assert parent_of(GROUND, {"layers": 3, "share": 0.6, "shape": "free"}, trials) == -1
    assert parent_of(GROUND, {"layers": 3, "share": 0.2, "shape": "stock"}, trials) == -1


def test_the_best_of_many_by_luck_is_not_called_sure():
    """The winner's curse: of ten models at 0.975 the luckiest seems to keep 0.99."""
    trials = [trial(at, 3, 0.2 + 0.01 * at, kept=0.975) for at in range(9)]
    lucky = trial(9, 3, 0.2, kept=0.99)
    choice = choose(GROUND, [*trials, lucky], targets_of({"min_accuracy": 0.985}))
    assert choice.trial.number == 9 and choice.accuracy < 0.988 and not choice.is_sure


def test_what_costs_too_much_is_not_chosen():
    """A limit that was stated and not kept to, though a model that does is there."""
    trials = [trial(0, 3, 0.6), trial(1, 3, 0.3), trial(2, 2, 0.1)]
    choice = choose(GROUND, trials, targets_of({"max_latency_ms": 4.0}))
    assert choice.trial.number == 1 and choice.chance == 1
    choice = choose(GROUND, trials, targets_of({"max_size_mb": 50.0, "max_emission": 0.5}))
    assert choice.trial.number == 2


def test_a_failed_trial_is_no_candidate():
    """One broken trial that ends a search, or is chosen."""
    targets = targets_of({"min_accuracy": 0.9})
    trials = [trial(0, 3, 0.2, error="out of memory"), trial(1, 3, 0.3)]
    assert choose(GROUND, trials, targets).trial.number == 1
    assert choose(GROUND, trials[:1], targets) is None
    (job,) = next_jobs(GROUND, trials[:1], targets, 1, 0)
    assert job.number == 1


def test_a_trial_whose_healing_failed_stays_a_candidate_and_is_healed_no_further():
    """A good model, and what it cost, thrown away for a step after it that ran out of memory; or that step again."""
    targets = targets_of({"min_accuracy": 0.9})
    broken = Trial(**{**vars(trial(0, 3, 0.2, rung=0)), "error": "healing it further failed: out of memory"})
    assert choose(GROUND, [broken], targets).trial.number == 0 and broken.cost[0] > 0
    others = [trial(1, 3, 0.3, rung=0), trial(2, 3, 0.25, rung=0)]
    assert 0 in {one.number for one in promoted(GROUND, [trial(0, 3, 0.2, rung=0), *others], targets)}
    assert 0 not in {one.number for one in promoted(GROUND, [broken, *others], targets)}
    assert not next_jobs(GROUND, [broken], targets, 1, 0, fresh=False)


def test_targets_that_cannot_be_met_are_said_once_that_is_seen():
    """A search that spends hours where models of the largest cost that is allowed fall far short."""
    targets = targets_of({"min_accuracy": 0.99, "max_emission": 0.05})
    near = [trial(at, 1 + at, 0.047, kept=0.93) for at in range(3)]
    assert "of 99 % that are asked for" in impossible(GROUND, near, targets)
    assert not impossible(GROUND, near[:1], targets)
    assert not impossible(GROUND, near, targets_of({"min_accuracy": 0.93, "max_emission": 0.05}))
    assert not next_jobs(GROUND, near, targets, 1, 0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_emission": 0.001}, "--max-emission 0.001 cannot be met.*emits about 1.4 %.*or more"),
        ({"max_size_mb": 10.0}, "embeddings alone.*45.0 MB.*--edge"),
        ({"min_accuracy": 1.0, "max_latency_ms": 0.2}, "contradict each other.*10 ms"),
        ({"min_accuracy": 1.0, "max_emission": 0.03}, "--max-emission 0.03 contradict each other"),
        ({"min_accuracy": 0.99, "max_latency_ms": 0.001}, "--max-latency-ms 0.001 cannot be met.*about 0.13 ms"),
    ],
)
def test_targets_that_no_model_can_meet_are_refused_before_a_trial(given, said):
    """Hours of training for a target that the table of costs rules out."""
    with pytest.raises(BonsaiError, match=said):
        check_possible(GROUND, targets_of(given))


def test_targets_that_no_model_like_it_met_are_told_of_early(capsys):
    """Hours for 99 % at 3 % of the emission, where all that was seen keeps far less."""
    check_possible(GROUND, targets_of({"min_accuracy": 0.99, "max_emission": 0.03}))
    assert "kept about 94 % of the accuracy at 3 % of the emission" in capsys.readouterr().out
    for given in ({"min_accuracy": 0.95, "max_emission": 0.1}, {"min_accuracy": 0.99}, {"max_emission": 0.03}):
        check_possible(GROUND, targets_of(given))
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no target is stated"),
        ({"min_accuracy": 98.0}, r"--min-accuracy is 98.*0.98 for 98 %"),
        ({"max_emission": -0.1}, "--max-emission is -0.1"),
        ({"max_emission": 0.2, "objective": "emission"}, "a model that knows nothing"),
        ({"min_accuracy": 0.9, "objective": "emision"}, "did you mean 'emission'"),
        ({"min_accuracy": 0.9, "confidence": 1.0}, "--confidence is 1.0"),
        ({"max_size_mb": float("nan")}, "--max-size-mb is nan"),
    ],
)
def test_targets_that_are_none_are_refused(given, said):
    """A search without an end, or one that makes the worst model best."""
    with pytest.raises(BonsaiError, match=said):
        targets_of(given)


def test_without_an_accuracy_to_keep_the_best_accuracy_is_looked_for():
    """`--max-emission 0.2` alone that ends with the smallest model there is."""
    assert targets_of({"max_emission": 0.2}).objective == "accuracy"
    assert targets_of({"min_accuracy": 0.9, "max_emission": 0.2}).objective == "emission"


def test_the_stage_puts_a_round_to_those_before(tmp_path):
    """A trial healed further that is there twice, or a pool that lost an earlier one."""
    pool = tmp_path / "pool"
    pool.mkdir()
    write_ground(pool, GROUND)
    first, again = tmp_path / "a", tmp_path / "b"
    for folder, one in ((first, trial(0, 3, 0.3, rung=0)), (again, trial(0, 3, 0.3, rung=1))):
        folder.mkdir()
        write_trial(folder, one)
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    asked = {"min_accuracy": 0.9, "jobs": 2}
    assert propose(pool, [first, nothing], tmp_path / "pool1", **asked)["trials"] == 1
    assert propose(tmp_path / "pool1", [again], tmp_path / "pool2", **asked)["trials"] == 1
    assert [path.name for path in (tmp_path / "pool2" / TRIALS).iterdir()] == ["000-1"]
    (known,) = read_trials(tmp_path / "pool2")
    assert known.rung == 1 and len(known.healed) == 2
    jobs = json.loads((tmp_path / "pool2" / JOBS).read_text())
    assert jobs[0]["number"] == 0 and jobs[0]["rung"] == LAST and jobs[0]["share"] == pytest.approx(1 - RUNGS[1])


def test_a_round_with_nothing_to_do_has_one_job_that_is_none(tmp_path):
    """KFP's loop over an empty list, whose results cannot be collected."""
    pool = tmp_path / "pool"
    pool.mkdir()
    write_ground(pool, GROUND)
    made = []
    for at in range(3):
        folder = tmp_path / str(at)
        folder.mkdir()
        write_trial(folder, trial(at, 1 + at, 0.047, kept=0.9))
        made.append(folder)
    found = propose(pool, made, tmp_path / "out", min_accuracy=0.99, max_emission=0.05)
    assert found["jobs"] == 0 and json.loads((tmp_path / "out" / JOBS).read_text()) == [NOTHING]


def test_a_damaged_trial_is_named(tmp_path):
    """A search that cannot go on, and nobody says because of which file."""
    folder = tmp_path / TRIALS / "000-0"
    folder.mkdir(parents=True)
    (folder / RECORD).write_text("{")
    with pytest.raises(BonsaiError, match=f"{Path(TRIALS) / '000-0' / RECORD} is not JSON"):
        read_trials(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("number", None),
        ("point", {"layers": 0, "share": 0.5, "shape": "free"}),
        ("healed", [3]),
        ("figures", {"emission": "much"}),
    ],
)
def test_an_odd_trial_is_named(field, value, tmp_path):
    """A record that is JSON, and ends the search with a TypeError wherever it is first reckoned with."""
    folder = tmp_path / TRIALS / "000-0"
    folder.mkdir(parents=True)
    write_trial(folder, trial(0, 2, 0.5))
    assert [one.accuracy for one in read_trials(tmp_path)] == [trial(0, 2, 0.5).accuracy]
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps({**record, field: value}))
    with pytest.raises(BonsaiError, match=f"'{field}.*remove the trial's folder"):
        read_trials(tmp_path)


def test_an_odd_ground_is_named(tmp_path):
    """The same of what the search stands on."""
    write_ground(tmp_path, GROUND)
    assert read_ground(tmp_path).seen == [list(one) for one in GROUND.seen]
    found = json.loads((tmp_path / "ground.json").read_text())
    (tmp_path / "ground.json").write_text(json.dumps({**found, "seen": [1]}))
    with pytest.raises(BonsaiError, match=r"ground.json is not as .*seen"):
        read_ground(tmp_path)


def test_what_each_parameter_was_worth_adds_up():
    """A report that says of a parameter what it is not: shares of one whole, told from too few trials."""
    targets = targets_of({"min_accuracy": 0.9})
    trials = [trial(at, 1 + at % 6, 0.05 * (1 + at % 4)) for at in range(10)]
    found = worths(GROUND, trials, targets)
    assert set(found) == {"layers", "share"} and sum(found.values()) == pytest.approx(1)
    assert worths(GROUND, trials[:2], targets) == {}


def test_no_point_asks_for_more_than_the_baseline_costs():
    """A trial that is refused, and whose record nothing reads: all layers of a tiny model cost more by its table."""
    ground = Ground(**{**GROUND.__dict__, "limits": {"free": {"1": [0.5, 0.9], "2": [1.03, 1.2]}}})
    assert ground.settled({"layers": 2, "share": 0.6, "shape": "free"})["share"] == 1.0
    assert ground.settled({"layers": 1, "share": 0.6, "shape": "free"})["share"] == 0.6


def test_a_ready_made_model_is_tried_once():
    """A rival that is named and never tried, or tried again and again."""
    ground = Ground(**{**GROUND.__dict__, "rivals": ["embedded:bert-tiny"]})
    targets = targets_of({"min_accuracy": 0.9})
    (job,) = next_jobs(ground, [], targets, 1, 0)
    assert job.point == {"model": "embedded:bert-tiny"} and job.parent == -1
    (other,) = next_jobs(ground, [Trial(0, job.point, error="gone")], targets, 1, 0)
    assert "model" not in other.point
