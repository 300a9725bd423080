"""`bonsai compile`: a pipeline as a file for a cluster."""

import ast
import hashlib
import json
import pprint
import re
from collections.abc import Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kfp_bonsai import __version__
from kfp_bonsai.pipelines.cluster import checks
from kfp_bonsai.pipelines.cluster.resources import RESOURCES, Cluster
from kfp_bonsai.pipelines.cluster.settings import in_settings
from kfp_bonsai.shared.core.errors import BonsaiError, check_choice
from kfp_bonsai.shared.core.files import new_file
from kfp_bonsai.shared.core.signatures import takes

PIPELINES = ("compress", "retrain", "study", "search")
MOST_ROUNDS, MOST_TRIALS = 20, 100  # of a search: a round is drawn into the pipeline, and waits for its slowest trial
MOST_RETRIES = 10  # the wait doubles each time: after the tenth it is four hours


@in_settings
@takes(RESOURCES)
def compile_pipeline(
    *,
    pipeline: str = "compress",
    output: str = "",
    settings: str = "",
    images: str = "",
    task_timeout: str = "24h",
    run_timeout: str = "7d",
    parallel_levels: int = 0,
    parallel_cells: int = 0,
    rounds: int = 4,
    parallel_trials: int = 4,
    edge: bool = False,
    edge_at_run_time: bool = False,
    fuse: bool = False,
    set: Sequence[str] = (),
    gpu_node: Sequence[str] = (),
    gpu_taint: Sequence[str] = (),
    cpu_node: Sequence[str] = (),
    kubernetes: bool = False,
    namespace: str = "",
    **resources: Any,
) -> dict:
    """Compile the pipeline for a Kubeflow cluster: upload the file there, or submit it with the KFP client.

    Args:
        pipeline: Which one: compress, retrain, study, or search.
        output: File to write (YAML); else it has the pipeline's name.
        settings: YAML file with any of the other options but --output, such as "cpu: 8" or "gpu-node: {pool: gpu}".
            What is given here wins over the file.
        images: Where the cluster pulls the images from, such as registry.example/team/kfp-bonsai.
        task_timeout: How long an attempt at a task may take, such as 90m, 24h or 7d; 0 for no limit.
        run_timeout: How long a run may take, waiting for nodes included; 0 for no limit.
        parallel_levels: How many levels are trained at the same time; 0 for all.
        parallel_cells: How many cells of a study are made at the same time; 0 for all.
        rounds: How many rounds a search has.
        parallel_trials: How many trials a round of a search has, which run at the same time.
        edge: Make int8 models for CPUs of every level too, and choose by their figures, measured on a CPU.
        edge_at_run_time: Let each run choose, by the argument `edge`; the graph then has both branches, a layer down.
        fuse: Run the three stages of a level in one pod instead of three, which costs 10 to 20 seconds each.
        set: NAME=VALUE, another default for an argument, such as epochs=1; may be given again.
        gpu_node: KEY=VALUE, a label of the accelerator's nodes, which train and measure; may be given again.
        gpu_taint: KEY or KEY=VALUE, a taint of these nodes beside the accelerator's own; may be given again.
        cpu_node: KEY=VALUE, a label of the nodes of everything else, the edge measurement included; without an
            accelerator that is all.
        kubernetes: Write the resources Pipeline and PipelineVersion, for `kubectl apply` where Kubeflow Pipelines keeps
            its pipelines in Kubernetes, instead of the file to upload.
        namespace: The resources' namespace (with --kubernetes).
        **resources: The others are what a cluster gives (resources.py).

    Returns:
        The file, and the number of tasks in it.

    Raises:
        BonsaiError: KFP is not installed, an option is one that a cluster would refuse, or the file cannot be written.

    Example:
        bonsai compile --output compress.yaml --images registry.example/team/kfp-bonsai
        bonsai compile --edge --fuse --set epochs=1 --set upload=gs://bucket/models
        bonsai compile --pipeline retrain --settings cluster.yaml --gpu-node pool=gpu --kubernetes --namespace team
    """
    options = {**locals(), **resources}
    if find_spec("kfp") is None:
        raise BonsaiError("KFP is not installed: pip install 'kfp-bonsai[kfp]'")
    read = _check(options)
    target = Path(output or f"{options['pipeline']}.yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise BonsaiError(f"--output {target}: KFP takes files whose name ends in .yaml")

    from google.protobuf.json_format import ParseDict
    from kfp.compiler import Compiler
    from kfp.compiler.compiler_utils import KubernetesManifestOptions

    built = _build(options, read)
    if read["run_timeout"]:
        limit = {"pipelineConfig": {"activeDeadlineSeconds": read["run_timeout"]}}
        ParseDict(limit, built.platform_spec.platforms["kubernetes"])
    with new_file(target) as scratch_file:
        manifest = KubernetesManifestOptions(
            pipeline_version_name=_version_name(options["pipeline"], built),
            namespace=options["namespace"] or None,
            include_pipeline_manifest=True,
        )
        Compiler().compile(
            built,
            str(scratch_file),
            kubernetes_manifest_options=manifest,
            kubernetes_manifest_format=options["kubernetes"],
        )
        scratch_file.write_text(_same_each_time(scratch_file.read_text(encoding="utf-8")), encoding="utf-8")
    return {"pipeline": str(target), "tasks": len(built.pipeline_spec.deployment_spec["executors"])}


def _check(options: dict[str, Any]) -> dict[str, Any]:
    """Refuse what a cluster would refuse; return labels, taints and times as they are meant."""
    check_choice("--pipeline", options["pipeline"], [*PIPELINES])
    if not 0 <= options["retries"] <= MOST_RETRIES:
        raise BonsaiError(f"--retries {options['retries']}: give a number from 0 to {MOST_RETRIES}")
    if min(options["parallel_levels"], options["parallel_cells"]) < 0 or options["accelerators"] < 1:
        raise BonsaiError("--parallel-levels and --parallel-cells must not be below 0, and --accelerators not below 1")
    if not 1 <= options["rounds"] <= MOST_ROUNDS or not 1 <= options["parallel_trials"] <= MOST_TRIALS:
        raise BonsaiError(
            f"--rounds {options['rounds']} with --parallel-trials {options['parallel_trials']}: give 1 to "
            f"{MOST_ROUNDS} rounds of 1 to {MOST_TRIALS} trials"
        )
    if options["parallel_cells"] and options["pipeline"] != "study":
        raise BonsaiError("--parallel-cells is for a study: the others have no cells")
    if options["pipeline"] == "retrain" and (options["edge"] or options["edge_at_run_time"]):
        raise BonsaiError(
            "--edge and --edge-at-run-time are for compress: a retraining makes an int8 model where the champion is "
            "one, or where a run's argument `edge` says so (--set edge=true for all of them)"
        )
    if options["pipeline"] in ("study", "search") and options["edge_at_run_time"]:
        raise BonsaiError(
            "--edge-at-run-time is for compress: no results leave a branch that is chosen in a run: give --edge or not"
        )
    if options["edge"] and options["edge_at_run_time"]:
        raise BonsaiError("--edge chooses the branch now, --edge-at-run-time leaves it to each run: give one of them")
    if options["namespace"] and not options["kubernetes"]:
        raise BonsaiError("--namespace is for the resources of --kubernetes: give both, or none")
    if options["storage_class"] and not options["scratch"]:
        raise BonsaiError("--storage-class is for the volumes of --scratch: give both, or none")
    checks.check_namespace(options["namespace"])
    checks.check_accelerator(options["accelerator"])
    checks.check_images(options["images"])
    _check_room(options)
    if options["scratch"]:
        checks.size(options["scratch"], "--scratch", checks.LEAST_MEMORY)
    for name in ("cache_volume", "hub_secret", "storage_secret", "registry_secret", "storage_class"):
        checks.check_name(options[name], f"--{name.replace('_', '-')}")
    return {
        "fixed": _fixed(options["pipeline"], options["set"]),
        "gpu_nodes": checks.labels(options["gpu_node"], "--gpu-node"),
        "cpu_nodes": checks.labels(options["cpu_node"], "--cpu-node"),
        "gpu_taints": checks.taints(options["gpu_taint"], "--gpu-taint"),
        "task_timeout": checks.seconds(options["task_timeout"], "--task-timeout"),
        "run_timeout": checks.seconds(options["run_timeout"], "--run-timeout"),
    }


def _fixed(pipeline: str, texts: Sequence[str]) -> dict[str, Any]:
    """Read the defaults that are set, and refuse what a stage would refuse."""
    from kfp_bonsai.pipelines.cluster.arguments import SET, read_texts, settle_any
    from kfp_bonsai.pipelines.cluster.form import OPTIONS
    from kfp_bonsai.pipelines.options import EDGE, RETRAIN, arguments

    found = read_texts(pipeline, texts, SET)
    own = {OPTIONS} & arguments(pipeline).keys() | ({EDGE} if pipeline == RETRAIN else set())
    for name, instead in ((EDGE, "--edge"), (OPTIONS, "--set NAME=VALUE for each")):
        if name in found and name not in own:
            raise BonsaiError(f"{SET}{name}: give {instead} instead")
    return settle_any(pipeline, found, {}, SET)


def _check_room(options: dict[str, Any]) -> None:
    """Refuse processors and memory that are no quantities, and requests above what a task may use."""
    cpu = checks.cores(options["cpu"], "--cpu")
    memory = checks.size(options["memory"], "--memory", checks.LEAST_MEMORY)
    asked = options["cpu_request"], options["memory_request"]
    if asked[0] and checks.cores(asked[0], "--cpu-request") > cpu:
        raise BonsaiError(
            f"--cpu-request {asked[0]} is more than --cpu {options['cpu']}, which a task may use: give less"
        )
    if asked[1] and checks.size(asked[1], "--memory-request", checks.LEAST_MEMORY) > memory:
        raise BonsaiError(f"--memory-request {asked[1]} is more than --memory {options['memory']}: give less")


def _build(options: dict[str, Any], read: dict[str, Any]) -> Any:
    """Return the pipeline, placed on the cluster that the options describe."""
    from kfp_bonsai.images import PREFIX
    from kfp_bonsai.pipelines.cluster.arguments import SET, settle_any
    from kfp_bonsai.pipelines.cluster.build import compress_on, retrain_on, search_on, study_on
    from kfp_bonsai.pipelines.cluster.placing import measuring_device

    known = {**options, **read, "images": options["images"] or PREFIX}
    cluster = Cluster(**{each.name: known[each.name] for each in fields(Cluster)})
    settle_any(options["pipeline"], read["fixed"], {"device": measuring_device(cluster)}, SET)
    if options["pipeline"] == "retrain":
        return retrain_on(cluster, options["fuse"], read["fixed"])
    if options["pipeline"] == "study":
        levels, cells = options["parallel_levels"], options["parallel_cells"]
        return study_on(cluster, cells, levels, options["edge"], options["fuse"], read["fixed"])
    if options["pipeline"] == "search":
        return search_on(cluster, options["rounds"], options["parallel_trials"], options["edge"], read["fixed"])
    edge = None if options["edge_at_run_time"] else options["edge"]
    return compress_on(cluster, options["parallel_levels"], edge, options["fuse"], read["fixed"])


def _version_name(pipeline: str, built: Any) -> str:
    """Return a name of its own for each content, as a PipelineVersion's cannot be changed once it is there."""
    from google.protobuf.json_format import MessageToDict

    content = json.dumps([MessageToDict(built.pipeline_spec), MessageToDict(built.platform_spec)], sort_keys=True)
    return f"{pipeline}-{__version__}-{hashlib.sha256(content.encode()).hexdigest()[:8]}".replace(".", "-")


def _same_each_time(text: str) -> str:
    """Sort the keys of the defaults in KFP's leading comment, whose order differs from process to process."""

    def sort(found: re.Match) -> str:
        return f"{found[1]}{pprint.pformat(ast.literal_eval(found[2]), width=100_000)}{found[3]}"

    return re.sub(r"^(#.* \[Default: )(\[.*\]|\{.*\})(\].*)$", sort, text, flags=re.MULTILINE)
