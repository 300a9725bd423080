"""A study's page: means that are told as what they are, and nothing that failed, or is doubtful, left out."""

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import Made
from made_study import FEW, MANY, cell, results, write
from test_report import checked

from kfp_bonsai.report.means import mean_rows
from kfp_bonsai.report.study import study_page
from kfp_bonsai.report.study_cells import cells_of
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.metrics import evidence
from kfp_bonsai.shared.metrics.statistics import mean, mean_of_means

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def like(full: Made) -> dict:
    """A results.json that `report` wrote."""
    return json.loads(full.text("results.json"))


@pytest.fixture(scope="module")
def paper(like, tmp_path_factory) -> Made:
    """Two models; one with two tasks and three seeds, a rival, a failed control and a model that crashed."""
    cells = [
        (cell(data, seed=seed), results(like, data, more=0.01 * seed + (0.02 if data == "RTE" else 0)))
        for data in ("CoLA", "RTE")
        for seed in range(3)
    ]
    rival = {**cells[0][1]["rows"][3], "level": "BERT-tiny", "student": "embedded:bert-tiny", "pruned": False}
    cells[0][1]["rows"].append(rival | {"relative_emission": 0.06, "relative_emission_ci": [0.059, 0.061]})
    cells[1][1]["control"] = "failed"
    cells[2][1]["rows"][2] |= {"error": "out of | memory <b>", "relative_emission": None}
    cells.append((cell("SST-2"), results(like, "SST-2")))
    cells.append((cell("SST-2", "Smol"), results(like, "SST-2", "smol", -0.05)))
    cells.append((cell("CoLA", "Smol", state="failed", error="no <room> left"), None))
    cells.append((cell("RTE", "Smol", state="refused", error="it has no head"), None))
    cells.append((cell("WNLI"), results(like, "WNLI", more=-0.5)))
    root = tmp_path_factory.mktemp("study")
    return Made(root / "page", study_page(write(root / "study", cells), root / "page"))


def drawn(path: Path) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.parse(path).iter(f"{SVG}text")]


def test_a_mean_counts_each_task_once_and_its_interval_is_that_of_seeds():
    """A task with more seeds would weigh more, or the interval of one seed would be that of all."""
    value, interval = mean_of_means([[(1.0, None), (2.0, None), (3.0, None)], [(4.0, (3.9, 4.1))]])
    assert value == 3.0 and interval is not None and interval.low < 3.0 < interval.high
    one_task = mean_of_means([[(1.0, None), (2.0, None), (3.0, None)]])[1]
    assert one_task is not None and one_task.low == pytest.approx(mean([1.0, 2.0, 3.0]).low)
    lone = mean_of_means([[(0.9, (0.88, 0.92))]])[1]
    assert lone is not None and (lone.low, lone.high) == pytest.approx((0.88, 0.92), abs=1e-6)
    assert mean_of_means([[(1.0, None)]]) == (1.0, None)


def test_the_means_are_those_of_the_cells(like, tmp_path: Path):
    """A mean over other rows than those of its level, or of a task that is kept out."""
    cells = [(cell(seed=seed), results(like, more=0.01 * seed)) for seed in range(3)]
    cells += [(cell("RTE"), results(like, "RTE", more=0.05)), (cell("WNLI"), results(like, "WNLI", more=-0.5))]
    base, *levels = mean_rows(cells_of(write(tmp_path, cells)).cells)
    assert (base["stage"], base["relative_accuracy"]) == ("baseline", 1.0)
    assert [row["relative_accuracy"] for row in levels] == pytest.approx([1.02, 1.0, 0.97])
    assert {(row["runs"], *row["tasks"]) for row in levels} == {(4, "CoLA", "RTE")}


def test_a_level_is_one_by_what_it_is_and_not_by_its_name(like, tmp_path: Path):
    """A mean of a third and of half of the layers, as both are called alike; or a line for each name of one level."""

    def called(data: str, name: str, **made_to) -> dict:
        found = results(like, data)
        found["rows"][3] |= {"level": name, "made_to": found["rows"][3]["made_to"] | made_to}
        return found

    cells = [(cell(), called("CoLA", "tenth")), (cell("RTE"), called("RTE", "smallest"))]
    one = mean_rows(cells_of(write(tmp_path / "one", cells)).cells)
    assert [(row["level"], row["runs"]) for row in one[2:]] == [("1/3 layers", 2), ("tenth", 2)]
    cells[1] = (cell("RTE"), called("RTE", "tenth", layers=0.5))
    two = mean_rows(cells_of(write(tmp_path / "two", cells)).cells)
    told = ["tenth (layers=1/3,flops=0.1)", "tenth (layers=1/2,flops=0.1)"]
    assert [row["level"] for row in two[3:]] == told and {row["runs"] for row in two[3:]} == {1}
    cells[0][1]["rows"][2]["made_to"] = cells[0][1]["rows"][3]["made_to"]
    three = mean_rows(cells_of(write(tmp_path / "three", cells)).cells)
    assert len(three) == 6, "two of one cell, as of other lengths of training, are two"


