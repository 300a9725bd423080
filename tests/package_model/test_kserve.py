"""KServe manifests: what they name exists, pods they make are admitted, and sizes follow from the measurement.

Field names are those of KServe's public CRDs (serving.kserve.io, v1beta1 and v1alpha1, of release 0.20); pods are
checked with Kubernetes' own schemas. No KServe was at hand; our own server is run with the manifest's arguments.
"""

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from made_package import make_quantized, make_stock, write_record

from kfp_bonsai.package_model import kserve
from kfp_bonsai.package_model.package import package_model
from kfp_bonsai.shared.core.errors import BonsaiError

README = Path(kserve.__file__).with_name("README.md")

PREDICTOR = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "containerConcurrency", "model"}
POD = {"securityContext", "automountServiceAccountToken"}  # the predictor is a pod's specification besides
MODEL = {"modelFormat", "protocolVersion", "runtime", "storageUri"}  # the model is a container besides
RUNTIME = {"supportedModelFormats", "protocolVersions", "containers", "volumes"}
QUANTITY = re.compile(r"[1-9][0-9]*(m|Mi|Gi)?")


def documents(package: Path) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return the ServingRuntime, if there is one, and the InferenceService of a package."""
    [file] = package.glob("kserve-*.yaml")
    found = {each["kind"]: each for each in yaml.safe_load_all(file.read_text())}
    return found.get("ServingRuntime"), found["InferenceService"]


def pod(runtime: dict[str, Any] | None, service: dict[str, Any]) -> dict[str, Any]:
    """Return the pod that KServe makes of both: the model's fields over the runtime's container."""
    predictor = service["spec"]["predictor"]
    container = {"name": "kserve-container", "image": "kserve/huggingfaceserver:v0.20.0"}
    volumes = []
    if runtime:
        [container] = runtime["spec"]["containers"]
        volumes = runtime["spec"]["volumes"]
    model = {key: value for key, value in predictor["model"].items() if key not in MODEL}
    security = container.get("securityContext", {}) | model["securityContext"]
    spec = {key: predictor[key] for key in POD}
    spec |= {"containers": [container | model | {"securityContext": security}], "volumes": volumes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "made"}, "spec": spec}


def check(package: Path) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Check what an API server would refuse, and return the two documents."""
    runtime, service = documents(package)
    assert set(service["spec"]["predictor"]) == PREDICTOR | POD
    assert set(service["spec"]["predictor"]["model"]) - MODEL <= {"args", "env", "resources", "securityContext"}
    assert runtime is None or set(runtime["spec"]) == RUNTIME
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", service["metadata"]["name"])
    assert all(isinstance(value, str) for value in service["metadata"]["annotations"].values())
    made = pod(runtime, service)
    for version in ("1.30", "1.33"):
        kubernetes_validate.validate(made, version, strict=True)
    [container] = made["spec"]["containers"]
    for amounts in container["resources"].values():
        assert all(QUANTITY.fullmatch(value) for value in amounts.values())
    admitted_under_restricted(made["spec"])
    return runtime, service


def admitted_under_restricted(spec: dict[str, Any]) -> None:
    """Check the rules of Pod Security, level restricted."""
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert all(set(volume) - {"name"} <= {"emptyDir"} for volume in spec["volumes"])
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False and security["privileged"] is False
        assert security["capabilities"] == {"drop": ["ALL"]} and security["runAsNonRoot"] is True


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantized package."""
    folder = tmp_path_factory.mktemp("edge")
    model, results = make_quantized(folder, "onnxruntime", outputs=2)
    package_model(model, results, folder / "package", images="registry.example/team/kfp-bonsai")
    return folder / "package"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that plain transformers loads."""
    folder = tmp_path_factory.mktemp("plain")
    model, results = make_stock(folder)
    package_model(model, results, folder / "package")
    return folder / "package"


