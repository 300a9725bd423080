"""distill as a Kubeflow Pipelines component."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output, component

from kfp_bonsai.images import GPU


@component(base_image=GPU, install_kfp_package=False)
def distill(
    model: Input[Model],
    teacher_outputs: Input[Dataset],
    validation: Input[Dataset],
    distilled_model: Output[Model],
    metrics: Output[Metrics],
    epochs: float = 0,
    learning_rate: float = 0,
    batch_size: int = 0,
    temperature: float = 2,
    hidden_weight: float = 10,
    label_weight: float = 0.3,
    vocabulary: str = "whole",
    seed: int = 0,
):
    """Train a compressed model on its teacher's logits and hidden states."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.distill.distill import distill as stage
    from kfp_bonsai.shared.core.scalars import log_numbers, storable
    from kfp_bonsai.shared.core.signatures import chosen

    result = stage(
        Path(model.path),
        Path(teacher_outputs.path),
        Path(validation.path),
        Path(distilled_model.path),
        **chosen(stage, given),
    )
    distilled_model.metadata.update(storable(result))
    log_numbers(result, metrics)
