"""retrain: new data to a model that takes the champion's place, or does not.

fetch-champion, prepare-data -> check-drift -> if there is something to learn: fine-tune -> teacher-outputs
-> layer-remove -> matrix-prune -> distill, at the champion's level -> evaluate-emissions, the champion beside it
-> select-model -> report -> package-model -> promote. Where the champion is an int8 model, or the new one is to be, it
is quantized, both are measured on a CPU, and the int8 model is what is held against the champion and takes its place.
On a cluster, check-retraining comes first.
"""

from typing import Any

from kfp import dsl

from kfp_bonsai.check_drift.component import check_drift
from kfp_bonsai.evaluate_emissions.component import evaluate_emissions_challenger, evaluate_emissions_edge_challenger
from kfp_bonsai.fetch_champion.component import fetch_champion
from kfp_bonsai.package_model.component import package_model
from kfp_bonsai.pipelines.options import (
    COMMAND,
    DRIFTING,
    EDGE,
    MEASURING,
    PROMOTING,
    QUANTIZING,
    RETRAIN,
    TARGET,
    TEACHING,
    TUNING,
)
from kfp_bonsai.pipelines.steps import Tasks, with_all_arguments
from kfp_bonsai.promote.component import promote
from kfp_bonsai.quantize.component import quantize
from kfp_bonsai.report.component import report
from kfp_bonsai.select_model.component import select_challenger
from kfp_bonsai.shared.saved.champion import FLOAT, INT8

TITLE = "Train the champion anew"
SUMMARY = "Train the champion anew on new data, measure both on the same rows, promote what is not worse."


def retrain_pipeline(form: str = "", fuse: bool = False) -> Any:
    """Return the pipeline for KFP's local runner.

    Args:
        form: what the new model is to be, which chooses the branch; "" builds both, see `compress_pipeline`.
        fuse: run the three stages of a level in one task.
    """
    return with_all_arguments(RETRAIN, TITLE, SUMMARY, lambda tasks: retrain_tasks(tasks, form, fuse))


def retrain_tasks(tasks: Tasks, form: str, fuse: bool) -> None:
    """Add the tasks.

    Args:
        tasks: what adds them, with the values of all arguments.
        form: which branch to build; "" for both, of which the champion and the argument `edge` take one.
        fuse: run the three stages of a level in one task.
    """
    values, place = tasks.values, tasks.place
    fetched = fetch_champion(**tasks.pick("champion", "model", "augmentations", EDGE, *QUANTIZING))
    place(fetched.set_display_name("Fetch the champion"), light=True)
    splits, made = tasks.prepare(), fetched.outputs
    incumbent = made["incumbent"]
    rows = {name: splits[name] for name in ("train", "validation", "test")}
    checked = check_drift(
        document=made["document"],
        incumbent=incumbent,
        form=made["form"],
        **rows,
        **tasks.pick("champion", *DRIFTING),
    )
    place(checked.set_display_name("Check for drift"), light=True).set_caching_options(False)

    def measure_and_promote(smaller: Any, baseline: Any, int8: bool) -> None:
        measuring = {
            "baseline": baseline,
            "challenger": smaller,
            "champion": incumbent,
            "train": splits["train"],
            "test": splits["test"],
            **tasks.given(MEASURING, "device"),
        }
        challenger = smaller
        if int8:
            small = quantize(
                model=smaller,
                calibration=splits["train"],
                **{name: made[name] for name in ("runtime", "calibration_rows", "any_processor", "weight_bits")},
                seed=values["seed"],
            )
            place(small.set_display_name("Quantize the challenger"), cached=True)
            challenger = small.outputs["quantized_model"]
            measured = evaluate_emissions_edge_challenger(quantized=challenger, **measuring)
            place(measured.set_display_name("Evaluate emissions beside the champion on the edge CPU"), measured=True)
        else:
            measured = evaluate_emissions_challenger(**tasks.pick("device"), **measuring)
            place(measured.set_display_name("Evaluate emissions beside the champion"), heavy=True, measured=True)
        selected = select_challenger(
            measurement=measured.outputs["measurement"],
            challenger=challenger,
            **tasks.pick(*TARGET),
        )
        place(selected.set_display_name("Compare with the target"), light=True)
        reported = report(
            measurement=measured.outputs["measurement"],
            selection=selected.outputs["selection"],
            command=values.get(COMMAND.name, ""),
        )
        place(reported.set_display_name("Report"), light=True)
        packed = package_model(
            model=challenger,
            results=reported.outputs["results"],
            images=tasks.images,
            **tasks.pick("license", "ship_code", "fetch_as"),
        )
        place(packed.set_display_name("Package the challenger"), light=True)
        promoted = promote(
            challenger=packed.outputs["package"],
            document=made["document"],
            incumbent=incumbent,
            **rows,
            **tasks.pick("champion"),
            **tasks.given(PROMOTING),
        )
        place(promoted.set_display_name("Promote")).set_caching_options(False)

    with dsl.If(checked.outputs["Output"] == "train", name="If there is something to learn"):
        baseline, taught = tasks.make_baseline(
            splits,
            {**tasks.given(TUNING), "model": made["model"], "fingerprint": made["fingerprint"]},
            {**tasks.given(TEACHING), "augmentations": made["augmentations"]},
        )
        challenger = tasks.make_smaller(
            splits,
            baseline,
            taught,
            {
                **{"student": made["student"], "keep": made["layers"], "level": made["level"], "seed": values["seed"]},
                "fingerprint": made["student_fingerprint"],
            },
            {name: made[name] for name in ("flops", "emission", "shape", "heads", "ffn", "vocabulary")}
            | tasks.pick("device")
            | {"steps": values["prune_steps"], "seed": values["seed"]},
            {
                **{"epochs": made["epochs"], "learning_rate": made["rate"], "vocabulary": made["vocabulary"]},
                "seed": values["seed"],
            },
            fuse,
        )
        if form:
            measure_and_promote(challenger, baseline, form == INT8)
            return
        for each, what in ((INT8, "An int8 model for CPUs"), (FLOAT, "A model as it is trained")):
            with dsl.If(made["form"] == each, name=what):
                measure_and_promote(challenger, baseline, each == INT8)
