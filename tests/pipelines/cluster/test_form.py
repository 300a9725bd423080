"""The first task of a run on a cluster: what it refuses in words, what it gives, and what its fingerprints tell."""

import json
import os
import shutil

import gcs
import huggingface_hub
import pytest
import tiny
from rivals import ready

from kfp_bonsai.pipelines.cluster.check_form import check_form
from kfp_bonsai.pipelines.cluster.form import check_for_cluster
from kfp_bonsai.pipelines.levels import parse_levels, usual_levels
from kfp_bonsai.pipelines.options import arguments
from kfp_bonsai.prepare_data.gather import look_at
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.saved.fingerprint import of_model

FIXED = {"device": "cpu", "edge": False, "epochs": 1.0}
LEVELS = ["2/3 layers:layers=2/3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a random model of 3 layers and a CSV."""
    found = tmp_path_factory.mktemp("form")
    tiny.pretrained(found / "model")
    (found / "reviews.csv").write_text(
        "text,label\n" + "".join(f"{text},{label}\n" for text, label in tiny.texts(40, 1))
    )
    return found


@pytest.fixture
def filled(folder):
    """Fills in the form, as KFP hands it over: every field has a value."""

    def fill(**changed):
        empty = {"test_data": "", "min_accuracy": 0, "max_emission": 0, "country": "", "upload": "", "edge": False}
        needed = {"model": str(folder / "model"), "data": str(folder / "reviews.csv"), "levels": LEVELS, "options": {}}
        return {**empty, **needed, **changed}

    return fill


def test_every_argument_has_a_value_and_the_nearest_one_wins(filled):
    """A task without its argument, or a default that goes before what was typed."""
    found = check_form("compress", filled(options={"max_rows": 600.0, "name": "mine"}, min_accuracy=0.98), FIXED)
    prints = {found.pop("data_fingerprint"), found.pop("model_fingerprint")}
    known = {name: one.default for name, one in arguments("compress").items()}
    assert set(found) == set(known) and all(each.startswith("sha256 ") for each in prints) and len(prints) == 2
    assert (found["max_rows"], found["name"], found["min_accuracy"], found["epochs"]) == (600, "mine", 0.98, 1.0)
    assert isinstance(found["max_rows"], int) and found["pairs"] == known["pairs"] and found["device"] == "cpu"
    assert [level["label"] for level in found["levels"]] == ["2/3 layers"]
    assert check_form("compress", filled(options={"epochs": 2}), FIXED)["epochs"] == 2


def test_without_levels_they_are_those_of_the_kind_of_task(filled, tmp_path):
    """Tagged words get what suits them less, other levels than `bonsai run`'s, or a refusal of what was not asked."""
    labels = [level["label"] for level in check_form("compress", filled(levels=[]), FIXED)["levels"]]
    assert labels == ["2/3 layers", "1/3 layers", "1/3 layers + matrix pruning"]
    words = tmp_path / "words.jsonl"
    words.write_text('{"tokens": ["Anna", "slept"], "ner_tags": ["B-PER", "O"]}\n' * 8)
    found = check_form("compress", filled(levels=[], data=str(words)), FIXED)["levels"]
    first, second, third = usual_levels("tokens")
    assert found == parse_levels([first, second, third.replace("2/3", "1/3")])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"max_emission": 50}, "^max_emission is 50: give a fraction"),
        ({"min_accuracy": 98}, "^min_accuracy is 98: give a fraction"),
        ({"levels": ["half:layers=9/3"]}, "^levels 'half:layers=9/3': layers=9/3"),
        ({"levels": ["half:layers=5"]}, "^levels 'half'.*the model has 3 layers"),
        ({"levels": [{"label": "half", "layers": "1/2", "flop": 0.1}]}, "^levels .*did you mean 'flops'"),
        (
            {"levels": ["x:model=embedded:bert-tiny"]},
            "^levels 'x': model=embedded:bert-tiny: embedded:... comes by pip",
        ),
        ({"levels": ["x:model=./small"]}, "^levels 'x': model=./small: levels run at the same time"),
        ({"levels": ["x:model=/cache/small"]}, "^levels 'x': model=/cache/small: .* give a hub name"),
        ({"levels": [{"label": "x", "model": "a/b", "flops": 0.5}]}, "^levels .*leave flops out"),
        ({"levels": [3]}, "^levels 3: write a text"),
        ({"levels": ["x:layers=1/3,flops=0.01"]}, "^levels 'x': flops=0.01 is less than"),
        ({"options": "epochs=1"}, '^options is "epochs=1": give a JSON object'),
        ({"options": [{"epochs": 1}]}, "^options is .*: give a JSON object"),
        ({"options": {"device": "cuda"}}, "^device cuda: this pipeline was compiled to measure on a CPU"),
        ({"options": {"kind": "regression", "metric": "accuracy"}}, "^metric accuracy is not for regression"),
        ({"options": {"epoch": 1}}, "^options: epoch is unknown; did you mean 'epochs'"),
        ({"options": {"epochs": "many"}}, '^options: epochs is "many": give a number'),
        ({"options": {"epochs": None}}, "^options: epochs is null: give a number"),
        ({"options": {"pairs": 2.5}}, "^options: pairs is 2.5: give a whole number"),
        ({"options": {"wait": "yes"}}, '^options: wait is "yes": give true or false'),
        ({"options": {"pairs": True}}, "^options: pairs is true: give a whole number"),
        ({"options": {"license": 2}}, "^options: license is 2: give text"),
        ({"options": {"min_accuracy": 0.9}}, "^options: min_accuracy is none of these, but a field of the form"),
        ({"options": {"edge": True}}, "^options: edge is none of these.*bonsai compile --edge"),
        ({"options": {"max_length": 65}}, "^max_length 65: .*has 64 positions"),
        ({"options": {"metric": "acuracy"}}, "^metric 'acuracy' is unknown.*did you mean 'accuracy'"),
        ({"options": {"kind": "clasification"}}, "^kind 'clasification' is unknown.*did you mean 'classification'"),
        ({"options": {"seed": 2**32}}, "^seed is 4294967296: give a number from 0"),
        ({"options": {"runtime": "openvno"}}, "^runtime 'openvno'.*did you mean 'openvino'"),
        ({"options": {"label_column": "lable"}}, "no column 'lable'.*did you mean 'label'.*correct label_column"),
        ({"country": "Germnay"}, "^country 'Germnay'.*did you mean"),
        ({"model": ""}, "^model is missing: give it, such as google-bert/bert-base-uncased"),
        ({"data": " "}, "^data is missing"),
        ({"model": "embedded:minilm"}, "^model=embedded:minilm: embedded:... comes by pip"),
        ({"upload": "minio://models"}, "^upload=minio://models"),
        ({"options": {"register": "mlflow+http://mlflow"}}, "^register tells where.*give upload too"),
    ],
)
def test_what_is_wrong_in_the_form_is_told_in_its_words(filled, changed, said):
    """Hours of training, and then the refusal, in the words of KFP's driver or of another command's options."""
    with pytest.raises(BonsaiError, match=said):
        check_form("compress", filled(**changed), FIXED)


