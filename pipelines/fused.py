"""The three stages of a level as one task, where a pod for each costs more than its work."""

from kfp.dsl import Dataset, Input, Metrics, Model, Output, component

from kfp_bonsai.images import GPU


@component(base_image=GPU, install_kfp_package=False)
def compress_level(
    model: Input[Model],
    teacher_outputs: Input[Dataset],
    validation: Input[Dataset],
    shorter_model: Output[Model],
    pruned_model: Output[Model],
    distilled_model: Output[Model],
    metrics: Output[Metrics],
    keep: str = "1/3",
    level: str = "",
    student: str = "",
    flops: float = 0.1,
    emission: float = 1.0,
    shape: str = "free",
    heads: int = 0,
    ffn: int = 0,
    steps: int = 200,
    device: str = "auto",
    epochs: float = 0,
    learning_rate: float = 0,
    vocabulary: str = "whole",
    seed: int = 0,
    fingerprint: str = "",
):
    """Remove layers (or take a ready-made model), prune matrices and distill, one after the other."""
    from pathlib import Path

    from kfp_bonsai.distill.distill import distill
    from kfp_bonsai.layer_remove.remove import layer_remove
    from kfp_bonsai.matrix_prune.prune import matrix_prune
    from kfp_bonsai.shared.core.scalars import log_numbers, storable

    shorter, pruned, distilled = (Path(made.path) for made in (shorter_model, pruned_model, distilled_model))
    taught, rows = Path(teacher_outputs.path), Path(validation.path)
    result = layer_remove(Path(model.path), rows, shorter, keep=keep, level=level, student=student, seed=seed)
    shorter_model.metadata.update(storable(result))
    shorter_model.metadata["fingerprint"] = fingerprint  # as layer-remove has it
    pruning = {"flops": flops, "emission": emission, "device": device, "shape": shape, "heads": heads, "ffn": ffn}
    pruning["vocabulary"] = vocabulary
    result = matrix_prune(shorter, taught, pruned, **pruning, steps=steps, seed=seed)
    pruned_model.metadata.update(storable(result))
    learning = {"epochs": epochs, "learning_rate": learning_rate, "vocabulary": vocabulary}
    result = distill(pruned, taught, rows, distilled, **learning, seed=seed)
    distilled_model.metadata.update(storable(result))
    log_numbers(result, metrics)
