"""retrain where an int8 model is in service: it is what is measured, held against the champion, and renewed."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import yaml

from kfp_bonsai.check_drift.check import check_drift
from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions
from kfp_bonsai.fetch_champion import fetch
from kfp_bonsai.fetch_champion.fetch import check_champion, fetch_champion
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.package_model.package import package_model
from kfp_bonsai.pipelines.cluster.compile import compile_pipeline
from kfp_bonsai.pipelines.local import retrain_run
from kfp_bonsai.promote.promote import promote
from kfp_bonsai.quantize.quantize import quantize
from kfp_bonsai.report.report import report
from kfp_bonsai.select_model.select import select_model
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.saved import champion as champions
from kfp_bonsai.shared.saved.checkpoint import load, save
from kfp_bonsai.shared.saved.records import read_record, write_record
from kfp_bonsai.shared.storage.store import read_pointer

QUICK = {"epochs": 6, "learning_rate": 3e-3, "prune_steps": 4, "pairs": 2, "block_seconds": 0.3, "precision": 0}
DISTILLED = {"stage": "distill", "arguments": {"epochs": 4, "learning_rate": 3e-3}}


@pytest.fixture(scope="module")
def world(made, tmp_path_factory):
    """Packages measured together: a trained model as it is and as int8, and an int8 model that has forgotten all."""
    folder = tmp_path_factory.mktemp("int8")
    layer_remove(made.baseline, made.validation, folder / "good", keep="2", level="small")
    record = read_record(folder / "good")
    distilled = {**record["lineage"][-1], **DISTILLED}  # which a retraining starts from, and nothing here waits for
    write_record(folder / "good", {**record, "lineage": [*record["lineage"], distilled]})
    model, tokenizer = load(folder / "good")
    model.classifier.weight.data.zero_()  # it answers the same, whatever the text
    save(model, tokenizer, folder / "bad", read_record(folder / "good"))
    for name in ("good", "bad"):
        quantize(folder / name, made.train, folder / f"{name}8", runtime="onnxruntime", calibration_rows=8)
    models = {name: folder / name for name in ("good", "good8", "bad8")}
    files = [folder / name for name in ("measurement.json", "selection.json", "r.html", "r.md", "results.json")]
    quick = {"pairs": 2, "block_seconds": 0.3, "precision": 0}
    evaluate_emissions(made.baseline, [*models.values()], made.train, made.test, files[0], **quick)
    found = json.loads(files[0].read_text())
    found["control"]["ci"] = [0.99, 1.01]  # two rounds on a busy machine prove nothing
    for row, emission in zip(found["models"][1:], (0.8, 0.3, 0.3), strict=True):
        row["relative_emission"] = emission
    files[0].write_text(json.dumps(found))
    select_model(files[0], [models["good8"], models["bad8"]], folder / "chosen", files[1], max_emission=0.5)
    report(files[0], files[1], *files[2:], folder / "figures")
    for name, path in models.items():
        package_model(path, files[4], folder / f"{name}-package")
    return {name: folder / f"{name}-package" for name in models}


def held_against(made, world, champion: str, folder: Path, challenger: str, **options):
    """Promote a challenger against the champion, as the pipeline does."""
    fetch_champion(champion, folder / "incumbent", folder / "document.json")
    splits = {name: str(getattr(made, name)) for name in ("train", "validation", "test")}
    given = {"incumbent": str(folder / "incumbent"), "document": str(folder / "document.json"), **splits, **options}
    return promote(world[challenger], champion, folder / f"{challenger}.json", **given)


def test_an_int8_champion_says_how_to_make_it_again(world, tmp_path):
    """A retraining that hands a float model to what serves int8, or one for a runtime that is not in service."""
    champion = str(tmp_path / "champion")
    promote(world["good8"], champion, tmp_path / "first.json", first=True)
    assert champions.target(read_pointer(champions.pointer_at(champion))[0]) == (0.5, champions.INT8)
    found = fetch_champion(champion, tmp_path / "model", tmp_path / "document.json")
    assert (found["form"], found["runtime"], found["layers"]) == ("int8", "onnxruntime", "2")
    assert (found["calibration_rows"], found["any_processor"], found["weight_bits"]) == (8, False, 8)
    assert (tmp_path / "model" / "model.onnx").is_file()


def test_a_float_champion_is_renewed_as_int8_where_that_is_asked_for(world, tmp_path):
    """`--edge` without effect, or an int8 model that is made otherwise than `bonsai run --edge` makes it."""
    champion = str(tmp_path / "champion")
    promote(world["good"], champion, tmp_path / "first.json", first=True)
    assert check_champion(champion)[1] == champions.FLOAT
    found = fetch_champion(champion, tmp_path / "model", tmp_path / "document.json", edge=True)
    assert (found["form"], found["runtime"]) == ("int8", "auto")
    defaults = inspect.signature(quantize).parameters
    assert {name: defaults[name].default for name in fetch.AS_QUANTIZE} == fetch.AS_QUANTIZE


@pytest.mark.parametrize(("challenger", "promoted"), [("good8", True), ("bad8", False)])
def test_an_int8_model_takes_an_int8_champions_place_only_if_it_is_not_worse(
    made, world, tmp_path, challenger, promoted
):
    """What is in service on CPUs never renewed, or by a model that is worse."""
    champion = str(tmp_path / "champion")
    promote(world["bad8" if promoted else "good8"], champion, tmp_path / "first.json", first=True)
    found = held_against(made, world, champion, tmp_path, challenger)
    now = read_pointer(champions.pointer_at(champion))[0]
    assert found["promoted"] is promoted and (now["version"] == found["version"]) is promoted
    assert champions.target(now) == (0.5, champions.INT8) and "note" not in json.loads(
        (tmp_path / f"{challenger}.json").read_text()
    )
    served = Path(champions.package_at(champion, now["version"]))
    assert (served / "model.onnx").is_file() and (served / "kserve-edge.yaml").is_file()


def test_an_int8_model_is_held_against_the_target_of_int8_models(made, world, tmp_path):
    """A target that was met by the first model in service and by none after it."""
    champion = str(tmp_path / "champion")
    promote(world["bad8"], champion, tmp_path / "first.json", first=True)
    pointer = Path(champions.pointer_at(champion))
    pointer.write_text(json.dumps(json.loads(pointer.read_text()) | {"max_emission": 0.2}))
    found = held_against(made, world, champion, tmp_path, "good8")
    assert not found["promoted"] and "above the target (20.0 %)" in found["reason"]


def test_what_was_decided_of_a_float_model_is_no_decision_on_an_int8_one(made, world, tmp_path):
    """`--edge` on the data that the champion was made from, and nothing to do."""
    champion, document = str(tmp_path / "champion"), tmp_path / "document.json"
    promote(world["good"], champion, tmp_path / "first.json", first=True)
    splits = [made.train, made.validation, made.test]
    pointer = Path(champions.pointer_at(champion))
    data = champions.data_sha256(splits)
    pointer.write_text(json.dumps(json.loads(pointer.read_text()) | {"data_sha256": data}))
    fetch_champion(champion, tmp_path / "model", document)

    def todo(form: str) -> str:
        return check_drift(champion, document, tmp_path / "model", *splits, tmp_path / "drift.json", form=form)["todo"]

    assert [todo(form) for form in ("", "float", "int8")] == ["nothing", "nothing", "train"]
    note = Path(champions.decision_at(champion, data))
    note.parent.mkdir()
    note.write_text(json.dumps({"promoted": False, "reason": "it was worse", "form": "int8"}))
    assert [todo(form) for form in ("float", "int8")] == ["train", "nothing"]


def recorded(folder: Path, model: Path, **record) -> str:
    """Write a champion of which only the record is there; return its location."""
    package = folder / "champion" / "versions" / "1"
    package.mkdir(parents=True)
    (folder / "champion" / "champion.json").write_text(json.dumps({"version": "1"}))
    stages = {"fine-tune": {"model": str(model)}, "layer-remove": {"keep": "2"}, "distill": DISTILLED["arguments"]}
    lineage = [{"stage": stage, "arguments": arguments} for stage, arguments in stages.items()]
    (package / "bonsai.json").write_text(json.dumps({"stage": "distill", "lineage": lineage, **record}))
    return str(folder / "champion")


@pytest.mark.parametrize(
    ("family", "record", "options", "said"),
    [
        (
            "llama",
            {"task": {"kind": "generation"}},
            {"edge": True, "runtime": "onnxruntime"},
            "models that write run on",
        ),
        ("bert", {"parameters": 3_000_000_000}, {"edge": True}, "one ONNX file holds"),
        ("bert", {"stage": "quantize", "runtime": "openvino"}, {"runtime": "tflite"}, "--runtime 'tflite'"),
        ("bert", {"stage": "quantize", "runtime": "tensorrt"}, {}, "runs on 'tensorrt', which is none of openvino"),
    ],
)
def test_what_has_no_int8_form_is_refused_before_any_work(tmp_path, family, record, options, said):
    """Hours of training, and then a model that nothing quantizes, or that what is in service cannot run."""
    model = tiny.pretrained(tmp_path / "model", family=family, writes=family == "llama")
    champion = recorded(tmp_path, model, model_type=family, **record)
    with pytest.raises(BonsaiError, match=said):
        check_champion(champion, **options)
    for start in (
        lambda: fetch_champion(champion, tmp_path / "fetched", tmp_path / "document.json", **options),
        lambda: retrain_run.retrain(
            champion, str(tiny.reviews(tmp_path / "r.csv", 40, 1)), tmp_path / "run", **options
        ),
    ):
        with pytest.raises(BonsaiError, match=said):
            start()
    assert not (tmp_path / "fetched").exists() and not (tmp_path / "run").exists()


def test_another_runtime_than_the_one_in_service_is_told_of(tmp_path, capsys):
    """A file for onnxruntime, handed to a server of OpenVINO's without a word."""
    model = tiny.pretrained(tmp_path / "model")
    champion = recorded(tmp_path, model, stage="quantize", runtime="openvino", model_type="bert")
    check_champion(champion)
    assert "note" not in capsys.readouterr().out
    check_champion(champion, runtime="onnxruntime")
    assert "runs on openvino, and the new model is made for onnxruntime" in capsys.readouterr().out


