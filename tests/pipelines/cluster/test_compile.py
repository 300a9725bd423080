"""`bonsai compile`: what a cluster is told of each task, by options or by a file, and what is refused before."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from kfp_bonsai import cli
from kfp_bonsai.pipelines.cluster.compile import PIPELINES, compile_pipeline
from kfp_bonsai.pipelines.cluster.form import FORMS
from kfp_bonsai.pipelines.cluster.placing import HUB_READERS, KEEPERS, READERS
from kfp_bonsai.pipelines.cluster.resources import RESOURCES
from kfp_bonsai.pipelines.options import FIRST, SEARCH
from kfp_bonsai.shared.core.errors import BonsaiError

SETTINGS = """
images: registry.example/team/kfp-bonsai
cpu: 8
memory: 32Gi
gpu-node: {pool: gpu}
gpu-taint: [dedicated=training]
cpu_node: [pool=cpu]
task-timeout: 90m
cache-volume: models
hub-secret: hub
scratch: 100Gi
storage-class: fast
"""


OPTIONS = {"settings": "cluster.yaml", "accelerators": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with every pipeline, compiled with all settings."""
    found = tmp_path_factory.mktemp("compiled")
    (found / "cluster.yaml").write_text(SETTINGS)
    for pipeline in PIPELINES:
        options = OPTIONS | {"settings": str(found / "cluster.yaml")}
        compile_pipeline(pipeline=pipeline, output=str(found / f"{pipeline}.yaml"), **options)
    return found


@pytest.fixture(scope="module", params=PIPELINES)
def documents(request, folder):
    """Both documents of a pipeline: (pipeline, its platform)."""
    return read(folder / f"{request.param}.yaml")


def read(file: Path) -> list[dict]:
    """Return the documents of a compiled file."""
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


def containers(documents: list[dict]) -> dict[str, dict]:
    """Return the containers by executor."""
    return {name: each["container"] for name, each in documents[0]["deploymentSpec"]["executors"].items()}


def platforms(documents: list[dict]) -> dict[str, dict]:
    """Return what only Kubernetes is told, by executor."""
    return documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def component(executor: str) -> str:
    """Return the component of an executor such as exec-package-model-2."""
    return re.sub(r"^exec-|-\d+$", "", executor)


def environment(container: dict) -> dict[str, str]:
    """Return a container's variables."""
    return {each["name"]: each["value"] for each in container.get("env", [])}


def on_gpu(documents: list[dict]) -> set[str]:
    """Return the executors that ask for an accelerator."""
    return {name for name, each in containers(documents).items() if "accelerator" in each["resources"]}


def test_kfp_reads_both_documents(documents):
    """A field that KFP's API does not know, so that it refuses the file."""
    from google.protobuf.json_format import ParseDict
    from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec

    ParseDict(documents[0], PipelineSpec())
    ParseDict(documents[1], PlatformSpec())
    assert set(platforms(documents)) == set(containers(documents))


def test_compiling_again_gives_the_same_bytes(folder, tmp_path):
    """A pipeline whose version changes though nothing did: sets and dicts are in another order in another process."""
    (tmp_path / "cluster.yaml").write_text(SETTINGS)
    code = "from kfp_bonsai.pipelines.lean_kfp import import_kfp\nimport_kfp()\n"  # as `bonsai compile` does
    code += "from kfp_bonsai.pipelines.cluster.compile import *\n"
    code += f"for each in PIPELINES: compile_pipeline(pipeline=each, **{OPTIONS})"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240, cwd=tmp_path, env=environment)
    for pipeline in PIPELINES:
        assert (tmp_path / f"{pipeline}.yaml").read_bytes() == (folder / f"{pipeline}.yaml").read_bytes()


def test_every_task_starts_under_the_restricted_level(documents):
    """A pod that its namespace refuses: KFP sets all of it but runAsNonRoot, and a user id would break OpenShift."""
    contexts = [each["securityContext"] for each in platforms(documents).values()]
    assert contexts == [{"runAsNonRoot": True}] * len(containers(documents))


