"""Data sets and models by their names on the hub, downloaded by the real clients from a small hub on loopback."""

import hub
import hub_glue
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

from kfp_bonsai.prepare_data.hub_sets import Name, is_hub_name
from kfp_bonsai.prepare_data.prepare import prepare_data
from kfp_bonsai.shared.data.tasks import SPLITS, read_task

STAGE = "kfp_bonsai.prepare_data.prepare:prepare_data"
METRICS = {"cola": "matthews_correlation", "mrpc": "f1", "qqp": "f1", "stsb": "pearson"}


@pytest.fixture(scope="module")
def served():
    """The hub, with GLUE and whatever a test adds."""
    with hub.server() as made:
        made.data_set("nyu-mll/glue", hub_glue.files())
        yield made


@pytest.fixture(scope="module")
def client(served, tmp_path_factory):
    """A process that knows this hub."""
    made = hub.Client(served.url, tmp_path_factory.mktemp("home"))
    yield made
    made.close()


def outputs(folder):
    folder.mkdir(exist_ok=True)
    return [str(folder / f"{split}.parquet") for split in SPLITS]


def prepare(client, folder, data, **options):
    return client.ask(STAGE, data, *outputs(folder), **options)


def described(folder):
    return {split: read_task(folder / f"{split}.parquet") for split in SPLITS}


def local(folder, task):
    """Write a task's splits as files of a folder, without the names of classes, and numbers in full length."""
    folder.mkdir(parents=True)
    for split in hub_glue.splits_of(task):
        if not split.startswith("test"):
            pq.write_table(pa.table(hub_glue.rows_of(task, split)), folder / f"{split}.parquet")
    return folder


@pytest.mark.parametrize("task", hub_glue.TASKS)
def test_each_of_glues_tasks_is_the_same_by_name_and_from_a_folder(client, tmp_path, task):
    """A study by hub names that is of other rows, or scored otherwise, than one of the files; or a test of -1."""
    texts, classes = hub_glue.TASKS[task]
    outcome = prepare(client, tmp_path / "hub", f"glue:{task}")["result"]
    assert outcome["metric"] == METRICS.get(task, "accuracy") and outcome["classes"] == ", ".join(classes)
    assert [outcome[f"{split}_rows"] for split in SPLITS] == [72, 8, 20, 0]
    prepare_data(str(local(tmp_path / "glue" / task, task)), *outputs(tmp_path / "own"))
    by_name, by_folder = described(tmp_path / "hub"), described(tmp_path / "own")
    for split in SPLITS:
        assert by_name[split].sha256 == by_folder[split].sha256 and by_name[split].metric == by_folder[split].metric
        assert by_name[split].columns == (("text_a", "text_b") if len(texts) == 2 else ("text",))
    notes = " ".join(by_name["test"].notes)
    assert "test split has no labels" in notes and "validation split is used as test" in notes


def test_mnli_is_tested_on_the_genres_that_are_asked_for(client, tmp_path):
    """Rows of other genres among those that are tested on, or no way to test on them."""
    sizes = {}
    for data, options in {
        "glue:mnli": {},
        "glue:mnli_matched": {},
        "glue:mnli_mismatched": {},
        "nyu-mll/glue:mnli": {"test_data": "glue:mnli_mismatched"},
    }.items():
        found = prepare(client, tmp_path / "out", data, **options)["result"]
        task = described(tmp_path / "out")["test"]
        sizes[data] = (found["train_rows"] + found["validation_rows"], found["test_rows"], task.sha256)
    matched, same, mismatched, beside = sizes.values()
    assert matched == same and matched[:2] == mismatched[:2] == (80, 20)
    assert mismatched[2] == beside[2] != matched[2] and beside[0] == 100  # its own validation stays one


def test_unlabelled_rows_of_a_data_set_are_read_unless_others_are_named(client, served, tmp_path):
    """IMDb's 50,000 texts without labels left aside, taken for a class -1, or given up without a word."""
    columns = {name: hub_glue.rows_of("sst2", name) for name in ("train", "test")}
    columns["unsupervised"] = hub_glue.rows_of("cola", "test")
    folder = tmp_path / "imdb"
    folder.mkdir()
    for split, rows in columns.items():
        public = rows["label"] if split != "test" else [row % 2 for row in rows["idx"]]
        pq.write_table(pa.table({"text": rows["sentence"], "label": public}), folder / f"{split}.parquet")
    files = {f"plain_text/{path.name}": path.read_bytes() for path in folder.iterdir()}
    paths = "".join(f"  - split: {split}\n    path: plain_text/{split}*\n" for split in columns)
    card = f"---\nconfigs:\n- config_name: plain_text\n  data_files:\n{paths}---\n"
    served.data_set("stanfordnlp/imdb", files | {"README.md": card.encode()})
    for data in ("imdb", "stanfordnlp/imdb", str(folder)):
        found = prepare(client, tmp_path / "out", data)["result"]
        assert [found[f"{split}_rows"] for split in SPLITS] == [72, 8, 12, 12] and found["classes"] == "0, 1"
    found = prepare(client, tmp_path / "out", "imdb", unlabelled_data="glue:cola")["result"]
    assert found["unlabelled_rows"] == 80
    assert any("is not read, as --unlabelled-data" in note for note in described(tmp_path / "out")["test"].notes)


