"""retrain: a champion changes for a model that is not worse, once, and for nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gcs
import numpy as np
import pytest
import tiny

from kfp_bonsai.distill.distill import distill
from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions
from kfp_bonsai.fetch_champion.fetch import check_champion, fetch_champion
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.package_model.package import package_model
from kfp_bonsai.pipelines.local import retrain_run
from kfp_bonsai.pipelines.local.retrain_run import retrain
from kfp_bonsai.promote import promote as promoting
from kfp_bonsai.promote.promote import measured, promote
from kfp_bonsai.report.report import report
from kfp_bonsai.select_model.select import select_model
from kfp_bonsai.shared.core.errors import BonsaiError, PassingError
from kfp_bonsai.shared.data.tasks import read_task
from kfp_bonsai.shared.saved import champion as champions
from kfp_bonsai.shared.saved.champion import version_of as version
from kfp_bonsai.shared.saved.checkpoint import load, save
from kfp_bonsai.shared.saved.records import read_record, write_record
from kfp_bonsai.shared.storage import objects
from kfp_bonsai.shared.storage.store import download_folder, read_pointer, write_manifest, write_pointer

TARGET, EMISSION = 0.93, 0.9
QUICK = {"epochs": 6, "learning_rate": 3e-3, "prune_steps": 10, "pairs": 2, "block_seconds": 0.3, "precision": 0.0}


def packaged(folder: Path, baseline: Path, models: dict[str, Path], made) -> dict[str, Path]:
    """Measure models beside the baseline, and package each: by name."""
    files = [folder / name for name in ("measurement.json", "selection.json", "r.html", "r.md", "results.json")]
    evaluate_emissions(
        baseline, [*models.values()], made.train, made.test, files[0], pairs=2, block_seconds=0.3, precision=0
    )
    found = json.loads(files[0].read_text())
    found["control"]["ci"] = [0.99, 1.01]  # two rounds on a busy machine prove nothing
    for row in found["models"][1:]:
        row["relative_emission"] = min(row["relative_emission"], EMISSION)
    files[0].write_text(json.dumps(found))
    select_model(files[0], [*models.values()], folder / "chosen", files[1], max_emission=TARGET)
    report(files[0], files[1], *files[2:], folder / "figures")
    for name, model in models.items():
        package_model(model, files[4], folder / f"{name}-package")
    return {name: folder / f"{name}-package" for name in models}


@pytest.fixture(scope="module")
def world(made, tmp_path_factory):
    """Three packages: of a trained model, of one that has forgotten everything, of one that answers as the first."""
    folder = tmp_path_factory.mktemp("champions")
    layer_remove(made.baseline, made.validation, folder / "short", keep="2", level="small")
    matrix_prune(folder / "short", made.transfer, folder / "pruned", flops=0.4, steps=10)
    distill(folder / "pruned", made.transfer, made.validation, folder / "good", epochs=4, learning_rate=3e-3)
    model, tokenizer = load(folder / "good")
    model.classifier.weight.data.zero_()  # it answers the same, whatever the text
    save(model, tokenizer, folder / "bad", read_record(folder / "good"))
    model, tokenizer = load(folder / "good")
    model.classifier.weight.data *= 2
    model.classifier.bias.data *= 2
    save(model, tokenizer, folder / "twin", read_record(folder / "good"))
    return packaged(folder, made.baseline, {name: folder / name for name in ("good", "bad", "twin")}, made)


@pytest.fixture
def champion(world, tmp_path):
    """A location whose champion is the trained model."""
    promote(world["good"], str(tmp_path / "champion"), tmp_path / "first.json", first=True)
    return str(tmp_path / "champion")


def compared(made, world, champion: str, folder: Path, challenger: str, **options):
    """Promote a challenger against the champion, as the pipeline does."""
    if not (folder / "incumbent").exists():
        fetch_champion(champion, folder / "incumbent", folder / "document.json")
    splits = {name: str(getattr(made, name)) for name in ("train", "validation", "test")}
    given = {"incumbent": str(folder / "incumbent"), "document": str(folder / "document.json"), **splits, **options}
    return promote(world[challenger], champion, folder / f"{challenger}.json", **given)


def test_what_is_fetched_says_how_to_make_it_again(made, champion, tmp_path):
    """A retraining at another level than the one that was chosen."""
    found = fetch_champion(champion, tmp_path / "model", tmp_path / "document.json")
    assert (found["layers"], found["flops"], found["shape"], found["level"]) == ("2", 0.4, "free", "small")
    assert (found["epochs"], found["rate"], found["augmentations"]) == (4, 3e-3, 1) and found["model"] == str(
        made.pretrained
    )
    assert read_record(tmp_path / "model")["level"] == "champion (small)"
    other = fetch_champion(champion, tmp_path / "again", tmp_path / "again.json", augmentations=0)
    assert other["augmentations"] == 0


def test_a_worse_model_never_takes_the_place(made, world, champion, tmp_path):
    """The one mistake that a retraining must not make: production gets worse, and nobody looks."""
    before = read_pointer(champions.pointer_at(champion))
    found = compared(made, world, champion, tmp_path, "bad", max_emission=1.0)
    assert not found["promoted"] and "may be worse by more than 1.0 %" in found["reason"]
    assert read_pointer(champions.pointer_at(champion)) == before
    data = champions.data_sha256([made.train, made.validation, made.test])
    assert read_pointer(champions.decision_at(champion, data))[0]["reason"] == found["reason"]


@pytest.mark.parametrize(("flipped", "promoted"), [(100, True), (498, False)])
def test_a_champion_no_better_than_chance_can_be_replaced(monkeypatch, flipped, promoted):
    """Else after a shift of the data every retraining fails at its end, since nothing is relative to a score of 0."""
    right = np.arange(1000) % 2
    ours = np.where(np.arange(1000) < flipped, 1 - right, right)
    answers = {"challenger": ours, "champion": right * 0}
    monkeypatch.setattr(promoting, "measured", lambda *_: {"relative_emission": 0.3})
    monkeypatch.setattr(promoting, "read_record", lambda _: {"sha256": ""})
    monkeypatch.setattr(promoting, "_predictions", lambda folder, *_: answers[folder])
    task = SimpleNamespace(kind="classification", metric="matthews_correlation", labels=("no", "yes"))
    monkeypatch.setattr(promoting.tasks, "read_task", lambda _: task)
    monkeypatch.setattr(promoting.tasks, "read_columns", lambda _: {"label": right})
    mine = {"relative_emission": 0.2, "doubt": ""}
    found = promoting._compare("challenger", "champion", None, mine, 0.01, 0.25, 0)
    assert found["promoted"] == promoted and "the champion's Matthews correlation is 0" in found["reason"]


def test_few_rows_on_which_both_agree_prove_nothing(made, world, champion, tmp_path):
    """A bootstrap that draws from 128 equal answers is sure that none differ, and promotes whatever comes."""
    found = compared(made, world, champion, tmp_path, "twin", max_emission=1.0)
    assert found["relative_accuracy_low"] == 1 and not found["promoted"]
    assert "but 128 test rows are too few to rule out a loss above 1.0 % (up to" in found["reason"]
    assert compared(made, world, champion, tmp_path, "twin", max_emission=1.0, margin=0.05)["promoted"]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({}, "there is no control"),
        ({"control": "inconclusive", "control_covers_one": True}, "the control is inconclusive"),
        ({"control_covers_one": False}, "the control failed"),  # as told before there were three states
    ],
)
def test_a_measurement_whose_control_has_not_passed_is_not_believed(made, world, champion, tmp_path, told, said):
    """Results of which nobody knows whether the measurement was right, taken for good ones."""
    package = tmp_path / "package"
    shutil.copytree(world["twin"], package)
    results = json.loads((package / "results.json").read_text())
    del results["control"], results["control_covers_one"]
    (package / "results.json").write_text(json.dumps(results | told))
    found = compared(made, {"twin": package}, champion, tmp_path, "twin", max_emission=1.0, margin=0.05)
    assert not found["promoted"] and f"but {said}, so that its emission is not to be believed" in found["reason"]
    data = champions.data_sha256([made.train, made.validation, made.test])
    assert found["undecided"] and read_pointer(champions.decision_at(champion, data))[0] is None, "it is never retried"
    worse = shutil.copytree(world["bad"], tmp_path / "worse")
    shutil.copy(package / "results.json", worse)
    assert "undecided" not in compared(made, {"bad": worse}, champion, tmp_path, "bad", max_emission=1.0)


def test_the_target_of_the_run_is_kept(world, champion, tmp_path):
    """`bonsai run --max-emission 0.2` and `promote --first`, and retrainings that know no target."""
    assert read_pointer(champions.pointer_at(champion))[0]["max_emission"] == TARGET
    promote(world["good"], str(tmp_path / "other"), tmp_path / "other.json", max_emission=0.95, first=True)
    assert read_pointer(champions.pointer_at(str(tmp_path / "other")))[0]["max_emission"] == 0.95


def test_a_first_champion_of_doubtful_emission_is_told_so(world, tmp_path):
    """A target that the first model is said to meet, by a measurement that proves nothing."""
    package = shutil.copytree(world["good"], tmp_path / "package")
    results = json.loads((package / "results.json").read_text())
    (package / "results.json").write_text(json.dumps(results | {"control": "inconclusive"}))
    write_manifest(package)
    found = promote(package, str(tmp_path / "champion"), tmp_path / "first.json", first=True)
    assert found["promoted"] and "although the control is inconclusive" in found["reason"]
    assert json.loads((tmp_path / "first.json").read_text())["reason"] == found["reason"]


def of_an_edge_run(package: Path, folder: Path, target: float, int8: float, own: float) -> Path:
    """Return a copy of a package as `bonsai run --edge` leaves it: an int8 model was held against the target."""
    shutil.copytree(package, folder)
    results = json.loads((folder / "results.json").read_text())
    for row in results["rows"]:
        if row["stage"] == "compressed":
            row["relative_emission"] = own
    sha256 = read_record(folder)["sha256"]
    row = next(row for row in results["rows"] if row["sha256"] == sha256)
    int8_row = {**row, "stage": "quantized", "measurement": "edge", "sha256": "int8", "relative_emission": int8}
    results["rows"].append(int8_row)
    results["chosen"] |= {"stage": "quantized", "relative_emission": int8, "sha256": "int8"}
    results["target"] = {"min_accuracy": None, "max_emission": target}
    (folder / "results.json").write_text(json.dumps(results))
    write_manifest(folder)
    return folder


def test_the_target_of_int8_models_is_kept_as_such(made, world, tmp_path, capsys):
    """`bonsai run --edge --max-emission 0.5` whose target is lost, or that no float model can meet, without a word."""
    location = str(tmp_path / "champion")
    edge = of_an_edge_run(world["bad"], tmp_path / "edge", 0.5, int8=0.2, own=0.8)
    promote(edge, location, tmp_path / "first.json", first=True)
    assert champions.target(read_pointer(champions.pointer_at(location))[0]) == (0.5, "int8")
    assert "at most 50 % of the baseline's emission, is of int8 models" in capsys.readouterr().out
    assert measured(edge, read_record(edge)["sha256"])["held_emission"] == 0.2

    challenger = of_an_edge_run(world["good"], tmp_path / "challenger", 0.0, int8=0.3, own=0.82)
    found = compared(made, {"good": challenger}, location, tmp_path, "good")
    assert found["promoted"], "0.82 is within 5 % of the champion's 0.8, and 0.5 is not of its kind"
    assert "held against the champion's own" in json.loads((tmp_path / "good.json").read_text())["note"]
    assert champions.target(read_pointer(champions.pointer_at(location))[0]) == (0.5, "int8")
    said = capsys.readouterr().out
    assert len(re.findall(r"(?:fetch-champion|promote)  the champion's target, at most 50 %", said)) == 2


def test_a_stated_target_is_of_the_models_that_are_retrained(made, world, tmp_path):
    """`promote --max-emission 0.9` on an edge run's model, taken for a target of int8 models and never applied."""
    location = str(tmp_path / "champion")
    edge = of_an_edge_run(world["bad"], tmp_path / "edge", 0.5, int8=0.2, own=0.8)
    promote(edge, location, tmp_path / "first.json", first=True, max_emission=0.9)
    assert champions.target(read_pointer(champions.pointer_at(location))[0]) == (0.9, "float")
    challenger = of_an_edge_run(world["good"], tmp_path / "challenger", 0.0, int8=0.3, own=0.82)
    found = compared(made, {"good": challenger}, location, tmp_path, "good", max_emission=0.81)
    assert not found["promoted"] and "above the target (81.0 %)" in found["reason"] and "note" not in found


