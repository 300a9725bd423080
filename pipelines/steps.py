"""What compress and retrain have in common: how they are built, and the tasks up to a smaller model."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Any

from kfp import dsl
from kfp.dsl import PipelineTask

from kfp_bonsai.distill.component import distill
from kfp_bonsai.fine_tune.component import fine_tune
from kfp_bonsai.layer_remove.component import layer_remove
from kfp_bonsai.matrix_prune.component import matrix_prune
from kfp_bonsai.pipelines.fused import compress_level
from kfp_bonsai.pipelines.options import COMMAND, PREPARING, arguments
from kfp_bonsai.prepare_data.component import prepare_data
from kfp_bonsai.teacher_outputs.component import teacher_outputs


def a_pipeline(
    name: str,
    title: str,
    description: str,
    fields: Sequence[Parameter],
    body: Callable[[dict[str, Any]], Any],
    gives: Any = Signature.empty,
) -> Any:
    """Return a pipeline whose parameters are these, which KFP else reads off a function's signature and docstring.

    Args:
        name: the pipeline's.
        title: its display name.
        description: what it does, and each parameter's description in a section "Args:".
        fields: its parameters.
        body: adds the tasks, given the parameters' channels by name.
        gives: the type of what the body returns, where it returns an output.
    """

    def function(*channels: Any) -> Any:
        return body({field.name: channel for field, channel in zip(fields, channels, strict=True)})

    function.__name__, function.__doc__ = name, description
    function.__signature__ = Signature(fields, return_annotation=gives)  # type: ignore[attr-defined]
    return dsl.pipeline(name=name, display_name=title, description=description.partition("\n")[0])(function)


def with_all_arguments(name: str, title: str, summary: str, body: Callable[["Tasks"], Any]) -> Any:
    """Return a pipeline for KFP's local runner, whose parameters are all that it can be given.

    Args:
        name: the pipeline's.
        title: its display name.
        summary: what it does.
        body: adds the tasks.
    """

    def alone(values: dict[str, Any]) -> None:
        body(Tasks(values))  # what it gives goes nowhere

    return a_pipeline(name, title, summary, [*arguments(name).values(), COMMAND], alone)


def here(task: PipelineTask, **_: bool) -> PipelineTask:
    """Leave a task where it is: on one's own machine nothing is to be placed."""
    return task


@dataclass(frozen=True)
class Tasks:
    """Adds tasks to a pipeline.

    Attributes:
        values: of all arguments of the pipeline.
        place: says where a task runs: its needs are heavy (it works on an accelerator), light (hardly any), measured
            (it measures emissions) and cached (its inputs decide what it makes).
        images: where a cluster pulls its images from, or "".
    """

    values: Mapping[str, Any]
    place: Callable[..., PipelineTask] = here
    images: str = ""

    def pick(self, *names: str) -> dict[str, Any]:
        """Return the arguments of these names."""
        return {name: self.values[name] for name in names}

    def given(self, options: Iterable[str], *but: str) -> dict[str, Any]:
        """Return the arguments of these names that the pipeline has, except for some, and the seed."""
        return self.pick(*(name for name in options if name in self.values and name not in but), "seed")

    def prepare(self) -> Any:
        """Add prepare-data; return the splits."""
        fingerprint = self.values.get("data_fingerprint", "")
        prepared = prepare_data(**self.pick("data"), **self.given(PREPARING), fingerprint=fingerprint)
        return self.place(prepared.set_display_name("Prepare data"), cached=True).outputs

    def make_baseline(self, splits: Any, tuning: dict[str, Any], teaching: dict[str, Any]) -> Any:
        """Add fine-tune and teacher-outputs; return the baseline and its transfer set.

        Args:
            splits: prepare-data's outputs.
            tuning: fine-tune's arguments beside the splits.
            teaching: those of teacher-outputs beside the baseline and the splits.
        """
        tuned = fine_tune(train=splits["train"], validation=splits["validation"], **tuning)
        self.place(tuned.set_display_name("Fine-tune the baseline"), heavy=True, cached=True)
        baseline = tuned.outputs["baseline"]
        taught = teacher_outputs(model=baseline, train=splits["train"], unlabelled=splits["unlabelled"], **teaching)
        self.place(taught.set_display_name("Teacher's outputs"), heavy=True, cached=True)
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
            self.place(made.set_display_name("Compress"), heavy=True, cached=True)
            return made.outputs["distilled_model"]
        shorter = layer_remove(model=baseline, data=splits["validation"], **removing)
        self.place(shorter.set_display_name("Remove layers"), heavy=True, cached=True)
        pruned = matrix_prune(model=shorter.outputs["shorter_model"], teacher_outputs=taught, **pruning)
        self.place(pruned.set_display_name("Prune matrices"), heavy=True, cached=True)
        distilled = distill(
            model=pruned.outputs["pruned_model"],
            teacher_outputs=taught,
            validation=splits["validation"],
            **distilling,
        )
        self.place(distilled.set_display_name("Distill"), heavy=True, cached=True)
        return distilled.outputs["distilled_model"]
