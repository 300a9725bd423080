"""Every kind of task goes through every stage, from a pretrained folder to an int8 file and the measured figures."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from kinds_made import MADE, splits

from kfp_bonsai.check_drift.check import check_drift
from kfp_bonsai.distill.distill import distill
from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions
from kfp_bonsai.fetch_champion.fetch import fetch_champion
from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.package_model.package import package_model
from kfp_bonsai.promote import promote as promoting
from kfp_bonsai.promote.promote import promote
from kfp_bonsai.quantize.quantize import quantize
from kfp_bonsai.report.report import report
from kfp_bonsai.select_model.select import select_model
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.inference.asking import predictions
from kfp_bonsai.shared.kinds.kind import SPAN, TOKEN
from kfp_bonsai.shared.kinds.kinds import kind_of
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.metrics.scores import METRICS
from kfp_bonsai.shared.saved.checkpoint import load
from kfp_bonsai.shared.saved.records import read_record
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs


def embeddings(model: Path) -> torch.Tensor:
    return load(model)[0].get_input_embeddings().weight


@pytest.mark.parametrize(
    ("kind", "family"), [(kind, family) for kind, made in MADE.items() for family in made.families]
)
def test_a_kind_is_learnt_shrunk_measured_and_quantized(kind, family, tmp_path):
    """Else a kind is prepared, and breaks in a stage hours later: its loss, its teacher, its export, its figures."""
    made = splits(tmp_path / "data", kind)
    model = tiny.pretrained(tmp_path / "pretrained", family=family)
    base, transfer = tmp_path / "base", tmp_path / "transfer"
    task = tasks.read_task(made["test"])
    tuned = fine_tune(
        str(model),
        made["train"],
        made["validation"],
        base,
        epochs=MADE[kind].sooner.get(family, MADE[kind].epochs),
        learning_rate=MADE[kind].rate,
        batch_size=16,
        max_length=16,
    )
    assert tuned[task.metric] > MADE[kind].least
    teacher_outputs(base, made["train"], made["unlabelled"], transfer, augmentations=1)
    layer_remove(base, made["validation"], tmp_path / "short", keep="2/3")
    pruned = matrix_prune(tmp_path / "short", transfer, tmp_path / "pruned", flops=0.5, shape="free", steps=20)
    assert 0.3 < pruned["flops_ratio"] <= 0.51
    learnt = distill(tmp_path / "pruned", transfer, made["validation"], tmp_path / "small", epochs=6)
    assert learnt[task.metric] > MADE[kind].least - 0.15
    # words that no text of the transfer set has would be far from all others, were these moved where tokens are told of
    assert torch.equal(*map(embeddings, (base, tmp_path / "small"))) == (kind_of(task).head in (TOKEN, SPAN))
    quantize(tmp_path / "small", made["train"], tmp_path / "int8", calibration_rows=32)
    assert read_record(tmp_path / "int8")["quantization"]["agreement"] > 0.9
    told = evaluate_emissions(
        base,
        [tmp_path / "small", tmp_path / "int8"],
        made["train"],
        made["test"],
        tmp_path / "measurement.json",
        pairs=2,
        block_seconds=0.3,
        time_budget=2,
        device="cpu",
    )
    assert told
    measured = json.loads((tmp_path / "measurement.json").read_text())
    rows = measured["models"]
    assert not [row["error"] for row in rows if row["error"]]
    assert rows[0]["accuracy"] > MADE[kind].least - 0.1 and rows[2]["relative_accuracy"] > 0.75
    said = predictions(tmp_path / "small", task, tasks.batches(made["test"]))
    assert len(said) == task.rows
    labelled = list(task.labels) if kind_of(task).items else []
    assert [one["label"] for one in rows[1]["by_label"] or ()] == labelled
    is_told_and_promoted(tmp_path, made, task, measured)


def is_told_and_promoted(folder: Path, made: dict[str, Path], task: Task, measured: dict[str, Any]) -> None:
    """Select the small model, report and package it, make it the champion, and hold new data and itself against it."""
    measured["control"] |= {"ci": [0.99, 1.01], "ratio": 1.0}  # two rounds on a busy machine prove nothing
    files = [folder / name for name in ("measurement.json", "selection.json", "r.html", "r.md", "results.json")]
    files[0].write_text(json.dumps(measured))
    select_model(files[0], [folder / "small", folder / "int8"], folder / "best", files[1], min_accuracy=0.5)
    report(files[0], files[1], *files[2:], folder / "figures")
    words = METRICS[task.metric].words
    assert f"of the {words} at" in files[3].read_text() and "accuracy" not in files[3].read_text()
    for name in ("small", "int8"):
        package_model(folder / name, files[4], folder / f"package-{name}")
    card = (folder / "package-int8/README.md").read_text()
    assert read_record(folder / "int8")["quantization"]["agreement_kind"] in card and "accuracy" not in card
    for name, form in (("small", "float"), ("int8", "int8")):
        package, champion = folder / f"package-{name}", str(folder / f"champion-{name}")
        incumbent, document = folder / f"incumbent-{name}", folder / f"champion-{name}.json"
        promote(package, champion, folder / f"first-{name}.json", first=True, train=str(made["train"]))
        assert fetch_champion(champion, incumbent, document)["form"] == form
        splits = [made[split] for split in ("train", "validation", "test")]
        found = check_drift(champion, document, incumbent, *splits, folder / f"drift-{name}.json", margin=0.01)
        assert found["todo"] == "train" and found["label_shift"] == pytest.approx(0)
        mine = promoting.measured(package, read_record(folder / name)["sha256"])
        told = promoting._compare(package, incumbent, made["test"], mine, 0.2, 0.0, 0)
        assert told["relative_accuracy"] == 1 and f"of the champion's {words}" in told["reason"]
        scored = len(set(tasks.read_columns(made["test"])["text_a"])) if "10" in words else task.rows
        assert told["test_rows"] == scored


@pytest.mark.parametrize("kind", MADE)
def test_a_model_that_answers_in_text_is_refused_for_what_is_no_class(kind, tmp_path):
    """A T5 that is trained for hours to write what nobody reads as tags, scores or places."""
    made = splits(tmp_path / "data", kind)
    model = tiny.pretrained(tmp_path / "pretrained", family="t5")
    with pytest.raises(BonsaiError, match=r"answers in text.*head of its own"):
        fine_tune(str(model), made["train"], made["validation"], tmp_path / "base", epochs=1)