@pytest.mark.parametrize("int8", [0.6, None])
def test_a_first_champion_whose_int8_form_misses_the_target_is_refused(world, tmp_path, int8):
    """A target of int8 models that nobody holds anything against, as the float model's figure is another one."""
    edge = of_an_edge_run(world["good"], tmp_path / "edge", 0.5, int8=int8, own=0.4)
    with pytest.raises(BonsaiError, match=r"as int8, .* above the target of 50\.0 %.*--max-emission 0\.4 \(its own"):
        promote(edge, str(tmp_path / "champion"), tmp_path / "first.json", first=True)
    assert not (tmp_path / "champion").exists()


def full_disk(monkeypatch, name: str) -> None:
    """Let no file of this name be written."""
    write = Path.write_text

    def refuse(path: Path, *given, **options):
        if path.name == name:
            raise OSError(28, "No space left on device")
        return write(path, *given, **options)

    monkeypatch.setattr(Path, "write_text", refuse)


@pytest.mark.parametrize("fault", ["full disk", "a folder"])
def test_nothing_is_promoted_whose_decision_cannot_be_written(made, world, tmp_path, monkeypatch, fault):
    """A run that failed, says its exit code, and another model in use."""
    location = str(tmp_path / "champion")
    promote(world["bad"], location, tmp_path / "first.json", first=True)
    before = read_pointer(champions.pointer_at(location))
    compared(made, world, location, tmp_path, "bad")  # fetches what to compare with
    if fault == "full disk":
        full_disk(monkeypatch, "good.json")
    else:
        (tmp_path / "good.json").mkdir()
    with pytest.raises(BonsaiError, match=r"no space left on the disk|good\.json is a folder"):
        compared(made, world, location, tmp_path, "good", max_emission=1.0)
    assert read_pointer(champions.pointer_at(location)) == before
    data = champions.data_sha256([made.train, made.validation, made.test])
    assert read_pointer(champions.decision_at(location, data))[0]["challenger"] == version(world["bad"])