def test_the_papers_figures_a_group_each(paper: Made):
    """A group without its figure, a line that is not there, or a rival that is no mark of its own."""
    names = {path.name for path in paper.folder.iterdir()}
    figures = {f"figure-{at}.{kind}" for at in (1, 2) for kind in ("svg", "png")}
    assert names == figures | {"study.html", "study.md", "study.csv", "evidence.json"}
    few, many = (drawn(paper.folder / f"figure-{at}.svg") for at in (1, 2))
    assert {"MiniLM", "BERT-tiny", "ready-made model"} <= {*few} and "Smol" not in few
    assert {"MiniLM", "Smol"} <= {*many} and many.count("2/3 layers") == 2 and "BERT-tiny" not in many


def test_the_page_is_whole_and_stands_alone(paper: Made):
    """Stray tags, ids of one figure that are those of another, or a network that is missing."""
    page = checked(paper, "study.html")
    assert len(page.ids) == len(set(page.ids)) and set(page.refs) <= set(page.ids)
    text = paper.text("study.html")
    assert len(text.encode()) < 500_000 and "https://" not in text and "<script" not in text
    assert "<room>" not in text and "memory <b>" not in text
    assert text.index(FEW) < text.index(MANY) and "Table 1" in text


@pytest.mark.parametrize("name", ["study.html", "study.md"])
def test_each_cell_can_be_made_again(paper: Made, name: str):
    """A page that tells of a file which is gone, and of no level and no option."""
    told = "bonsai run --model=embedded:smol --data=glue:sst-2 '--level=a b:layers=1/2' --output=smol-sst-2-0"
    assert told in paper.text(name).replace("&#39;", "'")


def test_a_study_of_an_earlier_version_is_drawn(like, tmp_path: Path):
    """A finished study whose page cannot be made any more, as it tells no flags."""
    old = cell()
    del old["flags"]
    study = write(tmp_path, [(old, results(like))], finished="")
    made = Made(tmp_path / "page", study_page(study, tmp_path / "page"))
    assert made.returned["done"] == 1 and "Each cell by itself" not in made.text("study.html")


@pytest.mark.parametrize("name", ["study.html", "study.md"])
def test_all_that_failed_or_is_doubtful_is_said(paper: Made, name: str):
    """A broken cell, a failed control or means of different tasks would be passed on as a result."""
    text = paper.text(name).replace("\\", "").replace("&lt;", "<").replace("&gt;", ">")
    for said in (
        "no <room> left",
        "it has no head",
        "1 cell failed",
        "1 cell refused",
        "out of | memory <b>",
        "It failed in minilm-cola-1:",
        "not all means are over the same tasks",
        "WNLI is in no mean",
        "One seed only of",
        "(9 of 11 cells)",
    ):
        assert said in text, said


def test_levels_that_nobody_needs_are_said(like, tmp_path: Path):
    """Compression would be shown that a bag of words, or a ready-made model of equal emission, does better."""
    found = results(like)
    low, rows = found["rows"][3], found["rows"]
    rival = low | {"level": "BERT-tiny", "student": "tiny", "made_to": None, "relative_accuracy": 0.96}
    dear = rival | {"level": "BERT-mini", "relative_emission": 0.3, "relative_emission_ci": [0.29, 0.31]}
    fine = results(like, "RTE") | {"floor_accuracy": low["accuracy"] - 0.01}
    weak = results(like, "SST-2") | {"floor_accuracy": 0.99}
    cells = [(cell(), found | {"floor_accuracy": low["accuracy"], "rows": [*rows, rival, dear]}), (cell("RTE"), fine)]
    cells.append((cell("SST-2"), weak))
    made = Made(tmp_path / "page", study_page(write(tmp_path, cells, finished=""), tmp_path / "page"))
    text = made.text("study.md").replace("\\", "")
    floor = "while the baseline is: 1/3 layers + matrix pruning, BERT-tiny, BERT-mini of minilm-cola-0."
    below = "1/3 layers + matrix pruning keeps less than BERT-tiny, which emits no more, in minilm-cola-0."
    assert floor in text and below in text and "keeps less than BERT-mini" not in text
    assert "**baseline no better than a bag of words" in text and "In minilm-sst-2-0 the baseline itself" in text
    assert "**levels no better than a bag of words" in text and "**levels below a ready-made model**" in text


