"""compress: from a pretrained model and a data set to smaller models, measured, chosen and packed.

prepare-data -> fine-tune -> teacher-outputs -> for each level {layer-remove -> matrix-prune -> distill}
-> evaluate-emissions -> select-model -> report -> package-model, and for an edge CPU, before the report,
quantize -> evaluate-emissions there.
"""

from typing import Any

from kfp import dsl

from kfp_bonsai.evaluate_emissions.component import evaluate_emissions, evaluate_emissions_edge
from kfp_bonsai.package_model.component import package_model
from kfp_bonsai.pipelines.cluster import Cluster, measuring_device, place
from kfp_bonsai.pipelines.levels import parse_levels
from kfp_bonsai.pipelines.training import make_baseline, make_smaller
from kfp_bonsai.prepare_data.component import prepare_data
from kfp_bonsai.quantize.component import quantize
from kfp_bonsai.report.component import report
from kfp_bonsai.select_model.component import select_model

DEFAULT_LEVELS = parse_levels(())


def compress_pipeline(cluster: Cluster | None = None, parallel_levels: int = 0) -> Any:
    """Return the pipeline, for a cluster or (None) for KFP's local runner.

    Args:
        cluster: images, resources and retries of the tasks.
        parallel_levels: how many levels are trained at the same time; 0 for all.
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
        measured = evaluate_emissions(candidates=dsl.Collected(smaller), device=device, **measuring).set_display_name(
            "Evaluate emissions"
        )
        place(measured, cluster, heavy=True, measured=True)

        selected = select_model(
            measurement=measured.outputs["output"],
            candidates=dsl.Collected(smaller),
            min_accuracy=min_accuracy,
            max_emission=max_emission,
        ).set_display_name("Select the model")
        place(selected, cluster, light=True)
        chosen = selected.outputs["output"]
        images = cluster.images if cluster else ""
        handed_on: dict[str, Any] = {"license": license, "upload": upload, "register": register, "images": images}

        with dsl.If(edge == True, name="edge"):  # noqa: E712  (KFP builds the condition from this comparison)
            quantized = quantize(
                model=chosen, calibration=splits["train"], runtime=runtime, seed=seed
            ).set_display_name("Quantize")
            place(quantized, cluster)
            measured_edge = evaluate_emissions_edge(
                chosen=chosen, quantized=quantized.outputs["output"], **measuring
            ).set_display_name("Evaluate emissions on the edge CPU")
            place(measured_edge, cluster, measured=True)
            reported = report(
                measurement=measured.outputs["output"],
                selection=selected.outputs["selection"],
                edge_measurement=measured_edge.outputs["output"],
                command=command,
            ).set_display_name("Report")
            place(reported, cluster, light=True)
            packed = package_model(model=chosen, results=reported.outputs["results"], **handed_on).set_display_name(
                "Package the model"
            )
            place(packed, cluster, light=True)
            packed_edge = package_model(
                model=quantized.outputs["output"], results=reported.outputs["results"], **handed_on
            ).set_display_name("Package the edge model")
            place(packed_edge, cluster, light=True)

        with dsl.Else(name="no-edge"):
            reported = report(
                measurement=measured.outputs["output"], selection=selected.outputs["selection"], command=command
            ).set_display_name("Report")
            place(reported, cluster, light=True)
            packed = package_model(model=chosen, results=reported.outputs["results"], **handed_on).set_display_name(
                "Package the model"
            )
            place(packed, cluster, light=True)

    return compress