def test_every_task_has_requests_and_limits(documents):
    """A task that is killed on a full node, or one whose threads crowd out the neighbours."""
    for name, container in containers(documents).items():
        found = container["resources"]
        working = found["resourceMemoryRequest"] == "32Gi"
        assert working == (found["resourceCpuRequest"] == found["resourceCpuLimit"] == "8"), name
        assert working == (found["resourceMemoryLimit"] == "32Gi"), name
        assert working or (found["resourceCpuLimit"] == "2" and found["resourceMemoryLimit"] == "4Gi"), name
        assert environment(container).get("OMP_NUM_THREADS") == ("8" if working else None), name


def test_gpu_tasks_find_their_nodes_and_the_others_leave_them(documents):
    """A training that waits for ever for a node that it would tolerate, or a report on a GPU node."""
    for name, each in platforms(documents).items():
        gpu = name in on_gpu(documents)
        assert environment(containers(documents)[name]).get("BONSAI_NEEDS_GPU") == ("1" if gpu else None), name
        assert each["nodeSelector"]["labels"] == {"pool": "gpu" if gpu else "cpu"}
        tolerated = [(one["key"], one["operator"], one.get("value")) for one in each.get("tolerations", [])]
        expected = [("nvidia.com/gpu", "Exists", None), ("dedicated", "Equal", "training")]
        assert tolerated == (expected if gpu else []), name
    assert {
        found["resources"]["accelerator"]["resourceCount"]
        for found in containers(documents).values()
        if "accelerator" in found["resources"]
    } == {"2"}
    assert len(on_gpu(documents)) >= 6


def test_a_slice_of_a_gpu_is_found_on_nodes_with_the_gpus_taint(tmp_path):
    """Tasks on MIG slices that no node takes: the taint is the GPU's."""
    compile_pipeline(output=str(tmp_path / "out.yaml"), accelerator="nvidia.com/mig-1g.10gb")
    found = platforms(read(tmp_path / "out.yaml"))["exec-distill"]["tolerations"]
    assert [each["key"] for each in found] == ["nvidia.com/gpu"]


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize(
    ("accelerator", "device"), [("nvidia.com/mig-1g.10gb", "cpu"), ("amd.com/gpu", "cpu"), ("nvidia.com/gpu", "auto")]
)
def test_emission_is_measured_where_energy_can_be_read(pipeline, accelerator, device, tmp_path):
    """All is trained, and then the measurement is refused, on each of its attempts."""
    compile_pipeline(pipeline=pipeline, output=str(tmp_path / "out.yaml"), accelerator=accelerator)
    spec = read(tmp_path / "out.yaml")[0]
    first = next(task for name, task in spec["root"]["dag"]["tasks"].items() if name in FIRST.values())
    assert first["inputs"]["parameters"]["fixed"]["runtimeValue"]["constant"]["device"] == device
    found = {name: each for name, each in containers(read(tmp_path / "out.yaml")).items() if "evaluate" in name}
    on_accelerator = [name for name, each in found.items() if "accelerator" in each["resources"]]
    if found:  # else what is trained is measured by the same task
        assert bool(on_accelerator) == (device == "auto") and not any("edge" in name for name in on_accelerator)


def test_times_are_limited_and_retries_have_time(documents):
    """A task that hangs for ever; or retries that never come, since Argo counts the longest back-off from the start."""
    limits = {int(each["activeDeadlineSeconds"]) for each in platforms(documents).values()}
    assert limits == {90 * 60}
    assert int(documents[1]["platforms"]["kubernetes"]["pipelineConfig"]["activeDeadlineSeconds"]) == 7 * 86400
    for policy in policies(documents[0]):
        assert policy["maxRetryCount"] == 2 and policy["backoffDuration"] == "30s" and policy["backoffFactor"] == 2
        assert int(policy["backoffMaxDuration"].rstrip("s")) >= 3 * 90 * 60 + 30 + 60


def policies(spec: dict) -> list[dict]:
    """Return the retry policies of all tasks."""
    dags = [spec["root"]["dag"], *(each["dag"] for each in spec["components"].values() if "dag" in each)]
    tasks = [task for dag in dags for task in dag["tasks"].values() if "dag" not in spec["components"][ref(task)]]
    return [task["retryPolicy"] for task in tasks]


