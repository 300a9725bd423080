"""What `bonsai run` refuses before it begins."""

import json

import pytest
import tiny

from kfp_bonsai.pipelines.local import runner
from kfp_bonsai.pipelines.local.inputs import check_inputs
from kfp_bonsai.pipelines.local.run import ASKED, run, run_here, settled
from kfp_bonsai.quantize import quantize
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.training import attempts


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A random BERT of 3 layers and 64 positions, and a CSV."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny.pretrained(folder / "model")
    tiny.reviews(folder / "reviews.csv", 100, 1)
    return folder


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": float("inf")}, "--epochs is inf"),
        ({"learning_rate": float("inf")}, "--learning-rate is inf"),
        ({"time_budget": float("inf")}, "--time-budget is inf"),
        ({"max_length": 65}, "has 64 positions"),
        ({"max_length": 2}, "--max-length is 2"),
        ({"unlabelled_rows": -2}, "--unlabelled-rows is -2"),
        ({"augmentations": -2}, "--augmentations is -2"),
        ({"level": ["x:layers=1/3,flops=0.9"]}, "flops=0.9 is more than its 1 of 3 layers"),
        ({"level": ["x:layers=1/3,flops=0.01"]}, "flops=0.01 is less than one head and 32 neurons"),
        ({"level": ["x:layers=4"]}, "the model has 3 layers"),
        ({"upload": "gs://bucket/models", "register": "wandb://here"}, "--register 'wandb://here': give mlflow"),
    ],
)
def test_what_a_late_stage_would_refuse(inputs, tmp_path, options, said):
    """Hours of training, and then the refusal."""
    options = {"level": ["x:layers=2/3"]} | options
    with pytest.raises(BonsaiError, match=said):
        run(str(inputs / "model"), str(inputs / "reviews.csv"), tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_without_levels_a_run_has_those_of_its_kind_of_task(inputs, tmp_path):
    """Names that are compressed as single labels are, with two layers where four narrow ones keep more."""
    words = tmp_path / "words.jsonl"
    words.write_text('{"tokens": ["Anna", "slept"], "ner_tags": ["B-PER", "O"]}\n' * 8)
    options = {name: one.default for name, one in ASKED.items() if name not in ("model", "data")}
    given = [
        [level["label"] for level in settled(str(inputs / "model"), data, (), 0, options)[0]["levels"]]
        for data in (str(inputs / "reviews.csv"), str(words))
    ]
    assert given[0] == ["2/3 layers", "1/3 layers", "1/3 layers + matrix pruning"]  # of three, half are too many
    assert given[1] == ["2/3 layers", "2/3 layers + matrix pruning to 1/3", "1/3 layers + matrix pruning to 1/8"]


def test_a_usual_level_that_a_model_cannot_have_is_left_out(inputs, tmp_path, monkeypatch, capsys):
    """A run without levels that is refused for one that nobody asked for; or one that ends with none, and no word."""
    options = {name: one.default for name, one in ASKED.items() if name not in ("model", "data")}

    def labels(*usual):
        monkeypatch.setattr("kfp_bonsai.pipelines.values.usual_levels", lambda *_: [*usual])
        found, _ = settled(str(inputs / "model"), str(inputs / "reviews.csv"), (), 0, options)
        return [level["label"] for level in found["levels"]]

    small = "1/2 layers + matrix pruning:layers=1/2,flops=0.01"
    assert labels("2/3 layers:layers=2/3", small) == ["2/3 layers"]
    assert "left out, as it was not asked for: --level '1/2 layers + matrix pruning': flops" in capsys.readouterr().out
    with pytest.raises(BonsaiError, match=r"'1/2 layers [+] matrix pruning': flops=0.01 is less"):
        labels(small)
    of_one = ("third:layers=0.1", "narrow:layers=0.1,shape=stock", "again:layers=1,shape=stock")
    assert labels(*of_one) == ["third", "narrow"], "one model measured twice, and told to emit 61 % and 57 %"
    assert "'again' is left out" in capsys.readouterr().out


def test_a_disk_without_room_for_the_checkpoints(inputs, tmp_path, monkeypatch):
    """Epochs of training, and then a full disk; a run that goes on is not asked for the room that it has taken."""
    monkeypatch.setattr(attempts, "free_bytes", lambda folder: 200_000)
    files = str(inputs / "model"), str(inputs / "reviews.csv"), tmp_path / "run"
    with pytest.raises(
        BonsaiError, match=r"with 0\.2 MB free, and fine-tuning's checkpoints .*\(3 times 0\.[3-9] MB\)"
    ):
        run(*files, level=["x:layers=2/3"])
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr("kfp_bonsai.pipelines.local.run.run_here", lambda *_: None)
    (tmp_path / "run" / "work").mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text('{"state": "running", "started": "2026-01-01", "arguments": {}}')
    assert run(*files, level=["x:layers=2/3"])


def test_an_edge_model_without_its_packages(inputs, tmp_path, monkeypatch):
    """The whole pipeline, and then the last but one stage asks for a package."""
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    with pytest.raises(BonsaiError, match=r"quantize needs .* pip install 'kfp-bonsai\[cpu\]'"):
        run(str(inputs / "model"), str(inputs / "reviews.csv"), tmp_path / "run", edge=True)


def test_a_configuration_without_its_numbers(inputs, tmp_path):
    """A traceback that names neither the file nor the number."""
    import shutil

    shutil.copytree(inputs / "model", tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({"model_type": "bert", "num_hidden_layers": "three"}))
    with pytest.raises(BonsaiError, match=r"config\.json cannot be used .*num_hidden_layers"):
        run(str(tmp_path / "model"), str(inputs / "reviews.csv"), tmp_path / "run")


def test_a_gpu_without_a_counter_is_refused_before_the_training(monkeypatch):
    """Hours of training, and then a measurement that cannot be made there; here NVML does not start."""
    from kfp_bonsai.evaluate_emissions import given as measuring

    given = {"data": "embedded:movie-reviews", "unlabelled_data": "", "test_data": "", "validation_data": ""}
    with pytest.raises(BonsaiError, match="--device cuda: torch sees no GPU here"):
        check_inputs({**given, "device": "cuda"})
    monkeypatch.setattr(measuring, "check_device", lambda *_: "cuda")
    with pytest.raises(BonsaiError, match=r"cannot be read.*--device cpu"):
        check_inputs(given)


def test_packaging_that_fails_leaves_the_report(tmp_path, monkeypatch):
    """Hours measured, and no report, as the bucket could not be written to."""

    def fails(pipeline, arguments, work, log, headline):
        report = work / "compress" / "report"
        (report / "figures").mkdir(parents=True)
        for name in ("html", "markdown", "results"):
            (report / name).write_text(name)
        (work / "finished").mkdir()
        (work / "finished" / "report.json").write_text("{}")
        raise BonsaiError("package-model: no such bucket")

    monkeypatch.setattr(runner, "run_locally", fails)
    with pytest.raises(BonsaiError, match="no such bucket"):
        run_here(lambda: None, {}, {}, tmp_path / "run", False, str)
    assert (tmp_path / "run" / "report.html").read_text() == "html"
