"""The manifests as kustomize renders them, against the schemas of Kubernetes and against what schemas do not say."""

import copy
import functools
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import rules
import yaml

from kfp_bonsai import cli
from kfp_bonsai.pipelines.cluster.arguments import read_arguments
from kfp_bonsai.pipelines.cluster.compile import compile_pipeline
from kfp_bonsai.pipelines.cluster.placing import LABEL

MANIFESTS = Path(__file__).parents[2] / "manifests"
README = (MANIFESTS / "README.md").read_text(encoding="utf-8")
SECRETS = set(re.findall(r"^\| `([a-z0-9-]+)` \|", README.partition("## Secrets")[2].partition("\n## ")[0], re.M))
OVERLAYS = ("overlays/local", "overlays/gke", "overlays/onprem")
BESIDE = {  # an overlay, with the images of its registry
    overlay: [
        each if overlay == "overlays/local" else f"{overlay}/{each}" for each in ("shell", "multi-gpu", "trainer")
    ]
    for overlay in OVERLAYS
}
FOLDERS = (*OVERLAYS, *(each for found in BESIDE.values() for each in found), "monitoring", "node-volume")
ABSENT = object()


@functools.cache
def rendered(folder: str | Path) -> list[dict[str, Any]]:
    """Return what `kubectl apply -k` would send."""
    if shutil.which("kubectl") is None:
        # `make test` needs Python alone; in CI, where kubectl has to be, a skip would hide a fault.
        missing = pytest.fail if "CI" in os.environ else pytest.skip
        missing("kubectl is not installed: it renders the manifests (any version since 1.27)")
    ended = subprocess.run(
        ["kubectl", "kustomize", str(MANIFESTS / folder)], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    assert "deprecated" not in ended.stderr, ended.stderr
    return [each for each in yaml.safe_load_all(ended.stdout) if each]


def of_kind(folder: str, kind: str, name: str = "") -> dict[str, Any]:
    """Return the one resource of a kind, or the one of a name."""
    found = [each for each in rendered(folder) if each["kind"] == kind and name in ("", each["metadata"]["name"])]
    assert len(found) == 1, [rules.title(each) for each in found]
    return found[0]


def references(resources: list[dict[str, Any]]) -> list[str]:
    """Check references as they are in a cluster with the on-premises overlay."""
    return rules.references(resources, rendered("overlays/onprem"), SECRETS)


@pytest.mark.parametrize("rule", [*rules.RULES, references], ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("folder", FOLDERS)
def test_a_cluster_would_take_it(folder, rule):
    """A manifest that the API server refuses, or takes and starts no pod for."""
    assert rule(rendered(folder)) == []


MAIN = "spec.template.spec.containers.0"
RUNTIME = "spec.template.spec.replicatedJobs.0.template.spec.template.spec"
CRON = "spec.jobTemplate.spec.template.spec"
BROKEN = [
    (rules.schema, "multi-gpu", "Job", f"{MAIN}.imagee", "x", "imagee"),
    (rules.schema, "multi-gpu", "Job", "spec.backoffLimit", "two", "two"),
    (rules.schema, "multi-gpu", "Job", MAIN + ".name", ABSENT, "name"),
    (rules.schema, "multi-gpu", "Job", "apiVersion", "batch/v2", "batch/v2"),
    (rules.schema, "trainer", "TrainJob", "spec.trainer.numProcs", 4, "numProcs is unknown"),
    (rules.schema, "trainer", "TrainJob", "spec.trainer.numNodes", "two", "numNodes is no int"),
    (rules.schema, "trainer", "TrainingRuntime", f"{RUNTIME}.containers.0.imagee", "x", "imagee"),
    (rules.schema, "monitoring", "PodMonitor", "spec.endpoints", [], "endpoints is unknown"),
    (rules.enums, "overlays/local", "CronJob", "spec.concurrencyPolicy", "Forbidden", "Forbidden"),
    (rules.enums, "overlays/local", "Role bonsai-runner", "rules.0.verbs.0", "*", "verbs is *"),
    (rules.enums, "overlays/local", "PersistentVolumeClaim", "spec.accessModes.0", "ReadWriteSome", "ReadWriteSome"),
    (rules.enums, "overlays/local", "NetworkPolicy bonsai-dns", "spec.policyTypes.0", "egress", "egress"),
    (rules.enums, "overlays/local", "NetworkPolicy bonsai-dns", "spec.egress.0.ports.0.protocol", "udp", "udp"),
    (rules.enums, "overlays/local", "PriorityClass", "preemptionPolicy", "Nobody", "Nobody"),
    (rules.enums, "multi-gpu", "Job", "spec.template.spec.restartPolicy", "Always", "Always"),
    (rules.enums, "multi-gpu", "Job", "spec.template.spec.tolerations.0.operator", "In", "operator is In"),
    (rules.enums, "multi-gpu", "Job", "spec.template.spec.tolerations.0.effect", "NoRun", "NoRun"),
    (rules.enums, "multi-gpu", "Job", "spec.template.spec.securityContext.seccompProfile.type", "Runtime", "Runtime"),
    (rules.quantities, "multi-gpu", "Job", f"{MAIN}.resources.limits.memory", "64GiB", "64GiB"),
    (rules.quantities, "multi-gpu", "Job", f"{MAIN}.resources.requests.cpu", "17", "above the limit"),
    (rules.quantities, "multi-gpu", "Job", f"{MAIN}.resources.requests.nvidia~com/gpu", "2", "devices"),
    (rules.quantities, "multi-gpu", "Job", "spec.template.spec.volumes.3.emptyDir.sizeLimit", "16 Gi", "16 Gi"),
    (rules.quantities, "overlays/local", "ResourceQuota", "spec.hard.requests~nvidia~com/gpu", "four", "four"),
    (rules.quantities, "overlays/local", "PersistentVolumeClaim", "spec.resources.requests.storage", "1Gb", "1Gb"),
    (rules.names, "multi-gpu", "Job", "metadata.name", "Fine_Tune", "refused"),
    (rules.names, "multi-gpu", "Job", "spec.template.metadata.labels.stage", "a b", "stage=a b"),
    (rules.names, "overlays/local", "Role bonsai-runner", "metadata.name", "bonsai-submitter", "twice"),
    (rules.schedules, "overlays/local", "CronJob", "spec.schedule", "0 0 3 * * 1", "6 fields"),
    (rules.schedules, "overlays/local", "CronJob", "spec.schedule", "0 25 * * *", "hour 25"),
    (rules.schedules, "overlays/local", "CronJob", "spec.schedule", "0 3 * * 5-1", "weekday 5-1"),
    (rules.schedules, "overlays/local", "CronJob", "spec.schedule", "0/0 3 * * *", "minute 0/0"),
    (rules.pod_security, "multi-gpu", "Job", "spec.template.spec.securityContext.runAsNonRoot", ABSENT, "runAsNonRoot"),
    (rules.pod_security, "multi-gpu", "Job", "spec.template.spec.securityContext.runAsUser", 0, "runAsUser"),
    (rules.pod_security, "multi-gpu", "Job", "spec.template.spec.securityContext.seccompProfile", ABSENT, "seccomp"),
    (rules.pod_security, "multi-gpu", "Job", f"{MAIN}.securityContext", ABSENT, "allowPrivilegeEscalation"),
    (rules.pod_security, "multi-gpu", "Job", f"{MAIN}.securityContext.privileged", True, "privileged"),
    (rules.pod_security, "multi-gpu", "Job", f"{MAIN}.securityContext.capabilities.drop", ["KILL"], "capabilities"),
    (rules.pod_security, "multi-gpu", "Job", f"{MAIN}.securityContext.capabilities.add", ["SYS_ADMIN"], "capabilities"),
    (rules.pod_security, "multi-gpu", "Job", f"{MAIN}.securityContext.readOnlyRootFilesystem", False, "readOnlyRoot"),
    (rules.pod_security, "multi-gpu", "Job", f"{MAIN}.ports", [{"containerPort": 1, "hostPort": 1}], "hostPort"),
    (rules.pod_security, "multi-gpu", "Job", "spec.template.spec.hostNetwork", True, "hostNetwork"),
    (
        rules.pod_security,
        "multi-gpu",
        "Job",
        "spec.template.spec.volumes.1",
        {"name": "work", "hostPath": {}},
        "hostPath",
    ),
    (rules.pod_security, "trainer", "TrainingRuntime", f"{RUNTIME}.securityContext", ABSENT, "runAsNonRoot"),
    (rules.pod_security, "overlays/local", "CronJob", f"{CRON}.initContainers.0.securityContext", ABSENT, "compile"),
    (rules.secret_data, "multi-gpu", "Job", f"{MAIN}.env.0", {"name": "HF_TOKEN", "value": "x"}, "HF_TOKEN"),
    (rules.secret_data, "overlays/local", "ConfigMap bonsai-settings", "kind", "Secret", "bonsai-settings"),
    (rules.images, "multi-gpu", "Job", f"{MAIN}.image", "kfp-bonsai/gpu:latest", "latest"),
    (rules.images, "trainer", "TrainingRuntime", f"{RUNTIME}.containers.0.image", "kfp-bonsai/gpu", "kfp-bonsai/gpu"),
    (rules.alerts, "monitoring", "PrometheusRule", "spec.groups.0.rules.0.expr", "sum(x", "PrometheusRule"),
    (references, "multi-gpu", "Job", "spec.template.spec.serviceAccountName", "nobody", "ServiceAccount nobody"),
    (references, "multi-gpu", "Job", "spec.template.spec.priorityClassName", "first", "PriorityClass first"),
    (references, "multi-gpu", "Job", "spec.template.spec.volumes.0.persistentVolumeClaim.claimName", "c", "Claim c"),
    (references, "multi-gpu", "Job", f"{MAIN}.volumeMounts.0.name", "cash", "volume cash"),
    (
        references,
        "multi-gpu",
        "Job",
        f"{MAIN}.env.0",
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "other", "key": "token"}}},
        "Secret other",
    ),
    (references, "overlays/local", "CronJob", f"{CRON}.containers.0.args.0", "--pipeline=$(FILE)", "$(FILE)"),
    (references, "overlays/local", "CronJob", f"{CRON}.containers.0.envFrom.0.configMapRef.name", "c", "ConfigMap c"),
    (references, "overlays/local", "CronJob", f"{CRON}.volumes.1.configMap.name", "c", "ConfigMap c"),
    (references, "overlays/local", "RoleBinding bonsai-runner", "roleRef.name", "admin", "Role admin"),
    (references, "overlays/local", "RoleBinding bonsai-runner", "subjects.0.name", "nobody", "ServiceAccount nobody"),
    (references, "overlays/local", "Role bonsai-runner", "rules.2.resourceNames.0", "other", "Secret other"),
    (references, "trainer", "TrainJob", "spec.runtimeRef.name", "other", "TrainingRuntime other"),
]


