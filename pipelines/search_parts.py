"""The tasks of a search beside the stages: what it stands on, a trial, and its end."""

from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Metrics, Model, Output, component

from kfp_bonsai.images import CPU, GPU


def _search_ground(
    baseline: Input[Model],
    train: Input[Dataset],
    validation: Input[Dataset],
    pool: Output[Model],
    shape: str = "free",
    device: str = "auto",
    edge: bool = False,
    with_memory: bool = False,
    rivals: str = "",
    block_seconds: float = 2.0,
    seed: int = 0,
):
    """Time what shapes cost on this device, and measure the baseline."""
    from pathlib import Path

    from kfp_bonsai.pipelines.search.groundwork import lay_ground

    lay_ground(
        Path(baseline.path),
        Path(train.path),
        Path(validation.path),
        Path(pool.path),
        shape=shape,
        device=device,
        edge=edge,
        with_memory=with_memory,
        rivals=[one.strip() for one in rivals.split(",") if one.strip()],
        block_seconds=block_seconds,
        seed=seed,
    )


def _search_trial(
    baseline: Input[Model],
    teacher_outputs: Input[Dataset],
    train: Input[Dataset],
    validation: Input[Dataset],
    pool: Input[Model],
    trial: Output[Model],
    metrics: Output[Metrics],
    number: int,
    device: str = "auto",
    edge: bool = False,
    with_memory: bool = False,
    prune_steps: int = 200,
    distill_epochs: float = 0,
    block_seconds: float = 2.0,
    seed: int = 0,
):
    """Do one of the jobs that were proposed: a new trial, or one to heal further."""
    from pathlib import Path

    from kfp_bonsai.pipelines.search.trial import run_job
    from kfp_bonsai.shared.core.scalars import log_numbers

    result = run_job(
        number,
        Path(pool.path),
        Path(baseline.path),
        Path(teacher_outputs.path),
        {"train": Path(train.path), "validation": Path(validation.path)},
        Path(trial.path),
        device=device,
        edge=edge,
        with_memory=with_memory,
        prune_steps=prune_steps,
        distill_epochs=distill_epochs,
        block_seconds=block_seconds,
        seed=seed,
    )
    log_numbers(result, metrics)


def _search_end(
    pool: Input[Model],
    trials: Input[list[Model]],
    baseline: Input[Model],
    train: Input[Dataset],
    test: Input[Dataset],
    chosen: Output[Model],
    search: Output[Artifact],
    results: Output[Artifact],
    html: Output[HTML],
    markdown: Output[Markdown],
    metrics: Output[Metrics],
    options: dict,
    edge: bool = False,
):
    """Choose by the validation rows, measure the front on the test rows, report, and package the chosen model."""
    from pathlib import Path

    from kfp_bonsai.pipelines.search.finish import end_search
    from kfp_bonsai.shared.core.scalars import log_numbers

    result = end_search(
        Path(pool.path),
        [Path(one.path) for one in trials],
        Path(baseline.path),
        {"train": Path(train.path), "test": Path(test.path)},
        {
            **{"edge-model" if edge else "model": Path(chosen.path), "search.json": Path(search.path)},
            **{"results.json": Path(results.path), "report.html": Path(html.path), "report.md": Path(markdown.path)},
        },
        options,
        edge=edge,
    )
    log_numbers(result, metrics)


# Training is for accelerators; what makes and measures int8 models is in the image for CPUs.
search_ground = component(base_image=GPU, install_kfp_package=False)(_search_ground)
search_trial = component(base_image=GPU, install_kfp_package=False)(_search_trial)
search_end = component(base_image=GPU, install_kfp_package=False)(_search_end)
search_ground_edge = component(base_image=CPU, install_kfp_package=False)(_search_ground)
search_trial_edge = component(base_image=CPU, install_kfp_package=False)(_search_trial)
search_end_edge = component(base_image=CPU, install_kfp_package=False)(_search_end)
