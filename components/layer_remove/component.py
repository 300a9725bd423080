"""layer-remove as a Kubeflow Pipelines component."""

from kfp.dsl import Dataset, Input, Model, Output, component

from kfp_bonsai.images import GPU


@component(base_image=GPU, install_kfp_package=False)
def layer_remove(
    model: Input[Model],
    data: Input[Dataset],
    shorter_model: Output[Model],
    keep: str = "1/3",
    scheme: str = "auto",
    level: str = "",
    student: str = "",
    seed: int = 0,
    fingerprint: str = "",
):
    """Remove whole layers from a fine-tuned model, or take a ready-made one instead."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.layer_remove.remove import layer_remove as stage
    from kfp_bonsai.shared.core.scalars import storable
    from kfp_bonsai.shared.core.signatures import chosen

    result = stage(Path(model.path), Path(data.path), Path(shorter_model.path), **chosen(stage, given))
    shorter_model.metadata.update(storable(result))
    shorter_model.metadata["fingerprint"] = fingerprint  # of what was read: with it, KFP's cache answers for that alone