def broken(folder: str, which: str, path: str, value: Any) -> list[dict[str, Any]]:
    """Return a folder's manifests with one value changed; "~" in a path stands for a dot in a key."""
    resources = copy.deepcopy(rendered(folder))
    changed = next(each for each in resources if which in (each["kind"], rules.title(each)))
    *parents, last = [int(part) if part.isdigit() else part.replace("~", ".") for part in path.split(".")]
    for part in parents:
        changed = changed[part]
    if value is ABSENT:
        del changed[last]
    else:
        changed[last] = value
    return resources


@pytest.mark.parametrize(("rule", "folder", "which", "path", "value", "said"), BROKEN)
def test_each_rule_finds_what_it_is_for(rule, folder, which, path, value, said):
    """A rule that is always content."""
    assert any(said in each for each in rule(broken(folder, which, path, value)))


@pytest.mark.parametrize("folder", OVERLAYS)
def test_the_namespace_refuses_what_is_not_restricted(folder):
    """A namespace that takes any pod, or says of one only that it should not be."""
    found = of_kind(folder, "Namespace")["metadata"]["labels"]
    modes = {mode: found.get(f"pod-security.kubernetes.io/{mode}") for mode in ("enforce", "audit", "warn")}
    assert modes == dict.fromkeys(modes, "restricted")