def test_a_promotion_whose_note_cannot_be_written_is_one(made, world, tmp_path, capsys):
    """An error after the champion has changed, and a second try that says that nothing was promoted."""
    location = tmp_path / "champion"
    promote(world["bad"], str(location), tmp_path / "first.json", first=True)
    (location / "decisions").write_text("a file, where a folder should be")
    assert compared(made, world, str(location), tmp_path, "good", max_emission=1.0)["promoted"]
    assert "the decision is not noted beside the champion" in capsys.readouterr().out
    assert json.loads((tmp_path / "good.json").read_text())["promoted"]
    now = read_pointer(champions.pointer_at(str(location)))[0]
    assert now["data_sha256"] == champions.data_sha256([made.train, made.validation, made.test])


def test_a_refusal_that_cannot_be_noted_is_an_error(made, world, champion, tmp_path):
    """The same data trained on every night, because nobody knows that it was decided on."""
    (Path(champion) / "decisions").write_text("a file, where a folder should be")
    with pytest.raises(BonsaiError, match="cannot be written"):
        compared(made, world, champion, tmp_path, "bad", max_emission=1.0)
    assert not (tmp_path / "bad.json").exists()


def test_a_model_that_is_better_takes_the_place_and_the_old_one_stays_published(made, world, tmp_path):
    """A champion that never changes, or whose predecessor is lost."""
    location = str(tmp_path / "champion")
    promote(world["bad"], location, tmp_path / "first.json", first=True)
    worse = read_pointer(champions.pointer_at(location))[0]
    found = compared(made, world, location, tmp_path, "good", max_emission=1.0)
    now = read_pointer(champions.pointer_at(location))[0]
    assert found["promoted"] and found["relative_accuracy"] > 1
    assert now["version"] == found["version"] == version(world["good"])
    assert now["previous"] == worse["version"]
    for each in (now["version"], worse["version"]):
        assert (Path(champions.package_at(location, each)) / "model.safetensors").is_file()
    for name in ("incumbent", "document.json"):  # another run, which fetches the new champion
        (tmp_path / name).rename(tmp_path / f"earlier-{name}")
    again = compared(made, world, location, tmp_path, "good", max_emission=1.0)
    assert not again["promoted"] and again["reason"] == "it is the champion already"


