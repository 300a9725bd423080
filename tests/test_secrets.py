"""Secrets of the environment are in nothing that is written or said, nor in what other users see of a process."""

import csv
import http.server
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import s3
import tiny

sys.path.insert(0, str(Path(__file__).parent / "package_model"))
from made_package import make_stock

BONSAI = [sys.executable, "-c", "from kfp_bonsai.cli import main; main()"]
SECRETS = {
    name: f"canary-{number}-{name.lower().replace('_', '-')}"
    for number, name in enumerate(
        (
            *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
            *("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD"),
            *("GOOGLE_API_KEY", "KFP_TOKEN", "MY_SECRET", "GITHUB_TOKEN", "DATABASE_CREDENTIALS"),
        )
    )
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A user's data and model, a key of Google's in a file, and an environment full of secrets."""
    folder = tmp_path_factory.mktemp("secrets")
    with (folder / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(text, ("bad", "good")[label]) for text, label in tiny.texts(120, 7)]
        csv.writer(file).writerows([("text", "label"), *rows])
    tiny.pretrained(folder / "model", layers=1)
    key = folder.parent / "key.json"
    key.write_text('{"private_key": "canary-of-google"}')
    own = {
        **{"BONSAI_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "TMPDIR": str(folder / "temporary")},
        **{"GOOGLE_APPLICATION_CREDENTIALS": str(key), "HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"},
    }
    for name in ("temporary", "home"):
        (folder / name).mkdir()
    return folder, os.environ | SECRETS | own


def run(world, *arguments: str) -> str:
    """Run a command in the world; return all it says, after a look at what other users see of it."""
    folder, environment = world
    process = subprocess.Popen(
        [*BONSAI, *arguments], env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    seen = Path(f"/proc/{process.pid}/cmdline").read_text() if Path("/proc/self/cmdline").exists() else ""
    said = process.communicate()[0]
    check(folder, said + seen)
    return said


def check(folder: Path, said: str) -> None:
    written = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert written
    for path, content in [*written.items(), ("what it said", said.encode())]:
        assert b"canary-" not in content, f"{path} holds {content[content.index(b'canary-') :][:40]!r}"


def test_stages_and_their_files_tell_no_secret(world):
    """A token in a record that is published with the model, in a log that all of a team read, or in a fault's file."""
    splits = [f"--{name}={name}.parquet" for name in ("train", "validation", "test", "unlabelled")]
    assert "train_rows" in run(world, "prepare-data", "--data=reviews.csv", *splits)
    tuned = run(world, "fine-tune", "--model=model", *splits[:2], "--epochs=0.1", "--output=baseline")
    assert (world[0] / "baseline" / "bonsai.json").is_file(), tuned
    assert (world[0] / "baseline" / "model.safetensors").is_file()
    assert "error" in run(world, "fine-tune", "--model=org/none", *splits[:2], "--output=other")
    assert "error" in run(world, "prepare-data", "--data=org/none", *splits)
    assert "versions" in run(world, "doctor")


def test_a_fault_and_a_compiled_pipeline_tell_no_secret(world):
    """A traceback kept for a report, with the environment that somebody printed into an error; or a pipeline's YAML."""
    code = (
        "import os, sys, kfp_bonsai.doctor as d\n"
        "from kfp_bonsai import cli\n"
        "def fail(): raise RuntimeError(str(dict(os.environ)))\n"
        "d._looked = lambda *_: fail()\n"
        "sys.argv = ['bonsai', 'doctor']\n"
        "cli.main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], env=world[1], cwd=world[0], capture_output=True, text=True)
    assert ended.returncode == 1 and "this is a fault of kfp-bonsai" in ended.stderr
    assert [*(world[0] / "cache" / "faults").iterdir()]
    check(world[0], ended.stdout + ended.stderr)
    run(world, "compile", "--output=p.yaml", "--images=registry.example/team/bonsai")
    assert (world[0] / "p.yaml").is_file()


@contextmanager
def refusing():
    """A server that lets nobody in; it yields its address, and what it was sent."""
    sent = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            sent.append(str(self.headers))
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_error(403)

        do_POST = do_PUT = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", sent
        server.shutdown()


def test_what_is_sent_with_a_secret_is_told_without_it(world):
    """A token in a published package, in a registry's refusal, or in that of a cluster, which others read in a log."""
    folder, environment = world
    (folder / "made").mkdir()
    make_stock(folder / "made")
    (folder.parent / "token").write_text("canary-of-kubeflow")
    inputs = {"parameters": {name: {"parameterType": "STRING"} for name in ("model", "data")}}
    first = {"inputs": {"parameters": {"fixed": {"runtimeValue": {"constant": {}}}}}}
    root = {"inputDefinitions": inputs, "dag": {"tasks": {"check-inputs": first}}}
    (folder / "sent.yaml").write_text(json.dumps({"pipelineInfo": {"name": "compress"}, "root": root}))
    package = ("package-model", "--model=made/model", "--results=made/results.json", "--output=package")
    with refusing() as (address, sent), s3.server() as bucket:
        environment |= {"AWS_ENDPOINT_URL": bucket.url, "AWS_EC2_METADATA_DISABLED": "true"}
        environment |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        said = run((folder, environment), *package, "--upload=s3://bucket/m", f"--register=mlflow+{address}")
        assert "published as s3://bucket/m/" in said and "error: " in said, said
        assert bucket.names() and not [name for name in bucket.names() if b"canary-" in bucket.content(name)]
        token = f"--token-file={folder.parent / 'token'}"
        submitted = ("submit", "--pipeline=sent.yaml", "--argument=model=m", "--argument=data=d", token)
        assert "error: " in run(world, *submitted, f"--endpoint={address}")
    told = "".join(sent)
    assert SECRETS["MLFLOW_TRACKING_TOKEN"] in told and "canary-of-kubeflow" in told  # to whom they belong