@pytest.mark.parametrize("folder", OVERLAYS)
def test_our_pods_are_those_that_the_network_policies_are_about(folder):
    """Tasks that no policy knows, so that they may talk to anybody."""
    key, value = LABEL
    policies = [each for each in rendered(folder) if each["kind"] == "NetworkPolicy"]
    assert all(each["spec"]["podSelector"]["matchLabels"] == {key: value} for each in policies)
    assert of_kind("trainer", "NetworkPolicy")["spec"]["podSelector"]["matchLabels"][key] == value
    everything_denied = [each for each in policies if not {"egress", "ingress"} & set(each["spec"])]
    assert [set(each["spec"]["policyTypes"]) for each in everything_denied] == [{"Egress", "Ingress"}]
    pods = [pod for one in (folder, "multi-gpu", "trainer", "shell") for _, pod in rules.pod_templates(rendered(one))]
    assert all(pod["metadata"]["labels"][key] == value for pod in pods)


@pytest.mark.parametrize("folder", OVERLAYS)
def test_the_settings_compile_and_fit_the_rest(folder, tmp_path):
    """Options that `bonsai compile` does not know, images pulled from two places, or a volume that is not there."""
    settings = tmp_path / "cluster.yaml"
    settings.write_text(of_kind(folder, "ConfigMap", "bonsai-settings")["data"]["cluster.yaml"])
    for pipeline in ("compress", "retrain"):
        compile_pipeline(pipeline=pipeline, output=str(tmp_path / f"{pipeline}.yaml"), settings=str(settings))
    said = yaml.safe_load(settings.read_text())
    job = of_kind(folder, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]
    assert {each["image"].rpartition("/")[0] for each in rules.containers(job)} == {said["images"]}
    assert of_kind(folder, "PersistentVolumeClaim", said["cache-volume"])
    submit = rules.containers(job)[-1]
    texts = [each.partition("=")[2] for each in submit["args"] if each.startswith("--argument=")]
    values = {"CHAMPION": "gs://bucket/champion", "DATA": "gs://bucket/data/*.parquet", "MODEL": "my/bert"}
    texts = [re.sub(r"\$\((\w+)\)", lambda found: values[found[1]], each) for each in texts]
    assert set(read_arguments(tmp_path / "retrain.yaml", texts)) == {"champion", "data", "model"}