def test_the_edge_manifest(edge: Path):
    """KServe would choose a runtime that takes tensors, not text, or one that is not there."""
    runtime, service = check(edge)
    model = service["spec"]["predictor"]["model"]
    assert model["modelFormat"]["name"] == "onnx" and model["protocolVersion"] == "v2"
    assert runtime and model["runtime"] == runtime["metadata"]["name"]
    assert runtime["spec"]["supportedModelFormats"][0]["name"] == "onnx" and "v2" in runtime["spec"]["protocolVersions"]
    [container] = runtime["spec"]["containers"]
    assert container["image"].startswith("registry.example/team/kfp-bonsai/edge:")
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_edge_server_takes_the_manifest_s_arguments(edge: Path):
    """The pod would end with a usage message, or its probes fail."""
    runtime, _ = documents(edge)
    assert runtime
    [container] = runtime["spec"]["containers"]
    arguments = [each.replace("/mnt/models", str(edge)).replace("{{.Name}}", "reviews") for each in container["args"]]
    command = [sys.executable, "-m", "kfp_bonsai.serve", *arguments, "--port=0", "--host=127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            address = re.search(r"http://[\d.:]+", server.stdout.readline())[0]
            for probe in ("readinessProbe", "livenessProbe"):
                assert urllib.request.urlopen(address + container[probe]["httpGet"]["path"]).status == 200
            tensor = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a fine film", "a dull one"]}
            body = json.dumps({"inputs": [tensor]}).encode()
            answer = json.load(urllib.request.urlopen(f"{address}/v2/models/reviews/infer", body))
            assert answer["outputs"][0]["data"] == ["negative", "negative"]  # equal sums: the first
        finally:
            server.terminate()


def test_the_manifest_for_plain_models(plain: Path):
    """KServe's own server would cut, round or lower the texts otherwise than was measured."""
    runtime, service = check(plain)
    model = service["spec"]["predictor"]["model"]
    assert runtime is None and model["modelFormat"]["name"] == "huggingface"
    assert "--max_model_len=16" in model["args"] and "--dtype=float32" in model["args"]
    assert "--task=sequence_classification" in model["args"]
    assert "--disable_log_requests" in model["args"]  # it would log the users' texts
    assert set(model["resources"]["limits"]) == {"cpu", "memory"}  # measured on a CPU: no pod waits for a GPU
    assert "# The answers number the classes: 0 negative, 1 positive." in (plain / "kserve-gpu.yaml").read_text()


def test_what_is_private_is_fetched_by_an_account_or_told(tmp_path: Path, plain: Path):
    """A pod that fetches without a token from a private place, and never starts."""
    model, results = make_stock(tmp_path)
    package_model(model, results, tmp_path / "package", fetch_as="bonsai-reader")
    _, service = documents(tmp_path / "package")
    assert service["spec"]["predictor"]["serviceAccountName"] == "bonsai-reader"
    told = [(folder / "kserve-gpu.yaml").read_text() for folder in (plain, tmp_path / "package")]
    assert ["--fetch-as" in text for text in told] == [True, False]
    kubernetes_validate.validate(pod(None, service), "1.33", strict=True)
    for name in ("Reader", "a_b", "-a", "a: b", "a" * 254):
        with pytest.raises(BonsaiError, match="no name of a Kubernetes service account"):
            package_model(model, results, tmp_path / "other", fetch_as=name)


@pytest.mark.parametrize("secret", re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL))
def test_the_readme_s_secrets_are_ones(secret: str):
    """An example that a cluster refuses, or whose account names another Secret."""
    one, account = yaml.safe_load_all(secret)
    for document in (one, account):
        kubernetes_validate.validate(document, "1.33", strict=True)
    assert account["secrets"] == [{"name": one["metadata"]["name"]}]


@pytest.mark.parametrize(("lowercase", "said"), [(False, True), (True, False)])
def test_the_case_of_texts(tmp_path: Path, lowercase: bool, said: bool):
    """KServe's server lowers the case unless it is told not to; a model of cased texts would lose its accuracy."""
    from made_package import write_tokenizer

    write_tokenizer(tmp_path, lowercase)
    assert ("--disable_lower_case" in kserve._arguments(tmp_path, {})) is said


def test_a_free_shape_is_served_by_our_image(tmp_path: Path):
    """KServe's own server does not know the model's type, and its pod would restart forever."""
    model, results = make_stock(tmp_path)
    write_record(model, results, shape={"kind": "free", "hidden": 8, "layers": [{"heads": 2, "ffn": 16}]})
    package_model(model, results, tmp_path / "package")
    runtime, service = check(tmp_path / "package")
    assert runtime and "/gpu:" in runtime["spec"]["containers"][0]["image"]
    assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"]["name"]
    assert "import kfp_bonsai" in (tmp_path / "package/kserve-gpu.yaml").read_text()


FREE = {"shape": {"kind": "free"}, "code_sha256": "c0de"}


@pytest.mark.parametrize("kind", ["classification", "generation"])
def test_a_free_shape_with_its_code_is_opened_by_kserves_server_that_is_told_to_trust_it(tmp_path, kind):
    """A pod that ends at once, as the folder's own code is not to be run; or a hint to vLLM, which has none."""
    (tmp_path / "generation_config.json").write_text('{"max_new_tokens": 8}')
    task = {"kind": kind, "labels": ["a", "b"], "columns": ["text"]}
    record = {"model_type": "bonsai-llama", "task": task, "sha256": "1", "max_length": 16}
    for model, trusted in ((record | FREE, True), (record | {"shape": {"kind": "stock"}}, False)):
        row = {"stage": "compressed", **MEASURED}
        _, text = kserve.manifest(tmp_path, "made", model, {"task": task}, row, "", "registry/kfp-bonsai")
        [service] = yaml.safe_load_all(text)
        assert ("--trust_remote_code" in service["spec"]["predictor"]["model"]["args"]) is trusted
        assert ("modeling_bonsai.py (SHA-256 c0de)" in text) is trusted
        assert ("vLLM" in text) is (kind == "generation" and not trusted)


