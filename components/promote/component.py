"""promote as a Kubeflow Pipelines component."""

from typing import NamedTuple

from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output, component

from kfp_bonsai.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def promote(
    challenger: Input[Model],
    champion: str,
    decision: Output[Artifact],
    metrics: Output[Metrics],
    document: Input[Artifact],
    incumbent: Input[Model],
    train: Input[Dataset],
    validation: Input[Dataset],
    test: Input[Dataset],
    margin: float = 0.01,
    max_emission: float = 0.0,
    first: bool = False,
    seed: int = 0,
) -> NamedTuple("Outputs", [("promoted", bool), ("reason", str)]):  # type: ignore[valid-type]
    """Put the model in the champion's place, if it is not worse."""
    given = dict(locals())

    from collections import namedtuple
    from pathlib import Path

    from kfp_bonsai.promote.promote import promote as stage
    from kfp_bonsai.shared.core.scalars import log_numbers, storable
    from kfp_bonsai.shared.core.signatures import chosen

    result = stage(
        Path(challenger.path),
        champion,
        Path(decision.path),
        document=document.path,
        incumbent=incumbent.path,
        train=train.path,
        validation=validation.path,
        test=test.path,
        **chosen(stage, given),
    )
    decision.metadata.update(storable(result))
    log_numbers(result, metrics)
    found = {name: result[name] for name in ("promoted", "reason")}
    return namedtuple("Outputs", list(found))(**found)
