"""Tell a registry of models about a published one: MLflow, or Kubeflow Model Registry."""

import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError, kind_of
from kfp_bonsai.shared.kinds.kinds import kind_in
from kfp_bonsai.shared.metrics import control
from kfp_bonsai.shared.saved.records import start_of
from kfp_bonsai.shared.storage.buckets import SOME

MLFLOW = "mlflow+"
AUTHOR = EXPERIMENT = "kfp-bonsai"
VERSION_TAG = "kfp-bonsai.version"
MLFLOW_SECRETS = (
    "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN (for a database PGPASSWORD or the "
    "like)"
)
REGISTRY_SECRETS = "KF_PIPELINES_SA_TOKEN_PATH, a file with a service account's token"
IN_ADDRESS = re.compile(r"(?i)https?://.*@|://[^/?#]*:.*@")  # a database's user alone is no secret
MEASURED = (
    "accuracy",
    "relative_accuracy",
    "relative_emission",
    "joules_per_1000",
    "grams_co2_per_1000",
    "size_bytes",
    "parameters",
    "flops_ratio",
    "latency_ms_p50",
    "latency_ms_p95",
    "throughput_rows_per_s",
    "peak_memory_bytes",
)


def check_target(target: str) -> None:
    """Check, before any work, that a registry's URI can be used here.

    Raises:
        BonsaiError: as of `check_address`, or its client is not installed.
    """
    check_address(target)
    if target.startswith(MLFLOW):
        _installed("mlflow", "MLflow", "mlflow")
    else:
        _installed("model_registry", "the client of Kubeflow Model Registry", "registry")


def check_address(target: str) -> None:
    """Check the form of a registry's URI.

    Raises:
        BonsaiError: it holds a user's name or password, or is of neither kind.
    """
    if IN_ADDRESS.search(target):  # told without the address, which is kept with the run and shown in its report
        known = MLFLOW_SECRETS if target.startswith(MLFLOW) else REGISTRY_SECRETS
        raise BonsaiError(
            "--register holds a user's name or password before the @, which the run's records would show: leave them "
            f"out of it, and set {known} in the environment"
        )
    if target == MLFLOW or not target.startswith((MLFLOW, "http://", "https://")):
        raise BonsaiError(
            f"--register '{target}': give mlflow+URI, such as mlflow+http://mlflow:5000, or the URL of Kubeflow Model "
            "Registry, such as http://model-registry-service.kubeflow:8080"
        )


def check_published(target: str, upload: str) -> None:
    """Check, before any work, that a registry takes what is published at a place.

    Raises:
        BonsaiError: nothing is published, or in a folder of this machine, which MLflow's server takes from no client.
    """
    if not upload:
        raise BonsaiError("--register tells where the model was published: give --upload too")
    if target.lower().startswith(tuple(MLFLOW + scheme for scheme in ("http://", "https://"))) and "://" not in upload:
        raise BonsaiError(
            f"--register {target}: a server of MLflow takes no model in a folder of this machine (--upload {upload}): "
            f"publish to {SOME}, or register in a database, such as mlflow+sqlite:///mlflow.db"
        )


def register(target: str, name: str, version: str, uri: str, facts: Mapping[str, str | float]) -> str:
    """Register a published model; one that is registered already stays as it is.

    Args:
        target: mlflow+URI, or the URL of Kubeflow Model Registry, without a user's name or password.
        name: what the model is called there.
        version: the version that it was published under.
        uri: where it was published.
        facts: what is known of it, see `facts_of`.

    Returns:
        Where it is registered, in words.

    Raises:
        BonsaiError: the registry refuses, or does not answer.
    """
    check_target(target)
    if target.startswith(MLFLOW):
        return _in_mlflow(target.removeprefix(MLFLOW), name, version, uri, facts)
    return _in_model_registry(target, name, version, uri, facts)


def facts_of(record: Mapping[str, Any], results: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, str | float]:
    """Return what a registry is told: the measured numbers with their label, and the lineage.

    Args:
        record: the model's bonsai.json.
        results: the report's results.json.
        row: the model's own row of it.
    """
    task, lineage = results["task"], record.get("lineage") or []
    doubt = control.DOUBTS.get(control.of_results(results))
    words = {
        "metric": task["metric"],
        "task": kind_in(task).hub[0],
        "emission_label": row.get("emission_label"),
        "emission_reliable": f"no: {doubt}" if doubt else "yes",
        "device": row.get("device"),
        "runtime": row.get("runtime"),
        "shape": (record.get("shape") or {}).get("kind"),
        "level": row.get("level"),
        "base_model": start_of(record) or None,
        "dataset": task["name"],
        "dataset_sha256": task.get("sha256"),
        "weights_sha256": record["sha256"],
        "lineage": " > ".join(entry["stage"] for entry in lineage),
    }
    numbers = {key: float(row[key]) for key in MEASURED if row.get(key) is not None}
    return numbers | {key: str(value) for key, value in words.items() if value not in (None, "")}


