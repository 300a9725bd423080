"""retrain: new data to a model that takes the champion's place, or does not.

fetch-champion, prepare-data -> check-drift -> if there is something to learn: fine-tune -> teacher-outputs
-> layer-remove -> matrix-prune -> distill, at the champion's level -> evaluate-emissions, the champion beside it
-> select-model -> report -> package-model -> promote.
"""

from typing import Any

from kfp import dsl

from kfp_bonsai.check_drift.component import check_drift
from kfp_bonsai.evaluate_emissions.component import evaluate_emissions_challenger
from kfp_bonsai.fetch_champion.component import fetch_champion
from kfp_bonsai.package_model.component import package_model
from kfp_bonsai.pipelines.cluster import Cluster, measuring_device, place
from kfp_bonsai.pipelines.training import make_baseline, make_smaller
from kfp_bonsai.prepare_data.component import prepare_data
from kfp_bonsai.promote.component import promote
from kfp_bonsai.report.component import report
from kfp_bonsai.select_model.component import select_challenger


def retrain_pipeline(cluster: Cluster | None = None) -> Any:
    """Return the pipeline, for a cluster or (None) for KFP's local runner."""

    @dsl.pipeline(
        name="retrain",
        description="Train the champion anew on new data, measure both on the same rows, promote what is not worse.",
    )
    def retrain(
        champion: str,
        data: str,
        model: str = "",
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
        max_rows: int = 0,
        drop_empty: bool = False,
        split_by: str = "hash",
        on_drift: str = "warn",
        again: bool = False,
        margin: float = 0.01,
        min_accuracy: float = 0.0,
        max_emission: float = 0.0,
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
        command: str = "",
        seed: int = 0,
    ):
        # The cache knows a bucket by its name alone, and what is in it changes: both are read anew each time.
        fetched = fetch_champion(champion=champion, model=model, augmentations=augmentations)
        fetched.set_display_name("Fetch the champion")
        place(fetched, cluster, light=True).set_caching_options(cluster is None)
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
            max_rows=max_rows,
            drop_empty=drop_empty,
            split_by=split_by,
            seed=seed,
        ).set_display_name("Prepare data")
        place(prepared, cluster).set_caching_options(cluster is None)
        splits, incumbent = prepared.outputs, fetched.outputs["output"]

        checked = check_drift(
            champion=champion,
            document=fetched.outputs["document"],
            incumbent=incumbent,
            train=splits["train"],
            validation=splits["validation"],
            test=splits["test"],
            on_drift=on_drift,
            again=again,
            margin=margin,
        ).set_display_name("Check for drift")
        place(checked, cluster, light=True).set_caching_options(False)

        with dsl.If(checked.outputs["Output"] == "train", name="new-data"):
            made = fetched.outputs
            tuning = {
                "model": made["model"],
                "epochs": epochs,
                "learning_rate": learning_rate,
                "batch_size": batch_size,
                "max_length": max_length,
                "freeze_embeddings": freeze_embeddings,
                "seed": seed,
            }
            teaching = {"augmentations": made["augmentations"], "unlabelled_rows": unlabelled_rows, "seed": seed}
            baseline, taught = make_baseline(cluster, splits, tuning, teaching)
            challenger = make_smaller(
                cluster,
                splits,
                baseline,
                taught,
                {"keep": made["layers"], "level": made["level"], "seed": seed},
                {name: made[name] for name in ("flops", "shape", "heads", "ffn")}
                | {"steps": prune_steps, "seed": seed},
                {"epochs": made["epochs"], "learning_rate": made["rate"], "seed": seed},
            )

            measured = evaluate_emissions_challenger(
                baseline=baseline,
                challenger=challenger,
                champion=incumbent,
                train=splits["train"],
                test=splits["test"],
                device=device,
                pairs=pairs,
                block_seconds=block_seconds,
                precision=precision,
                time_budget=time_budget,
                country=country,
                intensity=intensity,
                traffic=traffic,
                embodied=embodied,
                wait=wait,
                seed=seed,
            ).set_display_name("Evaluate emissions beside the champion")
            place(measured, cluster, heavy=True, measured=True)
            selected = select_challenger(
                measurement=measured.outputs["output"],
                challenger=challenger,
                min_accuracy=min_accuracy,
                max_emission=max_emission,
            ).set_display_name("Compare with the target")
            place(selected, cluster, light=True)
            reported = report(
                measurement=measured.outputs["output"], selection=selected.outputs["selection"], command=command
            ).set_display_name("Report")
            place(reported, cluster, light=True)
            packed = package_model(
                model=challenger,
                results=reported.outputs["results"],
                license=license,
                images=cluster.images if cluster else "",
            ).set_display_name("Package the challenger")
            place(packed, cluster, light=True)
            promoted = promote(
                challenger=packed.outputs["output"],
                champion=champion,
                document=fetched.outputs["document"],
                incumbent=incumbent,
                train=splits["train"],
                validation=splits["validation"],
                test=splits["test"],
                margin=margin,
                max_emission=max_emission,
                seed=seed,
            ).set_display_name("Promote")
            place(promoted, cluster).set_caching_options(False)

    return retrain
