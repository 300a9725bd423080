"""Registration: in a real MLflow store on SQLite, and with a server in the REST shapes of Kubeflow Model Registry.

That server keeps what it is sent, in the models of the registry's own client, and answers as the registry's API says; a
real registry was not at hand.
"""

import json
import shlex
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from made_package import make_quantized, make_stock
from mr_openapi import models

from kfp_bonsai.package_model import register as module
from kfp_bonsai.package_model.package import package_model
from kfp_bonsai.package_model.register import register
from kfp_bonsai.shared.core.errors import BonsaiError

FACTS = {"accuracy": 0.83, "relative_emission": 0.11, "emission_label": "estimated", "lineage": "fine-tune > distill"}
PREFIX = "/api/model_registry/v1"


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory):
    """The address of an empty MLflow store."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def registry():
    """A model registry; `status` other than 200 is its answer to everything, 500 that to paths with `broken`."""
    state = SimpleNamespace(status=200, broken="", models={}, versions={}, artifacts={}, tokens=set())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.tokens.add(self.headers.get("Authorization"))
            url = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            path = url.path.removeprefix(PREFIX)
            if path == "/registered_models":
                return self.answer(
                    models.RegisteredModelList(next_page_token="", page_size=1, size=0, items=[*state.models.values()])
                )
            if path == "/registered_model":
                return self.answer(state.models.get(query["name"]))
            if path == "/model_version":
                return self.answer(state.versions.get((query["parentResourceId"], query["name"])))
            if path == "/model_artifact":
                return self.answer(state.artifacts.get((query["parentResourceId"], query["name"])))
            raise AssertionError(self.path)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            path = self.path.removeprefix(PREFIX)
            if state.broken and state.broken in path:
                return self.answer(None, 500)
            if path == "/registered_models":
                models.RegisteredModelCreate.from_dict(body)
                made = models.RegisteredModel.from_dict(body | {"id": str(len(state.models) + 1)})
                state.models[made.name] = made
            elif path == "/model_versions":
                models.ModelVersionCreate.from_dict(body)
                made = models.ModelVersion.from_dict(body | {"id": str(len(state.versions) + 1)})
                state.versions[made.registered_model_id, made.name] = made
            else:
                parent = path.split("/")[2]
                assert path == f"/model_versions/{parent}/artifacts", path
                made = models.ModelArtifact.from_dict(body | {"id": str(len(state.artifacts) + 1)})
                state.artifacts[parent, made.name] = made
            return self.answer(made, 201)

        def answer(self, what, status=200):
            status = state.status if state.status != 200 else status
            status = 404 if what is None and status == 200 else status
            content = what.to_json() if status < 300 else json.dumps({"code": str(status), "message": "because"})
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_):
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{listening.server_port}"
    yield state
    listening.shutdown()
    listening.server_close()


def logged_model(client, run: str):
    """Return the one logged model of a run."""
    [found] = client.search_logged_models([client.get_run(run).info.experiment_id], f"source_run_id = '{run}'")
    return found


def test_mlflow_is_told_what_was_measured(mlflow: str, tmp_path: Path):
    """The registry would hold a name and a place, and not why the model was chosen."""
    from mlflow import MlflowClient

    model, results = make_stock(tmp_path)
    found = package_model(
        model, results, tmp_path / "package", name="told", upload=str(tmp_path / "v"), register=f"mlflow+{mlflow}"
    )
    row = next(row for row in json.loads(results.read_text())["rows"] if row["chosen"])
    client = MlflowClient(tracking_uri=mlflow, registry_uri=mlflow)
    [version] = client.search_model_versions("name='told'")
    assert version.source == found["uri"] and version.tags["kfp-bonsai.version"] == found["version"]
    assert version.tags["emission_label"] == "estimated" and version.tags["dataset"] == "movie-reviews"
    assert version.tags["lineage"].startswith("fine-tune > ")
    run = client.get_run(version.run_id).data
    assert run.metrics["accuracy"] == pytest.approx(row["accuracy"])
    assert run.metrics["relative_emission"] == pytest.approx(row["relative_emission"])
    assert run.metrics["size_bytes"] == row["size_bytes"]
    logged = logged_model(client, version.run_id)
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "told", "version": "1"}]
    assert logged.status == "READY" and logged.source_run_id == version.run_id
    assert logged.params["dataset"] == "movie-reviews" and logged.name == f"told {found['version']}"
    assert {one.key: one.value for one in logged.metrics}["accuracy"] == pytest.approx(row["accuracy"])


def test_a_name_that_mlflow_lets_no_logged_model_have(mlflow: str):
    """A model would not be registered for a dot in its name."""
    from mlflow import MlflowClient

    register(f"mlflow+{mlflow}", "reviews v1.2 'ours', 98%", "aaa", "s3://bucket/aaa", FACTS)
    client = MlflowClient(tracking_uri=mlflow, registry_uri=mlflow)
    [version] = client.search_model_versions("name=\"reviews v1.2 'ours', 98%\"")
    assert version.source == "s3://bucket/aaa" and logged_model(client, version.run_id)


def test_a_server_before_mlflow_3(mlflow: str, monkeypatch):
    """It knows no logged models, and would register nothing."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND

    def unknown(*_, **__):
        raise MlflowException("no such path", ENDPOINT_NOT_FOUND)

    monkeypatch.setattr(MlflowClient, "create_logged_model", unknown)
    register(f"mlflow+{mlflow}", "older", "aaa", "hf://me/reviews@aaa", FACTS)
    client = MlflowClient(tracking_uri=mlflow, registry_uri=mlflow)
    [version] = client.search_model_versions("name='older'")
    assert client.get_run(version.run_id).data.metrics["accuracy"] == FACTS["accuracy"]