def ref(task: dict) -> str:
    """Return the component of a task."""
    return task["componentRef"]["name"]


def test_no_limit_of_time_still_allows_retries(tmp_path):
    """0 taken as "at once"."""
    compile_pipeline(output=str(tmp_path / "out.yaml"), task_timeout="0", run_timeout="0", retries=1)
    found = read(tmp_path / "out.yaml")
    assert not any("activeDeadlineSeconds" in each for each in platforms(found).values())
    assert "pipelineConfig" not in found[1]["platforms"]["kubernetes"]
    assert all(int(each["backoffMaxDuration"].rstrip("s")) > 30 * 86400 for each in policies(found[0]))


def test_volumes_and_the_hubs_token_are_where_they_are_needed_only(documents):
    """A download at each run, a training that starts anew; or a token in the hands of a task that needs none."""
    for name, each in platforms(documents).items():
        own = component(name)
        variables = environment(containers(documents)[name])
        assert [mount["constant"] for mount in each.get("pvcMount", [])] == ["models"] * (own in READERS), name
        assert [found["secretName"] for found in each.get("secretAsEnv", [])] == ["hub"] * (own in HUB_READERS), name
        assert (variables.get("HF_HOME") == "/cache/huggingface") == (own in READERS), name
        assert (variables.get("BONSAI_SCRATCH") == "/cache/checkpoints") == (own in KEEPERS), name
        scratch = [(one["size"], one["storageClassName"]) for one in each.get("genericEphemeralVolume", [])]
        assert scratch == ([("100Gi", "fast")] if "TMPDIR" in variables else []), name
        assert ("TMPDIR" in variables) == ("OMP_NUM_THREADS" in variables), name
    assert {component(name) for name in containers(documents)} & set(READERS) >= {"prepare-data", "fine-tune"}


def test_by_default_no_volume_and_no_secret_is_asked_for(tmp_path):
    """A pipeline that starts only where a volume of ours is."""
    compile_pipeline(output=str(tmp_path / "out.yaml"))
    text = (tmp_path / "out.yaml").read_text()
    assert not re.search("pvcMount|secretAsEnv|genericEphemeralVolume|nodeSelector", text)


def test_without_an_accelerator_everything_runs_on_cpu_nodes(tmp_path):
    """A small cluster on which training waits for a GPU."""
    compile_pipeline(output=str(tmp_path / "out.yaml"), accelerator="", gpu_node=["pool=gpu"], cpu_node=["pool=cpu"])
    found = read(tmp_path / "out.yaml")
    assert not on_gpu(found) and "tolerations" not in str(found[1])
    assert {each["nodeSelector"]["labels"]["pool"] for each in platforms(found).values()} == {"cpu"}


def test_an_option_wins_over_the_file_and_the_file_over_the_default(tmp_path):
    """A file that cannot be overruled for one run, be it by a default, or one that is not read."""
    (tmp_path / "cluster.yaml").write_text("memory: 32Gi\ncpu: 8\nretries: 5\npipeline: retrain\n")
    usual = RESOURCES["cpu"].default
    given = ["--settings", str(tmp_path / "cluster.yaml"), "--cpu", usual, "--pipeline", "compress"]
    ended = CliRunner().invoke(cli.app, ["compile", *given, "--output", str(tmp_path / "out.yaml")])
    assert ended.exit_code == 0 and usual != "8", ended.output
    found = containers(read(tmp_path / "out.yaml"))["exec-distill"]["resources"]
    assert (found["resourceCpuLimit"], found["resourceMemoryLimit"]) == (usual, "32Gi")
    assert {each["maxRetryCount"] for each in policies(read(tmp_path / "out.yaml")[0])} == {5}


def test_the_file_is_called_as_the_pipeline(tmp_path, monkeypatch):
    """Retrain written over compress."""
    monkeypatch.chdir(tmp_path)
    assert compile_pipeline(pipeline="retrain")["pipeline"] == "retrain.yaml"
    assert read(tmp_path / "retrain.yaml")[0]["pipelineInfo"]["name"] == "retrain"


