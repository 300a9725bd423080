"""propose as a Kubeflow Pipelines component: a pure function of the trials so far, which no data base holds."""

from kfp.dsl import Input, Model, Output, component

from kfp_bonsai.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def propose(
    pool: Input[Model],
    searched: Output[Model],
    trials: Input[list[Model]] = None,  # type: ignore[assignment]  # none before the first round
    min_accuracy: float = 0.0,
    max_emission: float = 0.0,
    max_latency_ms: float = 0.0,
    max_size_mb: float = 0.0,
    max_memory_mb: float = 0.0,
    objective: str = "",
    confidence: float = 0.9,
    jobs: int = 1,
    seed: int = 0,
) -> list:
    """Say what to try next; gives the numbers of the jobs in jobs.json, over which a loop runs."""
    given = dict(locals())

    from pathlib import Path

    from kfp_bonsai.propose.propose import propose as stage
    from kfp_bonsai.shared.core.scalars import storable
    from kfp_bonsai.shared.core.signatures import chosen

    made = [Path(one.path) for one in trials or ()]
    result = stage(Path(pool.path), made, Path(searched.path), **chosen(stage, given))
    searched.metadata.update(storable(result))
    return result["todo"]
