"""The pipeline search: compiled for a cluster, and run whole by KFP's local runner."""

import json
import re
from functools import partial

import pytest
import tiny
import yaml

from kfp_bonsai.pipelines.cluster.check_form import check_form
from kfp_bonsai.pipelines.cluster.compile import compile_pipeline
from kfp_bonsai.pipelines.cluster.form import settle
from kfp_bonsai.pipelines.local.runner import run_locally
from kfp_bonsai.pipelines.options import SEARCH, arguments
from kfp_bonsai.pipelines.search_pipeline import search_pipeline
from kfp_bonsai.shared.core.cache import CACHE_VARIABLE
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.signatures import REQUIRED

FEW = {"epochs": 4.0, "learning_rate": 3e-3, "augmentations": 0, "pairs": 2, "block_seconds": 0.3, "precision": 0.0}
FEW |= {"prune_steps": 8, "distill_epochs": 4.0, "validation_rows": 60, "test_rows": 60, "min_accuracy": 0.5}


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """What two rounds of one trial each leave."""
    folder = tmp_path_factory.mktemp("searched")
    tiny.pretrained(folder / "model", layers=2)
    tiny.reviews(folder / "reviews.csv", 300, 1)
    given = {name: one.default for name, one in arguments(SEARCH).items() if one.default is not REQUIRED}
    given |= {**FEW, "model": str(folder / "model"), "data": str(folder / "reviews.csv"), "command": ""}
    given |= {name: float(given[name]) for name, one in arguments(SEARCH).items() if one.annotation is float}
    (folder / "work").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder / "cache"))  # without what earlier searches left on this machine
        run_locally(search_pipeline(rounds=2, parallel_trials=1), given, folder / "work", folder / "log", str)
    return folder / "work"


def found(work, pattern):
    return sorted(work.glob(f"**/{pattern}"))


def test_a_round_goes_on_from_the_one_before(work):
    """Rounds that know nothing of each other: each begins with the same first trial."""
    jobs = [json.loads(path.read_text()) for path in found(work, "propose*/searched/jobs.json")]
    flat = sorted((one["number"], one["rung"]) for each in jobs for one in each)
    assert flat == [(0, 0), (0, 1)]


def test_it_ends_with_a_report_and_a_model(work):
    """A search on a cluster that ends without what it was for."""
    (document,) = [json.loads(path.read_text()) for path in found(work, "search-end*/search")]
    assert document["state"] == "finished" and document["trials"] and document["test"]["rows"] == 60
    (page,) = found(work, "search-end*/html")
    assert "What was searched" in page.read_text()
    (model,) = found(work, "search-end*/chosen")
    assert (model / "bonsai.json").is_file()
    (lineage, *_) = [json.loads(path.read_text())["lineage"] for path in found(work, "trial/model/bonsai.json")]
    stages = {one["stage"]: one["joules"] for one in lineage}
    (ground, *_) = [json.loads(path.read_text()) for path in found(work, "pool/ground.json")]
    told = stages["fine-tune"] + stages["teacher-outputs"] + ground["rest"]["cost"]["joules"]
    told += sum(one["joules"] for one in document["trials"])
    assert document["energy"]["joules"] > told > stages["fine-tune"] > 0  # and the measurement at the end


@pytest.mark.parametrize("edge", [False, True])
def test_what_measures_is_never_answered_by_the_cache(tmp_path, edge):
    """A choice by another day's emissions, or of a machine without the accelerator; an option that no task has."""
    path = tmp_path / "search.yaml"
    compile_pipeline(pipeline="search", output=str(path), rounds=3, parallel_trials=2, edge=edge)
    spec = next(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    used = set(re.findall(r"outputParameterKey: (\w+)", path.read_text(encoding="utf-8")))
    assert {*arguments(SEARCH)} - used == {"edge"}  # which is compiled
    tasks = {}
    for component in [spec["root"], *spec["components"].values()]:
        for task in component.get("dag", {}).get("tasks", {}).values():
            name = re.sub(r"^comp-|-\d+$", "", task["componentRef"]["name"])
            tasks.setdefault(name, []).append(task)
    assert len(tasks["propose"]) == len(tasks["search-trial"]) == 3
    measured = [task for name in ("search-ground", "search-trial", "search-end") for task in tasks[name]]
    assert not any(task.get("cachingOptions", {}).get("enableCache") for task in measured)
    images = {name: each["container"]["image"] for name, each in spec["deploymentSpec"]["executors"].items()}
    trials = [image for name, image in images.items() if "search-trial" in name]
    assert all(("/cpu:" if edge else "/gpu:") in image for image in trials)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "no target is stated"),
        ({"min_accuracy": 98}, "min_accuracy is 98"),
        ({"max_emission": 0.2, "objective": "size"}, "a model that knows nothing"),
        ({"min_accuracy": 0.9, "options": {"shape": "round"}}, "shape 'round'"),
        ({"min_accuracy": 0.9, "options": {"rivals": "embedded:bert-tiny"}}, "comes by pip"),
        ({"min_accuracy": 0.9, "options": {"distill_epochs": -1}}, "distill_epochs is -1"),
    ],
)
def test_the_form_refuses_what_no_search_takes(given, said):
    """A run on a cluster that fails after the baseline is trained."""
    whole = partial(settle, SEARCH, fixed={})
    with pytest.raises(BonsaiError, match=said):
        whole({"model": "org/model", "data": "gs://bucket/rows", **given})


@pytest.mark.parametrize(("family", "edge"), [("gpt2", False), ("t5", True)])
def test_its_first_task_takes_models_that_write(tmp_path, family, edge):
    """A search on a cluster that refuses what one at home does."""
    model = tiny.pretrained(tmp_path / "model", layers=2, family=family, writes=True)
    rows = [json.dumps({"prompt": f"what is {at}", "completion": f"it is the word {at}"}) for at in range(40)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    given = {"model": str(model), "data": str(tmp_path / "rows.jsonl"), "min_accuracy": 0.9}
    assert check_form(SEARCH, given, {"edge": edge})["kind"] == "auto"


@pytest.mark.parametrize(
    "options", [{"rounds": 0}, {"rounds": 1000}, {"parallel_trials": 0}, {"edge_at_run_time": True}]
)
def test_a_pipeline_that_no_cluster_would_run_is_refused(tmp_path, options):
    """A pipeline of a thousand rounds, or of none."""
    with pytest.raises(BonsaiError, match=r"rounds|--edge-at-run-time"):
        compile_pipeline(pipeline="search", output=str(tmp_path / "x.yaml"), **options)