def test_a_commit_stands_for_what_is_read(client, served):
    """A cluster's task that trains again on the same data, or not on new data, as nobody asked for the commit."""
    rows = {f"mrpc/{split}.parquet": hub_glue.parquet("mrpc", split) for split in hub_glue.ROWS}
    made = served.data_set("org/changing", rows)
    look = "kfp_bonsai.prepare_data.gather:look_at"
    first, again = (client.ask(look, "org/changing")["result"] for _ in range(2))
    made.files["README.md"] = b"# said anew\n"
    assert first == again != client.ask(look, "org/changing")["result"]
    assert client.ask(look, "glue:mrpc")["result"] != client.ask(look, "glue:rte")["result"]
    assert "no column 'stars'" in client.ask(look, "glue:mrpc", label_column="stars")["error"]


WRONG = {
    "no data set": ("org/nothing", "BonsaiError", ("no file or folder org/nothing", "HF_TOKEN")),
    "no configuration": ("glue:mrcp", "BonsaiError", ("no configuration 'mrcp'; did you mean 'mrpc'?", "cola, sst2")),
    "several": ("nyu-mll/glue", "BonsaiError", ("several configurations", "nyu-mll/glue:cola")),
    "no revision": ("glue:cola@nowhere", "BonsaiError", ("has no revision 'nowhere'",)),
    "gated": ("org/gated", "BonsaiError", ("is gated", "HF_TOKEN")),
    "a program": ("org/scripted", "BonsaiError", ("program of its own (scripted.py)", "refs/convert/parquet")),
    "nothing in it": ("org/empty", "BonsaiError", ("doesn't contain any data files",)),
    "busy": ("org/busy", "PassingError", ("answers 503", "HF_ENDPOINT")),
    "hidden": ("org/hidden", "BonsaiError", ("does not let you read", "HF_TOKEN")),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_had_of_the_hub_is_told_at_once(client, served, tmp_path, case):
    """Half a minute of retries, or a library's sentence, for a name, a configuration or a right that is missing."""
    data, kind, said = WRONG[case]
    rows = {f"{split}.parquet": hub_glue.parquet("sst2", split) for split in hub_glue.ROWS}
    served.data_set("org/gated", rows, gated=True)
    served.data_set("org/scripted", {"scripted.py": b"made = 1"})
    served.data_set("org/empty", {"README.md": b"# soon\n"})
    served.data_set("org/busy", {}, status=503)
    served.data_set("org/hidden", {}, status=403)
    found = prepare(client, tmp_path, data)
    assert found["kind"] == kind and all(one in found["error"] for one in said), found
    assert found["seconds"] < 5


def test_who_may_read_a_gated_data_set_reads_it(client, served, tmp_path):
    """A token that is not sent."""
    rows = {f"{split}.parquet": hub_glue.parquet("rte", split) for split in hub_glue.ROWS}
    served.data_set("org/members", rows, gated=True)
    assert prepare(client, tmp_path, "org/members", token=hub.TOKEN)["result"]["train_rows"] == 72


def test_a_download_that_breaks_off_goes_on(client, served, tmp_path):
    """A run that ends as a connection does, or rows that are missing from then on; or an answer that takes a second."""
    rows = {f"{split}.parquet": hub_glue.parquet("qqp", split) for split in hub_glue.ROWS}
    made = served.data_set("org/breaking", rows, cut=1, slow=0.05)
    assert prepare(client, tmp_path, "org/breaking")["result"]["read_rows"] == 100
    assert made.cut == 0


def test_old_names_and_addresses_are_names(client, served, tmp_path):
    """A data set that moved to an owner, or what people copy from its page."""
    rows = {f"{split}.parquet": hub_glue.parquet("wnli", split) for split in hub_glue.ROWS}
    served.data_set("owner/old", rows)
    served.data_set("old", {}, moved="owner/old")
    for name in ("old", "hf://datasets/owner/old", f"{served.url}/datasets/owner/old", "owner/old@v1"):
        assert prepare(client, tmp_path, name)["result"]["train_rows"] == 72, name


def test_without_the_hub_what_was_downloaded_is_read_and_nothing_else(served, tmp_path):
    """A closed cluster that cannot use its cache, or waits for a hub that is not there; or is not told what to set."""
    rows = {f"{split}.parquet": hub_glue.parquet("sst2", split) for split in hub_glue.ROWS}
    served.data_set("org/kept", rows)
    online = hub.Client(served.url, tmp_path / "home")
    offline = hub.Client(served.url, tmp_path / "home", HF_HUB_OFFLINE="1")
    away = hub.Client("http://127.0.0.1:9", tmp_path / "other")
    try:
        before = prepare(online, tmp_path, "org/kept")["result"]
        asked = len(served.seen)
        assert prepare(offline, tmp_path, "org/kept")["result"] == before
        look = "kfp_bonsai.prepare_data.gather:look_at"
        assert offline.ask(look, "org/kept")["result"] != offline.ask(look, "org/kept")["result"], (
            "unknown: never the same"
        )
        found = prepare(offline, tmp_path, "org/other")
        assert "HF_HUB_OFFLINE" in found["error"] and found["kind"] == "BonsaiError"
        assert len(served.seen) == asked
        for data in ("org/kept", "kept"):
            found = prepare(away, tmp_path, data)
            assert found["kind"] == "PassingError" and found["seconds"] < 5
            assert all(one in found["error"] for one in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HTTPS_PROXY", "127.0.0.1:9"))
        found = away.ask("kfp_bonsai.shared.saved.pretrained:read", "org/tiny-bert")
        assert found["kind"] == "PassingError" and "HF_ENDPOINT" in found["error"]
    finally:
        for one in (online, offline, away):
            one.close()


def test_a_model_of_the_hub_is_fine_tuned_on_its_data(client, served, tmp_path):
    """A model that is read from a folder only; or one of another commit than the fingerprint's."""
    folder = tiny.pretrained(tmp_path / "tiny-bert")
    made = served.model("org/tiny-bert", {path.name: path.read_bytes() for path in folder.iterdir()})
    served.model("org/members", made.files, gated=True)
    prepare(client, tmp_path, "glue:sst2")
    splits = [str(tmp_path / f"{split}.parquet") for split in ("train", "validation")]
    train, where = "kfp_bonsai.fine_tune.train:fine_tune", "kfp_bonsai.shared.saved.fingerprint:of_model"
    found = client.ask(train, "org/tiny-bert@v1", *splits, str(tmp_path / "tuned"), epochs=1)
    assert 0 <= found["result"]["accuracy"] <= 1
    assert client.ask(where, "org/tiny-bert@v1")["result"] == f"commit {made.commit}"
    check = "kfp_bonsai.pipelines.cluster.check_form:check_form"
    form = client.ask(check, "compress", {"model": "org/tiny-bert", "data": "glue:mrpc"}, {"max_length": 64})
    assert "result" in form, form
    form = form["result"]
    assert form["model_fingerprint"] == f"commit {made.commit}"
    assert form["data_fingerprint"] == client.ask("kfp_bonsai.prepare_data.gather:look_at", "glue:mrpc")["result"]
    for name, said in {
        "org/members": "is gated",
        "org/none": "has no model org/none",
        "org/tiny-bert@v9": "no revision 'v9'",
    }.items():
        assert said in client.ask(train, name, *splits, str(tmp_path / "none"))["error"]


@pytest.mark.parametrize(
    "text", ["reviews.cvs", "reviews.parqet", "away/reviews.jsonn", "x.CSV", "./x", "/x", "~/x", "a/b/c"]
)
def test_a_files_name_is_none_of_a_data_set(text):
    """The hub asked for a file with a typing error in its name."""
    assert not is_hub_name(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    {
        "imdb": ("stanfordnlp/imdb", None, None),
        "glue:sst2": ("nyu-mll/glue", "sst2", None),
        "org/name-v1.1": ("org/name-v1.1", None, None),
        "org/wiki:20220301.en@refs/pr/1": ("org/wiki", "20220301.en", "refs/pr/1"),
        "org/wiki@v2:20220301.en": ("org/wiki", "20220301.en", "v2"),
        "hf://datasets/org/name": ("org/name", None, None),
    }.items(),
)
def test_a_name_has_an_owner_a_configuration_and_a_revision(text, parts):
    """A version in a name taken for a file's ending, or one part for another."""
    assert is_hub_name(text) and Name.of(text) == Name(*parts)
