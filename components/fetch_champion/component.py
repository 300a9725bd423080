"""fetch-champion as a Kubeflow Pipelines component."""

from typing import NamedTuple

from kfp.dsl import Artifact, Model, Output, component

from kfp_bonsai.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def fetch_champion(
    champion: str,
    output: Output[Model],
    document: Output[Artifact],
    model: str = "",
    augmentations: int = -1,
) -> NamedTuple(  # type: ignore[valid-type]
    "Outputs",
    [
        ("version", str),
        ("level", str),
        ("model", str),
        ("layers", str),
        ("flops", float),
        ("shape", str),
        ("heads", int),
        ("ffn", int),
        ("augmentations", int),
        ("epochs", float),
        ("rate", float),
    ],
):
    """Fetch the model in use, and say how it was made."""
    from collections import namedtuple
    from pathlib import Path

    from kfp_bonsai.fetch_champion.fetch import fetch_champion as stage
    from kfp_bonsai.shared.scalars import storable

    result = stage(champion, Path(output.path), Path(document.path), model=model, augmentations=augmentations)
    output.metadata.update(storable(result))
    return namedtuple("Outputs", list(result))(**result)