@pytest.mark.parametrize("lost", ["before the note", "after the note"])
def test_a_promotion_whose_attempt_was_lost_is_told_by_the_next(made, world, tmp_path, monkeypatch, lost):
    """A run that says that the champion stays, of the model that it has just put in use, and a note that says so."""
    location = str(tmp_path / "champion")
    promote(world["bad"], location, tmp_path / "first.json", first=True)
    if lost == "before the note":
        with monkeypatch.context() as patch:
            patch.setattr(promoting, "_note", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                compared(made, world, location, tmp_path, "good", max_emission=1.0)
        assert not (tmp_path / "good.json").exists()
    else:
        told = compared(made, world, location, tmp_path, "good", max_emission=1.0)
        (tmp_path / "good.json").unlink()
    before = read_pointer(champions.pointer_at(location))
    noted_at = champions.decision_at(location, before[0]["data_sha256"])
    noted = read_pointer(noted_at)[0]
    found = compared(made, world, location, tmp_path, "good", max_emission=1.0)
    decision = json.loads((tmp_path / "good.json").read_text())
    assert read_pointer(champions.pointer_at(location)) == before and read_pointer(noted_at)[0] == decision
    if lost == "before the note":
        assert found["promoted"] and "earlier attempt" in found["reason"] and decision["promoted"]
    else:
        assert found == told and decision == noted


def test_a_first_promotion_whose_attempt_was_lost_is_told_by_the_next(world, champion, tmp_path):
    """A script that stops, told that nothing was promoted, though its first try did it."""
    before = read_pointer(champions.pointer_at(champion))
    found = promote(world["good"], champion, tmp_path / "again.json", first=True)
    assert found["promoted"] and "earlier attempt" in found["reason"]
    assert read_pointer(champions.pointer_at(champion)) == before


@pytest.mark.parametrize("other", [{"data_sha256": "another"}, {"previous": "another"}, {"max_emission": 0.5}])
def test_what_another_run_promoted_is_not_this_ones(made, world, tmp_path, other):
    """A retraining that takes for its own what another one did, with other data, another champion or target."""
    location = str(tmp_path / "champion")
    promote(world["bad"], location, tmp_path / "first.json", first=True)
    compared(made, world, location, tmp_path, "good", max_emission=1.0)
    pointer = Path(champions.pointer_at(location))
    pointer.write_text(json.dumps(json.loads(pointer.read_text()) | other))
    found = compared(made, world, location, tmp_path, "good", max_emission=1.0)
    assert not found["promoted"] and found["reason"] == "it is the champion already"


def test_a_model_above_the_target_does_not_take_the_place(made, world, tmp_path):
    """A champion that keeps the accuracy and emits more than was promised."""
    location = str(tmp_path / "champion")
    promote(world["bad"], location, tmp_path / "first.json", first=True)
    found = compared(made, world, location, tmp_path, "good", max_emission=0.01)
    assert not found["promoted"] and "its emission is above the target (1.0 %)" in found["reason"]


def test_a_first_champion_that_misses_its_own_target_is_refused(world, tmp_path):
    """A target that every later model is held to, so that all retrainings end in vain."""
    with pytest.raises(BonsaiError, match=r"above the target of 1\.0 %.*give --max-emission 0\.\d+"):
        promote(world["bad"], str(tmp_path / "champion"), tmp_path / "first.json", max_emission=0.01, first=True)
    assert not (tmp_path / "champion").exists() and not (tmp_path / "first.json").exists()


def test_a_champion_that_changed_or_vanished_meanwhile(made, world, champion, tmp_path):
    """A model that was compared with the last champion but one, and replaces the last."""
    compared(made, world, champion, tmp_path, "bad")
    pointer = Path(champions.pointer_at(champion))
    document = json.loads(pointer.read_text())
    pointer.write_text(json.dumps(document | {"version": "0123456789abcdef"}))
    with pytest.raises(BonsaiError, match=r"changed meanwhile .*is now 0123456789abcdef"):
        compared(made, world, champion, tmp_path, "bad")
    pointer.unlink()
    with pytest.raises(BonsaiError, match="there is no champion at"):
        compared(made, world, champion, tmp_path, "bad")
    assert not pointer.exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": 7}, "'version' is 7, not text"),
        ({"max_emission": "x"}, "'max_emission' is \"x\", not a share of 0 to 1"),
        ({"max_emission": 20}, "'max_emission' is 20, not a share of 0 to 1"),
        ({"max_emission_of": ["int8"]}, r"'max_emission_of' is \[\"int8\"\], not float or int8"),
        ({"profile": []}, "'profile' is \\[\\], not an object"),
    ],
)
def test_a_champion_whose_document_is_damaged_is_told_before_any_work(champion, tmp_path, changed, said):
    """A traceback, after an hour of training or beside outputs that are there already."""
    pointer = Path(champions.pointer_at(champion))
    pointer.write_text(json.dumps(json.loads(pointer.read_text()) | changed))
    with pytest.raises(BonsaiError, match=f"champion.json is not as `bonsai promote` wrote it .{said}.: restore it"):
        fetch_champion(champion, tmp_path / "model", tmp_path / "document.json")
    assert not (tmp_path / "model").exists() and not (tmp_path / "document.json").exists()


