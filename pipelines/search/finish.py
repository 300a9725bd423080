"""The end of a search: the choice by validation rows, its front measured once on test rows, and what is said of it."""

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions
from kfp_bonsai.package_model.package import package_model
from kfp_bonsai.pipelines.options import as_declared
from kfp_bonsai.pipelines.search.groundwork import BASELINE_INT8
from kfp_bonsai.propose.choose import Choice, beliefs, chances, choose, impossible
from kfp_bonsai.propose.goals import UNITS, Targets, targets_of
from kfp_bonsai.propose.ground import Ground, read_ground
from kfp_bonsai.propose.next import worths
from kfp_bonsai.propose.propose import gather
from kfp_bonsai.propose.trials import INT8, RUNGS, Trial, corrected, folder_of, model_in, read_trials
from kfp_bonsai.quantize.quantize import quantize
from kfp_bonsai.report.report import report
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import new_folder, put_copy
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.energy.energy import track, weakest
from kfp_bonsai.shared.energy.reading import Reading
from kfp_bonsai.shared.metrics.posterior import chance_above, updated
from kfp_bonsai.shared.metrics.statistics import Z
from kfp_bonsai.shared.saved.records import read_record

SEARCH = "search.json"
TEACHING = "teacher-outputs"
FINISHED, STOPPED, RUNNING = "finished", "stopped", "running"
FIGURES = {"emission": "relative_emission", "latency_ms": "latency_ms_p50", "size_mb": "size_bytes"}
FIGURES |= {"memory_mb": "peak_memory_bytes"}


def finish(
    pool: Path,
    baseline: Path,
    data: Mapping[str, Path],
    output: Path,
    targets: Targets,
    *,
    measuring: Mapping[str, Any],
    packing: Mapping[str, Any],
    edge: bool = False,
    most: int = 5,
    energy: Mapping[str, Any] | None = None,
    command: str = "",
    title: str = "",
    ended: str = "",
) -> dict[str, Any]:
    """Choose, measure the chosen model and its neighbours on the test rows, and write report, models and search.json.

    Args:
        pool: the search.
        baseline: the baseline's folder.
        data: the splits train, validation and test.
        output: the folder to write.
        targets: what is asked for.
        measuring: options of evaluate-emissions.
        packing: options of package-model.
        edge: choose by int8 models.
        most: how many models are measured beside the baseline, at the most.
        energy: what the search took until now; None for the sum of what its tasks took, this one included.
        command: the command that made it all.
        title: what the report is called.
        ended: why no more was tried.

    Raises:
        BonsaiError: no trial came to a model.
    """
    ground, trials = read_ground(pool), read_trials(pool)
    choice = choose(ground, trials, targets)
    if choice is None:
        errors = dict.fromkeys(each.error for each in trials if each.error)
        raise BonsaiError(f"no trial came to a model ({'; '.join(errors) or 'there was none'}): see the lines above")
    front = _around(choice, most)
    say(f"search  chosen by the validation rows: {words_of(choice, targets)}")
    with new_folder(Path(output)) as folder, tempfile.TemporaryDirectory() as scratch, track() as meter:
        folders, names = [], {}
        for each in front:
            model = _model_of(pool, each, data, edge, Path(scratch))
            folders.append(model)
            names[read_record(model)["sha256"]] = each
        beside = [pool / BASELINE_INT8] if edge and (pool / BASELINE_INT8).is_dir() else []
        trained = folder_of(pool, choice.trial.number)
        assert trained
        own = [model_in(trained)] if edge else []  # whose package is told of too
        measurement = folder / "measurement.json"
        evaluate_emissions(
            baseline,
            [*own, *beside, *folders],
            data["train"],
            data["test"],
            measurement,
            **{**measuring, **({"device": "cpu"} if edge else {})},
        )
        found = json.loads(measurement.read_text(encoding="utf-8"))
        rows = {row["sha256"]: row for row in found["models"]}
        chosen_sha = next(sha for sha, each in names.items() if each.number == choice.trial.number)
        row = rows[chosen_sha]
        verdict = judged(choice, row, targets)
        for sha, each in names.items():
            if sha in rows:
                _say_row(each, rows[sha], sha == chosen_sha)
        cannot = impossible(ground, trials, targets)
        spent = energy or _of_all_tasks(baseline, model_in(trained), ground, trials, meter.so_far())
        document = described(ground, trials, targets, choice, FINISHED, spent, command, title) | {
            "ended": ended,
            "cannot_be_met": cannot,
            "test": {**verdict, "rows": found["rows"]},
            "front": [_measured(each, rows[sha], sha == chosen_sha) for sha, each in names.items() if sha in rows],
        }
        (folder / SEARCH).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        selection = folder / "selection.json"
        _write_selection(selection, found["models"], row, names, targets, verdict, cannot)
        report(
            measurement,
            selection,
            folder / "report.html",
            folder / "report.md",
            folder / "results.json",
            folder / "figures",
            search=str(folder / SEARCH),
            title=title,
            command=command,
        )
        package_model(
            folders[[each.number for each in front].index(choice.trial.number)] if not edge else own[0],
            folder / "results.json",
            folder / "model",
            **packing,
        )
        if edge:
            at = [each.number for each in front].index(choice.trial.number)
            package_model(folders[at], folder / "results.json", folder / "edge-model", **packing)
    say(f"search  on {found['rows']:,} test rows: {verdict['words']}")
    return document


