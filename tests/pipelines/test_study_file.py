"""What a study is: read from a file, taken apart into cells, refused in words."""

import pytest

from kfp_bonsai.pipelines.cells import Entry, Study, cells_of
from kfp_bonsai.pipelines.local.study_run import ASKED, DEFAULTS
from kfp_bonsai.pipelines.study_file import read_study
from kfp_bonsai.shared.core.errors import BonsaiError

WHOLE = """
title: Two models
models:
  - embedded:minilm
  - model: ./bert
    name: Ours
    batch-size: 16
    learning-rate: 1e-4
data:
  - glue:mrpc
  - data: ../data/imdb
    group: IMDb
    name: reviews
    max_length: 256
    levels: ["half:layers=1/2"]
    batch-size: 8
levels: ["2/3 layers:layers=2/3"]
seeds: [0, 7]
options: {epochs: 2, freeze-embeddings: true, batch-size: 64}
"""


def asked(tmp_path, text: str) -> Study:
    """Return the study of a file with this text."""
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    return read_study(str(tmp_path / "study.yaml"), ASKED)


def test_a_file_becomes_a_run_a_cell(tmp_path):
    """An option that is read and not heeded, or one of a data set that reaches others; a cell under another's name."""
    cells = cells_of(asked(tmp_path, WHOLE), DEFAULTS)
    assert [cell.name for cell in cells] == [
        "minilm-mrpc-0",
        "minilm-mrpc-7",
        "minilm-reviews-0",
        "minilm-reviews-7",
        "Ours-mrpc-0",
        "Ours-mrpc-7",
        "Ours-reviews-0",
        "Ours-reviews-7",
    ]
    assert cells[1].flags() == [
        "--model=embedded:minilm",
        "--data=glue:mrpc",
        "--level=2/3 layers:layers=2/3",
        "--epochs=2",
        "--freeze-embeddings",
        "--batch-size=64",
        "--seed=7",
    ]
    last = cells[-1]
    assert (last.group, last.levels) == ("IMDb", ("half:layers=1/2",))
    assert last.options == {
        "epochs": 2,
        "freeze_embeddings": True,
        "batch_size": 8,
        "learning_rate": 1e-4,
        "max_length": 256,
        "name": "reviews",
    }


def test_the_command_line_wins_over_the_file(tmp_path):
    """A quick try of a study that takes all the time that its file asks for."""
    study = asked(tmp_path, WHOLE)
    cells = cells_of(Study(study.models, study.data, options=study.options, over={"batch_size": 2}), DEFAULTS)
    assert {cell.options["batch_size"] for cell in cells} == {2}


def test_without_seeds_there_is_one(tmp_path):
    """A study that makes nothing, or one that cannot be made again."""
    assert asked(tmp_path, "models: [a]\ndata: [b]").seeds == [0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: [a]", r"study .*study.yaml: model is unknown; did you mean 'models'\? \(known: title, models"),
        ("epochs: 2", "epochs is unknown: it is an option of a run, so put it under options"),
        ("label-column: x", "label-column is unknown: it is an option of a run"),
        ("seeds: 3", r"seeds is 3, and not a list: write one '- ' a line, or such as \[0, 1, 2\]"),
        ("seeds: [1.5]", "seeds: one of them is 1.5: give a whole number"),
        ("seeds: [true]", "seeds: one of them is true: give a whole number"),
        ("seeds: [a]", 'seeds: one of them is "a": give a whole number'),
        ("models: embedded:minilm", "models is 'embedded:minilm', and not a list"),
        ("data: {a: b}", "data is {'a': 'b'}, and not a list"),
        ("models: [3]", "models: 3 is neither a text nor a mapping with 'model'"),
        ("models: [{name: x}]", "neither a text nor a mapping with 'model'"),
        ("data: [{model: x}]", "neither a text nor a mapping with 'data'"),
        ("data: ['']", "neither a text nor a mapping with 'data'"),
        ("data: [{data: 7}]", "data: data is 7: give text"),
        ("data: [{data: x, label_colum: y}]", r"data: x: label_colum is unknown; did you mean 'label-column'\?"),
        ("data: [{data: x, grup: y}]", r"did you mean 'group'\?"),
        ("models: [{model: x, group: y}]", "models: x: group is unknown"),
        ("data: [{data: x, seed: 1}]", "data: x: seed is unknown"),
        ("data: [{data: x, batch-size: 1, batch_size: 2}]", "batch_size is there twice"),
        ("options: {epochs: many}", 'options: epochs is "many": give a number'),
        ("options: {edge: 1}", "options: edge is 1: give true or false"),
        ("options: {label-column: 5}", "options: label-column is 5: give text"),
        ("options: {license: 2024-01-01}", "options: license is .2024-01-01.: give text"),
        ("options: [epochs]", "options is .*'option: value'"),
        ("options: {output: x}", "options: output is unknown"),
        ("title: [x]", "title is .*: give text"),
        ("levels: [half: layers=1/2]", "levels: .* is no text: write each level in quotes"),
        ("models: [a]\nmodels: [b]", "'models' is there twice"),
        ("models: [a", "study.yaml cannot be read .line "),
        ("- models", "write one 'option: value' a line"),
    ],
)
def test_what_a_file_has_not_is_refused_with_its_place(tmp_path, text, said):
    """Hours of a study that is not the one that was meant, as a key was not heeded."""
    with pytest.raises(BonsaiError, match=said):
        asked(tmp_path, text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"models": []}, "a study needs a model at the least: give --model, or models in its file"),
        ({"seeds": []}, "a study needs a seed"),
        ({"seeds": [0, 0]}, "a cell is there twice: m on d with seed 0 is m on d with seed 0"),
        ({"seeds": [-1]}, "m on d with seed -1: --seed is -1"),
        ({"models": [Entry("m"), Entry("m")]}, "models: m is there twice"),
        ({"models": [Entry("m", "x"), Entry("n", "X")]}, "models: m is called 'x' as another is"),
        ({"models": [Entry("m", "x"), Entry("m", "y")]}, "a cell is there twice: y on d with seed 0 is x on d"),
        ({"models": [Entry("m", "x"), Entry("m", "y", options={"epochs": 3})]}, "a cell is there twice"),
        ({"levels": ["half:layer=1/2"]}, "m on d with seed 0: --level 'half:layer=1/2'.* did you mean 'layers'"),
        ({"options": {"epochs": -1}}, "m on d with seed 0: --epochs is -1"),
        ({"data": [Entry("d", options={"metric": "acc"})]}, "--metric 'acc' is unknown"),
    ],
)
def test_a_study_that_cannot_be_is_refused_whole(change, said):
    """A mistake in the file that is found after the first cell's hours; or a cell that is made, and counted, twice."""
    study = {"models": [Entry("m")], "data": [Entry("d")]} | change
    with pytest.raises(BonsaiError, match=said):
        cells_of(Study(**study), DEFAULTS)


