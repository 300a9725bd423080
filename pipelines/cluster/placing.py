"""How tasks are placed on a cluster: images, processors, accelerators, volumes, retries. Wiring only, no work."""

from kfp import kubernetes
from kfp.dsl import PipelineTask

from kfp_bonsai.pipelines.cluster.checks import cores, size
from kfp_bonsai.pipelines.cluster.resources import DAY, Cluster
from kfp_bonsai.pipelines.options import FIRST
from kfp_bonsai.shared.core.files import RUN, SCRATCH
from kfp_bonsai.shared.core.parallel import NEEDS_GPU

# The components that may download from a model hub.
_ONCE = (*FIRST.values(), "fetch-champion", "fine-tune", "prepare-data")
REGISTERERS = ("package-model", "search-end")  # they publish too
HUB_READERS = (*_ONCE, "compress-level", "layer-remove", "search-trial", *REGISTERERS)
READERS = (
    *_ONCE,
    "check-drift",
    "promote",
    "teacher-outputs",
)  # that find what users name, on a volume or in a bucket; levels run together
KEEPERS = ("fine-tune", "teacher-outputs")  # whose checkpoints outlive a pod; a level's do only on the pod's own disk
CACHE, SCRATCH_VOLUME, REGISTRY = "/cache", "/scratch", "/registry"
S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL")
MLFLOW_KEYS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
RUN_ID = "metadata.labels['pipeline/runid']"  # where KFP notes a pod's run; in variables it replaces no placeholders
FIRST_WAIT = 30  # seconds until the first retry; then twice as long each time
LIGHT_CPU, LIGHT_MEMORY = "500m", "2Gi"  # must be free for a light task to start
LABEL = ("kfp-bonsai/network", "egress-only")  # what the network policies in manifests/ go by


def measuring_device(cluster: Cluster) -> str:
    """Return where emission is measured unless the user says it: on an accelerator only if its energy can be read."""
    return "auto" if cluster.counted else "cpu"


def place(
    task: PipelineTask,
    cluster: Cluster,
    *,
    heavy: bool = False,
    light: bool = False,
    measured: bool = False,
    cached: bool = False,
) -> PipelineTask:
    """Give a task its image, resources and retries.

    A cluster's cache must not answer for a measurement: it would replay another day's emissions; nor for what reads or
    writes where nobody tells it of changes. The local runner's cache holds one run only, and lets an interrupted one
    go on.

    Args:
        task: the task.
        cluster: what the cluster gives.
        heavy: it trains or measures on an accelerator.
        light: it needs hardly anything.
        measured: it measures emissions, on the accelerator if it is heavy and the accelerator's energy can be read.
        cached: what it makes is decided by its inputs, so that an earlier run's may be taken.
    """
    task.set_caching_options(cached and cluster.cache)
    *_, kind = task.container_spec.image.split("/")
    task.set_container_image(f"{cluster.images}/{kind}")
    on_gpu = bool(heavy and cluster.accelerator and (cluster.counted or not measured))
    _harden(task)
    _limit_time(task, cluster)
    _give_processors(task, cluster, light)
    _give_volumes(task, cluster, light)
    _give_secrets(task, cluster)
    for key, value in (cluster.gpu_nodes if on_gpu else cluster.cpu_nodes).items():
        kubernetes.add_node_selector(task, key, value)
    if on_gpu:
        _give_accelerators(task, cluster)
    return task


def _harden(task: PipelineTask) -> None:
    """Say what KFP does not say by itself for a pod to start under the restricted level of Pod Security.

    The rest (no escalation, no capabilities, the runtime's seccomp profile) is KFP's own since 2.17. No user id is
    given: the images have one, and clusters that choose their own, as OpenShift does, refuse any other.
    """
    kubernetes.set_security_context(task, run_as_non_root=True)
    kubernetes.add_pod_label(task, *LABEL)


