"""KServe manifests of a packaged model: which server it needs, and resources by what was measured.

How a measurement becomes a size:

- processors: as many as the threads that the latency was measured with; the limit is the request, so that the latency
  holds on a busy node. Behind a GPU one, which feeds it.
- memory: the measured peak times 1.5, and what the server takes beside it; the limit is the request. A peak that was
  measured on a GPU is no memory of the host, where the weights count twice (read, then moved).
- replicas: another one starts at 65 % load. A server of one request after another then keeps a request waiting about as
  long as it works on it (in a queue M/D/1 the mean wait is load / (2 - 2 load) of the time of service).
- the most replicas: what the stated traffic needs at three times its mean; 3 if none was stated.
- concurrency: rows in flight at the measured throughput (Little's law: throughput x latency). KServe enforces it where
  Knative runs the service.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kfp_bonsai.images import TAG
from kfp_bonsai.shared.core.documents import read_object
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.kinds.kind import ANY, SPAN, TOKEN
from kfp_bonsai.shared.kinds.kinds import kind_in
from kfp_bonsai.shared.models.configuration import family_name
from kfp_bonsai.shared.models.families import FAMILIES
from kfp_bonsai.shared.saved.weights import CODE_FILE

MIB = 1 << 20
MEMORY_MARGIN, MEMORY_STEP_MIB = 1.5, 64
SERVER_MIB = {"edge": 192, "gpu": 1024}  # requests' bodies and tokens; CUDA's context too
PROBE = {"timeoutSeconds": 5}  # a busy replica is no dead one
GRACE = 5  # seconds in which those who send requests learn that a replica ends
LOAD_PERCENT, PEAK_TRAFFIC, REPLICAS = 65, 3.0, 3
LONGEST_NAME = 40  # with the namespace it becomes a host's name of at most 63 characters
HASHED = 6  # letters of a hash
NO_URI = "pvc://models"  # where the folder is to be put if it was not published
UNNAMED = (
    "# Where that place is not public, as one on the hub is not by default, name a service account that may read\n"
    "# it: serviceAccountName below predictor, or `bonsai package-model --fetch-as` (package_model/README.md).\n"
)
ACCELERATOR = "nvidia.com/gpu"

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "privileged": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


@dataclass(frozen=True)
class Size:
    """What a replica gets, and how many there are.

    Attributes:
        cpu: processors.
        memory_mib: memory in MiB.
        concurrency: rows in flight.
        replicas: the most.
    """

    cpu: int
    memory_mib: int
    concurrency: int
    replicas: int


def check_account(name: str) -> None:
    """Refuse what is no name of a service account; "" is none.

    Raises:
        BonsaiError: it is none.
    """
    if name and (len(name) > 253 or not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name)):
        raise BonsaiError(
            f"--fetch-as {name!r} is no name of a Kubernetes service account: give one of small letters, digits and "
            "dashes, as kubectl get serviceaccounts shows them"
        )


def manifest(
    folder: Path,
    name: str,
    record: Mapping[str, Any],
    results: Mapping[str, Any],
    row: Mapping[str, Any],
    uri: str,
    images: str,
    account: str = "",
) -> tuple[str, str]:
    """Return a manifest's file name and text: an InferenceService, and the runtime it needs where KServe has none.

    Args:
        folder: the model's folder, for its tokenizer.
        name: what the model is called.
        record: the model's bonsai.json.
        results: the report's results.json.
        row: the model's own row of it.
        uri: where KServe fetches the folder from; "" for a volume claim that is still to be filled.
        images: where our images are pulled from, such as "registry.example/team/kfp-bonsai".
        account: the service account by which KServe fetches it; "" for the namespace's own.
    """
    quantized = row["stage"] == "quantized"
    kind = "edge" if quantized else "gpu"
    why = "" if quantized else not_for_kserve(record, results)
    size = size_of(row, kind, results.get("traffic_per_day"))
    documents = [service(folder, name, record, row, size, uri, kind, own=quantized or bool(why))]
    if account:
        documents[0]["spec"]["predictor"]["serviceAccountName"] = account
    if quantized or why:
        documents.insert(0, runtime(kind, images))
    text = "---\n".join(yaml.safe_dump(each, sort_keys=False, width=120) for each in documents)
    told = _comment(record, row, size, uri, kind, why, results["task"])
    return f"kserve-{kind}.yaml", f"{told}{'' if account else UNNAMED}{text}"


def not_for_kserve(record: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Say why KServe's own Hugging Face server cannot serve a model; "" if it can."""
    task = results["task"]
    if _is_free(record) and not record.get("code_sha256"):
        return "its shape is free, which `import kfp_bonsai` makes known to transformers"
    kind = kind_in(task)
    if kind.writes:
        return ""
    if kind.head == SPAN:
        return "it finds answers in texts, and KServe's server answers no questions"
    if kind.head == TOKEN:
        return "it says what stands where in a text, and KServe's server gives a number a token, without its place"
    if kind.says == ANY and task.get("labels"):
        return "any of its labels may hold, and KServe's server names one"
    if kind.is_number or not task.get("labels"):
        what = "a number" if kind.is_number else "a score"
        return f"it predicts {what}, and KServe's server answers with the largest output's index"
    if len(task.get("columns") or ["text"]) > 1:
        return "it reads pairs of texts, and KServe's server takes one"
    model_type = record.get("model_type")
    if model_type and FAMILIES[family_name(str(model_type))].answers_in_text:
        return "a label's probability is that of writing it, and KServe's server writes freely"
    return ""