def test_the_readme_says_how_often_a_task_is_tried_by_the_cluster_and_by_who_waits():
    """Nine trainings that end for want of memory, where two retries were asked for."""
    submit = rules.containers(of_kind("overlays/local", "CronJob")["spec"]["jobTemplate"]["spec"]["template"])[-1]
    asked = parsed(["submit", *submit["args"]]).params["retries"]
    by_the_cluster = inspect.signature(compile_pipeline).parameters["retries"].default
    assert asked == by_the_cluster == 2
    tries = (asked + 1) * (by_the_cluster + 1)
    words = " ".join(README.split())
    assert f"is tried {tries} times where KFP is told so, and {asked + 1} times on stock KFP" in words


@pytest.mark.parametrize("folder", OVERLAYS)
def test_all_images_come_from_where_the_settings_say(folder):
    """A pod that waits for an image of a registry that this cluster does not know."""
    settings = yaml.safe_load(of_kind(folder, "ConfigMap", "bonsai-settings")["data"]["cluster.yaml"])
    for each in (folder, *BESIDE[folder]):
        images = {value for one in rendered(each) for path, value in rules.walk(one) if path and path[-1] == "image"}
        assert images and {image.rpartition("/")[0] for image in images} == {settings["images"]}, each


# The smallest cluster, in processors and bytes, and what is asked for there before any of ours: by Kubeflow Pipelines
# 2.17.0 (env/platform-agnostic with Argo Workflows 4.0.5, rendered and added up), and by kind's own pods on its node.
SMALLEST = {"cpu": 2.0, "memory": 8 * 2.0**30}
TAKEN = {"cpu": 0.704 + 0.95, "memory": (3174 + 290) * 2.0**20}
DRIVER = {"cpu": "100m", "memory": "64Mi"}  # of KFP's pods that prepare a task; the launcher in a task asks for as much