def words_of(choice: Choice, targets: Targets) -> str:
    """Return a choice in words."""
    figures = choice.trial.figures
    costs = [f"{100 * figures['emission']:.3g} % of the emission"]
    for name in dict.fromkeys([targets.cost, *targets.limits]):
        if name != "emission" and figures.get(name) is not None:
            costs.append(f"{figures[name]:.3g}{UNITS[name]} of {name.partition('_')[0]}")
    healed = "" if choice.trial.is_whole else f", healed {100 * RUNGS[choice.trial.rung]:.0f} %"
    return (
        f"trial {choice.trial.name}{healed}: {100 * choice.accuracy:.1f} ± {100 * Z * choice.deviation:.1f} % of the "
        f"accuracy at {' and '.join(costs)}; meets the target with a probability of {_likely(choice.chance)}"
    )


def _likely(chance: float) -> str:
    """Return a probability in words that never say certain."""
    shown = f"{100 * chance:.0f} %"
    return {"100 %": "more than 99 %", "0 %": "less than 1 %"}.get(shown, shown)


def judged(choice: Choice, row: Mapping[str, Any], targets: Targets) -> dict[str, Any]:
    """Return how the chosen model does on the test rows, and the probability that it meets the targets on others.

    What the validation rows had it believed to keep is put together with what the test rows, which chose nothing, say.
    """
    if row.get("error"):
        raise BonsaiError(f"the chosen model could not be measured: {row['error']}")
    value, (low, high) = float(row["relative_accuracy"]), row["relative_accuracy_ci"]
    mean, deviation = updated(choice.accuracy, choice.deviation, value, max((high - low) / 2 / Z, 1e-6))
    chance = chance_above(mean, deviation, targets.min_accuracy) if targets.min_accuracy else 1.0
    figures = _figures(row)
    for name, over in targets.excess(figures).items():
        if name == "emission" and row.get("relative_emission_ci"):
            ends = row["relative_emission_ci"]
            spread = math.log(ends[1] / ends[0]) / 2 / Z
            chance *= chance_above(-over, max(spread, 1e-6), 0.0)
        else:
            chance *= float(over <= 0)
    met = targets.affordable(figures) and value >= targets.min_accuracy - 1e-9
    costs = ", ".join(f"{figures[name]:.3g}{UNITS[name]}" for name in targets.limits if name != "emission")
    words = (
        f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f}) of the accuracy at "
        f"{100 * figures['emission']:.1f} % of the emission{', ' + costs if costs else ''}: the target is "
        f"{'met' if met else 'missed'}; on other rows it is met with a probability of {_likely(chance)}"
    )
    return {
        "met": met,
        "probability": chance,
        "probability_before_test": choice.chance,
        "relative_accuracy": value,
        "relative_accuracy_ci": [low, high],
        "believed_accuracy": mean,
        "believed_deviation": deviation,
        "figures": figures,
        "words": words,
    }


