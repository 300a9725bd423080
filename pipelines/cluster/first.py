"""The first task of a run on a cluster: it takes the form apart, and refuses in seconds what would fail after hours.

It gives every argument its value, as KFP gives a pipeline no access to what is in an object; and a fingerprint of what
the names stand for, so that KFP's cache answers for the same data and the same model, and for no others. Never cached.
"""

from typing import NamedTuple

from kfp.dsl import component

from kfp_bonsai.images import CPU


@component(base_image=CPU, install_kfp_package=False)
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
) -> NamedTuple(  # type: ignore[valid-type]
    "Outputs",
    [
        (name, kind)
        for kind, names in {
            str: "model data test_data validation_data unlabelled_data name text_column text_pair_column label_column "
            "kind metric positive_class split_by runtime device country license upload register "
            "data_fingerprint model_fingerprint",
            int: "validation_rows test_rows max_rows batch_size max_length augmentations unlabelled_rows prune_steps "
            "pairs traffic seed",
            float: "validation_fraction test_fraction min_accuracy max_emission epochs learning_rate block_seconds "
            "precision time_budget intensity embodied",
            bool: "drop_empty edge freeze_embeddings wait",
            list: "levels",
        }.items()
        for name in names.split()
    ],
):
    """Check what was typed into the form, and that model and data can be had; give every option its value."""
    from collections import namedtuple

    from kfp_bonsai.pipelines.cluster.check_form import check_form

    given = {
        "model": model,
        "data": data,
        "test_data": test_data,
        "levels": levels,
        "min_accuracy": min_accuracy,
        "max_emission": max_emission,
        "edge": edge,
        "country": country,
        "upload": upload,
        "options": options,
    }
    found = check_form("compress", given, fixed)
    return namedtuple("Outputs", list(found))(**found)


@component(base_image=CPU, install_kfp_package=False)
def check_retraining(
    champion: str,
    data: str,
    test_data: str,
    model: str,
    margin: float,
    max_emission: float,
    on_drift: str,
    country: str,
    options: dict,
    fixed: dict,
) -> NamedTuple(  # type: ignore[valid-type]
    "Outputs",
    [
        (name, kind)
        for kind, names in {
            str: "champion model data test_data validation_data unlabelled_data name text_column text_pair_column "
            "label_column kind metric positive_class split_by on_drift device country license data_fingerprint",
            int: "max_rows batch_size max_length augmentations unlabelled_rows prune_steps pairs traffic seed",
            float: "validation_fraction test_fraction margin min_accuracy max_emission epochs learning_rate "
            "block_seconds precision time_budget intensity embodied",
            bool: "drop_empty again freeze_embeddings wait",
        }.items()
        for name in names.split()
    ],
):
    """Check what was typed into the form, and that champion and data can be had; give every option its value."""
    from collections import namedtuple

    from kfp_bonsai.pipelines.cluster.check_form import check_form

    given = {
        "champion": champion,
        "data": data,
        "test_data": test_data,
        "model": model,
        "margin": margin,
        "max_emission": max_emission,
        "on_drift": on_drift,
        "country": country,
        "options": options,
    }
    found = check_form("retrain", given, fixed)
    return namedtuple("Outputs", list(found))(**found)
