"""How tasks are placed on a cluster: images, processors, accelerators, retries. Wiring only, no work."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kfp import kubernetes
from kfp.dsl import PipelineTask


@dataclass(frozen=True)
class Cluster:
    """What a cluster gives to the tasks.

    Attributes:
        images: where the images are pulled from, such as "registry.example/team/kfp-bonsai"; "" for the default.
        accelerator: the resource that GPU tasks ask for; "" to run them on CPU nodes.
        accelerators: how many of them a task gets.
        cpu: processors that a heavy task asks for.
        memory: memory that a heavy task asks for, which is its limit too.
        retries: how often a failed task is tried again.
        gpu_nodes: labels of the nodes for tasks that ask for an accelerator.
        cpu_nodes: labels of the nodes for all others.
    """

    images: str = ""
    accelerator: str = "nvidia.com/gpu"
    accelerators: int = 1
    cpu: str = "4"
    memory: str = "16Gi"
    retries: int = 2
    gpu_nodes: Mapping[str, str] = field(default_factory=dict)
    cpu_nodes: Mapping[str, str] = field(default_factory=dict)


def place(
    task: PipelineTask, cluster: Cluster | None, *, heavy: bool = False, light: bool = False, measured: bool = False
) -> PipelineTask:
    """Give a task its image, resources and retries; on one's own machine (no cluster) nothing is to be placed.

    A cluster's cache must not answer for a measurement: it would replay another day's emissions. The local runner's
    cache holds one run only, and lets an interrupted one go on.

    Args:
        task: the task.
        cluster: what the cluster gives; None for the local runner.
        heavy: it trains or measures on an accelerator.
        light: it needs hardly anything.
        measured: it measures emissions.
    """
    if cluster is None:
        return task
    if measured:
        task.set_caching_options(False)
    if cluster.images:
        *_, kind = task.container_spec.image.split("/")
        task.set_container_image(f"{cluster.images}/{kind}")
    task.set_retry(num_retries=cluster.retries, backoff_duration="30s", backoff_factor=2, backoff_max_duration="10m")
    task.set_cpu_request("500m" if light else cluster.cpu)
    task.set_memory_request("2Gi" if light else cluster.memory).set_memory_limit("4Gi" if light else cluster.memory)
    on_gpu = heavy and cluster.accelerator
    for key, value in (cluster.gpu_nodes if on_gpu else cluster.cpu_nodes).items():
        kubernetes.add_node_selector(task, key, value)
    if on_gpu:
        task.set_accelerator_type(cluster.accelerator).set_accelerator_limit(cluster.accelerators)
        kubernetes.add_toleration(task, key=cluster.accelerator, operator="Exists", effect="NoSchedule")
    return task