def described(
    ground: Ground,
    trials: Sequence[Trial],
    targets: Targets,
    choice: Choice | None,
    state: str,
    energy: Mapping[str, Any],
    command: str = "",
    title: str = "",
) -> dict[str, Any]:
    """Return what search.json says of the search so far."""
    near, belief = beliefs(ground, trials)
    likely = dict(zip((one.number for one in near), chances(near, belief, targets), strict=True)) if belief else {}
    kept = dict(zip((one.number for one in near), map(float, belief.means), strict=True)) if belief else {}
    return {
        "format": 1,
        "state": state,
        "title": title,
        "command": command,
        "targets": targets.as_record(),
        "asked": str(targets),
        "task": ground.rest.get("task"),
        "device": ground.device,
        "table": {"error": ground.error, "measured_over_predicted": corrected(trials)},
        "energy": dict(energy),
        "worths": worths(ground, trials, targets),
        "chosen": None
        if choice is None
        else {
            "number": choice.trial.number,
            "name": choice.trial.name,
            "probability": choice.chance,
            "accuracy": choice.accuracy,
            "deviation": choice.deviation,
            "is_sure": choice.is_sure,
        },
        "trials": [
            {
                "number": each.number,
                "name": each.name,
                "point": dict(each.point),
                "parent": each.parent,
                "healed": RUNGS[each.rung] if each.healed else 0.0,
                "state": "healed" if each.is_whole else "dropped" if each.healed else "failed",
                "relative_accuracy": each.accuracy if each.healed else None,
                "believed_accuracy": kept.get(each.number),
                "probability": likely.get(each.number),
                "figures": dict(each.figures),
                "predicted_emission": each.predicted,
                "facts": dict(each.facts),
                "seconds": each.cost[0],
                "joules": each.cost[1],
                "error": each.error,
            }
            for each in trials
        ],
    }


def _of_all_tasks(baseline: Path, model: Path, ground: Ground, trials: Sequence[Trial], end: Reading) -> dict[str, Any]:
    """Return what the tasks of a search took: baseline, its outputs, the ground, all trials, and this measurement."""
    taught = [one for one in read_record(model)["lineage"] if one["stage"] == TEACHING][:1]
    parts = [read_record(baseline)["lineage"][-1], *taught, *filter(None, [ground.rest.get("cost")])]
    costs = [*((one["seconds"], one["joules"]) for one in parts), *(each.cost for each in trials)]
    seconds, joules = (sum(one) for one in zip(*costs, strict=True))
    return {
        "seconds": seconds + end.seconds,
        "joules": joules + end.joules,
        "label": weakest([*(one["energy_label"] for one in parts), end.label]),
        "source": f"the sum of its tasks, of which the last had {end.source}",
    }


def _around(choice: Choice, most: int) -> list[Trial]:
    """Return the chosen trial and those of its neighbours that there is time to measure."""
    chosen = choice.trial.number
    at = next(number for number, one in enumerate(choice.front) if one.number == chosen)
    ordered = sorted(range(len(choice.front)), key=lambda number: abs(number - at))
    return [choice.front[number] for number in sorted(ordered[: max(1, most)])]


def _model_of(pool: Path, trial: Trial, data: Mapping[str, Path], edge: bool, scratch: Path) -> Path:
    """Return the folder of a trial's model; as int8, which is made where it was not healed to the end."""
    folder = folder_of(pool, trial.number)
    assert folder
    if not edge:
        return model_in(folder)
    if not (folder / INT8).is_dir():
        quantize(model_in(folder), data["train"], scratch / str(trial.number))
        return scratch / str(trial.number)
    return folder / INT8