def test_a_document_and_a_decision_that_are_none_are_refused(made, world, champion, tmp_path):
    """A KeyError where the champion is compared with, or a decision without a reason that is told of as one."""
    document = {"profile": {}}
    (tmp_path / "document.json").write_text(json.dumps(document))
    given = {"document": str(tmp_path / "document.json"), "incumbent": str(world["good"])}
    splits = {"train": str(made.train), "validation": str(made.validation), "test": str(made.test)}
    with pytest.raises(
        BonsaiError, match=r"document.json is not as `bonsai fetch-champion` wrote it .it has no 'version'"
    ):
        promote(world["bad"], champion, tmp_path / "decision.json", **given, **splits)
    write_pointer(champions.decision_at(champion, "0" * 64), {"promoted": True}, None)
    with pytest.raises(BonsaiError, match="it has no 'reason'"):
        champions.decided_on(champion, "0" * 64)


def test_a_second_first_champion_is_refused(world, champion, tmp_path):
    """`--first` in a script, which replaces whatever is there."""
    with pytest.raises(BonsaiError, match=r"there is a champion at .* already"):
        promote(world["bad"], champion, tmp_path / "second.json", first=True)


def test_the_same_first_champion_again_changes_nothing(world, champion, tmp_path):
    """A script that is run again, or a task that is tried again, and that fails although its work is done."""
    before = read_pointer(champions.pointer_at(champion))
    found = promote(world["good"], champion, tmp_path / "second.json", max_emission=0.1, first=True)
    assert not found["promoted"] and found["reason"] == "it is the champion already"
    assert read_pointer(champions.pointer_at(champion)) == before


