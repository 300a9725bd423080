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
    optional: bool = False,
):
    """Quantize a model to int8 for a CPU runtime; if it is optional, one that is refused gives an empty folder."""
    from pathlib import Path

    from kfp_bonsai.quantize.quantize import quantize as stage
    from kfp_bonsai.shared.errors import BonsaiError
    from kfp_bonsai.shared.progress import say
    from kfp_bonsai.shared.scalars import storable

    try:
        result = stage(
            Path(model.path),
            Path(calibration.path),
            Path(output.path),
            runtime=runtime,
            calibration_rows=calibration_rows,
            seed=seed,
        )
    except BonsaiError as error:
        if not optional:
            raise
        say(f"quantize  left out: {error}")
        Path(output.path).mkdir(parents=True, exist_ok=True)
        (Path(output.path) / "left-out.txt").write_text(f"{error}\n")
        return
    output.metadata.update(storable(result))
