"""select-model as a Kubeflow Pipelines component."""

from kfp.dsl import Artifact, Input, Model, Output, component

from kfp_bonsai.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def select_model(
    measurement: Input[Artifact],
    candidates: Input[list[Model]],
    chosen_model: Output[Model],
    selection: Output[Artifact],
    min_accuracy: float = 0.0,
    max_emission: float = 0.0,
):
    """Choose the model that meets the target with the smallest emission."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.select_model.select import select_model as stage
    from kfp_bonsai.shared.core.scalars import storable
    from kfp_bonsai.shared.core.signatures import chosen

    result = stage(
        Path(measurement.path),
        [Path(candidate.path) for candidate in candidates],
        Path(chosen_model.path),
        Path(selection.path),
        **chosen(stage, given),
    )
    chosen_model.metadata.update(storable(result))
    selection.metadata.update(storable(result))


@component(base_image=CPU, install_kfp_package=False)
def select_edge_model(
    measurement: Input[Artifact],
    candidates: Input[list[Model]],
    quantized: Input[list[Model]],
    chosen_model: Output[Model],
    quantized_model: Output[Model],
    selection: Output[Artifact],
    min_accuracy: float = 0.0,
    max_emission: float = 0.0,
):
    """Choose the int8 model that meets the target with the smallest emission, and the model it was made of."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.select_model.select import select_edge_model as stage
    from kfp_bonsai.shared.core.scalars import storable
    from kfp_bonsai.shared.core.signatures import chosen

    result = stage(
        Path(measurement.path),
        [Path(candidate.path) for candidate in candidates],
        [Path(each.path) for each in quantized],
        Path(chosen_model.path),
        Path(quantized_model.path),
        Path(selection.path),
        **chosen(stage, given),
    )
    for made in (chosen_model, quantized_model, selection):
        made.metadata.update(storable(result))


@component(base_image=CPU, install_kfp_package=False)
def select_challenger(
    measurement: Input[Artifact],
    challenger: Input[Model],
    chosen_model: Output[Model],
    selection: Output[Artifact],
    min_accuracy: float = 0.0,
    max_emission: float = 0.0,
):
    """Say whether the one model there is meets the target."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.select_model.select import select_model as stage
    from kfp_bonsai.shared.core.scalars import storable
    from kfp_bonsai.shared.core.signatures import chosen

    result = stage(
        Path(measurement.path),
        [Path(challenger.path)],
        Path(chosen_model.path),
        Path(selection.path),
        **chosen(stage, given),
    )
    chosen_model.metadata.update(storable(result))
    selection.metadata.update(storable(result))
