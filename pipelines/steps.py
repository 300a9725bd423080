"""What compress and retrain have in common: how they are built, and the tasks up to a smaller model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Any

from kfp import dsl

from kfp_bonsai.distill.component import distill
from kfp_bonsai.fine_tune.component import fine_tune
from kfp_bonsai.layer_remove.component import layer_remove
from kfp_bonsai.matrix_prune.component import matrix_prune
from kfp_bonsai.pipelines.cluster.placing import Cluster, place
from kfp_bonsai.pipelines.fused import compress_level
from kfp_bonsai.prepare_data.component import prepare_data
from kfp_bonsai.teacher_outputs.component import teacher_outputs

# Arguments of single tasks, by the names that the pipelines have for them too.
PREPARING = (
    *("data", "test_data", "validation_data", "unlabelled_data", "name"),
    *("text_column", "text_pair_column", "label_column", "kind", "metric", "positive_class"),
    *("validation_fraction", "test_fraction", "max_rows", "drop_empty", "split_by", "seed"),
)
TUNING = ("epochs", "learning_rate", "batch_size", "max_length", "freeze_embeddings", "seed")
MEASURING = (
    *("pairs", "block_seconds", "precision", "time_budget"),
    *("country", "intensity", "traffic", "embodied", "wait"),
)


def a_pipeline(
    name: str, title: str, description: str, fields: Sequence[Parameter], body: Callable[[dict[str, Any]], None]
) -> Any:
    """Return a pipeline whose parameters are these, which KFP else reads off a function's signature and docstring.

    Args:
        name: the pipeline's.
        title: its display name.
        description: what it does, and each parameter's description in a section "Args:".
        fields: its parameters.
        body: adds the tasks, given the parameters' channels by name.
    """

    def function(*channels: Any) -> None:
        body({field.name: channel for field, channel in zip(fields, channels, strict=True)})

    function.__name__, function.__doc__ = name, description
    function.__signature__ = Signature(fields)  # type: ignore[attr-defined]
    return dsl.pipeline(name=name, display_name=title, description=description.partition("\n")[0])(function)


@dataclass(frozen=True)
class Tasks:
    """Adds tasks to a pipeline.

    Attributes:
        cluster: what the cluster gives; None for the local runner.
        values: of all arguments of the pipeline.
    """

    cluster: Cluster | None
    values: Mapping[str, Any]

    def pick(self, *names: str) -> dict[str, Any]:
        """Return the arguments of these names."""
        return {name: self.values[name] for name in names}

    def prepare(self, *more: str) -> Any:
        """Add prepare-data; return the splits.

        Args:
            more: names of arguments that only this pipeline has.
        """
        fingerprint = self.values.get("data_fingerprint", "")
        prepared = prepare_data(**self.pick(*PREPARING, *more), fingerprint=fingerprint)
        return place(prepared.set_display_name("Prepare data"), self.cluster, cached=True).outputs

    def make_baseline(self, splits: Any, tuning: dict[str, Any], teaching: dict[str, Any]) -> Any:
        """Add fine-tune and teacher-outputs; return the baseline and its transfer set.

        Args:
            splits: prepare-data's outputs.
            tuning: fine-tune's arguments beside the splits.
            teaching: those of teacher-outputs beside the baseline and the splits.
        """
        tuned = fine_tune(train=splits["train"], validation=splits["validation"], **tuning)
        place(tuned.set_display_name("Fine-tune the baseline"), self.cluster, heavy=True, cached=True)
        baseline = tuned.outputs["baseline"]
        taught = teacher_outputs(model=baseline, train=splits["train"], unlabelled=splits["unlabelled"], **teaching)
        place(taught.set_display_name("Teacher's outputs"), self.cluster, heavy=True, cached=True)
        return baseline, taught.outputs["teacher_outputs"]

    def make_smaller(
        self,
        splits: Any,
        baseline: Any,
        taught: Any,
        removing: dict[str, Any],
        pruning: dict[str, Any],
        distilling: dict[str, Any],
        fuse: bool,
    ) -> Any:
        """Add layer-remove, matrix-prune and distill, or one task that does all three; return the smaller model.

        Args:
            splits: prepare-data's outputs.
            baseline: the model to make smaller.
            taught: its transfer set.
            removing: layer-remove's arguments beside these.
            pruning: those of matrix-prune.
            distilling: those of distill.
            fuse: add one task.
        """
        if fuse:
            made = compress_level(
                model=baseline,
                teacher_outputs=taught,
                validation=splits["validation"],
                **{**removing, **pruning, **distilling},
            )
            place(made.set_display_name("Compress"), self.cluster, heavy=True, cached=True)
            return made.outputs["distilled_model"]
        shorter = layer_remove(model=baseline, data=splits["validation"], **removing)
        place(shorter.set_display_name("Remove layers"), self.cluster, heavy=True, cached=True)
        pruned = matrix_prune(model=shorter.outputs["shorter_model"], teacher_outputs=taught, **pruning)
        place(pruned.set_display_name("Prune matrices"), self.cluster, heavy=True, cached=True)
        distilled = distill(
            model=pruned.outputs["pruned_model"],
            teacher_outputs=taught,
            validation=splits["validation"],
            **distilling,
        )
        place(distilled.set_display_name("Distill"), self.cluster, heavy=True, cached=True)
        return distilled.outputs["distilled_model"]
