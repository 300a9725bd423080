"""The first task of a run on a cluster: it takes the form apart, and refuses in seconds what would fail after hours.

It gives every argument its value, as KFP gives a pipeline no access to what is in an object; and a fingerprint of what
the names stand for, so that KFP's cache answers for the same data and the same model, and for no others. Never cached.
"""

from typing import NamedTuple

from kfp.dsl import component

from kfp_bonsai.images import CPU


def values_of(pipeline):  # type: ignore[no-untyped-def]  # a part of the task's text, which KFP runs by itself
    """Return the type of what a first task gives."""
    from kfp_bonsai.pipelines.options import outputs

    return outputs(pipeline)


@component(base_image=CPU, install_kfp_package=False, additional_funcs=[values_of])
def check_inputs(
    model: str,
    data: str,
    test_data: str,
    levels: list,
    min_accuracy: float,
    max_emission: float,
    edge: bool,
    country: str,
    upload: str,
    options: dict,
    fixed: dict,
) -> values_of("compress"):  # type: ignore[valid-type]
    """Check what was typed into the form, and that model and data can be had; give every option its value."""
    given = {name: value for name, value in locals().items() if name != "fixed"}

    from kfp_bonsai.pipelines.cluster.check_form import check_form

    found = check_form("compress", given, fixed)
    return values_of("compress")(**found)


@component(base_image=CPU, install_kfp_package=False, additional_funcs=[values_of])
def check_retraining(
    champion: str,
    data: str,
    test_data: str,
    model: str,
    margin: float,
    max_emission: float,
    edge: bool,
    on_drift: str,
    country: str,
    options: dict,
    fixed: dict,
) -> values_of("retrain"):  # type: ignore[valid-type]
    """Check what was typed into the form, and that champion and data can be had; give every option its value."""
    given = {name: value for name, value in locals().items() if name != "fixed"}

    from kfp_bonsai.pipelines.cluster.check_form import check_form

    found = check_form("retrain", given, fixed)
    return values_of("retrain")(**found)


@component(base_image=CPU, install_kfp_package=False, additional_funcs=[values_of])
def check_search(
    model: str,
    data: str,
    test_data: str,
    min_accuracy: float,
    max_emission: float,
    max_latency_ms: float,
    max_size_mb: float,
    max_memory_mb: float,
    objective: str,
    country: str,
    upload: str,
    options: dict,
    fixed: dict,
) -> values_of("search"):  # type: ignore[valid-type]
    """Check what was typed into the form, and that model and data can be had; give every option its value."""
    given = {name: value for name, value in locals().items() if name != "fixed"}

    from kfp_bonsai.pipelines.cluster.check_form import check_form

    found = check_form("search", given, fixed)
    return values_of("search")(**found)


@component(base_image=CPU, install_kfp_package=False)
def check_study(
    models: list,
    data: list,
    levels: list,
    seeds: list,
    title: str,
    options: dict,
    fixed: dict,
) -> NamedTuple("Outputs", [("cells", list), ("described", list)]):  # type: ignore[valid-type]
    """Check what was typed into the form; give the cells whose models and data can be had, and what is told of all."""
    given = {name: value for name, value in locals().items() if name != "fixed"}

    from kfp_bonsai.pipelines.cluster.check_form import check_cells

    found = check_cells(given, fixed)
    return found["cells"], found["described"]
