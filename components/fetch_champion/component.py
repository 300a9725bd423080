"""fetch-champion as a Kubeflow Pipelines component."""

from typing import NamedTuple

from kfp.dsl import Artifact, Model, Output, component

from kfp_bonsai.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def fetch_champion(
    champion: str,
    incumbent: Output[Model],
    document: Output[Artifact],
    model: str = "",
    augmentations: int = -1,
    edge: bool = False,
    runtime: str = "auto",
) -> NamedTuple(  # type: ignore[valid-type]
    "Outputs",
    [
        ("version", str),
        ("level", str),
        ("model", str),
        ("student", str),
        ("layers", str),
        ("flops", float),
        ("emission", float),
        ("shape", str),
        ("heads", int),
        ("ffn", int),
        ("augmentations", int),
        ("epochs", float),
        ("rate", float),
        ("vocabulary", str),
        ("form", str),
        ("runtime", str),
        ("calibration_rows", int),
        ("any_processor", bool),
        ("weight_bits", int),
        ("fingerprint", str),
        ("student_fingerprint", str),
    ],
):
    """Fetch the model in use, and say how it was made, with a fingerprint of the model that it was made from."""
    given = dict(locals())

    from collections import namedtuple
    from pathlib import Path

    from kfp_bonsai.fetch_champion.fetch import fetch_champion as stage
    from kfp_bonsai.shared.core.scalars import storable
    from kfp_bonsai.shared.core.signatures import chosen
    from kfp_bonsai.shared.saved.fingerprint import of_model

    result = stage(champion, Path(incumbent.path), Path(document.path), **chosen(stage, given))
    incumbent.metadata.update(storable(result))
    student = of_model(str(result["student"])) if result["student"] else ""
    found = {**result, "fingerprint": of_model(str(result["model"])), "student_fingerprint": student}
    return namedtuple("Outputs", list(found))(**found)