def test_a_ready_made_model_has_a_fingerprint_of_its_own(filled, tmp_path, monkeypatch):
    """KFP's cache answers with last month's rival, as its name is the same."""
    rival = ready(tmp_path / "small")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(rival))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(tmp_path / "0123abc" / "config.json"))
    for level in ("x:model=my/small", {"label": "x", "model": "my/small", "epochs": 2}):
        found = check_form("compress", filled(levels=[level, "half:layers=1/2"]), FIXED)["levels"]
        assert [each["label"] for each in found] == ["x", "half"]
        assert [each["model"] for each in found] == ["my/small", ""]
        assert [each["fingerprint"] for each in found] == ["commit 0123abc", ""]
    assert check_form("compress", filled(levels=found), FIXED)["levels"] == found


def test_names_that_are_not_there_are_told_with_the_nearest(filled, folder):
    """A GPU's image pulled, for a path with a typing error."""
    with pytest.raises(
        BonsaiError, match=r"no file or folder .*review\.csv; did you mean 'reviews\.csv'\?: correct data"
    ):
        check_form("compress", filled(data=str(folder / "review.csv")), FIXED)
    with pytest.raises(BonsaiError, match=r"no file or folder .*tset\.csv.*: correct test_data"):
        check_form("compress", filled(test_data=str(folder / "tset.csv")), FIXED)
    with pytest.raises(BonsaiError, match=r"no model folder at .*modle"):
        check_form("compress", filled(model=str(folder / "modle")), FIXED)


def retraining(folder, **changed):
    """The form of retrain, as KFP hands it over."""
    empty = {"test_data": "", "model": "", "margin": 0.01, "max_emission": 0, "on_drift": "warn", "country": ""}
    empty["edge"] = False
    needed = {"champion": str(folder / "champion"), "data": str(folder / "reviews.csv"), "options": {}}
    return {**empty, **needed, **changed}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"on_drift": "halt"}, "^on_drift 'halt'"),
        ({"margin": 5}, "^margin 5"),
        ({"champion": "champions/reviews"}, "^champion=champions/reviews: a task's pod does not find that"),
        ({"champion": ""}, "^champion is missing"),
        ({"champion": "/nowhere"}, "there is no champion at /nowhere"),
        ({"options": {"agian": True}}, "^options: agian is unknown; did you mean 'again'"),
    ],
)
def test_a_retraining_refuses_as_early(folder, changed, said):
    """A schedule that fails each night at its end."""
    with pytest.raises(BonsaiError, match=said):
        check_form("retrain", retraining(folder, **changed), FIXED)