def test_a_champion_that_cannot_be_made_again_leaves_nothing(world, tmp_path):
    """A folder of a model that was refused, and a second try that says that the folder exists, not what is wrong."""
    package = tmp_path / "package"
    shutil.copytree(world["good"], package)
    record = read_record(package)
    record["lineage"] = [entry for entry in record["lineage"] if entry["stage"] != "distill"]
    write_record(package, record)
    write_manifest(package)
    promote(package, str(tmp_path / "champion"), tmp_path / "first.json", first=True)
    for _ in range(2):
        with pytest.raises(BonsaiError, match="was made without distill"):
            fetch_champion(str(tmp_path / "champion"), tmp_path / "model", tmp_path / "document.json")
    assert not (tmp_path / "model").exists() and not (tmp_path / "document.json").exists()


def test_a_champion_in_a_bucket_that_breaks_off(made, world, tmp_path, monkeypatch):
    """A pointer to a package that is half there, or a champion that two runs replace at once."""
    with gcs.server() as bucket:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        monkeypatch.setattr(objects, "FIRST_DELAY_SECONDS", 0.001)
        monkeypatch.setattr(objects, "GIVE_UP_SECONDS", 1.0)
        where = "gs://bucket/reviews"
        promote(world["bad"], where, tmp_path / "first.json", first=True)
        before = bucket.content("reviews/champion.json")
        bucket.fail("status", lambda method, path: method == "POST" and path.startswith("/upload/"), times=10_000)
        with pytest.raises(BonsaiError, match=re.escape(f"gs://bucket/reviews/versions/{version(world['good'])}")):
            compared(made, world, where, tmp_path, "good", max_emission=1.0)
        assert bucket.content("reviews/champion.json") == before
        bucket.faults.clear()
        other = before.replace(b'"level"', b'"others"')

        def change(method: str, path: str) -> None:
            if method == "POST" and re.search(r"ifGenerationMatch=[1-9]", path):  # a pointer that is replaced
                bucket.hooks.clear()
                bucket.put("reviews/champion.json", other)

        bucket.hooks.append(change)
        with pytest.raises(BonsaiError, match=r"champion\.json"):
            compared(made, world, where, tmp_path, "good", max_emission=1.0)
        assert bucket.content("reviews/champion.json") == other
        assert compared(made, world, where, tmp_path, "good", max_emission=1.0)["promoted"]
        assert json.loads(bucket.content("reviews/champion.json"))["version"] == version(world["good"])
        package = f"{where}/versions/{version(world['good'])}"
        [served] = download_folder(package, tmp_path / "served").glob("kserve-*.yaml")
        text = served.read_text()
        assert f"storageUri: {package}\n" in text and "pvc://" not in text and "# storageUri" not in text


