"""package-model as a Kubeflow Pipelines component."""

from kfp.dsl import Artifact, Input, Model, Output, component

from kfp_bonsai.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def package_model(
    model: Input[Model],
    results: Input[Artifact],
    package: Output[Model],
    name: str = "",
    license: str = "",
    ship_code: bool = False,
    upload: str = "",
    register: str = "",
    fetch_as: str = "",
    images: str = "",
):
    """Put the chosen model into one folder with all that it takes to trust and to serve it; publish and register it."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.package_model.package import package_model as stage
    from kfp_bonsai.shared.core.scalars import storable
    from kfp_bonsai.shared.core.signatures import chosen

    result = stage(Path(model.path), Path(results.path), Path(package.path), **chosen(stage, given))
    package.metadata.update(storable(result))
