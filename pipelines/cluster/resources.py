"""What a cluster gives to the tasks, and the options of `bonsai compile` that say so."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kfp_bonsai.images import PREFIX
from kfp_bonsai.shared.core.signatures import options_of

DAY = 86400


@dataclass(frozen=True)
class Cluster:
    """What a cluster gives to the tasks; "" and 0 stand for nothing or no limit.

    Attributes:
        images: where the images are pulled from, such as "registry.example/team/kfp-bonsai".
        accelerator: Resource that training and measuring ask for; "" for CPU nodes.
        accelerators: How many of it a task gets; its one process works on one, so more is for other code of yours.
        cpu: Processors that a working task gets, such as 4, 0.5 or 500m.
        memory: Memory that a working task gets.
        cpu_request: Processors that must be free for a task to start, where they are fewer than it may use (small
            clusters); then its neighbours have a part in what it gets, and in measurements.
        memory_request: Memory that must be free for a task to start, where that is less than it may use.
        retries: How often a task is tried again, after 30 seconds, 1 minute and so on: as Kubeflow is installed, only
            one whose pod was deleted, not one that failed or was killed, unless its retry policy is set to Always
            (manifests/README.md). `bonsai submit --wait --retries` starts those again on any cluster.
        gpu_nodes: labels of the nodes for tasks that ask for an accelerator.
        cpu_nodes: labels of the nodes for all others.
        gpu_taints: taints of the GPU nodes beside the accelerator's own, "" for any value.
        task_timeout: seconds that an attempt may take; 0 for no limit.
        cache_volume: Claim of a volume, mounted at /cache where models and data are read and downloaded; there a
            fine-tune that is tried again finds its checkpoints.
        hub_secret: Secret whose key "token" is a token for the model hub.
        storage_secret: Secret for s3://: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, as far as they are needed,
            AWS_SESSION_TOKEN, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL (MinIO's, SeaweedFS's).
        registry_secret: Secret for `register`: MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and _PASSWORD, for
            MLflow; the key "token" for Kubeflow Model Registry.
        scratch: Size of a volume for each working task's temporary files, such as 100Gi; else the node's disk has them.
        storage_class: Storage class of these volumes; else the cluster's default.
        cache: Let KFP's cache answer for what an earlier run made of the same data, model and arguments; never for a
            measurement. --no-cache where the artifacts of earlier runs are removed.
    """

    images: str = PREFIX
    accelerator: str = "nvidia.com/gpu"
    accelerators: int = 1
    cpu: str = "4"
    memory: str = "16Gi"
    cpu_request: str = ""
    memory_request: str = ""
    retries: int = 2
    gpu_nodes: Mapping[str, str] = field(default_factory=dict)
    cpu_nodes: Mapping[str, str] = field(default_factory=dict)
    gpu_taints: Mapping[str, str] = field(default_factory=dict)
    task_timeout: int = DAY
    cache_volume: str = ""
    hub_secret: str = ""
    storage_secret: str = ""
    registry_secret: str = ""
    scratch: str = ""
    storage_class: str = ""
    cache: bool = True

    @property
    def counted(self) -> bool:
        """Whether the accelerator's energy can be read: no counter is of a slice of a GPU (MIG), nor is AMD's read."""
        return bool(re.fullmatch(r"nvidia\.com/gpu(\.shared)?", self.accelerator))


RESOURCES = options_of(Cluster, but=("images", "gpu_nodes", "cpu_nodes", "gpu_taints", "task_timeout"))