def largest(every: list[dict[str, str]]) -> dict[str, float]:
    return {name: max(rules.amount(each[name]) for each in every) for name in SMALLEST}


def test_a_task_starts_on_the_smallest_cluster_beside_the_retraining(tmp_path):
    """A run that waits for ever: on 2 processors, for the pod that waits for the run, or for the pod of `shell`."""
    around = [
        largest([each["resources"]["requests"] for each in rules.containers(pod)])
        for folder in ("overlays/local", "shell")
        for _, pod in rules.pod_templates(rendered(folder))
    ]
    settings = str(MANIFESTS / "overlays/local/cluster.yaml")
    for pipeline in ("compress", "retrain"):
        file = tmp_path / f"{pipeline}.yaml"
        compile_pipeline(pipeline=pipeline, output=str(file), settings=settings)
        executors = next(yaml.safe_load_all(file.read_text()))["deploymentSpec"]["executors"]
        tasks = [each["container"]["resources"] for each in executors.values()]
        asked = [{"cpu": each["resourceCpuRequest"], "memory": each["resourceMemoryRequest"]} for each in tasks]
        for name, there in SMALLEST.items():
            rest = there - TAKEN[name] - sum(each[name] for each in around) - rules.amount(DRIVER[name])
            assert 0 < largest([*asked, DRIVER])[name] <= rest + 1e-9, name
            limits = [rules.amount(each[f"resource{name.title()}Limit"]) for each in tasks]
            assert min(limits) >= (2 if name == "cpu" else 4 * 2**30), "what is idle may be used"


def test_the_nodes_volume_is_the_small_clusters_claim():
    """A claim that stays Pending beside the volume that was made for it."""
    claim = of_kind("overlays/local", "PersistentVolumeClaim")
    volume = of_kind("node-volume", "PersistentVolume")["spec"]
    assert volume["claimRef"] == {key: claim["metadata"][key] for key in ("namespace", "name")}
    assert volume["accessModes"] == claim["spec"]["accessModes"]
    room, wanted = volume["capacity"]["storage"], claim["spec"]["resources"]["requests"]["storage"]
    assert rules.amount(room) >= rules.amount(wanted)
    assert "storageClassName" not in volume and "storageClassName" not in claim["spec"]


def api_server(folder: Path) -> dict[str, Any]:
    """Return the pod of KFP's API server as `manifests/kfp` changes it, of a deployment such as KFP's."""
    own = {"name": "COMPILED_PIPELINE_SPEC_PATCH", "value": "{}"}
    container = {"name": "ml-pipeline-api-server", "image": "api-server", "env": [{"name": "OTHER", "value": "1"}, own]}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "ml-pipeline", "namespace": "kubeflow"},
        "spec": {"template": {"spec": {"containers": [container, {"name": "beside", "image": "another"}]}}},
    }
    (folder / "kfp.yaml").write_text(yaml.safe_dump(deployment))
    shutil.copytree(MANIFESTS / "kfp", folder / "kfp")
    (folder / "kustomization.yaml").write_text("resources: [kfp.yaml]\ncomponents: [kfp]\n")
    (found,) = rendered(folder)
    return found["spec"]["template"]["spec"]