def _limit_time(task: PipelineTask, cluster: Cluster) -> None:
    """Limit each attempt, and let the retries have their time.

    KFP hands the longest back-off to Argo, which counts it from the start of the first attempt: whatever fails later
    is not tried again, and a retry is stopped then. So it is the time that all attempts may take, with a day each to
    wait for a node.
    """
    if cluster.task_timeout:
        kubernetes.set_timeout(task, cluster.task_timeout)
    attempts = (cluster.retries + 1) * (DAY + (cluster.task_timeout or 30 * DAY))
    task.set_retry(
        num_retries=cluster.retries,
        backoff_duration=f"{FIRST_WAIT}s",
        backoff_factor=2,
        backoff_max_duration=f"{attempts + FIRST_WAIT * 2**cluster.retries}s",
    )


def _give_processors(task: PipelineTask, cluster: Cluster, light: bool) -> None:
    """Give processors and memory: a working task what no neighbour has a part in, unless less is to be free for it.

    Without a limit, torch starts a thread for each core of the node, and a measurement takes what is idle there. A
    light task never waits for more than a working one.
    """
    cpu, memory = cluster.cpu_request or cluster.cpu, cluster.memory_request or cluster.memory
    if light:
        task.set_cpu_request(min(LIGHT_CPU, cpu, key=lambda text: cores(text, "--cpu"))).set_cpu_limit("2")
        task.set_memory_request(min(LIGHT_MEMORY, memory, key=lambda text: size(text, "--memory")))
        task.set_memory_limit("4Gi")
        return
    task.set_cpu_request(cpu).set_cpu_limit(cluster.cpu)
    task.set_memory_request(memory).set_memory_limit(cluster.memory)
    task.set_env_variable("OMP_NUM_THREADS", str(max(1, int(cores(cluster.cpu, "--cpu")))))


def _give_volumes(task: PipelineTask, cluster: Cluster, light: bool) -> None:
    """Mount the cache where it is read, where a retried training also finds its checkpoints, and room for scratch."""
    name = task.component_spec.name
    if cluster.cache_volume and name in READERS:
        kubernetes.mount_pvc(task, cluster.cache_volume, CACHE)
        task.set_env_variable("HF_HOME", f"{CACHE}/huggingface")
        if name in KEEPERS:
            task.set_env_variable(SCRATCH, f"{CACHE}/checkpoints")
            kubernetes.use_field_path_as_env(task, RUN, RUN_ID)
    if cluster.scratch and not light:
        storage = cluster.storage_class or None
        kubernetes.add_ephemeral_volume(
            task, "scratch", SCRATCH_VOLUME, ["ReadWriteOnce"], cluster.scratch, storage_class_name=storage
        )
        task.set_env_variable("TMPDIR", SCRATCH_VOLUME)


def _give_secrets(task: PipelineTask, cluster: Cluster) -> None:
    """Give what hub, bucket and registry ask for: MLflow's client reads variables, Kubeflow Model Registry's a file."""
    name = task.component_spec.name
    if cluster.hub_secret and name in HUB_READERS:
        kubernetes.use_secret_as_env(task, cluster.hub_secret, {"token": "HF_TOKEN"})
    if cluster.storage_secret and name in (*READERS, *REGISTERERS):
        keys = {key: key for key in S3_KEYS}
        kubernetes.use_secret_as_env(task, cluster.storage_secret, keys, optional=True)
    if cluster.registry_secret and name in REGISTERERS:
        keys = {key: key for key in MLFLOW_KEYS}
        kubernetes.use_secret_as_env(task, cluster.registry_secret, keys, optional=True)
        kubernetes.use_secret_as_volume(task, cluster.registry_secret, REGISTRY)
        task.set_env_variable("KF_PIPELINES_SA_TOKEN_PATH", f"{REGISTRY}/token")


def _give_accelerators(task: PipelineTask, cluster: Cluster) -> None:
    """Give accelerators, past their nodes' taints; a task that finds none fails instead of training on the CPU."""
    task.set_env_variable(NEEDS_GPU, "1")
    task.set_accelerator_type(cluster.accelerator).set_accelerator_limit(cluster.accelerators)
    taint = f"{cluster.accelerator.partition('/')[0]}/gpu"  # slices of a GPU (MIG) bear the whole GPU's taint
    kubernetes.add_toleration(task, key=taint, operator="Exists", effect="NoSchedule")
    for key, value in cluster.gpu_taints.items():
        if value:
            kubernetes.add_toleration(task, key=key, operator="Equal", value=value)
        else:
            kubernetes.add_toleration(task, key=key, operator="Exists")