def _is_free(record: Mapping[str, Any]) -> bool:
    return (record.get("shape") or {}).get("kind") == "free"


def size_of(row: Mapping[str, Any], kind: str, traffic: int | None = None) -> Size:
    """Return what a replica needs, by the rule above.

    Args:
        row: the model's row of results.json.
        kind: "edge" or "gpu".
        traffic: inferences a day.
    """
    on_gpu = _on_gpu(row)
    peak = row.get("peak_memory_bytes")
    weights = row.get("size_bytes") or 0
    host = 2 * weights + 512 * MIB if on_gpu or peak is None else peak
    memory = MEMORY_MARGIN * host / MIB + SERVER_MIB[kind]
    latency = (row.get("latency_ms_p50") or 0) / 1000
    in_flight = (row.get("throughput_rows_per_s") or 0) * latency
    needed = PEAK_TRAFFIC * (traffic or 0) / 86_400 * latency / (LOAD_PERCENT / 100)
    return Size(
        cpu=1 if on_gpu else threads_of(row),
        memory_mib=math.ceil(memory / MEMORY_STEP_MIB) * MEMORY_STEP_MIB,
        concurrency=max(1, math.ceil(in_flight)),
        replicas=max(2, math.ceil(needed)) if traffic else REPLICAS,
    )


def _on_gpu(row: Mapping[str, Any]) -> bool:
    return str(row.get("device")).startswith("cuda")


def threads_of(row: Mapping[str, Any]) -> int:
    """Return how many threads a model was measured with, which its device tells: "cpu (..., 2 threads)"."""
    found = re.search(r"(\d+) threads", str(row.get("device")))
    return max(1, int(found[1])) if found else 1