def test_the_api_server_is_told_of_the_group_and_of_the_retries_in_one_json(tmp_path):
    """One variable holds it all: to set one of the two takes the other back, and a broken one stops every run."""
    changed, beside = api_server(tmp_path)["containers"]
    assert (changed["image"], beside) == ("api-server", {"name": "beside", "image": "another"})
    found = {each["name"]: each["value"] for each in changed["env"]}
    assert found.pop("OTHER") == "1" and len(found) == 1
    patch = json.loads(found["COMPILED_PIPELINE_SPEC_PATCH"])
    assert json.loads(patch.pop("podSpecPatch")) == {"securityContext": {"fsGroup": 0}}
    # Always: a task that fails is tried again. 0: only where it says so itself; each layer around it would multiply.
    assert patch.pop("templateDefaults") == {"retryStrategy": {"limit": "0", "retryPolicy": "Always"}}
    assert of_kind("overlays/local", "PriorityClass", patch.pop("podPriorityClassName")) and not patch


def test_every_task_says_itself_how_often_it_is_tried(tmp_path):
    """A task that says nothing: with the defaults of `manifests/kfp` it is never tried again."""
    for pipeline in ("compress", "retrain"):
        compile_pipeline(pipeline=pipeline, output=str(tmp_path / "out.yaml"))
        spec = next(yaml.safe_load_all((tmp_path / "out.yaml").read_text()))
        tasks = [task for dag in ({"dag": spec["root"]["dag"]}, *spec["components"].values()) for task in tasks_in(dag)]
        executed = [each for each in tasks if "executorLabel" in spec["components"][each["componentRef"]["name"]]]
        assert len(executed) >= 10 and all(each.get("retryPolicy") for each in executed)


def tasks_in(component: dict[str, Any]) -> list[dict[str, Any]]:
    return [*component.get("dag", {}).get("tasks", {}).values()]


def test_the_quota_lets_our_own_jobs_start():
    """Nodes of a training that wait for ever, as the namespace may not hold their GPUs."""
    quota = int(of_kind("overlays/local", "ResourceQuota")["spec"]["hard"]["requests.nvidia.com/gpu"])
    trainer = of_kind("trainer", "TrainJob")["spec"]["trainer"]
    nodes = trainer["numNodes"] * int(trainer["resourcesPerNode"]["requests"]["nvidia.com/gpu"])
    job = rules.containers(of_kind("multi-gpu", "Job")["spec"]["template"])[-1]
    assert max(nodes, int(job["resources"]["requests"]["nvidia.com/gpu"])) <= quota


def parsed(words: list[str]) -> Any:
    """Parse a command of ours as the command line does."""
    module, _, function = cli.COMMANDS[words[0]].partition(":")
    command = cli._command(words[0], getattr(import_module(module), function))
    return command.make_context(words[0], words[1:])


@pytest.mark.parametrize("folder", [*OVERLAYS, "multi-gpu", "trainer"])
def test_every_command_in_a_pod_is_one_of_ours(folder):
    """A pod that ends at once, since its options are unknown or one is missing."""
    found = 0
    for resource in rendered(folder):
        for _, value in rules.walk(resource):
            if isinstance(value, dict) and "bonsai" in (value.get("command") or ()):
                words = [*value["command"], *value.get("args", [])]
                parsed(words[words.index("bonsai") + 1 :])
                found += 1
    assert found


COMMANDS = [
    line
    for block in re.findall(r"^```\n(.*?)^```$", README, re.M | re.S)
    for line in block.replace("\\\n", " ").splitlines()
]


def test_the_documented_commands_exist():
    """A guide whose commands fail: options that are none, or folders that are not there."""
    ours = [shlex.split(line, comments=True)[1:] for line in COMMANDS if line.startswith("bonsai ")]
    assert {words[0] for words in ours} >= {"compile", "submit", "schedule"}
    for words in ours:
        parsed(words)
    folders = [found for line in COMMANDS for found in re.findall(r"-k manifests/(\S+)", line)]
    assert set(folders) == set(FOLDERS)
    files = [found for line in COMMANDS for found in re.findall(r"(?:--patch-file|--settings) manifests/(\S+)", line)]
    assert "kfp/api-server.yaml" in files and all((MANIFESTS / file).is_file() for file in files)