def test_mlflow_knows_a_version_once(mlflow: str):
    """Each retry of a task would make another version of the same model."""
    from mlflow import MlflowClient

    for version in ("aaa", "aaa", "bbb"):
        register(f"mlflow+{mlflow}", "once", version, f"gs://bucket/{version}", FACTS)
    client = MlflowClient(tracking_uri=mlflow, registry_uri=mlflow)
    known = client.search_model_versions("name='once'")
    assert sorted(each.tags["kfp-bonsai.version"] for each in known) == ["aaa", "bbb"]


def test_the_model_registry_is_told_what_was_measured(registry, tmp_path: Path):
    """The registry would hold a name and a place, and not why the model was chosen."""
    model, results = make_quantized(tmp_path, "onnxruntime")
    found = package_model(
        model, results, tmp_path / "package", name="told", upload=str(tmp_path / "v"), register=registry.url
    )
    row = next(row for row in json.loads(results.read_text())["rows"] if row["chosen"])
    [version], [artifact] = registry.versions.values(), registry.artifacts.values()
    told = version.to_dict()["customProperties"]
    assert version.name == found["version"] and artifact.uri == found["uri"]
    assert artifact.model_format_name == "onnx" and artifact.model_format_version == "1"
    assert told["accuracy"]["double_value"] == pytest.approx(row["accuracy"])
    assert told["emission_label"]["string_value"] == "estimated"
    assert told["lineage"]["string_value"].endswith("> quantize")


def test_the_model_registry_knows_a_version_once(registry, tmp_path, monkeypatch):
    """A retried task would fail, or register the model twice; a token that is not sent is refused."""
    (tmp_path / "token").write_text("secret")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    for version in ("aaa", "aaa", "bbb"):
        register(registry.url, "once", version, f"gs://bucket/{version}", FACTS)
    assert [version for _, version in registry.versions] == ["aaa", "bbb"] and len(registry.artifacts) == 2
    assert registry.tokens == {"Bearer secret"}


def test_a_registration_that_broke_off_is_completed(registry):
    """A version without a place would stay in the registry for good."""
    registry.broken = "/artifacts"
    with pytest.raises(BonsaiError, match="did not register it"):
        register(registry.url, "broken", "aaa", "gs://bucket/aaa", FACTS)
    assert len(registry.versions) == 1 and not registry.artifacts
    registry.broken = ""
    register(registry.url, "broken", "aaa", "gs://bucket/aaa", FACTS)
    [artifact] = registry.artifacts.values()
    assert len(registry.versions) == 1 and artifact.uri == "gs://bucket/aaa"


