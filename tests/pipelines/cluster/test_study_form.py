"""The pipeline study on a cluster: what it is compiled to, and what its first task makes of the form."""

import json

import pytest
import tiny
import yaml

from kfp_bonsai.pipelines.cluster.arguments import read_arguments
from kfp_bonsai.pipelines.cluster.check_form import check_cells
from kfp_bonsai.pipelines.cluster.compile import compile_pipeline
from kfp_bonsai.pipelines.cluster.submit import run_name
from kfp_bonsai.pipelines.options import CALLED, COMPRESS, FINGERPRINTS, arguments
from kfp_bonsai.shared.core.errors import BonsaiError

FIXED = {"device": "cpu", "edge": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models and rows, as on a cache volume."""
    found = tmp_path_factory.mktemp("volume")
    tiny.pretrained(found / "bert", layers=3)
    (found / "rows.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in tiny.texts(50, 1)))
    return found


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The pipeline, compiled."""
    found = tmp_path_factory.mktemp("compiled") / "study.yaml"
    compile_pipeline(pipeline="study", output=str(found), parallel_cells=2)
    return found


def form(folder, **change):
    """Return the form's fields, filled in: numbers as KFP hands them over."""
    models = [str(folder / "bert"), {"model": str(folder / "none"), "name": "none"}]
    data = [{"data": str(folder / "rows.csv"), "max_length": 32.0}]
    filled = {"models": models, "data": data, "levels": ["half:layers=1/3"], "seeds": [0.0, 1.0], "title": ""}
    return {**filled, "options": {"epochs": 2.0}, **change}


def test_the_first_task_gives_the_loop_what_each_cell_is_made_of(folder):
    """A cell that differs from its `bonsai run`; or a study that ends with the one model that is not there."""
    found = check_cells(form(folder), FIXED)
    assert [one["title"] for one in found["cells"]] == ["bert-rows-0", "bert-rows-1"]
    cell = found["cells"][1]
    fields = {*arguments(COMPRESS), *FINGERPRINTS[COMPRESS], "title", CALLED} - {"name"}
    assert {*cell} == fields and all(cell[name] for name in FINGERPRINTS[COMPRESS])
    assert (cell["epochs"], cell["max_length"], cell["seed"], cell["edge"], cell["device"]) == (2, 32, 1, False, "cpu")
    assert cell["levels"][0]["label"] == "half" and cell["levels"][0]["layers"] == "1/3"
    states = {one["name"]: one["state"] for one in found["described"]}
    assert states == dict.fromkeys(("bert-rows-0", "bert-rows-1"), "waiting") | dict.fromkeys(
        ("none-rows-0", "none-rows-1"), "refused"
    )
    assert "null" not in json.dumps(found, allow_nan=False), "which KFP's compiler takes for no value"


def test_without_levels_each_cell_has_those_of_its_run(folder):
    """Names of things compressed to the levels of whole rows; or a small model refused for what nobody asked of it."""
    rows = folder / "words.jsonl"
    rows.write_text("".join(json.dumps({"words": ["a", "b"], "tags": ["O", "B-x"]}) + "\n" for _ in range(40)))
    data = [str(folder / "rows.csv"), {"data": str(rows), "name": "words"}]
    found = check_cells(form(folder, data=data, levels=[], seeds=[0]), FIXED)["cells"]
    labels = {one["title"]: [level["label"] for level in one["levels"]] for one in found}
    assert labels["bert-rows-0"] == ["2/3 layers", "1/3 layers", "1/3 layers + matrix pruning"]
    assert labels["bert-words-0"][1] == "2/3 layers + matrix pruning to 1/3"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": ["embedded:minilm"]}, "model=embedded:minilm: embedded:... comes by pip"),
        ({"models": ["/none/at/all"]}, "no cell can be made: all-rows-0: no model folder at /none/at/all"),
        ({"models": []}, "a study needs a model"),
        ({"models": [3.0]}, "models: 3.0 is neither a text nor a mapping"),
        ({"data": ["reviews.csv"]}, "a task's pod does not read that"),
        ({"levels": ["half:layer=1/2"]}, "levels 'half:layer=1/2'.*did you mean 'layers'"),
        ({"seeds": [0.5]}, "seeds: one of them is 0.5: give a whole number"),
        ({"seeds": [0, 0]}, "a cell is there twice"),
        ({"options": {"epoch": 1}}, "options: epoch is unknown; did you mean 'epochs'"),
        ({"options": {"edge": True}}, "options: edge is unknown"),
        ({"options": {"epochs": -1}}, "epochs is -1"),
        ({"options": {"device": "cuda"}}, "compiled to measure on a CPU"),
    ],
)
def test_what_was_typed_wrongly_is_refused_by_the_first_task(folder, change, said):
    """Hours of a study on a cluster, and then the refusal."""
    with pytest.raises(BonsaiError, match=said):
        check_cells(form(folder, **change), FIXED)


