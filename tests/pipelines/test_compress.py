"""The pipeline compress: compiled for a cluster, and run whole by KFP's local runner."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import yaml
from typer.testing import CliRunner

from kfp_bonsai.cli import app
from kfp_bonsai.pipelines.cluster.compile import compile_pipeline

BONSAI = [sys.executable, "-c", "from kfp_bonsai.cli import main; main()"]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The pipeline as a cluster gets it."""
    path = tmp_path_factory.mktemp("compiled") / "compress.yaml"
    compile_pipeline(output=path, images="registry.example/team", accelerator="nvidia.com/gpu", edge=True)
    return path


def executors(path: Path) -> dict:
    """Return the containers by the name of their component."""
    spec = next(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    return {
        re.sub(r"^exec-|-\d+$", "", name): found["container"]
        for name, found in spec["deploymentSpec"]["executors"].items()
    }


def tasks(dag: dict, components: dict) -> dict:
    """Return all tasks, those in loops and conditions too, by their component's name."""
    found = {}
    for task in dag["tasks"].values():
        component = components[task["componentRef"]["name"]]
        if "dag" in component:
            found |= tasks(component["dag"], components)
        else:
            found[re.sub(r"^comp-|-\d+$", "", task["componentRef"]["name"])] = task
    return found


def test_the_file_is_a_pipeline_of_kfp(compiled):
    """A file that the cluster's API refuses."""
    from google.protobuf.json_format import ParseDict
    from kfp.components import load_component_from_file
    from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

    spec = next(yaml.safe_load_all(compiled.read_text(encoding="utf-8")))
    assert ParseDict(spec, PipelineSpec()).pipeline_info.name == "compress"
    assert load_component_from_file(str(compiled)).component_spec.name == "compress"


def test_training_asks_for_an_accelerator_and_the_rest_does_not(compiled):
    """A training on a CPU node, or an accelerator that waits for a report."""
    asking = {name for name, container in executors(compiled).items() if "accelerator" in container["resources"]}
    assert asking == {
        "fine-tune",
        "teacher-outputs",
        "layer-remove",
        "matrix-prune",
        "distill",
        "evaluate-emissions",
    }


def test_images_come_from_where_the_cluster_pulls_them(compiled):
    """An image name that only works on our machines."""
    images = {name: container["image"] for name, container in executors(compiled).items()}
    assert all(image.startswith("registry.example/team/") for image in images.values()), images
    assert "/gpu:" in images["distill"] and "/cpu:" in images["evaluate-emissions-edge"]


TRAINED = {"prepare-data", "fine-tune", "teacher-outputs", "layer-remove", "matrix-prune", "distill"}


@pytest.mark.parametrize(
    ("options", "cached"),
    [
        ({"edge": True}, {*TRAINED, "quantize", "quantize-baseline"}),
        ({"pipeline": "retrain"}, {*TRAINED, "quantize"}),
        ({"fuse": True}, {"prepare-data", "fine-tune", "teacher-outputs", "compress-level"}),
        ({"cache": False}, set()),
    ],
)
def test_what_was_made_of_the_same_is_not_made_again_and_nothing_else_is_replayed(options, cached, tmp_path):
    """A report with another day's emissions; or a training again, each night, of what has not changed."""
    compile_pipeline(output=str(tmp_path / "out.yaml"), **options)
    spec = next(yaml.safe_load_all((tmp_path / "out.yaml").read_text(encoding="utf-8")))
    found = tasks(spec["root"]["dag"], spec["components"])
    assert {name for name, task in found.items() if task.get("cachingOptions", {}).get("enableCache")} == cached
    assert all(task["retryPolicy"]["maxRetryCount"] for task in found.values())


@pytest.mark.parametrize("pipeline", ["compress", "retrain"])
def test_what_the_cache_goes_by_tells_the_data_and_the_model(pipeline, tmp_path):
    """A model of the data that lay at the same path last week."""
    compile_pipeline(pipeline=pipeline, output=str(tmp_path / "out.yaml"))
    spec = next(yaml.safe_load_all((tmp_path / "out.yaml").read_text(encoding="utf-8")))
    found = tasks(spec["root"]["dag"], spec["components"])
    for task, where in (("prepare-data", "data"), ("fine-tune", "model")):
        assert "fingerprint" in json.dumps(found[task]["inputs"]["parameters"]["fingerprint"]), where


def test_resources_for_kubernetes_hold_the_same_pipeline(compiled, tmp_path):
    """A PipelineVersion of another pipeline than the uploaded one, or one that no API server takes."""
    from google.protobuf.json_format import ParseDict
    from kfp.pipeline_spec.pipeline_spec_pb2 import PlatformSpec

    options = {"images": "registry.example/team", "kubernetes": True, "namespace": "team", "edge": True}
    files = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for file in files:
        compile_pipeline(output=file, gpu_node=["pool=gpu"], cpu_node=["pool=cpu"], **options)
    compile_pipeline(output=tmp_path / "other.yaml", gpu_node=["pool=other"], **options)
    assert files[0].read_bytes() == files[1].read_bytes()
    pipeline, version = yaml.safe_load_all(files[0].read_text(encoding="utf-8"))
    assert (pipeline["kind"], version["kind"]) == ("Pipeline", "PipelineVersion")
    assert pipeline["metadata"]["namespace"] == version["metadata"]["namespace"] == "team"
    assert re.fullmatch("[a-z0-9]([-a-z0-9]*[a-z0-9])?", version["metadata"]["name"])
    other = list(yaml.safe_load_all((tmp_path / "other.yaml").read_text(encoding="utf-8")))[1]
    assert other["metadata"]["name"] != version["metadata"]["name"], "a version cannot be changed once it is there"
    uploaded = next(yaml.safe_load_all(compiled.read_text(encoding="utf-8")))
    assert version["spec"]["pipelineSpec"] == uploaded
    platform = version["spec"]["platformSpec"]
    ParseDict(platform, PlatformSpec())
    nodes = {
        name: each["nodeSelector"]["labels"]["pool"]
        for name, each in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].items()
    }
    on_gpu = {re.sub(r"^exec-|-\d+$", "", name) for name, pool in nodes.items() if pool == "gpu"}
    assert "distill" in on_gpu and "quantize" not in on_gpu and "evaluate-emissions-edge" not in on_gpu
    assert len(nodes) == len(uploaded["deploymentSpec"]["executors"])