def champion_made_from(folder, model: str) -> None:
    """Write the champion's document, and of its package the record."""
    package = folder / "champion" / "versions" / "1"
    package.mkdir(parents=True, exist_ok=True)
    (folder / "champion" / "champion.json").write_text(json.dumps({"version": "1"}))
    given = {
        "fine-tune": {"model": model},
        "layer-remove": {"keep": "2"},
        "distill": {"epochs": 1, "learning_rate": 1e-3},
    }
    lineage = [{"stage": stage, "arguments": arguments} for stage, arguments in given.items()]
    (package / "bonsai.json").write_text(json.dumps({"stage": "distill", "lineage": lineage}))


def test_a_champion_made_elsewhere_is_refused_by_the_first_task(folder):
    """Data prepared and a GPU waited for, and then a path of somebody's laptop."""
    champion_made_from(folder, "/home/me/bert")
    with pytest.raises(BonsaiError, match=r"was made from /home/me/bert, which cannot be had here.*--argument model="):
        check_form("retrain", retraining(folder), {"device": "cpu"})
    assert check_form("retrain", retraining(folder, model=str(folder / "model")), {"device": "cpu"})["model"]


def test_a_retraining_gets_its_values(folder):
    """A champion that is there, and a first task that gives nothing of it on."""
    champion_made_from(folder, str(folder / "model"))
    found = check_form("retrain", retraining(folder, options={"again": True}), {"device": "cpu"})
    assert set(found) == {*arguments("retrain"), "data_fingerprint"} and found["again"] is True


def test_a_fingerprint_is_of_the_content(folder, tmp_path):
    """Data that changed and are not trained on; or a training each night, because a file was copied again."""
    data, model = tmp_path / "reviews.csv", tmp_path / "model"
    shutil.copy(folder / "reviews.csv", data)
    shutil.copytree(folder / "model", model)
    before = look_at(str(data)), of_model(str(model))
    for path in (data, model / "model.safetensors"):
        os.utime(path, (1, 1))
    (model / ".cache").mkdir()
    (model / ".cache" / "download").write_text("when it was downloaded")
    assert (look_at(str(data)), of_model(str(model))) == before
    content = data.read_text()
    data.write_text(content[:-2] + ("0" if content[-2] == "1" else "1") + "\n")
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(bytes(weights))
    assert look_at(str(data)) != before[0] and of_model(str(model)) != before[1]


def test_a_fingerprint_is_of_all_that_is_read(folder, tmp_path):
    """New test rows, or a further file in the folder, and numbers of the old ones."""
    for name in ("train.csv", "test.csv", "more.csv"):
        shutil.copy(folder / "reviews.csv", tmp_path / name)
    whole, more = str(tmp_path / "t*.csv"), str(tmp_path / "more.csv")
    found = {look_at(whole), look_at(more), look_at(more, test_data=str(tmp_path / "test.csv"))}
    found |= {look_at(more, unlabelled_data=str(tmp_path / "test.csv")), look_at(whole, validation_data=more)}
    assert len(found) == 5
    with (tmp_path / "test.csv").open("a") as file:
        file.write("a further row,1\n")
    assert not found & {look_at(whole), look_at(more, test_data=str(tmp_path / "test.csv"))}


def test_a_bucket_tells_its_content_without_a_download(folder, monkeypatch):
    """Gigabytes read by the first task; or an object that was uploaded again as it was, and all trained anew."""
    content = (folder / "reviews.csv").read_bytes()
    with gcs.server() as bucket:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.url)
        found = []
        for changed in (content, content, content[:-1] + b" "):
            bucket.put("data/reviews.csv", changed)
            found.append(look_at("gs://bucket/data/"))
    assert found[0] == found[1] != found[2]


def test_a_model_of_the_hub_is_its_commit(tmp_path, monkeypatch):
    """A model that changed on the hub, and a baseline of the old one."""
    file = tmp_path / "snapshots" / "0123abc" / "config.json"
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(file))
    assert of_model("my/bert") == "commit 0123abc"


def test_a_revision_of_a_hubs_model_is_taken():
    """The hub's own conversion of pickled weights, which the message tells to give, refused as a folder elsewhere."""
    for name in ("a/b@refs/pr/4", "hf://a/b@v1"):
        check_for_cluster({"model": name}, parse_levels([f"x:model={name}"]))
    with pytest.raises(BonsaiError, match="models are not read from there"):
        check_for_cluster({"model": "a/b/c@v1"}, [])
