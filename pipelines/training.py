"""The tasks that make a baseline, and a smaller model of it: what compress and retrain have in common."""

from typing import Any

from kfp_bonsai.distill.component import distill
from kfp_bonsai.fine_tune.component import fine_tune
from kfp_bonsai.layer_remove.component import layer_remove
from kfp_bonsai.matrix_prune.component import matrix_prune
from kfp_bonsai.pipelines.cluster import Cluster, place
from kfp_bonsai.teacher_outputs.component import teacher_outputs


def make_baseline(cluster: Cluster | None, splits: Any, tuning: dict[str, Any], teaching: dict[str, Any]) -> Any:
    """Add fine-tune and teacher-outputs; return the baseline and its transfer set.

    Args:
        cluster: what the cluster gives; None for the local runner.
        splits: prepare-data's outputs.
        tuning: fine-tune's arguments beside the splits.
        teaching: those of teacher-outputs beside the baseline and the splits.
    """
    tuned = fine_tune(train=splits["train"], validation=splits["validation"], **tuning)
    place(tuned.set_display_name("Fine-tune the baseline"), cluster, heavy=True)
    baseline = tuned.outputs["output"]
    taught = teacher_outputs(model=baseline, train=splits["train"], unlabelled=splits["unlabelled"], **teaching)
    place(taught.set_display_name("Teacher's outputs"), cluster, heavy=True)
    return baseline, taught.output


def make_smaller(
    cluster: Cluster | None,
    splits: Any,
    baseline: Any,
    taught: Any,
    removing: dict[str, Any],
    pruning: dict[str, Any],
    distilling: dict[str, Any],
) -> Any:
    """Add layer-remove, matrix-prune and distill; return the smaller model.

    Args:
        cluster: what the cluster gives; None for the local runner.
        splits: prepare-data's outputs.
        baseline: the model to make smaller.
        taught: its transfer set.
        removing: layer-remove's arguments beside these.
        pruning: those of matrix-prune.
        distilling: those of distill.
    """
    shorter = layer_remove(model=baseline, data=splits["validation"], **removing)
    place(shorter.set_display_name("Remove layers"), cluster, heavy=True)
    pruned = matrix_prune(model=shorter.outputs["output"], teacher_outputs=taught, **pruning)
    place(pruned.set_display_name("Prune matrices"), cluster, heavy=True)
    distilled = distill(
        model=pruned.outputs["output"], teacher_outputs=taught, validation=splits["validation"], **distilling
    )
    place(distilled.set_display_name("Distill"), cluster, heavy=True)
    return distilled.outputs["output"]