def test_our_own_image_trusts_no_code_of_a_folder():
    """Code of a bucket that is run by a server which has the shape's own."""
    pairs = {"labels": ["a", "b"], "columns": ["text_a", "text_b"]}
    assert "pairs" in kserve.not_for_kserve({"model_type": "bert"} | FREE, {"task": pairs})
    [container] = kserve.runtime("gpu", "registry")["spec"]["containers"]
    assert not [each for each in container["args"] if "trust" in each]


@pytest.mark.parametrize(
    ("record", "task", "said"),
    [
        ({}, {"labels": []}, "predicts a number"),
        ({}, {"labels": ["a", "b"], "columns": ["text_a", "text_b"]}, "pairs"),
        ({"model_type": "t5"}, {"labels": ["a", "b"]}, "writing"),
        ({}, {"labels": ["a", "b"], "columns": ["text"]}, ""),
    ],
)
def test_what_the_server_of_kserve_cannot_do(record: dict[str, Any], task: dict[str, Any], said: str):
    """A regression would always be answered with 0, and of a pair the second text be lost."""
    found = kserve.not_for_kserve({"model_type": "bert", "shape": {"kind": "stock"}} | record, {"task": task})
    assert said in found and bool(found) is bool(said)


MEASURED = {
    "device": "cpu (AMD EPYC, 8 cores, 4 threads)",
    "peak_memory_bytes": 200 << 20,
    "size_bytes": 50 << 20,
    "latency_ms_p50": 5.0,
    "throughput_rows_per_s": 700.0,
}


@pytest.mark.parametrize(
    ("kind", "changes", "traffic", "wanted"),
    [
        # 1.5 x 200 + 192 = 492, in steps of 64: 512. 700 rows/s x 5 ms = 3.5 rows in flight.
        ("edge", {}, None, kserve.Size(4, 512, 4, 3)),
        # 3 x 10^8 rows / 86,400 s = 10,417 rows/s at the peak; a replica does 200 x 0.65 = 130 of them.
        ("edge", {}, 300_000_000, kserve.Size(4, 512, 4, 81)),
        ("edge", {}, 10, kserve.Size(4, 512, 4, 2)),
        # 1.5 x 200 + 1024 = 1324: 1344
        ("gpu", {}, None, kserve.Size(4, 1344, 4, 3)),
        # The peak is the GPU's; the host has 2 x 50 + 512 = 612, x 1.5 + 1024 = 1942: 1984
        ("gpu", {"device": "cuda (NVIDIA H100)"}, None, kserve.Size(1, 1984, 4, 3)),
        ("edge", {"peak_memory_bytes": None, "throughput_rows_per_s": None}, None, kserve.Size(4, 1152, 1, 3)),
    ],
)
def test_sizes_follow_from_the_measurement(kind: str, changes: dict, traffic: int | None, wanted: kserve.Size):
    """A pod would be killed for its memory, be slower than was promised, or hold resources that it does not use."""
    assert kserve.size_of(MEASURED | changes, kind, traffic) == wanted


def test_limits_are_requests(edge: Path):
    """On a busy node the measured latency would not hold."""
    _, service = documents(edge)
    model = service["spec"]["predictor"]["model"]
    assert model["resources"]["limits"] == model["resources"]["requests"]
    assert {"name": "OMP_NUM_THREADS", "value": model["resources"]["limits"]["cpu"]} in model["env"]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("Movie Reviews (int8)", "movie-reviews-int8"),
        ("2/3 layers", "m-2-3-layers"),
        ("é", "model"),
        ("a" * 40, "a" * 40),
        ("a" * 32 + "-" + "b" * 32, "a" * 32 + "-f6edc4"),
    ],
)
def test_names_that_kserve_takes(name: str, wanted: str):
    """The webhook would refuse the service, or its host's name be too long."""
    assert kserve.service_name(name) == wanted


def test_long_names_that_differ_at_their_end_stay_apart():
    """The int8 model replaces the one before it, in the same namespace, without a word."""
    names = {kserve.service_name(f"movie-reviews-1-3-layers-matrix-pruning{end}") for end in ("", "-int8", "-v2")}
    assert len(names) == 3 and all(len(name) <= kserve.LONGEST_NAME for name in names)