def runtime(kind: str, images: str) -> dict[str, Any]:
    """Return the ServingRuntime of our own server; models of one version share it.

    Args:
        kind: "edge" for ONNX on a CPU, "gpu" for what needs kfp_bonsai.
        images: where our images are pulled from.
    """
    formats = {"edge": "onnx", "gpu": "huggingface"}
    container: dict[str, Any] = {"name": "kserve-container", "image": f"{images}/{kind}:{TAG}"}
    if kind == "gpu":
        container["command"] = ["python", "-m", "kfp_bonsai.serve"]
    container |= {
        "args": ["serve", "/mnt/models", "--name={{.Name}}", f"--grace={GRACE}"],
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": 8080}, "periodSeconds": 5, **PROBE},
        "livenessProbe": {"httpGet": {"path": "/v2/health/live", "port": 8080}, "initialDelaySeconds": 60, **PROBE},
        "securityContext": RESTRICTED | {"readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": _runtime_name(kind)},
        "spec": {
            "supportedModelFormats": [{"name": formats[kind], "version": "1", "autoSelect": False}],
            "protocolVersions": ["v2"],
            "containers": [_copy(container)],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}}],
        },
    }


def service(
    folder: Path,
    name: str,
    record: Mapping[str, Any],
    row: Mapping[str, Any],
    size: Size,
    uri: str,
    kind: str,
    own: bool,
) -> dict[str, Any]:
    """Return the InferenceService.

    Args:
        folder: the model's folder.
        name: what the model is called.
        record: the model's bonsai.json.
        row: its row of results.json.
        size: what a replica gets.
        uri: where KServe fetches the folder from, or "".
        kind: "edge" or "gpu".
        own: whether our own runtime serves it.
    """
    resources: dict[str, Any] = {"cpu": str(size.cpu), "memory": f"{size.memory_mib}Mi"}
    if _on_gpu(row):
        resources[ACCELERATOR] = "1"
    model: dict[str, Any] = {
        "modelFormat": {"name": "onnx" if kind == "edge" else "huggingface", "version": "1"},
        **({} if kind_in(record.get("task") or {}).writes and not own else {"protocolVersion": "v2"}),
        "storageUri": uri or f"{NO_URI}/{service_name(name)}",
    }
    if own:
        model["runtime"] = _runtime_name(kind)
    else:
        model["args"] = _arguments(folder, record)
    model |= {
        "env": [{"name": "OMP_NUM_THREADS", "value": str(size.cpu)}],
        "resources": {"requests": resources, "limits": resources},
        "securityContext": RESTRICTED,
    }
    measured = {
        "weights-sha256": record["sha256"],
        "measured-on": row["device"],
        "latency-ms": _pair(row, "latency_ms_p50", "latency_ms_p95"),
        "throughput-rows-per-s": _pair(row, "throughput_rows_per_s"),
        "peak-memory-bytes": _pair(row, "peak_memory_bytes"),
        "joules-per-1000": _pair(row, "joules_per_1000"),
        "energy-label": row.get("emission_label") or "",
    }
    document = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": service_name(name),
            "labels": {"app.kubernetes.io/part-of": "kfp-bonsai"},
            "annotations": {
                "serving.kserve.io/deploymentMode": "RawDeployment",
                **{f"kfp-bonsai/{key}": str(value) for key, value in measured.items() if value},
            },
        },
        "spec": {
            "predictor": {
                "minReplicas": 1,
                "maxReplicas": size.replicas,
                "scaleMetric": "cpu",
                "scaleTarget": LOAD_PERCENT,
                "containerConcurrency": size.concurrency,
                "automountServiceAccountToken": False,
                "securityContext": POD,
                "model": model,
            }
        },
    }
    return _copy(document)


def service_name(name: str) -> str:
    """Return a name that KServe takes, [a-z]([-a-z0-9]*[a-z0-9])?; one that is too long ends in a hash of the whole."""
    text = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "model"
    text = text if text[0].isalpha() else f"m-{text}"
    if len(text) <= LONGEST_NAME:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:HASHED]
    return f"{text[: LONGEST_NAME - HASHED - 1].rstrip('-')}-{digest}"


