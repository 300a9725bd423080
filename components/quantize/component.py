"""quantize as a Kubeflow Pipelines component."""

from kfp.dsl import Dataset, Input, Model, Output, component

from kfp_bonsai.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def quantize(
    model: Input[Model],
    calibration: Input[Dataset],
    output: Output[Model],
    runtime: str = "auto",
    calibration_rows: int = 320,
    seed: int = 0,
):
    """Quantize a model to int8 for a CPU runtime."""
    from pathlib import Path

    from kfp_bonsai.quantize.quantize import quantize as stage
    from kfp_bonsai.shared.scalars import storable

    result = stage(
        Path(model.path),
        Path(calibration.path),
        Path(output.path),
        runtime=runtime,
        calibration_rows=calibration_rows,
        seed=seed,
    )
    output.metadata.update(storable(result))