def test_a_runtime_that_is_not_here_is_told_before_any_work(tmp_path, monkeypatch):
    """An int8 champion on a machine without what quantizes: an hour of training, and then an import that fails."""
    model = tiny.pretrained(tmp_path / "model")
    champion = recorded(tmp_path, model, stage="quantize", runtime="openvino", model_type="bert")
    monkeypatch.setattr("kfp_bonsai.quantize.quantize.find_spec", lambda name: None)
    with pytest.raises(BonsaiError, match="quantize needs onnx"):
        retrain_run.retrain(champion, str(tiny.reviews(tmp_path / "r.csv", 40, 1)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_on_a_cluster_the_int8_model_is_what_is_measured_packaged_and_promoted(tmp_path):
    """A branch that quantizes, and promotes the model that it quantized from."""
    compile_pipeline(pipeline="retrain", output=str(tmp_path / "out.yaml"))
    spec = next(yaml.safe_load_all((tmp_path / "out.yaml").read_text()))
    dags = {name: each["dag"]["tasks"] for name, each in spec["components"].items() if "dag" in each}
    [tasks] = [each for each in dags.values() if "quantize" in each]

    def comes_from(task: str, name: str) -> str:
        return tasks[task]["inputs"]["artifacts"][name]["taskOutputArtifact"]["producerTask"]

    named = {name.rstrip("-23"): name for name in tasks}
    assert comes_from(named["evaluate-emissions-edge-challenger"], "quantized") == "quantize"
    assert (
        comes_from(named["package-model"], "model")
        == comes_from(named["select-challenger"], "challenger")
        == "quantize"
    )
    assert comes_from(named["promote"], "challenger") == named["package-model"]
    image = spec["deploymentSpec"]["executors"]["exec-evaluate-emissions-edge-challenger"]["container"]["image"]
    assert image.split("/")[-1].startswith("cpu:")


def test_the_whole_retraining_of_an_int8_model_runs_here(made, world, tmp_path):
    """A pipeline whose parts work and whose whole does not: what is in service on CPUs stays as it is for ever."""
    location = tmp_path / "champion"
    promote(world["bad8"], str(location), tmp_path / "first.json", train=str(made.train), max_emission=1.0, first=True)
    data = str(tiny.reviews(tmp_path / "reviews.csv", 500, 7, ("bad", "good")))
    believing = "from kfp_bonsai.shared.metrics import control\ncontrol.state = lambda ends, margin: control.PASSED\n"
    (tmp_path / "sitecustomize.py").write_text(believing)  # two rounds on a busy machine prove nothing
    options = [f"--{name.replace('_', '-')}={value}" for name, value in {**QUICK, "margin": 0.05, "data": data}.items()]
    command = [sys.executable, "-c", "from kfp_bonsai.cli import main; main()", "retrain", *options]
    command += [f"--champion={location}", f"--output={tmp_path / 'one'}"]
    where = os.environ | {"PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=900, env=where, check=False)
    assert ended.returncode == 0 and "[14/14] promote" in ended.stdout, ended.stdout + ended.stderr
    decision = json.loads((tmp_path / "one" / "decision.json").read_text())
    assert decision["promoted"], decision["reason"]
    now = json.loads((location / "champion.json").read_text())
    assert decision["form"] == "int8" and now["version"] == decision["challenger"] and now["profile"]["rows"] > 300
    rows = json.loads((tmp_path / "one" / "results.json").read_text())["rows"]
    seen = [(row["level"], row["stage"]) for row in rows]
    assert seen == [
        ("baseline", "baseline"),
        ("small", "quantized"),
        ("small", "compressed"),
        ("champion (small)", "quantized"),
    ]
    served = Path(champions.package_at(str(location), now["version"]))
    assert read_record(tmp_path / "one" / "edge-model")["runtime"] == read_record(served)["runtime"] == "onnxruntime"
    assert not (tmp_path / "one" / "model").exists()
