"""teacher-outputs as a Kubeflow Pipelines component."""

from kfp.dsl import Dataset, Input, Model, Output, component

from kfp_bonsai.images import GPU


@component(base_image=GPU, install_kfp_package=False)
def teacher_outputs(
    model: Input[Model],
    train: Input[Dataset],
    unlabelled: Input[Dataset],
    teacher_outputs: Output[Dataset],
    augmentations: int = -1,
    unlabelled_rows: int = -1,
    hidden_positions: int = 64,
    batch_size: int = 64,
    seed: int = 0,
):
    """Compute the teacher's logits and hidden states once, for all levels to be distilled from."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.shared.core.scalars import storable
    from kfp_bonsai.shared.core.signatures import chosen
    from kfp_bonsai.teacher_outputs.outputs import teacher_outputs as stage

    result = stage(
        Path(model.path), Path(train.path), Path(unlabelled.path), Path(teacher_outputs.path), **chosen(stage, given)
    )
    teacher_outputs.metadata.update(storable(result))