def test_the_csv_has_every_model_of_every_cell(paper: Made):
    """Cells that failed would be missing from the numbers, or rows of two cells could not be told apart."""
    lines = list(csv.DictReader((paper.folder / "study.csv").open()))
    assert len(lines) == 9 * 4 + 1 + 2
    assert {line["state"] for line in lines} == {"done", "failed", "refused"}
    assert [line["error"] for line in lines if line["cell"] == "smol-cola-0"] == ["no <room> left"]


def test_what_was_learnt_is_left_for_advise(paper: Made):
    """`bonsai advise` could not read what a study wrote, or would not find it."""
    found = evidence.read_evidence(paper.folder)
    assert {*found} <= {*evidence.left_here()} and len(found) == 9 * 3 - 1 + 1
    assert {("matrix" in one.level, bool(one.shape)) for one in found} == {(False, False), (True, True)}
    assert {one.level for one in found} == {one.what for one in found} and all(one.layers for one in found[:3])
    assert {(one.family, one.model, one.rows) for one in found if one.data == "RTE"} == {("bert", "MiniLM", 2_241)}
    assert [one.relative_emission for one in found if one.student] == [0.06]


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ((), "The study has no cells."),
        (("waiting", "waiting"), "Nothing is known yet of 2 cells: 2 cells waiting."),
        (("failed", "refused"), "Nothing is known yet of 2 cells: 1 cell failed, 1 cell refused."),
    ],
)
def test_a_study_without_results_says_so(tmp_path: Path, states, said):
    """A page with empty figures, or a traceback, where all cells failed or none has begun."""
    cells = [(cell(seed=seed, state=state), None) for seed, state in enumerate(states)]
    made = Made(tmp_path / "page", study_page(write(tmp_path, cells, finished=""), tmp_path / "page"))
    assert made.returned["verdict"] == said and said in made.text("study.html")
    assert not list(made.folder.glob("figure*")) and json.loads(made.text("evidence.json"))["evidence"] == []


def test_a_page_is_made_anew_as_cells_are_done(like, tmp_path: Path):
    """A study could be looked at once only, or its page would go on to say what is over."""
    folder = write(tmp_path, [(cell(), results(like)), (cell(seed=1, state="waiting"), None)], finished="")
    assert study_page(folder, folder)["done"] == 1
    assert "1 cell waiting" in (folder / "study.html").read_text(encoding="utf-8")
    write(tmp_path, [(cell(seed=seed), results(like)) for seed in (0, 1)])
    assert study_page(folder / "study.json", folder)["done"] == 2
    assert "waiting" not in (folder / "study.md").read_text(encoding="utf-8")


def test_results_that_are_damaged_are_a_cell_that_failed(like, tmp_path: Path):
    """One broken file would cost the page of all cells."""
    write(tmp_path, [(cell(), results(like)), (cell(seed=1), results(like)), (cell(seed=2), None)])
    (tmp_path / "minilm-cola-1" / "results.json").write_text("{", encoding="utf-8")
    assert study_page(tmp_path, tmp_path / "page")["done"] == 1
    text = (tmp_path / "page" / "study.md").read_text(encoding="utf-8")
    assert "is not JSON, or is cut off" in text and "minilm-cola-2" in text and "no file at" in text


def test_models_of_one_short_name_are_two_lines(like, tmp_path: Path):
    """The means of two models that are called alike would be one line."""
    cells = [
        (cell(model=f"embedded:{name}", name=name, results=f"{name}/results.json"), results(like)) for name in "ab"
    ]
    for told, _ in cells:
        told["model_name"], told["model"] = "bert", f"/models/{told['name']}/bert"
    assert [one.model for one in cells_of(write(tmp_path, cells)).cells] == ["/models/a/bert", "/models/b/bert"]


def test_what_is_no_study_is_refused(tmp_path: Path):
    """A traceback for a wrong folder, or a page of half a file."""
    with pytest.raises(BonsaiError, match=r"no file at .*study.json: make it with `bonsai study`"):
        study_page(tmp_path, tmp_path / "page")
    write(tmp_path, [(cell(state="done, or so"), None)])
    with pytest.raises(BonsaiError, match="done, failed, refused or waiting"):
        study_page(tmp_path, tmp_path / "page")
    write(tmp_path, [(cell(state="waiting"), None), (cell(state="waiting"), None)])
    with pytest.raises(BonsaiError, match="two cells that are called 'minilm-cola-0'"):
        study_page(tmp_path, tmp_path / "page")
    assert not (tmp_path / "page").exists()
