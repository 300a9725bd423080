"""The whole pipeline in its images, by KFP's DockerRunner, and then its edge model in the edge image."""

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from check_images import STRICT
from figures import FIGURES

UNKNOWN_USER = "12345:0"


@pytest.fixture(scope="module")
def work(images, tmp_path_factory):
    """A folder with data and a random model, which every user of a container can write to."""
    folder = tmp_path_factory.mktemp("pipeline") / "work"
    folder.mkdir()
    tiny.pretrained(folder / "model", layers=2)
    tiny.reviews(folder / "reviews.csv", 300, 1, ("bad", "good"))
    for path in (folder / "model").iterdir():
        path.chmod(0o644)  # transformers writes weights that only their owner can read
    folder.chmod(0o777)
    return folder


def compress(work: Path, root: str, **changed) -> None:
    """Run the pipeline `compress` in containers that can write to its folder and /tmp alone, and reach nothing."""
    from kfp import local

    from kfp_bonsai.pipelines.compress import compress_pipeline
    from kfp_bonsai.pipelines.levels import parse_levels

    (work / root).mkdir()
    (work / root).chmod(0o777)
    environment = {"OMP_NUM_THREADS": "2", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    runner = local.DockerRunner(
        user=UNKNOWN_USER,
        environment=environment,
        mounts=[{"Type": "bind", "Source": str(work), "Target": "/given", "ReadOnly": True}],
        **STRICT,
    )
    local.init(runner, pipeline_root=str(work / root), enable_caching=False)
    arguments = {
        "model": "/given/model",
        "data": "/given/reviews.csv",
        "levels": parse_levels(("small:layers=1/2,flops=0.4,epochs=2",)),
        "edge": True,
        "epochs": 4.0,
        "learning_rate": 3e-3,
        "prune_steps": 10,
        "pairs": 3,
        "block_seconds": 1.0,
        "precision": 0.0,
        "country": "FRA",
    }
    started = time.monotonic()
    try:
        compress_pipeline(parallel_levels=1)(**{**arguments, **changed})
    finally:
        FIGURES.append(f"the pipeline, {root}: {time.monotonic() - started:.0f} s")


@pytest.fixture(scope="module")
def made(work):
    """What the pipeline leaves: the packaged model, the edge model, and the numbers."""
    compress(work, "whole")
    packages = {
        json.loads((each / "bonsai.json").read_text())["stage"]: each for each in folders(work, "package-model")
    }
    edge = packages.pop("quantize")
    return SimpleNamespace(
        edge=edge, model=next(iter(packages.values())), results=next((work / "whole").rglob("results.json"))
    )


def folders(work: Path, task: str) -> list[Path]:
    return list((work / "whole").glob(f"**/{task}*/package"))


def test_the_whole_pipeline_runs_in_its_images(made):
    """Images that build, and lack what a stage needs, or a stage that writes where it may not."""
    results = json.loads(made.results.read_text())
    assert [(row["level"], row["stage"]) for row in results["rows"]] == [
        ("baseline", "baseline"),
        ("small", "compressed"),
        ("baseline", "baseline"),
        ("baseline", "quantized"),
        ("small", "quantized"),
    ]
    assert (made.model / "model.safetensors").is_file() and (made.edge / "model.onnx").is_file()


def test_a_component_that_fails_fails_the_run(work, capsys):
    """A run that reports success while a stage of it failed, and goes on with what is not there."""
    # KFP takes a container that is gone before it asks for its status for a success; then the next task lacks its data.
    with pytest.raises((RuntimeError, ValueError), match=r"FAILURE|task 'prepare-data' not found"):
        compress(work, "failing", label_column="stars")
    printed = capsys.readouterr().out
    assert "stars" in printed
    assert not list((work / "failing").glob("**/fine-tune*/baseline"))


@pytest.fixture(scope="module")
def texts():
    """Texts to score, odd ones too."""
    return ["", "a text of no known word", *(text for text, _ in tiny.texts(70, 9))]


def expected(folder: Path, texts: list[str]) -> list[str]:
    """Return the labels that the package itself gives."""
    from kfp_bonsai.shared.data.encoding import encode
    from kfp_bonsai.shared.inference.runtimes import load_predictor
    from kfp_bonsai.shared.saved.records import read_record

    labels = read_record(folder)["task"]["labels"]
    return [labels[at] for at in load_predictor(folder).predict(encode(folder, texts)).argmax(axis=1)]


def test_the_edge_image_scores_as_the_model_does(client, images, made, texts):
    """A small device that gives other answers than those that were measured."""
    (made.edge / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    printed = client.containers.run(
        images["edge"],
        ["score", "/mnt/models", "/mnt/models/texts.txt"],
        volumes={str(made.edge): {"bind": "/mnt/models", "mode": "ro"}},
        user=UNKNOWN_USER,
        remove=True,
        **STRICT,
    )
    labels = [json.loads(line)["label"] for line in printed.decode().splitlines()]
    assert labels == expected(made.edge, texts)
    whole = expected(made.model, texts)
    assert sum(map(str.__eq__, labels, whole)) / len(whole) >= 0.95


def test_the_edge_image_serves_and_stops_when_asked(client, images, made, texts):
    """A server that no probe can reach, or that a cluster must kill."""
    container = client.containers.run(
        images["edge"],
        ["serve", "/mnt/models", "--name", "reviews"],
        volumes={str(made.edge): {"bind": "/mnt/models", "mode": "ro"}},
        user=UNKNOWN_USER,
        ports={"8080/tcp": ("127.0.0.1", None)},
        detach=True,
        **{**STRICT, "network_mode": "bridge"},
    )
    try:
        address = address_of(container)
        request = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}]}
        answer = json.load(urllib.request.urlopen(f"{address}/v2/models/reviews/infer", json.dumps(request).encode()))
        outputs = {one["name"]: one["data"] for one in answer["outputs"]}
        assert outputs["label"] == expected(made.edge, texts)
        container.stop(timeout=30)
        assert container.wait()["StatusCode"] == 0
    finally:
        print(container.logs().decode())
        container.remove(force=True)


def address_of(container) -> str:
    """Return where a container listens, once it is ready."""
    for _ in range(200):
        container.reload()
        assert container.status in ("created", "running"), container.logs().decode()
        ports = container.ports.get("8080/tcp")
        if ports:
            address = f"http://127.0.0.1:{ports[0]['HostPort']}"
            try:
                with urllib.request.urlopen(f"{address}/v2/health/ready", timeout=5) as answer:
                    assert json.load(answer) == {"ready": True}
                return address
            except (urllib.error.URLError, ConnectionError):
                pass
        time.sleep(0.1)
    raise AssertionError(container.logs().decode())
