"""evaluate-emissions as components: for all levels, for an edge CPU, and beside the champion, there or on a CPU."""

from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output, component

from kfp_bonsai.images import CPU, GPU


@component(base_image=GPU, install_kfp_package=False)
def evaluate_emissions(
    baseline: Input[Model],
    candidates: Input[list[Model]],
    train: Input[Dataset],
    test: Input[Dataset],
    measurement: Output[Artifact],
    metrics: Output[Metrics],
    device: str = "auto",
    batch_size: int = 32,
    pairs: int = 10,
    block_seconds: float = 2.0,
    precision: float = 0.02,
    time_budget: float = 0,
    country: str = "",
    intensity: float = 0,
    traffic: int = 0,
    embodied: float = 0,
    max_rows: int = 0,
    wait: bool = True,
    seed: int = 0,
):
    """Measure accuracy, and emission relative to the baseline, of all models on one machine."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions as stage
    from kfp_bonsai.shared.core.scalars import log_numbers, storable
    from kfp_bonsai.shared.core.signatures import chosen

    result = stage(
        Path(baseline.path),
        [Path(candidate.path) for candidate in candidates],
        Path(train.path),
        Path(test.path),
        Path(measurement.path),
        **chosen(stage, given),
    )
    measurement.metadata.update(storable(result))
    log_numbers(result, metrics)


@component(base_image=CPU, install_kfp_package=False)
def evaluate_emissions_edge(
    baseline: Input[Model],
    quantized_baseline: Input[Model],
    candidates: Input[list[Model]],
    train: Input[Dataset],
    test: Input[Dataset],
    measurement: Output[Artifact],
    metrics: Output[Metrics],
    device: str = "cpu",  # where the models will run
    batch_size: int = 32,
    pairs: int = 10,
    block_seconds: float = 2.0,
    precision: float = 0.02,
    time_budget: float = 0,
    country: str = "",
    intensity: float = 0,
    traffic: int = 0,
    embodied: float = 0,
    max_rows: int = 0,
    wait: bool = True,
    seed: int = 0,
):
    """Measure the int8 models on an edge CPU, beside the baseline as it is and, if that could be made, as int8."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions as stage
    from kfp_bonsai.shared.core.scalars import log_numbers, storable
    from kfp_bonsai.shared.core.signatures import chosen

    alone = Path(quantized_baseline.path)
    made = [alone] if (alone / "bonsai.json").is_file() else []
    result = stage(
        Path(baseline.path),
        [*made, *(Path(candidate.path) for candidate in candidates)],
        Path(train.path),
        Path(test.path),
        Path(measurement.path),
        **chosen(stage, given),
    )
    measurement.metadata.update(storable(result))
    log_numbers(result, metrics)


@component(base_image=GPU, install_kfp_package=False)
def evaluate_emissions_challenger(
    baseline: Input[Model],
    challenger: Input[Model],
    champion: Input[Model],
    train: Input[Dataset],
    test: Input[Dataset],
    measurement: Output[Artifact],
    metrics: Output[Metrics],
    device: str = "auto",
    batch_size: int = 32,
    pairs: int = 10,
    block_seconds: float = 2.0,
    precision: float = 0.02,
    time_budget: float = 0,
    country: str = "",
    intensity: float = 0,
    traffic: int = 0,
    embodied: float = 0,
    max_rows: int = 0,
    wait: bool = True,
    seed: int = 0,
):
    """Measure baseline, challenger and champion on one machine."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions as stage
    from kfp_bonsai.shared.core.scalars import log_numbers, storable
    from kfp_bonsai.shared.core.signatures import chosen

    result = stage(
        Path(baseline.path),
        [Path(challenger.path), Path(champion.path)],
        Path(train.path),
        Path(test.path),
        Path(measurement.path),
        **chosen(stage, given),
    )
    measurement.metadata.update(storable(result))
    log_numbers(result, metrics)


@component(base_image=CPU, install_kfp_package=False)
def evaluate_emissions_edge_challenger(
    baseline: Input[Model],
    challenger: Input[Model],
    quantized: Input[Model],
    champion: Input[Model],
    train: Input[Dataset],
    test: Input[Dataset],
    measurement: Output[Artifact],
    metrics: Output[Metrics],
    device: str = "cpu",  # where the models will run
    batch_size: int = 32,
    pairs: int = 10,
    block_seconds: float = 2.0,
    precision: float = 0.02,
    time_budget: float = 0,
    country: str = "",
    intensity: float = 0,
    traffic: int = 0,
    embodied: float = 0,
    max_rows: int = 0,
    wait: bool = True,
    seed: int = 0,
):
    """Measure baseline, challenger, its int8 form and the champion on an edge CPU."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions as stage
    from kfp_bonsai.shared.core.scalars import log_numbers, storable
    from kfp_bonsai.shared.core.signatures import chosen

    result = stage(
        Path(baseline.path),
        [Path(quantized.path), Path(challenger.path), Path(champion.path)],
        Path(train.path),
        Path(test.path),
        Path(measurement.path),
        **chosen(stage, given),
    )
    measurement.metadata.update(storable(result))
    log_numbers(result, metrics)