def _arguments(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """Return how KServe's Hugging Face server does what was measured: the same cut, case, precision and shape."""
    trust = ["--trust_remote_code"] if record.get("code_sha256") else []
    return [*(_writing if kind_in(record.get("task") or {}).writes else _classifying)(folder, record), *trust]


def _classifying(folder: Path, record: Mapping[str, Any]) -> list[str]:
    found = ["--task=sequence_classification", "--backend=huggingface", "--dtype=float32", "--return_probabilities"]
    found.append("--disable_log_requests")  # it would log every text
    if record.get("max_length"):
        found.append(f"--max_model_len={record['max_length']}")
    if not _lowers_case(folder):
        found.append("--disable_lower_case")  # it lowers the case otherwise, whatever the tokenizer was trained with
    return found


def _writing(folder: Path, record: Mapping[str, Any]) -> list[str]:
    """Return that of a model that writes: text and answer have as much room together as they were measured with."""
    encoder = FAMILIES[family_name(str(record["model_type"]))].answers_in_text
    task = "text2text_generation" if encoder else "text_generation"
    found = [f"--task={task}", "--backend=huggingface", "--dtype=float32", "--disable_log_requests"]
    most = read_object(folder / "generation_config.json").get("max_new_tokens")
    if record.get("max_length") and isinstance(most, int):
        found.append(f"--max_model_len={record['max_length'] + most}")
    return found


def _lowers_case(folder: Path) -> bool:
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    normalizer = Tokenizer.from_file(str(file)).normalizer if file.is_file() else None
    return normalizer is not None and normalizer.normalize_str("A") == "a"


def _comment(
    record: Mapping[str, Any],
    row: Mapping[str, Any],
    size: Size,
    uri: str,
    kind: str,
    why: str,
    task: Mapping[str, Any],
) -> str:
    lines = [
        f"Sized by what was measured on {row['device']}: CPUs for the threads of the measurement, memory for",
        f"{MEMORY_MARGIN} times the peak, another replica at {LOAD_PERCENT} % load, where a request waits",
        f"about as long as it is worked on; {size.concurrency} rows in flight is throughput x latency.",
    ]
    if why:
        lines.append(f"Served by kfp-bonsai's own image, as {why}.")
    if not uri:
        lines.append("storageUri: put the folder there, or publish it with `bonsai package-model --upload gs://...`.")
    if kind == "gpu" and not _on_gpu(row):
        lines.append(f"Measured on a CPU, and served on one: for a GPU add {ACCELERATOR}: 1 to requests and limits.")
    if kind == "gpu" and not why:
        labels = ", ".join(f"{number} {label}" for number, label in enumerate(task.get("labels") or []))
        lines.append("Needs KServe 0.20 or later, whose server has transformers 5, as the folder needs.")
        if code := record.get("code_sha256"):
            lines.append(
                f"--trust_remote_code runs the folder's own {CODE_FILE} (SHA-256 {code}), which its shape needs; "
                "kfp-bonsai's own image needs no such trust."
            )
        if kind_in(task).writes:
            lines.append(
                "It answers as OpenAI's API does, at /openai/v1/completions: ask for temperature 0, as was measured."
            )
            if not _is_free(record):
                lines.append("On a GPU, leave --backend out and KServe takes vLLM, which opens the same folder, too.")
        else:
            lines.append(f"The answers number the classes: {labels}.")
    return "".join(f"# {_on_one_line(line)}\n" for line in lines)


def _on_one_line(text: str) -> str:
    """Return a text without what would end a comment, or is no YAML: a label may hold anything."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _runtime_name(kind: str) -> str:
    return f"kfp-bonsai-{kind}-{re.sub(r'[^a-z0-9]+', '-', TAG.lower())}"


def _pair(row: Mapping[str, Any], *keys: str) -> str:
    values = [row[key] for key in keys if row.get(key) is not None]
    return " ".join(f"{value:.6g}" if value < 1e6 else f"{value:.0f}" for value in values)


def _copy(value: Any) -> Any:
    """Return a deep copy, as YAML would write what is used twice as an anchor."""
    if isinstance(value, dict):
        return {key: _copy(each) for key, each in value.items()}
    return [_copy(each) for each in value] if isinstance(value, list) else value
