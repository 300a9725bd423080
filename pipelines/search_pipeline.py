"""search: from a target to the model that meets it.

prepare-data -> fine-tune -> teacher-outputs -> search-ground -> for each round {propose -> for each job {search-trial}}
-> search-end. The rounds are unrolled, as a pipeline has no loop that ends by what it finds: a round that has nothing
left to do passes in seconds. What is known goes from round to round as a folder, the pool. On a cluster, check-search
comes first; on one's own machine `bonsai search` does the same parts in one process, one after the other.
"""

from typing import Any

from kfp import dsl

from kfp_bonsai.pipelines import search_parts as parts
from kfp_bonsai.pipelines.options import MEASURING, PACKING, SEARCH, SEARCHING, TEACHING, TUNING
from kfp_bonsai.pipelines.steps import Tasks, with_all_arguments
from kfp_bonsai.propose.component import propose

SEARCH_TITLE = "Search for a model that meets a target"
SEARCH_SUMMARY = "Fine-tune, try smaller shapes in rounds, choose what meets the target best, measure and report it."


def search_pipeline(rounds: int = 4, parallel_trials: int = 2, edge: bool = False) -> Any:
    """Return the pipeline for KFP's local runner.

    Args:
        rounds: of proposing and trying.
        parallel_trials: how many trials a round has.
        edge: search among int8 models.
    """
    return with_all_arguments(
        SEARCH, SEARCH_TITLE, SEARCH_SUMMARY, lambda tasks: search_tasks(tasks, rounds, parallel_trials, edge)
    )


def search_tasks(tasks: Tasks, rounds: int, parallel_trials: int, edge: bool) -> None:
    """Add the tasks.

    Args:
        tasks: what adds them, with the values of all arguments.
        rounds: of proposing and trying.
        parallel_trials: how many trials a round has.
        edge: search among int8 models.
    """
    values, place = tasks.values, tasks.place
    splits = tasks.prepare()
    baseline, taught = tasks.make_baseline(
        splits,
        {**tasks.pick("model"), **tasks.given(TUNING), "fingerprint": values.get("model_fingerprint", "")},
        tasks.given(TEACHING),
    )
    ground, trial, end = (
        (parts.search_ground_edge, parts.search_trial_edge, parts.search_end_edge)
        if edge
        else (parts.search_ground, parts.search_trial, parts.search_end)
    )
    rows = {"train": splits["train"], "validation": splits["validation"]}
    measured = {"edge": edge, "with_memory": True, **tasks.pick("device", "block_seconds", "seed")}
    laid = ground(baseline=baseline, **rows, **tasks.pick("shape", "rivals"), **measured)
    place(laid.set_display_name("Time what shapes cost"), heavy=not edge, measured=True)
    pool = laid.outputs["pool"]
    found: dict[str, Any] = {}
    for number in range(1, rounds + 1):
        proposed = propose(pool=pool, **found, **tasks.given(SEARCHING), jobs=parallel_trials)
        place(proposed.set_display_name(f"Propose, round {number}"), light=True)
        pool = proposed.outputs["searched"]
        with dsl.ParallelFor(proposed.outputs["Output"], name=f"Trials of round {number}") as job:
            made = trial(
                baseline=baseline,
                teacher_outputs=taught,
                **rows,
                pool=pool,
                number=job,
                **measured,
                **tasks.pick("prune_steps", "distill_epochs"),
            )
            place(made.set_display_name("Trial"), heavy=not edge, measured=True)
        found = {"trials": dsl.Collected(made.outputs["trial"])}
    names = (*SEARCHING, *MEASURING, *PACKING, "device", "seed")
    ended = end(
        pool=pool,
        **found,
        baseline=baseline,
        train=splits["train"],
        test=splits["test"],
        options={name: values[name] for name in dict.fromkeys(names) if name in values},
        edge=edge,
    )
    place(ended.set_display_name("Choose, measure and report"), heavy=not edge, measured=True)