@pytest.mark.parametrize(
    ("status", "said"), [(401, "refuses access"), (403, "refuses access"), (500, "did not register")]
)
def test_what_a_registry_refuses_is_told(registry, status, said):
    """A traceback of the client's internals tells nobody that a token has expired."""
    registry.status = status
    with pytest.raises(BonsaiError, match=said) as error:
        register(registry.url, "refused", "aaa", "gs://bucket/aaa", FACTS)
    assert registry.url in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:9", "mlflow+http://127.0.0.1:9", "mlflow+sqlite:////dev/null/mlflow.db"]
)
def test_a_registry_that_is_down_is_told(target, monkeypatch):
    """Nothing answers there."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(BonsaiError, match=r"did not register it .*check the address"):
        register(target, "down", "aaa", "gs://bucket/aaa", FACTS)


def test_a_secure_registry_wants_a_token(monkeypatch, tmp_path):
    """The client's own message names no variable to set."""
    monkeypatch.delenv("KF_PIPELINES_SA_TOKEN_PATH", raising=False)
    with pytest.raises(BonsaiError, match="KF_PIPELINES_SA_TOKEN_PATH"):
        register("https://127.0.0.1:9", "secure", "aaa", "gs://bucket/aaa", FACTS)


@pytest.mark.parametrize(("target", "extra"), [("mlflow+http://a", "mlflow"), ("http://a", "registry")])
def test_clients_that_are_not_installed(target, extra, monkeypatch):
    """ModuleNotFoundError does not say what to install."""
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(BonsaiError, match=rf"pip install 'kfp-bonsai\[{extra}\]'"):
        register(target, "none", "aaa", "gs://bucket/aaa", FACTS)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("mlflow+https://me:s3cret@mlflow:5000", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        ("mlflow+HTTPS://s3cret@mlflow:5000", "MLFLOW_TRACKING_TOKEN"),
        ("mlflow+https://me:s3/c#r?et@mlflow:5000", "MLFLOW_TRACKING_TOKEN"),
        ("mlflow+postgresql://me:s3cret@host/mlflow", "PGPASSWORD"),
        ("https://me:s3cret@registry", "set KF_PIPELINES_SA_TOKEN_PATH"),
        ("mlflow-http://me:s3cret@mlflow:5000", "environment"),
    ],
)
def test_no_password_in_an_address(target, said, tmp_path):
    """It would stand in the parameters of the run, its log and its report, for all who may see them."""
    model, results = make_stock(tmp_path)
    with pytest.raises(BonsaiError, match=said) as error:
        package_model(model, results, tmp_path / "package", upload=str(tmp_path / "v"), register=target)
    assert "s3" not in str(error.value) and not (tmp_path / "v").exists()


@pytest.mark.parametrize(
    "target",
    ["mlflow+sqlite:////a:b/me@home/mlflow.db", "mlflow+postgresql://me@host:5432/mlflow", "http://registry:8080/a:b"],
)
def test_an_address_without_a_password_is_taken(target):
    """A registry that can be reached by no address, as its folder or user looks like a password."""
    module.check_target(target)


@pytest.mark.parametrize("target", ["mlflow+", "mlflow", "registry:8080", "ftp://a"])
def test_targets_that_are_none(target):
    """It would be taken for a file's name, and a database be made there."""
    with pytest.raises(BonsaiError, match=r"give mlflow\+URI"):
        register(target, "none", "aaa", "gs://bucket/aaa", FACTS)


def test_what_a_registry_refuses_is_published_and_registered_later(registry, tmp_path):
    """A package thrown away for a registry that was down, and nobody knows how to go on."""
    folder, results = make_stock(tmp_path)
    registry.status = 500
    with pytest.raises(BonsaiError, match="whole in") as told:
        package_model(folder, results, tmp_path / "package", upload=str(tmp_path / "store"), register=registry.url)
    assert (tmp_path / "package" / "SHA256SUMS").is_file()
    command = shlex.split(str(told.value).partition("run `")[2].partition("`")[0])
    registry.status = 200
    assert command[:2] == ["bonsai", "package-model"]
    options = {key.removeprefix("--"): value for key, value in zip(command[2::2], command[3::2], strict=True)}
    found = package_model(
        Path(options.pop("model")), Path(options.pop("results")), Path(options.pop("output")), **options
    )
    assert "registered" in found and len(list((tmp_path / "store").iterdir())) == 1