@pytest.mark.parametrize(
    ("written", "label"),
    [("true", "true"), ("False", "false"), ("yes", "yes"), ("off", "off"), ("'010'", "010"), ("tesla", "tesla")],
)
def test_a_label_in_a_file_is_the_label_of_the_node(tmp_path, written, label):
    """Pods that wait for ever for a node with the label 'True', which no node has."""
    (tmp_path / "cluster.yaml").write_text(f"gpu-node: {{nvidia.com/gpu.present: {written}}}")
    compile_pipeline(output=str(tmp_path / "out.yaml"), settings=str(tmp_path / "cluster.yaml"))
    found = platforms(read(tmp_path / "out.yaml"))["exec-fine-tune"]["nodeSelector"]["labels"]
    assert found == {"nvidia.com/gpu.present": label}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cpu-node: {pool: 010}", "cpu-node: YAML reads 8 there.*put it in quotes"),
        ("gpu-node: {cuda: 1.10}", "gpu-node: YAML reads 1.1 there.*put it in quotes"),
        ("gpu-taint: {dedicated: }", "gpu-taint: YAML reads None there.*put it in quotes"),
        ("gpu-node: {1: pool}", "gpu-node: YAML reads 1 there.*put it in quotes"),
        ("kubernetes: yes", "kubernetes: 'yes' is not true or false"),
        ("cpus: 8", "cpus is unknown; did you mean 'cpu'"),
        ("output: here.yaml", "output is unknown"),
        ("accelerators: two", "accelerators: 'two' is not a whole number"),
        ("accelerators: true", "accelerators: True is not a whole number"),
        ("kubernetes: 1", "kubernetes: 1 is not true or false"),
        ("cpu: [8]", r"cpu: \[8\] is not text"),
        ("gpu-node: pool", "gpu-node: write a list"),
        ("- cpu", "write one 'option: value' a line"),
        ("cpu: [", "cannot be read"),
        ("memory: 16GB", "--memory 16GB"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path, text, said):
    """A setting that is not heeded, or a traceback of the parser's."""
    (tmp_path / "cluster.yaml").write_text(text)
    with pytest.raises(BonsaiError, match=said):
        compile_pipeline(output=str(tmp_path / "out.yaml"), settings=str(tmp_path / "cluster.yaml"))
    assert not (tmp_path / "out.yaml").exists()


