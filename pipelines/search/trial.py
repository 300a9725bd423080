"""One trial of a search: layers removed, matrices pruned, healed for a while, and looked at, in one process."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kfp_bonsai.distill.distill import distill, suggested_epochs
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.propose.ground import Ground, read_ground
from kfp_bonsai.propose.propose import JOBS
from kfp_bonsai.propose.trials import (
    FEWER_TOKENS,
    INT8,
    LAST,
    MODEL,
    Trial,
    folder_of,
    model_in,
    name_of,
    read_trial,
    write_trial,
)
from kfp_bonsai.quantize.quantize import quantize
from kfp_bonsai.shared.core.errors import BonsaiError, in_words
from kfp_bonsai.shared.core.files import is_full_disk, new_folder
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.saved.kept_tokens import TASK, WHOLE
from kfp_bonsai.shared.saved.records import read_record, write_record

COSTS = "costs-{}.json"  # the table of each shape, in the pool


def run_trial(
    job: Mapping[str, Any],
    pool: Path,
    baseline: Path,
    taught: Path,
    data: Mapping[str, Path],
    output: Path,
    *,
    device: str = "auto",
    edge: bool = False,
    with_memory: bool = False,
    prune_steps: int = 200,
    distill_epochs: float = 0,
    block_seconds: float = 2.0,
    seed: int = 0,
) -> Trial:
    """Make a trial's model, or heal it further, and write its folder; what cannot be made is a trial that failed.

    One that cannot be healed further stays as it was.

    Args:
        job: what to do, as propose writes it.
        pool: the search so far.
        baseline: the baseline's folder.
        taught: its transfer set.
        data: the splits train and validation.
        output: the folder to write.
        device: where emission is measured.
        edge: quantize what is healed to the end, and take its figures.
        with_memory: measure the peak memory too.
        prune_steps: of matrix-prune.
        distill_epochs: of the whole distillation; 0 chooses them by the size.
        block_seconds: of the measurement at the end.
        seed: of all that is drawn.
    """
    from kfp_bonsai.shared.training.transfer import rows_in

    ground, before = read_ground(pool), folder_of(pool, job["number"])
    trial = read_trial(before) if before else Trial(job["number"], job["point"], job["parent"])
    say(f"search  trial {name_of(trial.point, trial.number)}: {'healing' if before else 'new'}")
    with new_folder(output) as folder:
        try:
            with energy.track() as meter:
                model = folder / MODEL
                if before:
                    start = before / MODEL
                else:
                    start = _started(job, pool, baseline, taught, data, folder, ground, device, prune_steps, seed)
                rows = rows_in(taught)
                whole = distill_epochs or suggested_epochs(read_record(start), read_record(taught), rows)
                distill(start, taught, data["validation"], model, epochs=whole * job["share"], seed=seed)
                _remove_all_but(folder, MODEL)
                write_record(model, {**read_record(model), "level": name_of(trial.point, trial.number)})
                if ground.vocabulary and "model" not in trial.point:
                    _cut_vocabulary(model, taught, data["validation"], folder / FEWER_TOKENS)
                looking = {"with_memory": with_memory, "block_seconds": block_seconds, "seed": seed}
                found, figures = _looked_at(baseline, data, folder, trial, ground, job["rung"], device, edge, looking)
            done = {
                "rung": job["rung"],
                "order": job["order"],
                "relative_accuracy": found.relative_accuracy,
                "score": found.score,
                "draws": [round(one, 6) for one in found.draws],
                "seconds": round(meter.reading.seconds, 3),
                "joules": round(meter.reading.joules, 3),
            }
            made = replace(
                trial,
                healed=[*trial.healed, done],
                figures=figures,
                predicted=_predicted(trial.point, model, ground),
                facts=_facts(model_in(folder)),
            )
        except Exception as error:
            if is_full_disk(error):
                raise
            _remove_all_but(folder, "")
            return give_up(job, pool, folder, str(error) if isinstance(error, BonsaiError) else in_words(error))
        write_trial(folder, made)
    return made


def give_up(job: Mapping[str, Any], pool: Path, folder: Path, reason: str) -> Trial:
    """Write the record of a trial whose job failed; the model of an earlier rung stays, and is healed no further.

    Args:
        job: what was to be done.
        pool: the search so far.
        folder: the trial's new folder, empty.
        reason: why it failed.
    """
    before, made = folder_of(pool, job["number"]), Trial(job["number"], job["point"], job["parent"], error=reason)
    if before:
        made = replace(read_trial(before), error=f"healing it further failed: {reason}")
        for name in (MODEL, FEWER_TOKENS):
            if (before / name).is_dir():
                shutil.copytree(before / name, folder / name)
    say(f"search  trial {made.name} failed: {reason}")
    write_trial(folder, made)
    return made


def _started(
    job: Mapping[str, Any],
    pool: Path,
    baseline: Path,
    taught: Path,
    data: Mapping[str, Path],
    folder: Path,
    ground: Ground,
    device: str,
    prune_steps: int,
    seed: int,
) -> Path:
    """Return the folder of the model to heal, made of the baseline or of a larger trial."""
    point, parent = job["point"], folder_of(pool, job["parent"]) if job["parent"] >= 0 else None
    label = name_of(point, job["number"])
    if "model" in point:
        layer_remove(baseline, data["validation"], folder / "short", student=point["model"], level=label, seed=seed)
        return folder / "short"
    if parent:
        short = parent / MODEL
    else:
        short = folder / "short"
        layer_remove(baseline, data["validation"], short, keep=str(point["layers"]), level=label, seed=seed)
    if point["share"] == 1:
        return short
    table = pool / COSTS.format(point["shape"])
    matrix_prune(
        short,
        taught,
        folder / "pruned",
        flops=1.0,
        emission=point["share"],
        shape=point["shape"],
        steps=prune_steps,
        device=device,
        costs=str(table),
        vocabulary=TASK if ground.vocabulary else WHOLE,
        seed=seed,
    )
    return folder / "pruned"


def _cut_vocabulary(model: Path, taught: Path, validation: Path, output: Path) -> None:
    """Write a model that writes with the tokens of the task alone; the other one can still learn of its teacher."""
    from kfp_bonsai.distill.fewer_tokens import fewer_tokens
    from kfp_bonsai.shared.saved.checkpoint import load, save
    from kfp_bonsai.shared.training.students import open_for

    record = read_record(model)
    network, tokenizer = load(model)
    transfer = open_for(taught, model, network.config, tokenizer, record)
    tokenizer, fewer = fewer_tokens(network, tokenizer, transfer, validation, record["max_length"])
    with new_folder(output) as folder:
        save(network, tokenizer, folder, {**record, **fewer})


def _looked_at(
    baseline: Path,
    data: Mapping[str, Path],
    folder: Path,
    trial: Trial,
    ground: Ground,
    rung: int,
    device: str,
    edge: bool,
    looking: Mapping[str, Any],
) -> tuple[Any, dict[str, Any]]:
    """Return what the model keeps, and its figures: measured once, and of int8 at the end, foreseen until then."""
    from kfp_bonsai.pipelines.search.bench import look_at

    as_int8, model = edge and rung == LAST, model_in(folder)
    if as_int8:
        quantize(model, data["train"], folder / INT8, seed=looking["seed"])
    costs = as_int8 or not trial.figures
    found = look_at(
        baseline,
        folder / INT8 if as_int8 else model,
        data["train"],
        data["validation"],
        "cpu" if edge else device,
        costs=costs,
        **looking,
    )
    if not costs:
        return found, dict(trial.figures)
    if edge and not as_int8:
        return found, foreseen_int8(found.figures, ground)
    return found, found.figures


def foreseen_int8(figures: Mapping[str, Any], ground: Ground) -> dict[str, Any]:
    """Return the figures that a model is likely to have as int8, by what the baseline has."""
    made = dict(figures)
    for name, ratio in ground.int8.items():
        if made.get(name) is not None:
            made[name] *= ratio
    if made.get("emission_ci"):
        made["emission_ci"] = [end * ground.int8.get("emission", 1.0) for end in made["emission_ci"]]
    return made


def _predicted(point: Mapping[str, Any], model: Path, ground: Ground) -> float | None:
    """Return the emission that the table predicted; as int8 where that is asked for."""
    if "model" in point:
        return None
    stated = read_record(model).get("predicted_emission")
    share = float(stated["share"]) if stated and point["share"] < 1 else ground.emission(point)
    return share * ground.int8.get("emission", 1.0)


def _facts(model: Path) -> dict[str, Any]:
    from kfp_bonsai.pipelines.search.bench import model_facts

    return model_facts(model)


def _remove_all_but(folder: Path, name: str) -> None:
    for path in folder.iterdir():
        if path.name != name:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def run_job(
    number: int, pool: Path, baseline: Path, taught: Path, data: Mapping[str, Path], output: Path, **options: Any
) -> dict[str, Any]:
    """Do one of the jobs that a pool lists, as run_trial does; nothing, if there is nothing to do.

    Args:
        number: of the job in jobs.json.
        pool: the search so far.
        baseline: as run_trial has it, and the others too.
        taught: the transfer set.
        data: the splits.
        output: the folder to write.
        options: of run_trial.

    Returns:
        What the trial keeps, and emits.
    """
    job = json.loads((pool / JOBS).read_text(encoding="utf-8"))[number]
    if job["number"] < 0:
        with new_folder(output) as folder:
            (folder / "nothing.json").write_text("{}\n", encoding="utf-8")  # an empty folder would be lost
        return {}
    made = run_trial(job, pool, baseline, taught, data, output, **options)
    if not made.is_usable:
        return {"trial": made.number}
    return {"trial": made.number, "relative_accuracy": made.accuracy, "relative_emission": made.figures["emission"]}
