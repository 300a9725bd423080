"""check-drift as a Kubeflow Pipelines component."""

from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output, component

from kfp_bonsai.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def check_drift(
    champion: str,
    document: Input[Artifact],
    incumbent: Input[Model],
    train: Input[Dataset],
    validation: Input[Dataset],
    test: Input[Dataset],
    decision: Output[Artifact],
    metrics: Output[Metrics],
    on_drift: str = "warn",
    again: bool = False,
    margin: float = 0.0,
    form: str = "",
) -> str:  # not a named output: KFP's local runner then takes no branch of a condition on it
    """Check new data against the champion's; return what is to be done, train or nothing."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.check_drift.check import check_drift as stage
    from kfp_bonsai.shared.core.scalars import log_numbers, storable
    from kfp_bonsai.shared.core.signatures import chosen

    result = stage(
        champion,
        Path(document.path),
        Path(incumbent.path),
        Path(train.path),
        Path(validation.path),
        Path(test.path),
        Path(decision.path),
        **chosen(stage, given),
    )
    decision.metadata.update(storable(result))
    log_numbers(result, metrics)
    return str(result["todo"])