def test_a_file_that_is_not_there_is_told(tmp_path):
    """A traceback for a typing error."""
    with pytest.raises(BonsaiError, match=r"--settings .*there is no such file"):
        compile_pipeline(output=str(tmp_path / "out.yaml"), settings=str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pipeline": "compres"}, "did you mean 'compress'"),
        ({"accelerator": "gpu"}, "--accelerator gpu is unknown"),
        ({"accelerator": "nvidia.com/gpus"}, "did you mean 'nvidia.com/gpu'"),
        ({"accelerator": "nvidia-tesla-t4"}, "--accelerator nvidia-tesla-t4 is unknown"),
        ({"accelerator": "nvidia.com/mig-1g"}, "is unknown"),
        ({"accelerator": "habana.ai/gaudi"}, "is unknown"),
        ({"images": "https://registry.example/team"}, "without https://"),
        ({"images": "registry.example/team:0.1.0"}, "and tag"),
        ({"cpu": "0"}, "--cpu 0"),
        ({"cpu": "four"}, "--cpu four"),
        ({"memory": "16"}, "--memory 16 is 16 bytes"),
        ({"memory": "9" * 5000}, "write a size as Kubernetes has it"),
        ({"memory": "٣Gi"}, "write a size as Kubernetes has it"),
        ({"cpu": "9" * 5000}, "write a number of processors"),
        ({"memory": "16GiB"}, "--memory 16GiB"),
        ({"cpu_request": "two"}, "--cpu-request two"),
        ({"cpu": "500m", "cpu_request": "1"}, "--cpu-request 1 is more than --cpu 500m"),
        ({"memory_request": "1"}, "--memory-request 1 is 1 bytes"),
        ({"memory_request": "17Gi"}, "--memory-request 17Gi is more than --memory 16Gi"),
        ({"scratch": "big"}, "--scratch big"),
        ({"storage_class": "fast"}, "--scratch"),
        ({"scratch": "1Gi", "storage_class": "Fast_One"}, "--storage-class Fast_One"),
        ({"cache_volume": "my cache"}, "--cache-volume my cache"),
        ({"hub_secret": "-x"}, "--hub-secret -x"),
        ({"storage_secret": "-x"}, "--storage-secret -x"),
        ({"task_timeout": "1 day"}, "--task-timeout 1 day"),
        ({"run_timeout": "-1h"}, "--run-timeout -1h"),
        ({"retries": -1}, "--retries -1"),
        ({"retries": 11}, "--retries 11"),
        ({"accelerators": 0}, "--accelerators"),
        ({"gpu_node": ["pool"]}, "--gpu-node pool: write KEY=VALUE"),
        ({"cpu_node": ["-x=y"]}, "--cpu-node -x=y: write KEY=VALUE"),
        ({"gpu_taint": ["=x"]}, "--gpu-taint =x"),
        ({"namespace": "team"}, "--kubernetes"),
        ({"kubernetes": True, "namespace": "Team"}, "--namespace Team"),
        ({"output": "compress.json"}, "ends in .yaml"),
        ({"edge": True, "edge_at_run_time": True}, "give one of them"),
        ({"pipeline": "retrain", "edge": True}, "--edge and --edge-at-run-time are for compress"),
        ({"set": ["epoch=1"]}, "--set epoch=1: write NAME=VALUE, with an argument of compress; did you mean 'epochs'"),
        ({"set": ["epochs=many"]}, '--set epochs is "many": give a number'),
        (
            {"set": ["device=cuda"], "accelerator": ""},
            "--set device cuda: this pipeline was compiled to measure",
        ),
        ({"set": ["epochs=0"]}, "--set epochs is 0: give a number above 0"),
        ({"set": ["max_emission=50"]}, "--set max_emission is 50: give a fraction"),
        ({"set": ['levels=["half:layers=9/3"]']}, "--set levels 'half:layers=9/3': layers=9/3"),
        ({"set": ["levels=half"]}, '--set levels is "half": give a JSON list'),
        ({"set": ["edge=true"]}, "--set edge: give --edge instead"),
        ({"set": ['options={"epochs": 1}']}, "--set options: give --set NAME=VALUE for each instead"),
        ({"set": ["upload=/cache/models"]}, "--set upload=/cache/models: a cluster's task"),
        ({"pipeline": "retrain", "set": ["upload=gs://bucket/models"]}, "--set upload=gs://bucket/models: write"),
    ],
)
def test_what_a_cluster_would_refuse_is_refused_here(tmp_path, monkeypatch, options, said):
    """It would be told by the API server, or by a pod that waits for ever."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BonsaiError, match=re.escape(said)):
        compile_pipeline(**options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        {"accelerator": "amd.com/gpu"},
        {"accelerator": "nvidia.com/gpu.shared"},
        {"accelerator": "nvidia.com/mig-3g.40gb", "images": "localhost:5000/bonsai"},
        {"cpu": "500m", "memory": "2G", "gpu_taint": ["dedicated"]},
    ],
)
def test_what_clusters_have_is_taken(tmp_path, options):
    """A check that is stricter than the clusters are."""
    compile_pipeline(output=str(tmp_path / "out.yaml"), **options)
    assert len(read(tmp_path / "out.yaml")) == 2


@pytest.mark.parametrize("options", [{}, {"edge_at_run_time": True}, {"pipeline": "retrain"}], ids=str)
def test_the_form_is_short_and_explains_itself(tmp_path, options):
    """Forty-seven fields without a word, of which two must be filled in."""
    compile_pipeline(output=str(tmp_path / "out.yaml"), **options)
    fields = read(tmp_path / "out.yaml")[0]["root"]["inputDefinitions"]["parameters"]
    assert len(fields) <= 12
    for name, field in fields.items():
        text, _, example = field["description"].partition(" Example: ")
        assert text.endswith(".") and example == FORMS[options.get("pipeline", "compress")][name][1], name


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({}, {"Each level"}),
        ({"edge": True}, {"Each level"}),
        ({"edge_at_run_time": True}, {"For an edge CPU too", "Not for an edge CPU", "Each level"}),
        (
            {"pipeline": "retrain"},
            {"If there is something to learn", "An int8 model for CPUs", "A model as it is trained"},
        ),
    ],
    ids=["plain", "edge", "either", "retrain"],
)
def test_every_layer_of_the_graph_and_every_output_has_a_name_that_says_what_it_is(tmp_path, options, layers):
    """A graph of `condition-branches-1` and `output`, with the work three layers down."""
    compile_pipeline(output=str(tmp_path / "out.yaml"), **options)
    spec = read(tmp_path / "out.yaml")[0]
    dags = [spec["root"]["dag"], *(each["dag"] for each in spec["components"].values() if "dag" in each)]
    tasks = [task for dag in dags for task in dag["tasks"].values()]
    assert {task["taskInfo"]["name"] for task in tasks if "dag" in spec["components"][ref(task)]} == layers
    for task in tasks:
        assert task["taskInfo"]["name"][0].isupper(), task["taskInfo"]
        outputs = spec["components"][ref(task)].get("outputDefinitions", {})
        assert "output" not in outputs.get("artifacts", {}), task


def test_what_is_set_when_compiling_is_what_the_first_task_gives(tmp_path):
    """A default that the file's name promises, and that no run has."""
    given = ["epochs=1", "min_accuracy=0.9", "model=my/bert", 'levels=["half:layers=1/2"]']
    compile_pipeline(output=str(tmp_path / "out.yaml"), set=given)
    root = read(tmp_path / "out.yaml")[0]["root"]
    fixed = root["dag"]["tasks"]["check-inputs"]["inputs"]["parameters"]["fixed"]["runtimeValue"]["constant"]
    fields = root["inputDefinitions"]["parameters"]
    assert fixed["epochs"] == 1 and "epochs" not in fields
    assert (fields["min_accuracy"]["defaultValue"], fields["model"]["defaultValue"]) == (0.9, "my/bert")
    assert fields["levels"]["defaultValue"][0]["label"] == "half" and "defaultValue" not in fields["data"]


