"""compress: from a pretrained model and a data set to smaller models, measured, chosen and packed.

prepare-data -> fine-tune -> teacher-outputs -> for each level {layer-remove -> matrix-prune -> distill}
-> evaluate-emissions -> select-model -> report -> package-model. For an edge CPU every level is quantized too,
its int8 models are measured on a CPU, and those figures choose.
"""

from typing import Any

from kfp import dsl

from kfp_bonsai.evaluate_emissions.component import evaluate_emissions, evaluate_emissions_edge
from kfp_bonsai.package_model.component import package_model
from kfp_bonsai.pipelines.cluster import Cluster, measuring_device, place
from kfp_bonsai.pipelines.levels import parse_levels
from kfp_bonsai.pipelines.training import make_baseline, make_smaller
from kfp_bonsai.prepare_data.component import prepare_data
from kfp_bonsai.quantize.component import quantize, quantize_baseline
from kfp_bonsai.report.component import report
from kfp_bonsai.select_model.component import select_edge_model, select_model

DEFAULT_LEVELS = parse_levels(())


def compress_pipeline(cluster: Cluster | None = None, parallel_levels: int = 0, only_edge: bool | None = None) -> Any:
    """Return the pipeline, for a cluster or (None) for KFP's local runner.

    Args:
        cluster: images, resources and retries of the tasks.
        parallel_levels: how many levels are trained at the same time; 0 for all.
        only_edge: build one branch, for an edge CPU or not; None for both, of which a run's `edge` takes one. KFP's
            local runner knows a finished task again only under the same name, which the other branch has not.
    """

    @dsl.pipeline(
        name="compress",
        display_name="Compress a language model",
        description="Fine-tune, compress at several levels, measure the emission of each, choose, report and package.",
    )
    def compress(
        model: str,
        data: str,
        test_data: str = "",
        validation_data: str = "",
        unlabelled_data: str = "",
        name: str = "",
        text_column: str = "",
        text_pair_column: str = "",
        label_column: str = "",
        kind: str = "auto",
        metric: str = "",
        positive_class: str = "",
        validation_fraction: float = 0.1,
        test_fraction: float = 0.2,
        validation_rows: int = 0,
        test_rows: int = 0,
        max_rows: int = 0,
        drop_empty: bool = False,
        split_by: str = "random",
        levels: list[dict] = DEFAULT_LEVELS,
        min_accuracy: float = 0.0,
        max_emission: float = 0.0,
        edge: bool = False,
        runtime: str = "auto",
        epochs: float = 3,
        learning_rate: float = 1e-4,
        batch_size: int = 32,
        max_length: int = 0,
        freeze_embeddings: bool = False,
        augmentations: int = -1,
        unlabelled_rows: int = -1,
        prune_steps: int = 200,
        device: str = measuring_device(cluster),
        pairs: int = 10,
        block_seconds: float = 2.0,
        precision: float = 0.02,
        time_budget: float = 0.0,
        country: str = "",
        intensity: float = 0.0,
        traffic: int = 0,
        embodied: float = 0.0,
        wait: bool = True,
        license: str = "",
        upload: str = "",
        register: str = "",
        command: str = "",
        seed: int = 0,
    ):
        prepared = prepare_data(
            data=data,
            test_data=test_data,
            validation_data=validation_data,
            unlabelled_data=unlabelled_data,
            name=name,
            text_column=text_column,
            text_pair_column=text_pair_column,
            label_column=label_column,
            kind=kind,
            metric=metric,
            positive_class=positive_class,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            validation_rows=validation_rows,
            test_rows=test_rows,
            max_rows=max_rows,
            drop_empty=drop_empty,
            split_by=split_by,
            seed=seed,
        ).set_display_name("Prepare data")
        place(prepared, cluster).set_caching_options(cluster is None)  # the same path may hold new data
        splits = prepared.outputs

        tuning = {
            "model": model,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "batch_size": batch_size,
            "max_length": max_length,
            "freeze_embeddings": freeze_embeddings,
            "seed": seed,
        }
        teaching = {"augmentations": augmentations, "unlabelled_rows": unlabelled_rows, "seed": seed}
        baseline, taught = make_baseline(cluster, splits, tuning, teaching)

        measuring: dict[str, Any] = {
            "baseline": baseline,
            "train": splits["train"],
            "test": splits["test"],
            "pairs": pairs,
            "block_seconds": block_seconds,
            "precision": precision,
            "time_budget": time_budget,
            "country": country,
            "intensity": intensity,
            "traffic": traffic,
            "embodied": embodied,
            "wait": wait,
            "seed": seed,
        }
        target = {"min_accuracy": min_accuracy, "max_emission": max_emission}
        images = cluster.images if cluster else ""
        handed_on: dict[str, Any] = {"license": license, "upload": upload, "register": register, "images": images}

        quantizing: dict[str, Any] = {"calibration": splits["train"], "runtime": runtime, "seed": seed}

        def package(chosen: Any, results: Any, what: str) -> None:
            packed = package_model(model=chosen, results=results, **handed_on)
            place(packed.set_display_name(f"Package the {what}"), cluster, light=True)

        # A loop's results cannot leave a condition in the loop, so each branch has a loop of its own.
        def compress_and_measure(for_edge: bool) -> None:
            if for_edge:
                alone = quantize_baseline(model=baseline, **quantizing)
                place(alone.set_display_name("Quantize the baseline"), cluster)
            with dsl.ParallelFor(levels, name="levels", parallelism=parallel_levels) as level:
                smaller = make_smaller(
                    cluster,
                    splits,
                    baseline,
                    taught,
                    {"keep": level.layers, "level": level.label, "seed": seed},
                    {"flops": level.flops, "shape": level.shape, "steps": prune_steps, "seed": seed},
                    {"epochs": level.epochs, "learning_rate": level.rate, "seed": seed},
                )
                if for_edge:
                    small = quantize(model=smaller, **quantizing)
                    place(small.set_display_name("Quantize"), cluster)
            measured = evaluate_emissions(candidates=dsl.Collected(smaller), device=device, **measuring)
            place(measured.set_display_name("Evaluate emissions"), cluster, heavy=True, measured=True)
            measurements = {"measurement": measured.outputs["output"]}
            if for_edge:
                measured_edge = evaluate_emissions_edge(
                    quantized_baseline=alone.outputs["output"],
                    candidates=dsl.Collected(small.outputs["output"]),
                    **measuring,
                )
                place(measured_edge.set_display_name("Evaluate emissions on the edge CPU"), cluster, measured=True)
                measurements["edge_measurement"] = measured_edge.outputs["output"]
                selected = select_edge_model(
                    measurement=measured_edge.outputs["output"],
                    candidates=dsl.Collected(smaller),
                    quantized=dsl.Collected(small.outputs["output"]),
                    **target,
                )
            else:
                selected = select_model(**measurements, candidates=dsl.Collected(smaller), **target)
            place(selected.set_display_name("Select the model"), cluster, light=True)
            reported = report(**measurements, selection=selected.outputs["selection"], command=command)
            place(reported.set_display_name("Report"), cluster, light=True)
            package(selected.outputs["output"], reported.outputs["results"], "model")
            if for_edge:
                package(selected.outputs["quantized_output"], reported.outputs["results"], "edge model")

        if only_edge is not None:
            compress_and_measure(only_edge)
            return
        with dsl.If(edge == True, name="edge"):  # noqa: E712  (KFP builds the condition from this comparison)
            compress_and_measure(for_edge=True)
        with dsl.Else(name="no-edge"):
            compress_and_measure(for_edge=False)

    return compress
