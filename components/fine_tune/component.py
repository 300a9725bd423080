"""fine-tune as a Kubeflow Pipelines component."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output, component

from kfp_bonsai.images import GPU


@component(base_image=GPU, install_kfp_package=False)
def fine_tune(
    model: str,
    train: Input[Dataset],
    validation: Input[Dataset],
    baseline: Output[Model],
    metrics: Output[Metrics],
    epochs: float = 3,
    learning_rate: float = 1e-4,
    batch_size: int = 32,
    max_length: int = 0,
    freeze_embeddings: bool = False,
    seed: int = 0,
    fingerprint: str = "",
):
    """Fine-tune a pretrained model on a task: the baseline."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.fine_tune.train import fine_tune as stage
    from kfp_bonsai.shared.core.scalars import log_numbers, storable
    from kfp_bonsai.shared.core.signatures import chosen

    result = stage(model, Path(train.path), Path(validation.path), Path(baseline.path), **chosen(stage, given))
    baseline.metadata.update(storable(result))
    baseline.metadata["fingerprint"] = fingerprint  # of what was read: with it, KFP's cache answers for that alone
    log_numbers(result, metrics)