def test_the_same_folder_written_in_two_ways_is_one(tmp_path, monkeypatch):
    """Seeds that are counted as many, and are the same run twice."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert").mkdir()
    models = [Entry("bert", "one"), Entry(str(tmp_path / "bert") + "/", "two")]
    with pytest.raises(BonsaiError, match="a cell is there twice"):
        cells_of(Study(models, [Entry("d")]), DEFAULTS)


def test_places_of_one_name_are_told_apart():
    """Two models in one folder, or one line of a figure for both."""
    models = [Entry("runs/a/model"), Entry("runs/b/model"), Entry("google-bert/bert-base-uncased")]
    data = [Entry("gs://bucket/mrpc/*.parquet"), Entry("d/reviews.csv.gz")]
    names = [cell.name for cell in cells_of(Study(models, data), DEFAULTS)]
    assert names == [
        "a-model-mrpc-0",
        "a-model-reviews-0",
        "b-model-mrpc-0",
        "b-model-reviews-0",
        "bert-base-uncased-mrpc-0",
        "bert-base-uncased-reviews-0",
    ]


def test_names_that_folders_cannot_have_are_made_fit():
    """A cell that lies elsewhere, or in another's folder."""
    models = [Entry("m", "../../etc"), Entry("n", "a"), Entry("o", "a-b")]
    data = [Entry("d", "b c"), Entry("e", "c")]
    names = [cell.name for cell in cells_of(Study(models, data), DEFAULTS)]
    assert len({name.lower() for name in names}) == len(names) == 6
    assert all(name == name.strip("./") and "/" not in name and " " not in name for name in names), names


LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]", *(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}x]" for n in range(1, 12))]
)


@pytest.mark.parametrize(
    "text",
    [
        *("title: &all [*all]", "title: &all\n  a: *all", f"{LAUGHS}\ntitle: *a11", "title: [" + "[" * 2000),
        *("title: !!timestamp x", "title: !!float ''", "title: !!bool maybe", "title: !!int ''", "!!map a"),
        *("title: !!python/object/apply:os.system ['false']", 'title: "\\ud800"', "title: 0x" + "f" * 5000),
        *("? [title]\n: 1", "? {a: 1}\n: 2", "<<: [1]", "title: 2001-99-99", "title: !!binary ///", "\0"),
    ],
    ids=range(18),
)
def test_odd_yaml_is_an_error_in_words(tmp_path, text):
    """A traceback, a hang, or memory that a few lines of aliases fill."""
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(BonsaiError) as refused:
        read_study(str(tmp_path / "study.yaml"), {})
    assert "study.yaml" in str(refused.value) and len(str(refused.value)) < 4000


def test_what_is_written_once_may_be_named_again(tmp_path):
    """YAML's own way of not repeating oneself, refused for what others do with it."""
    (tmp_path / "study.yaml").write_text("models: &own [a, b]\ndata: *own\n")
    assert [one.place for one in read_study(str(tmp_path / "study.yaml"), {}).data] == ["a", "b"]