def _installed(module: str, what: str, extra: str) -> None:
    if find_spec(module) is None:
        raise BonsaiError(f"--register: {what} is not installed: pip install 'kfp-bonsai[{extra}]'")


def _in_mlflow(address: str, name: str, version: str, uri: str, facts: Mapping[str, str | float]) -> str:
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # by default it tries for minutes
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    with _refusals(f"MLflow at {address}", MLFLOW_SECRETS):
        client = MlflowClient(tracking_uri=address, registry_uri=address)
        try:
            client.create_registered_model(name, tags={"made-by": AUTHOR})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        quote = '"' if "'" in name else "'"
        versions = client.search_model_versions(f"name={quote}{name}{quote}")
        known = [one for one in versions if one.tags.get(VERSION_TAG) == version]
        if not known:
            run, logged = _mlflow_run(client, name, version, facts)
            tags = {VERSION_TAG: version} | {key: str(value) for key, value in facts.items()}
            known = [client.create_model_version(name, source=uri, run_id=run, tags=tags, model_id=logged)]
            if logged:  # as MLflow's own register_model does; its open stores keep no model_id of a version
                linked = json.dumps([{"name": name, "version": str(known[0].version)}])
                client.set_logged_model_tags(logged, {"mlflow.modelVersions": linked})
        return f"{name}, version {known[0].version}, in MLflow at {address}"


def _mlflow_run(client: Any, name: str, version: str, facts: Mapping[str, str | float]) -> tuple[str, str | None]:
    """Make a run, and a logged model of it, that hold the numbers as metrics, which is where MLflow compares them.

    Returns:
        Their ids; None for the model of a server before MLflow 3.
    """
    home = _mlflow_experiment(client)
    run = client.create_run(home, run_name=f"{name} {version}").info.run_id
    words = {key: value for key, value in facts.items() if isinstance(value, str)}
    logged = _logged_model(client, home, run, name, version, words)
    for key, value in facts.items():
        if isinstance(value, float):
            client.log_metric(run, key, value, **({"model_id": logged} if logged else {}))
        else:
            client.log_param(run, key, value)
    if logged:
        client.finalize_logged_model(logged, "READY")
    client.set_terminated(run)
    return run, logged


def _logged_model(client: Any, home: str, run: str, name: str, version: str, words: Mapping[str, str]) -> str | None:
    from mlflow.exceptions import MlflowException

    plain = re.sub(r"[/:.%\"']", "-", f"{name} {version}")  # what MLflow lets a model be called
    try:
        made = client.create_logged_model(home, plain, run, tags={VERSION_TAG: version}, params=dict(words))
    except MlflowException as error:
        if error.error_code not in ("ENDPOINT_NOT_FOUND", "NOT_FOUND", "RESOURCE_DOES_NOT_EXIST"):
            raise
        return None
    return made.model_id


def _mlflow_experiment(client: Any) -> str:
    """Return the id of the experiment for all our runs; another task may make it at the same moment."""
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(EXPERIMENT):
        return found.experiment_id
    try:
        return client.create_experiment(EXPERIMENT)
    except MlflowException:
        if found := client.get_experiment_by_name(EXPERIMENT):
            return found.experiment_id
        raise


def _in_model_registry(address: str, name: str, version: str, uri: str, facts: Mapping[str, str | float]) -> str:
    import asyncio

    from model_registry import ModelRegistry

    with _refusals(f"the model registry at {address}", REGISTRY_SECRETS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without a token, which the registry may not ask for
            client = ModelRegistry(
                address, author=AUTHOR, log_level=logging.ERROR, async_runner=lambda work: asyncio.run(work)
            )
        model = client.get_registered_model(name)
        found = client.get_model_version(name, version) if model else None
        made_for = {"model_format_name": "onnx" if "quantize" in str(facts["lineage"]) else "safetensors"}
        made_for["model_format_version"] = "1"
        if found is None:
            client.register_model(name, uri, version=version, metadata=dict(facts), **made_for)
        elif client.get_model_artifact(name, version) is None:  # a registration that broke off
            client.async_runner(client._register_model_artifact(found, name, uri, **made_for))
        return f"{name}, version {version}, in the model registry at {address}"


@contextmanager
def _refusals(where: str, secret: str) -> Iterator[None]:
    """Turn what a registry's client raises into one error in words."""
    try:
        yield
    except BonsaiError:
        raise
    except Exception as error:  # two clients, each with exceptions of its own and of what it is built on
        status = getattr(error, "status", None) or getattr(error, "get_http_status_code", lambda: None)()
        body = getattr(error, "body", None)
        text = f"{status} {getattr(error, 'reason', '')} {body}" if body else str(error)
        said = " ".join(text.split())[:300] or type(error).__name__
        if status in (401, 403) or "token must be provided" in said:
            raise BonsaiError(
                f"--register: {where} refuses access ({said}): set {secret}, and ask for the right"
            ) from error
        raise kind_of(error)(
            f"--register: {where} did not register it ({said}): check the address and its logs"
        ) from error
