"""`bonsai compile`: the compress pipeline as a file for a cluster."""

import ast
import pprint
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from kfp_bonsai import __version__
from kfp_bonsai.shared.errors import BonsaiError
from kfp_bonsai.shared.files import new_file

NAME = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
KEY, VALUE = re.compile(rf"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?{NAME}"), re.compile(rf"({NAME})?")


def compile_pipeline(
    *,
    output: Path = Path("compress.yaml"),
    images: str = "",
    accelerator: str = "nvidia.com/gpu",
    accelerators: int = 1,
    cpu: str = "4",
    memory: str = "16Gi",
    retries: int = 2,
    parallel_levels: int = 0,
    gpu_node: Sequence[str] = (),
    cpu_node: Sequence[str] = (),
    kubernetes: bool = False,
    namespace: str = "",
) -> dict:
    """Compile the pipeline for a Kubeflow cluster: upload the file there, or submit it with the KFP client.

    Args:
        output: File to write (YAML).
        images: Where the cluster pulls the images from, such as registry.example/team/kfp-bonsai.
        accelerator: Resource that training and measuring ask for; "" for CPU nodes.
        accelerators: How many of it a task gets.
        cpu: Processors that a working task asks for.
        memory: Memory that a working task gets.
        retries: How often a failed task is tried again.
        parallel_levels: How many levels are trained at the same time; 0 for all.
        gpu_node: KEY=VALUE, a label of the nodes that train and measure; may be given again.
        cpu_node: KEY=VALUE, a label of the nodes of everything else, the edge measurement included.
        kubernetes: Write the resources Pipeline and PipelineVersion, for `kubectl apply` where Kubeflow Pipelines keeps
            its pipelines in Kubernetes, instead of the file to upload.
        namespace: The resources' namespace (with --kubernetes).

    Returns:
        The file, and the number of tasks in it.

    Raises:
        BonsaiError: KFP is not installed, or the file cannot be written.

    Example:
        bonsai compile --output compress.yaml --images registry.example/team/kfp-bonsai
        bonsai compile --output compress.yaml --gpu-node pool=gpu --kubernetes --namespace kubeflow
    """
    if find_spec("kfp") is None:
        raise BonsaiError("KFP is not installed: pip install 'kfp-bonsai[kfp]'")
    if retries < 0 or parallel_levels < 0 or accelerators < 1:
        raise BonsaiError("--retries and --parallel-levels must not be below 0, and --accelerators not below 1")
    if Path(output).suffix not in (".yaml", ".yml"):
        raise BonsaiError(f"--output {output}: KFP takes files whose name ends in .yaml")

    nodes = [_labels(texts, flag) for texts, flag in ((gpu_node, "--gpu-node"), (cpu_node, "--cpu-node"))]
    if namespace and not kubernetes:
        raise BonsaiError("--namespace is for the resources of --kubernetes: give both, or none")

    from kfp.compiler import Compiler
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    from kfp_bonsai.pipelines.cluster import Cluster
    from kfp_bonsai.pipelines.compress import compress_pipeline

    cluster = Cluster(images, accelerator, accelerators, cpu, memory, retries, *nodes)
    pipeline = compress_pipeline(cluster, parallel_levels)
    with new_file(output) as scratch:
        options = KubernetesManifestOptions(
            pipeline_version_name=f"compress-{__version__}".replace(".", "-"),
            namespace=namespace or None,
            include_pipeline_manifest=True,
        )
        Compiler().compile(
            pipeline, str(scratch), kubernetes_manifest_options=options, kubernetes_manifest_format=kubernetes
        )
        scratch.write_text(_same_each_time(scratch.read_text(encoding="utf-8")), encoding="utf-8")
    return {"pipeline": str(output), "tasks": len(pipeline.pipeline_spec.deployment_spec["executors"])}


def _labels(texts: Sequence[str], flag: str) -> dict[str, str]:
    """Read KEY=VALUE labels of nodes."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not KEY.fullmatch(key) or not VALUE.fullmatch(value):
            raise BonsaiError(f"{flag} {text}: write KEY=VALUE as Kubernetes has labels, such as pool=gpu")
        found[key] = value
    return found


def _same_each_time(text: str) -> str:
    """Sort the keys of the defaults in KFP's leading comment, whose order differs from process to process."""

    def sort(found: re.Match) -> str:
        return f"{found[1]}{pprint.pformat(ast.literal_eval(found[2]), width=100_000)}{found[3]}"

    return re.sub(r"^(#.* \[Default: )(\[.*\]|\{.*\})(\].*)$", sort, text, flags=re.MULTILINE)
