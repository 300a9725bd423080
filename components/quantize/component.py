"""quantize as Kubeflow Pipelines components: for the levels, and for the baseline beside them."""

from kfp.dsl import Dataset, Input, Model, Output, component

from kfp_bonsai.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def quantize(
    model: Input[Model],
    calibration: Input[Dataset],
    quantized_model: Output[Model],
    runtime: str = "auto",
    calibration_rows: int = 160,
    any_processor: bool = False,
    weight_bits: int = 8,
    seed: int = 0,
):
    """Quantize a model to int8 for a CPU runtime."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.quantize.quantize import quantize as stage
    from kfp_bonsai.shared.core.scalars import storable
    from kfp_bonsai.shared.core.signatures import chosen

    result = stage(Path(model.path), Path(calibration.path), Path(quantized_model.path), **chosen(stage, given))
    quantized_model.metadata.update(storable(result))


@component(base_image=CPU, install_kfp_package=False)
def quantize_baseline(
    model: Input[Model],
    calibration: Input[Dataset],
    quantized_model: Output[Model],
    runtime: str = "auto",
    calibration_rows: int = 160,
    any_processor: bool = False,
    weight_bits: int = 8,
    seed: int = 0,
):
    """Quantize the baseline, to tell what int8 saves without compression; one that is refused is left out."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.quantize.quantize import quantize as stage
    from kfp_bonsai.shared.core.errors import BonsaiError
    from kfp_bonsai.shared.core.progress import say
    from kfp_bonsai.shared.core.scalars import storable
    from kfp_bonsai.shared.core.signatures import chosen

    try:
        result = stage(Path(model.path), Path(calibration.path), Path(quantized_model.path), **chosen(stage, given))
    except BonsaiError as error:
        say(f"quantize  left out: {error}")
        Path(quantized_model.path).mkdir(parents=True, exist_ok=True)
        (Path(quantized_model.path) / "left-out.txt").write_text(f"{error}\n")
        return
    quantized_model.metadata.update(storable(result))
