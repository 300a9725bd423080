"""retrain: new data to a model that takes the champion's place, or does not.

fetch-champion, prepare-data -> check-drift -> if there is something to learn: fine-tune -> teacher-outputs
-> layer-remove -> matrix-prune -> distill, at the champion's level -> evaluate-emissions, the champion beside it
-> select-model -> report -> package-model -> promote. On a cluster, check-retraining comes first.
"""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from kfp_bonsai.check_drift.component import check_drift
from kfp_bonsai.evaluate_emissions.component import evaluate_emissions_challenger
from kfp_bonsai.fetch_champion.component import fetch_champion
from kfp_bonsai.package_model.component import package_model
from kfp_bonsai.pipelines.cluster.first import check_retraining
from kfp_bonsai.pipelines.cluster.form import COMMAND, arguments, form
from kfp_bonsai.pipelines.cluster.placing import Cluster, measuring_device, place
from kfp_bonsai.pipelines.steps import MEASURING, TUNING, Tasks, a_pipeline
from kfp_bonsai.promote.component import promote
from kfp_bonsai.report.component import report
from kfp_bonsai.select_model.component import select_challenger

NAME, TITLE = "retrain", "Train the champion anew"
SUMMARY = "Train the champion anew on new data, measure both on the same rows, promote what is not worse."


def retrain_pipeline(cluster: Cluster | None = None, fuse: bool = False, fixed: Mapping[str, Any] | None = None) -> Any:
    """Return the pipeline, for a cluster with its form, or (None) for KFP's local runner with all arguments.

    Args:
        cluster: images, resources and retries of the tasks.
        fuse: run the three stages of a level in one task.
        fixed: arguments with other defaults than their own.
    """
    if cluster is None:
        fields = [*arguments(NAME).values(), COMMAND]
        return a_pipeline(NAME, TITLE, SUMMARY, fields, lambda values: _retrain(cluster, values, fuse))
    given = {"device": measuring_device(cluster), **(fixed or {})}
    fields, described = form(NAME, edge=False, fixed=given)

    def from_the_form(filled: dict[str, Any]) -> None:
        checked = check_retraining(**filled, fixed=given).set_display_name("Check the inputs")
        place(checked, cluster, light=True)
        _retrain(cluster, checked.outputs, fuse)

    return a_pipeline(NAME, TITLE, f"{SUMMARY}\n\n{described}", fields, from_the_form)


def _retrain(cluster: Cluster | None, values: Mapping[str, Any], fuse: bool) -> None:
    """Add the tasks.

    Args:
        cluster: what the cluster gives; None for the local runner.
        values: of all arguments.
        fuse: run the three stages of a level in one task.
    """
    tasks = Tasks(cluster, values)
    fetched = fetch_champion(**tasks.pick("champion", "model", "augmentations"))
    place(fetched.set_display_name("Fetch the champion"), cluster, light=True)
    splits, made = tasks.prepare(), fetched.outputs
    incumbent = made["incumbent"]
    rows = {name: splits[name] for name in ("train", "validation", "test")}
    checked = check_drift(
        document=made["document"], incumbent=incumbent, **rows, **tasks.pick("champion", "on_drift", "again", "margin")
    )
    place(checked.set_display_name("Check for drift"), cluster, light=True).set_caching_options(False)

    with dsl.If(checked.outputs["Output"] == "train", name="If there is something to learn"):
        baseline, taught = tasks.make_baseline(
            splits,
            {**tasks.pick(*TUNING), "model": made["model"], "fingerprint": made["fingerprint"]},
            {"augmentations": made["augmentations"], **tasks.pick("unlabelled_rows", "seed")},
        )
        challenger = tasks.make_smaller(
            splits,
            baseline,
            taught,
            {"keep": made["layers"], "level": made["level"], "seed": values["seed"]},
            {name: made[name] for name in ("flops", "shape", "heads", "ffn")}
            | {"steps": values["prune_steps"], "seed": values["seed"]},
            {"epochs": made["epochs"], "learning_rate": made["rate"], "seed": values["seed"]},
            fuse,
        )
        measured = evaluate_emissions_challenger(
            baseline=baseline,
            challenger=challenger,
            champion=incumbent,
            train=splits["train"],
            test=splits["test"],
            **tasks.pick("device", *MEASURING, "seed"),
        ).set_display_name("Evaluate emissions beside the champion")
        place(measured, cluster, heavy=True, measured=True)
        selected = select_challenger(
            measurement=measured.outputs["measurement"],
            challenger=challenger,
            **tasks.pick("min_accuracy", "max_emission"),
        )
        place(selected.set_display_name("Compare with the target"), cluster, light=True)
        reported = report(
            measurement=measured.outputs["measurement"],
            selection=selected.outputs["selection"],
            command=values.get(COMMAND.name, ""),
        )
        place(reported.set_display_name("Report"), cluster, light=True)
        packed = package_model(
            model=challenger,
            results=reported.outputs["results"],
            images=cluster.images if cluster else "",
            **tasks.pick("license"),
        )
        place(packed.set_display_name("Package the challenger"), cluster, light=True)
        promoted = promote(
            challenger=packed.outputs["package"],
            document=made["document"],
            incumbent=incumbent,
            **rows,
            **tasks.pick("champion", "margin", "max_emission", "seed"),
        )
        place(promoted.set_display_name("Promote"), cluster).set_caching_options(False)
