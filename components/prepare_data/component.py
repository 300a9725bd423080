"""prepare-data as a Kubeflow Pipelines component."""

from kfp.dsl import Dataset, Metrics, Output, component

from kfp_bonsai.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def prepare_data(
    data: str,
    train: Output[Dataset],
    validation: Output[Dataset],
    test: Output[Dataset],
    unlabelled: Output[Dataset],
    metrics: Output[Metrics],
    test_data: str = "",
    validation_data: str = "",
    unlabelled_data: str = "",
    name: str = "",
    text_column: str = "",
    text_pair_column: str = "",
    label_column: str = "",
    kind: str = "auto",
    metric: str = "",
    positive_class: str = "",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    validation_rows: int = 0,
    test_rows: int = 0,
    max_rows: int = 0,
    drop_empty: bool = False,
    split_by: str = "random",
    seed: int = 0,
    fingerprint: str = "",
):
    """Turn a data set into self-describing Parquet splits."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.prepare_data.prepare import prepare_data as stage
    from kfp_bonsai.shared.core.scalars import log_numbers, storable
    from kfp_bonsai.shared.core.signatures import chosen

    result = stage(
        data, Path(train.path), Path(validation.path), Path(test.path), Path(unlabelled.path), **chosen(stage, given)
    )
    train.metadata.update(storable(result))
    train.metadata["fingerprint"] = fingerprint  # of what was read: with it, KFP's cache answers for that alone
    log_numbers(result, metrics)
