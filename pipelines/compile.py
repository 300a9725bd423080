"""`bonsai compile`: the compress pipeline as a file for a cluster."""

import ast
import pprint
import re
from importlib.util import find_spec
from pathlib import Path

from kfp_bonsai.shared.errors import BonsaiError
from kfp_bonsai.shared.files import new_file


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

    Returns:
        The file, and the number of tasks in it.

    Raises:
        BonsaiError: KFP is not installed, or the file cannot be written.

    Example:
        bonsai compile --output compress.yaml --images registry.example/team/kfp-bonsai
    """
    if find_spec("kfp") is None:
        raise BonsaiError("KFP is not installed: pip install 'kfp-bonsai[kfp]'")
    if retries < 0 or parallel_levels < 0 or accelerators < 1:
        raise BonsaiError("--retries and --parallel-levels must not be below 0, and --accelerators not below 1")
    if Path(output).suffix not in (".yaml", ".yml"):
        raise BonsaiError(f"--output {output}: KFP takes files whose name ends in .yaml")

    from kfp.compiler import Compiler

    from kfp_bonsai.pipelines.cluster import Cluster
    from kfp_bonsai.pipelines.compress import compress_pipeline

    cluster = Cluster(images, accelerator, accelerators, cpu, memory, retries)
    pipeline = compress_pipeline(cluster, parallel_levels)
    with new_file(output) as scratch:
        Compiler().compile(pipeline, str(scratch))
        scratch.write_text(_same_each_time(scratch.read_text(encoding="utf-8")), encoding="utf-8")
    return {"pipeline": str(output), "tasks": len(pipeline.pipeline_spec.deployment_spec["executors"])}


def _same_each_time(text: str) -> str:
    """Sort the keys of the defaults in KFP's leading comment, whose order differs from process to process."""

    def sort(found: re.Match) -> str:
        return f"{found[1]}{pprint.pformat(ast.literal_eval(found[2]), width=100_000)}{found[3]}"

    return re.sub(r"^(#.* \[Default: )(\[.*\]|\{.*\})(\].*)$", sort, text, flags=re.MULTILINE)