@pytest.fixture(scope="module")
def retrained(made, world, tmp_path_factory):
    """A champion that knows little, retrained twice on the same data: (folder, location, options, both outputs)."""
    folder = tmp_path_factory.mktemp("retrained")
    location = folder / "champion"
    promote(world["bad"], str(location), folder / "first.json", train=str(made.train), max_emission=1.0, first=True)
    tiny.reviews(folder / "reviews.csv", 500, 7, ("bad", "good"))
    options = [f"--{name.replace('_', '-')}={value}" for name, value in QUICK.items()]
    options += [f"--champion={location}", f"--data={folder / 'reviews.csv'}", "--margin=0.05"]
    command = [sys.executable, "-c", "from kfp_bonsai.cli import main; main()", "retrain", *options]
    believing = "from kfp_bonsai.shared.metrics import control\ncontrol.state = lambda ends, margin: control.PASSED\n"
    believing += f"import runpy\nrunpy.run_path({str(Path(__file__).parents[1] / 'started/sitecustomize.py')!r})\n"
    (folder / "sitecustomize.py").write_text(believing)  # two rounds on a busy machine prove nothing
    where = os.environ | {"PYTHONPATH": str(folder)}
    ended = [
        subprocess.run([*command, f"--output={folder / name}"], capture_output=True, text=True, timeout=900, env=where)
        for name in ("one", "two")
    ]
    return folder, location, ended


def test_the_whole_retraining_runs_here(retrained, world):
    """A pipeline whose parts work and whose whole does not."""
    folder, location, (first, _) = retrained
    assert first.returncode == 0, first.stdout + first.stderr
    decision = json.loads((folder / "one" / "decision.json").read_text())
    assert decision["promoted"], decision["reason"]
    now = json.loads((location / "champion.json").read_text())
    assert now["version"] == decision["challenger"] != version(world["bad"])
    rows = json.loads((folder / "one" / "results.json").read_text())["rows"]
    assert [row["level"] for row in rows] == ["baseline", "small", "champion (small)"]
    assert "[13/13] promote" in first.stdout and now["profile"]["rows"] > 300
    assert (
        read_record(folder / "one" / "model")["sha256"]
        == read_record(Path(location) / "versions" / now["version"])["sha256"]
    )


def test_the_same_data_again_changes_nothing(retrained):
    """GPU hours every night for data that did not change, or a champion that changes by chance."""
    folder, location, (_, second) = retrained
    assert second.returncode == 0, second.stdout + second.stderr
    assert "nothing to do: it was decided on this data before" in second.stdout and "fine-tune" not in second.stdout
    assert len([*(location / "versions").iterdir()]) == 2 and not (folder / "two" / "report.html").exists()


def test_a_retraining_that_ended_right_after_it_promoted_can_go_on(retrained, world):
    """It would be refused for ever, as one that began with another champion: its own, without a report or a model."""
    folder, location, _ = retrained
    now, _ = champions.find(str(location))
    assert retrain_run._began_with(now, folder / "one" / "work") == version(world["bad"])
    assert retrain_run._began_with(now, folder / "two" / "work") == now["version"]