def _figures(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {name: row.get(key) for name, key in FIGURES.items()}
    for name in ("size_mb", "memory_mb"):
        found[name] = found[name] / 1e6 if found[name] else None
    return found


def _say_row(trial: Trial, row: Mapping[str, Any], chosen: bool) -> None:
    if row.get("error"):
        say(f"search  trial {trial.name}: could not be measured ({row['error']})")
        return
    low, high = row["relative_accuracy_ci"]
    say(
        f"search  {'*' if chosen else ' '} trial {trial.name}: {100 * row['relative_accuracy']:.1f} % "
        f"({100 * low:.1f} to {100 * high:.1f}) at {100 * row['relative_emission']:.1f} % of the emission on test rows"
    )


def _measured(trial: Trial, row: Mapping[str, Any], chosen: bool) -> dict[str, Any]:
    return {
        "number": trial.number,
        "name": trial.name,
        "chosen": chosen,
        "error": row.get("error") or "",
        "relative_accuracy": row.get("relative_accuracy"),
        "relative_accuracy_ci": row.get("relative_accuracy_ci"),
        "relative_accuracy_on_validation": trial.accuracy,
        "figures": _figures(row),
    }


def _write_selection(
    path: Path,
    models: Sequence[Mapping[str, Any]],
    row: Mapping[str, Any],
    names: Mapping[str, Trial],
    targets: Targets,
    verdict: Mapping[str, Any],
    cannot: str,
) -> None:
    """Write what was selected, as select-model does: here by the validation rows, before any of these was measured."""
    kept = ("level", "sha256", "relative_accuracy", "relative_accuracy_ci", "relative_emission", "lineage")
    why = f"The targets cannot be met: {cannot}. " if cannot else ""
    reason = (
        f"{why}The target is {targets}: {row['level']} was chosen by the validation rows, before any test row was "
        f"seen (probability of meeting it then: {_likely(verdict['probability_before_test'])}). With the test rows, it "
        f"is met on rows that were never seen with a probability of {_likely(verdict['probability'])}."
    )
    brief = {key: row.get(key) for key in kept}
    document = {
        "format": 1,
        "target": {"min_accuracy": targets.min_accuracy or None, "max_emission": targets.max_emission or None},
        "target_is_default": False,
        "meets_target": verdict["met"],
        "reason": reason,
        "chosen": brief,
        "nearest": None if verdict["met"] else brief,
        "candidates": [{key: one.get(key) for key in kept} for one in models if one["sha256"] in names],
    }
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def keep_best(pool: Path, choice: Choice | None, output: Path) -> bool:
    """Copy the model that is the best so far into a folder, which is replaced whole; return whether it is quantized."""
    folder = folder_of(pool, choice.trial.number) if choice else None
    if folder is None:
        return False
    quantized = (folder / INT8).is_dir()
    put_copy(folder / INT8 if quantized else model_in(folder), output)
    return quantized


def end_search(
    pool: Path,
    trials: Sequence[Path],
    baseline: Path,
    data: Mapping[str, Path],
    outputs: Mapping[str, Path],
    options: Mapping[str, Any],
    *,
    edge: bool = False,
) -> dict[str, Any]:
    """End a search whose last round is not in its pool yet.

    Args:
        pool: the search before.
        trials: the folders of the last round.
        baseline: the baseline's folder.
        data: the splits train and test.
        outputs: where to put what `finish` makes, by its name there.
        options: the targets, and options of evaluate-emissions and package-model.
        edge: choose by int8 models.

    Returns:
        The figures of the chosen model, and the probability that it meets the target.
    """
    options = as_declared("search", options)
    measuring = {name: options[name] for name in signature(evaluate_emissions).parameters if name in options}
    packing = {name: options[name] for name in signature(package_model).parameters if name in options}
    with tempfile.TemporaryDirectory() as scratch:
        whole, end = Path(scratch) / "pool", Path(scratch) / "end"
        gather(pool, list(trials), whole)
        document = finish(
            whole,
            baseline,
            data,
            end,
            targets_of(options),
            measuring=measuring,
            packing=packing,
            edge=edge,
            ended="all rounds are done",
        )
        for name, target in outputs.items():
            put_copy(end / name, target)
    test = document["test"]
    return {
        "relative_accuracy": test["relative_accuracy"],
        "relative_emission": test["figures"]["emission"],
        "probability": test["probability"],
        "meets_target": test["met"],
    }
