"""compress: from a pretrained model and a data set to smaller models, measured, chosen and packed.

prepare-data -> fine-tune -> teacher-outputs -> for each level {layer-remove -> matrix-prune -> distill}
-> evaluate-emissions -> select-model -> report -> package-model. For an edge CPU every level is quantized too,
its int8 models are measured on a CPU, and those figures choose. On a cluster, check-inputs comes first.
"""

from typing import Any

from kfp import dsl

from kfp_bonsai.evaluate_emissions.component import evaluate_emissions, evaluate_emissions_edge
from kfp_bonsai.package_model.component import package_model
from kfp_bonsai.pipelines.options import (
    COMMAND,
    COMPRESS,
    EDGE,
    LEVELS,
    MEASURING,
    PACKING,
    QUANTIZING,
    TARGET,
    TEACHING,
    TUNING,
)
from kfp_bonsai.pipelines.steps import Tasks, with_all_arguments
from kfp_bonsai.quantize.component import quantize, quantize_baseline
from kfp_bonsai.report.component import report
from kfp_bonsai.select_model.component import select_edge_model, select_model

TITLE = "Compress a language model"
SUMMARY = "Fine-tune, compress at several levels, measure the emission of each, choose, report and package."


def compress_pipeline(parallel_levels: int = 0, edge: bool | None = None, fuse: bool = False) -> Any:
    """Return the pipeline for KFP's local runner.

    Args:
        parallel_levels: how many levels are trained at the same time; 0 for all.
        edge: build one branch, for an edge CPU or not; None for both, of which a run's `edge` takes one. KFP's local
            runner knows a finished task again only under the same name, which the other branch has not.
        fuse: run the three stages of a level in one task.
    """
    return with_all_arguments(
        COMPRESS, TITLE, SUMMARY, lambda tasks: compress_tasks(tasks, parallel_levels, edge, fuse)
    )


def compress_tasks(tasks: Tasks, parallel_levels: int, edge: bool | None, fuse: bool) -> Any:
    """Add the tasks; of one branch, return its results.json, which cannot leave a condition.

    Args:
        tasks: what adds them, with the values of all arguments.
        parallel_levels: how many levels are trained at the same time; 0 for all.
        edge: which branch to build; None for both.
        fuse: run the three stages of a level in one task.
    """
    values, place = tasks.values, tasks.place
    splits = tasks.prepare()
    baseline, taught = tasks.make_baseline(
        splits,
        {**tasks.pick("model"), **tasks.given(TUNING), "fingerprint": values.get("model_fingerprint", "")},
        tasks.given(TEACHING),
    )
    measuring = {
        "baseline": baseline,
        "train": splits["train"],
        "test": splits["test"],
        **tasks.given(MEASURING, "device"),
    }
    target = tasks.pick(*TARGET)
    handed_on = {**tasks.pick(*PACKING), "images": tasks.images}
    quantizing = {"calibration": splits["train"], **tasks.given(QUANTIZING)}

    def package(chosen: Any, results: Any, what: str) -> None:
        packed = package_model(model=chosen, results=results, **handed_on)
        place(packed.set_display_name(f"Package the {what}"), light=True)

    # A loop's results cannot leave a condition in the loop, so each branch has a loop of its own.
    def compress_and_measure(for_edge: bool) -> Any:
        if for_edge:
            alone = quantize_baseline(model=baseline, **quantizing)
            place(alone.set_display_name("Quantize the baseline"), cached=True)
        with dsl.ParallelFor(values[LEVELS], name="Each level", parallelism=parallel_levels) as level:
            smaller = tasks.make_smaller(
                splits,
                baseline,
                taught,
                {
                    **{"student": level.model, "keep": level.layers, "level": level.label, "seed": values["seed"]},
                    "fingerprint": level.fingerprint,
                },
                {
                    **{"flops": level.flops, "emission": level.emission, "shape": level.shape},
                    **{**tasks.pick("device"), "vocabulary": level.vocabulary},
                    **{"steps": values["prune_steps"], "seed": values["seed"]},
                },
                {
                    **{"epochs": level.epochs, "learning_rate": level.rate, "vocabulary": level.vocabulary},
                    "seed": values["seed"],
                },
                fuse,
            )
            if for_edge:
                small = quantize(model=smaller, **quantizing)
                place(small.set_display_name("Quantize"), cached=True)
        measured = evaluate_emissions(candidates=dsl.Collected(smaller), **tasks.pick("device"), **measuring)
        place(measured.set_display_name("Evaluate emissions"), heavy=True, measured=True)
        measurements = {"measurement": measured.outputs["measurement"]}
        if for_edge:
            measured_edge = evaluate_emissions_edge(
                quantized_baseline=alone.outputs["quantized_model"],
                candidates=dsl.Collected(small.outputs["quantized_model"]),
                **measuring,
            )
            place(measured_edge.set_display_name("Evaluate emissions on the edge CPU"), measured=True)
            measurements["edge_measurement"] = measured_edge.outputs["measurement"]
            selected = select_edge_model(
                measurement=measured_edge.outputs["measurement"],
                candidates=dsl.Collected(smaller),
                quantized=dsl.Collected(small.outputs["quantized_model"]),
                **target,
            )
        else:
            selected = select_model(**measurements, candidates=dsl.Collected(smaller), **target)
        place(selected.set_display_name("Select the model"), light=True)
        told = {name: values[name] for name in (COMMAND.name, "title") if name in values}
        reported = report(**measurements, selection=selected.outputs["selection"], **told)
        place(reported.set_display_name("Report"), light=True)
        package(selected.outputs["chosen_model"], reported.outputs["results"], "model")
        if for_edge:
            package(selected.outputs["quantized_model"], reported.outputs["results"], "edge model")
        return reported.outputs["results"]

    if edge is not None:
        return compress_and_measure(edge)
    # Two conditions, where an Else would wrap both into a layer without a name.
    with dsl.If(values[EDGE] == True, name="For an edge CPU too"):  # noqa: E712  (KFP builds the condition from this)
        compress_and_measure(for_edge=True)
    with dsl.If(values[EDGE] == False, name="Not for an edge CPU"):  # noqa: E712
        compress_and_measure(for_edge=False)
    return None