@pytest.fixture(scope="module")
def small(memory_too, tmp_path_factory):
    """A run on a random BERT and a CSV that was interrupted and went on, with --edge: (folder, options, its output)."""
    folder = tmp_path_factory.mktemp("small")
    tiny.pretrained(folder / "model", layers=2)
    tiny.reviews(folder / "reviews.csv", 300, 1, ("bad", "good"))
    options = ["--model", str(folder / "model"), "--data", str(folder / "reviews.csv"), "--output", str(folder / "run")]
    options += ["--level", "small:layers=1/2,flops=0.4,epochs=2", "--epochs", "4", "--learning-rate", "0.003"]
    options += ["--prune-steps", "10", "--pairs", "3", "--block-seconds", "0.3", "--precision", "0", "--country", "FRA"]
    interrupted = subprocess.Popen([*BONSAI, "run", *options], stdout=subprocess.PIPE, text=True)
    assert interrupted.stdout is not None
    for line in interrupted.stdout:
        if "] matrix-prune" in line:
            interrupted.send_signal(signal.SIGINT)
    assert interrupted.wait(60) == 130
    assert json.loads((folder / "run" / "run.json").read_text())["state"] == "running"
    options += ["--edge"]
    return folder, options, bonsai_run(options)


def bonsai_run(options: list[str]) -> subprocess.CompletedProcess:
    """Run `bonsai run` as users do."""
    environment = {key: value for key, value in os.environ.items() if key != "BONSAI_DEBUG"}
    return subprocess.run([*BONSAI, "run", *options], capture_output=True, text=True, timeout=900, env=environment)


def refused(options: list[str]) -> str:
    """Return why `bonsai run` refuses options, in this process."""
    ended = CliRunner().invoke(app, ["run", *options])
    assert ended.exit_code == 2 and "Traceback" not in ended.output
    return ended.stderr


def test_the_whole_pipeline_runs_here(small):
    """A pipeline whose parts work and whose whole does not."""
    folder, _, ended = small
    assert ended.returncode == 0, ended.stdout + ended.stderr
    run = folder / "run"
    results = json.loads((run / "results.json").read_text())
    assert [(row["level"], row["stage"]) for row in results["rows"]] == [
        ("baseline", "baseline"),
        ("small", "compressed"),
        ("baseline", "baseline"),
        ("baseline", "quantized"),
        ("small", "quantized"),
    ]
    assert "<html" in (run / "report.html").read_text()[:200]
    assert (run / "report.md").stat().st_size and list((run / "figures").glob("*.svg"))
    assert json.loads((run / "run.json").read_text())["state"] == "finished"
    assert (run / "edge-model" / "model.onnx").is_file()
    chosen = results["chosen"]
    assert (chosen["level"], chosen["stage"]) == ("small", "quantized")
    assert json.loads((run / "edge-model" / "bonsai.json").read_text())["sha256"] == chosen["sha256"]
    assert json.loads((run / "model" / "bonsai.json").read_text())["stage"] == "distill"