def test_each_cell_is_a_pipeline_in_a_loop_and_the_report_comes_of_all(file):
    """A pipeline that a cluster refuses, or cells of which the report sees one."""
    spec, platform = yaml.safe_load_all(file.read_text(encoding="utf-8"))
    loop, report, check = (spec["root"]["dag"]["tasks"][name] for name in ("for-loop-1", "study-report", "check-study"))
    assert loop["iteratorPolicy"] == {"parallelismLimit": 2} and loop["dependentTasks"] == ["check-study"]
    assert report["inputs"]["artifacts"]["results"]["taskOutputArtifact"]["producerTask"] == "for-loop-1"
    assert "cachingOptions" not in check or not check["cachingOptions"].get("enableCache")
    (cell,) = spec["components"][loop["componentRef"]["name"]]["dag"]["tasks"].values()
    given = cell["inputs"]["parameters"]
    assert given["levels"]["parameterExpressionSelector"] == 'parseJson(string_value)["levels"]'
    assert given["name"]["parameterExpressionSelector"] == f'parseJson(string_value)["{CALLED}"]'
    inner = spec["components"][cell["componentRef"]["name"]]["dag"]["tasks"]
    assert {"prepare-data", "fine-tune", "teacher-outputs", "evaluate-emissions", "report"} <= {*inner}
    title = inner["report"]["inputs"]["parameters"]["title"]
    assert title == {"componentInputParameter": "title"}, "by which its results are found again"
    assert {*platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]} == {
        *spec["deploymentSpec"]["executors"]
    }


def test_a_study_is_submitted_with_its_lists(file, folder):
    """An argument that is refused though the form takes it, or a run that is called by a Python list."""
    texts = ['models=["a/bert", "b/opt"]', 'data=["glue:mrpc"]', "seeds=[0, 1]", 'options={"epochs": 1}']
    found = read_arguments(file, texts)
    assert found["models"] == ["a/bert", "b/opt"] and found["options"] == {"epochs": 1}
    assert run_name(found) == "study of 2 models on 1 data set" and run_name({**found, "title": "T"}) == "T"
    for wrong, said in (("seeds=3", "seeds is 3: give a JSON list"), ('models=["embedded:minilm"]', "comes by pip")):
        with pytest.raises(BonsaiError, match=said):
            read_arguments(file, [*texts, wrong])
    with pytest.raises(BonsaiError, match=r"needs --argument models=\.\.\. --argument data=\.\.\."):
        read_arguments(file, ["title=x"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pipeline": "study", "edge_at_run_time": True}, "--edge-at-run-time is for compress: no results leave"),
        ({"parallel_cells": 2}, "--parallel-cells is for a study"),
        ({"pipeline": "study", "parallel_cells": -1}, "--parallel-cells must not be below 0"),
        ({"pipeline": "study", "set": ["seeds=[-1]"]}, "seed"),
        ({"pipeline": "study", "set": ['options={"epoch": 1}']}, "epoch is unknown"),
    ],
)
def test_what_a_study_cannot_be_compiled_with(options, said, tmp_path):
    """A file that fails on the cluster, or an option that does nothing."""
    with pytest.raises(BonsaiError, match=said):
        compile_pipeline(output=str(tmp_path / "out.yaml"), **options)


def test_defaults_that_are_set_reach_the_form(tmp_path):
    """An option given when compiling that no cell has."""
    file = tmp_path / "out.yaml"
    compile_pipeline(pipeline="study", output=str(file), edge=True, set=['options={"epochs": 1}', "title=Nightly"])
    spec = next(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    fields = spec["root"]["inputDefinitions"]["parameters"]
    assert fields["options"]["defaultValue"] == {"epochs": 1} and fields["title"]["defaultValue"] == "Nightly"
    first = spec["root"]["dag"]["tasks"]["check-study"]["inputs"]["parameters"]["fixed"]["runtimeValue"]["constant"]
    assert first["edge"] is True
