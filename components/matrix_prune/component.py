"""matrix-prune as a Kubeflow Pipelines component."""

from kfp.dsl import Dataset, Input, Model, Output, component

from kfp_bonsai.images import GPU


@component(base_image=GPU, install_kfp_package=False)
def matrix_prune(
    model: Input[Model],
    teacher_outputs: Input[Dataset],
    pruned_model: Output[Model],
    flops: float = 0.1,
    emission: float = 1.0,
    shape: str = "free",
    heads: int = 0,
    ffn: int = 0,
    steps: int = 200,
    learning_rate: float = 2e-4,
    batch_size: int = 32,
    temperature: float = 2,
    hidden_weight: float = 10,
    device: str = "auto",
    vocabulary: str = "whole",
    costs: str = "",
    seed: int = 0,
):
    """Prune rows and columns of the weight matrices to a share of the FLOPs."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.matrix_prune.prune import matrix_prune as stage
    from kfp_bonsai.shared.core.scalars import storable
    from kfp_bonsai.shared.core.signatures import chosen

    result = stage(Path(model.path), Path(teacher_outputs.path), Path(pruned_model.path), **chosen(stage, given))
    pruned_model.metadata.update(storable(result))