def test_the_model_handed_over_loads_whole(small):
    """A packaged model with weights missing, or checksums of something else."""
    from transformers import AutoModelForSequenceClassification

    import kfp_bonsai  # noqa: F401  (registers free shapes)

    package = small[0] / "run" / "model"
    _, found = AutoModelForSequenceClassification.from_pretrained(package, output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    for line in (package / "SHA256SUMS").read_text().splitlines():
        digest, _, name = line.partition("  ")
        assert hashlib.sha256((package / name).read_bytes()).hexdigest() == digest


def test_the_log_can_be_followed(small):
    """Lines of KFP between those of the stages, a missing stage, or colours in a file."""
    _, _, ended = small
    stages = ("matrix-prune · small", "quantize-baseline", "quantize · small", "evaluate-emissions-edge", "report")
    for stage in stages:
        assert re.search(rf"^\[\d+/14\] {re.escape(stage)}  \[", ended.stdout, re.M), stage
    assert "[14/14]" in ended.stdout and "[15/" not in ended.stdout
    assert "KFP Executor" not in ended.stdout and "\x1b" not in ended.stdout and '"uri"' not in ended.stdout
    assert ended.stdout.splitlines()[-1].endswith("report.html")


def test_a_finished_run_is_not_touched(small):
    """A second run that mixes its results with the first one's."""
    folder, options, _ = small
    before = (folder / "run" / "results.json").stat().st_mtime_ns
    assert "--overwrite" in refused(options)
    assert (folder / "run" / "results.json").stat().st_mtime_ns == before


def test_an_interrupted_run_goes_on_where_it_was(small):
    """An hour of training done again, because somebody pressed Ctrl-C."""
    _, _, ended = small
    done = re.findall(r"^\[\d+/14\] (\S+).*, finished already", ended.stdout, re.M)
    assert sorted(done) == ["fine-tune", "layer-remove", "prepare-data", "teacher-outputs"]


def test_a_run_never_goes_on_with_other_arguments(small):
    """Numbers of two different runs in one report."""
    folder, options, _ = small
    record = folder / "run" / "run.json"
    whole = record.read_text()
    record.write_text(whole.replace('"finished"', '"running"'))
    said = refused([*options, "--seed", "1"])
    record.write_text(whole)
    assert "differs in --seed" in said


def test_a_stages_refusal_is_one_line(small, tmp_path):
    """A traceback of KFP for rows that are not there, or a folder left behind; what a glance shows is told before."""
    _, options, _ = small
    options = [*(one for one in options if one != "--edge"), "--test-rows", "100000"]
    options[options.index("--output") + 1] = str(tmp_path / "run")
    ended = bonsai_run(options)
    assert ended.returncode == 2 and "Traceback" not in ended.stdout + ended.stderr
    assert re.search(r"^error: prepare-data: .*--test-rows", ended.stderr, re.M)
    assert not (tmp_path / "run").exists()
    options[-2:] = ["--label-column", "stars"]
    assert re.search(r"^error: .*no column 'stars'", refused(options), re.M)
    assert not (tmp_path / "run").exists()


def test_a_baseline_that_int8_cannot_hold_is_left_out(small, tmp_path, monkeypatch):
    """Levels that are small enough for an edge CPU, all trained, and a run that fails for the baseline beside them."""
    from types import SimpleNamespace

    from kfp_bonsai.evaluate_emissions import evaluate
    from kfp_bonsai.evaluate_emissions.component import evaluate_emissions_edge
    from kfp_bonsai.quantize.component import quantize, quantize_baseline
    from kfp_bonsai.shared.core.errors import BonsaiError

    def artifact(path: Path) -> SimpleNamespace:
        return SimpleNamespace(path=str(path), metadata={}, log_metric=lambda *_: None)

    work = small[0] / "run" / "work"
    baseline, train = (artifact(next(work.glob(f"*/{name}"))) for name in ("fine-tune/baseline", "prepare-data/train"))
    monkeypatch.setattr("kfp_bonsai.shared.inference.int8_form.MOST_PARAMETERS", 1)
    alone = artifact(tmp_path / "alone")
    quantize_baseline.python_func(baseline, train, alone)
    assert "one ONNX file holds" in (tmp_path / "alone" / "left-out.txt").read_text()
    with pytest.raises(BonsaiError, match="one ONNX file holds"):
        quantize.python_func(baseline, train, artifact(tmp_path / "other"))

    measured = []
    monkeypatch.setattr(
        evaluate, "evaluate_emissions", lambda baseline, candidates, *_, **__: measured.append(candidates) or {}
    )
    others = [artifact(tmp_path / "small"), artifact(tmp_path / "smaller")]
    evaluate_emissions_edge.python_func(
        baseline, alone, others, train, train, artifact(tmp_path / "m"), artifact(tmp_path / "metrics")
    )
    assert measured == [[tmp_path / "small", tmp_path / "smaller"]]