def test_the_training_split_is_where_the_readme_says(retrained):
    """A command of the README that fails, or a first champion without a profile."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    pattern = re.search(r"--train runs/first/(\S+)", readme)
    (found,) = (retrained[0] / "one").glob(pattern[1])
    assert read_task(found).split == "train"


def test_a_champion_that_is_not_there_is_told_before_any_work(made, tmp_path):
    """An hour of training, and nothing to compare with."""
    with pytest.raises(BonsaiError, match="there is no champion at"):
        retrain(str(tmp_path / "nowhere"), str(made.train), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def named(champion: str, model: str) -> None:
    """Let a champion's record name another pretrained model, as one that was made elsewhere does."""
    package = Path(champions.package_at(champion, champions.find(champion)[0]["version"]))
    record = read_record(package)
    record["lineage"][0]["arguments"]["model"] = model
    write_record(package, record)
    write_manifest(package)


@pytest.mark.parametrize("model", ["/elsewhere/minilm", "embedded:maxilm", "team/minilm"])
def test_a_champion_whose_model_is_elsewhere_is_told_before_any_work(made, champion, tmp_path, monkeypatch, model):
    """Data prepared, a GPU waited for, and then no model to start from."""

    def absent(*_, **__):
        raise OSError("no such model")

    monkeypatch.setattr("huggingface_hub.snapshot_download", absent)
    named(champion, model)
    for start in (
        lambda: retrain(champion, str(made.train), tmp_path / "run"),
        lambda: fetch_champion(champion, tmp_path / "model", tmp_path / "document.json"),
    ):
        with pytest.raises(BonsaiError, match=rf"was made from {model}, which cannot be had here .*--argument model="):
            start()
    assert not any((tmp_path / name).exists() for name in ("run", "model", "document.json"))
    found = fetch_champion(champion, tmp_path / "model", tmp_path / "document.json", model=str(made.pretrained))
    assert found["model"] == str(made.pretrained)


@pytest.mark.parametrize("model", ["", "team/other"])
def test_a_hub_that_is_away_is_no_wrong_name(champion, monkeypatch, model):
    """A retraining that is not tried again, told to correct a name that is right."""

    def away(*_, **__):
        raise ConnectionError("timed out")

    monkeypatch.setattr("huggingface_hub.snapshot_download", away)
    named(champion, "team/minilm")
    with pytest.raises(PassingError, match="cannot be had here"):
        check_champion(champion, model)


def test_another_place_of_the_model_that_is_none_is_told_as_such(made, champion, tmp_path):
    """An error that speaks of the champion's record, where the option that was just given is wrong."""
    with pytest.raises(BonsaiError, match="--model /nowhere/bert cannot be had here"):
        retrain(champion, str(made.train), tmp_path / "run", model="/nowhere/bert")


@pytest.mark.parametrize("own", [True, False])
def test_another_model_than_the_champions_is_told_of(made, champion, tmp_path, monkeypatch, capsys, own):
    """A target of 20 % of a small baseline's emission, held against 20 % of a large one's, without a word."""
    monkeypatch.chdir(made.pretrained.parent)
    if not own:
        named(champion, "team/minilm")
    check_champion(champion, made.pretrained.name)
    said = f"note: the champion was made from team/minilm, and this starts from {made.pretrained.name}"
    assert (said in capsys.readouterr().out) != own


def test_a_model_of_another_family_is_refused_before_any_work(made, champion, tmp_path):
    """The champion's layers cut out of a model that they mean nothing in, and the two held against each other."""
    tiny.pretrained(tmp_path / "other", family="electra")
    with pytest.raises(BonsaiError, match=r"other is of the family electra, and the champion at .* of bert"):
        retrain(champion, str(made.train), tmp_path / "run", model=str(tmp_path / "other"))
    assert not (tmp_path / "run").exists()


def test_a_champion_whose_package_is_gone_is_told(champion):
    """A traceback, or an empty level to train at."""
    shutil.rmtree(Path(champion) / "versions")
    with pytest.raises(BonsaiError, match=r"has no bonsai\.json that says how it was made"):
        check_champion(champion)


def test_a_first_champion_says_that_its_model_is_only_here(world, tmp_path, capsys):
    """A schedule on a cluster that fails a week later for a path of somebody's laptop."""
    promote(world["good"], str(tmp_path / "champion"), tmp_path / "first.json", first=True)
    assert re.search(r"it was made from /\S+: a retraining on another machine or a cluster", capsys.readouterr().out)
