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
    from pathlib import Path

    from kfp_bonsai.prepare_data.prepare import prepare_data as stage
    from kfp_bonsai.shared.core.scalars import log_numbers, storable

    result = stage(
        data,
        Path(train.path),
        Path(validation.path),
        Path(test.path),
        Path(unlabelled.path),
        test_data=test_data,
        validation_data=validation_data,
        unlabelled_data=unlabelled_data,
        name=name,
        text_column=text_column,
        text_pair_column=text_pair_column,
        label_column=label_column,
        kind=kind,
        metric=metric,
        positive_class=positive_class,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        validation_rows=validation_rows,
        test_rows=test_rows,
        max_rows=max_rows,
        drop_empty=drop_empty,
        split_by=split_by,
        seed=seed,
    )
    train.metadata.update(storable(result))
    train.metadata["fingerprint"] = fingerprint  # of what was read: with it, KFP's cache answers for that alone
    log_numbers(result, metrics)