def test_a_fused_level_is_one_pod(tmp_path):
    """Three pods a level, each of which costs more than its work."""
    counted = []
    for fuse in (False, True):
        compile_pipeline(output=str(tmp_path / "out.yaml"), fuse=fuse)
        spec = read(tmp_path / "out.yaml")[0]
        (loop,) = (each["dag"] for each in spec["components"].values() if "levels" in str(each.get("dag", "")))
        counted.append(len(loop["tasks"]))
    assert counted == [3, 1]


@pytest.mark.parametrize(
    ("options", "working", "light"),
    [
        ({}, ("4", "4", "16Gi", "16Gi"), ("500m", "2Gi")),
        ({"cpu": "0.25", "memory": "1Gi"}, ("0.25", "0.25", "1Gi", "1Gi"), ("0.25", "1Gi")),
        (
            {"cpu": "2", "cpu_request": "100m", "memory": "4Gi", "memory_request": "1Gi"},
            ("100m", "2", "1Gi", "4Gi"),
            ("100m", "1Gi"),
        ),
    ],
)
def test_what_must_be_free_for_a_task_and_what_it_may_use(tmp_path, options, working, light):
    """A small cluster where nothing starts: a light task that waits for more than a working one has, say."""
    names = [f"resource{kind}{what}" for kind in ("Cpu", "Memory") for what in ("Request", "Limit")]
    for pipeline in PIPELINES:
        compile_pipeline(pipeline=pipeline, output=str(tmp_path / "out.yaml"), **options)
        found = {component(name): each for name, each in containers(read(tmp_path / "out.yaml")).items()}
        assert tuple(found["fine-tune"]["resources"][name] for name in names) == working
        needs_little = found["propose" if pipeline == SEARCH else "report"]["resources"]
        assert (needs_little["resourceCpuRequest"], needs_little["resourceMemoryRequest"]) == light
        threads = environment(found["fine-tune"])["OMP_NUM_THREADS"]
        assert threads == {"4": "4", "0.25": "1", "2": "2"}[working[1]], "torch runs a thread for each core of the node"
