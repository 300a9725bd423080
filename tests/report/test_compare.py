"""Several runs in one figure: each must be told apart, named rightly, and refused with reason."""

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import Made, make
from made_measurement import LEVELS, made_measurement, made_selection
from test_report import checked

from kfp_bonsai.report.compare import compare
from kfp_bonsai.shared.core.errors import BonsaiError

LEVEL = "1/3 layers + matrix pruning"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> list[Path]:
    """Three runs: of two data sets, the first of them twice; the second with a failed control and a failed model."""
    root = tmp_path_factory.mktemp("runs")
    folders = []
    for at, (name, control, label) in enumerate(
        [("reviews", 1.0, "estimated"), ("news <b>", 1.2, "measured"), ("reviews", 1.0, "estimated")]
    ):
        measurement = made_measurement(seed=at, control=control, label=label)
        measurement["task"]["name"] = name
        if at == 1:
            measurement["models"][1] |= {"error": "out of | memory", "relative_emission": None}
        measurement["control"]["ci"] = [control - 0.01, control + 0.01]
        edge = made_measurement(levels=(LEVEL,), quantized=LEVEL, seed=9) if at == 2 else None
        if edge:
            edge["task"]["name"] = name
            edge["control"]["ci"] = [0.99, 1.01]
        folders.append(make(root / str(at), measurement, made_selection(measurement), edge).folder)
    return folders


@pytest.fixture(scope="module")
def compared(runs, tmp_path_factory) -> Made:
    """Their comparison; one run is given as a file."""
    folder = tmp_path_factory.mktemp("compared") / "out"
    return Made(folder, compare([runs[0], runs[1] / "results.json", runs[2]], folder))


def drawn(folder: Path) -> str:
    tree = ElementTree.parse(folder / "compare.svg")
    return " | ".join("".join(node.itertext()) for node in tree.iter("{http://www.w3.org/2000/svg}text"))


def test_runs_of_one_name_are_numbered_everywhere(compared: Made):
    """Two runs that are called alike could not be told apart in the figure, the table or the CSV."""
    for text in (drawn(compared.folder), compared.text("compare.md"), compared.text("compare.csv")):
        assert "(1)" in text and "(2)" in text and "news" in text and "(3)" not in text


def test_every_level_of_every_run_is_drawn_and_explained(compared: Made):
    """A level named once would leave the other runs' points without a name."""
    words = drawn(compared.folder).split(" | ")
    assert (words.count("1/3 layers"), words.count("2/3 layers"), words.count("baseline")) == (3, 2, 1)
    assert compared.returned["models"] == 12


def test_many_points_get_letters_that_the_figure_explains(runs, tmp_path: Path):
    """The labels of twenty points would cover each other."""
    made = Made(tmp_path / "out", compare([*runs, *runs], tmp_path / "out"))
    words = drawn(made.folder).split(" | ")
    assert words.count("B") == 6 and "1/3 layers" not in words
    assert "B: 1/3 layers" in words and made.text("compare.html").count("B: 1/3 layers") == 2
    assert "(4)" in made.text("compare.csv")


def test_the_page_is_whole_stands_alone_and_has_both_modes(compared: Made):
    """Stray tags, a network that is missing, or lines that cannot be seen on a dark page."""
    page = checked(compared, "compare.html")
    assert len(page.ids) == len(set(page.ids)) and set(page.refs) <= set(page.ids)
    text = compared.text("compare.html")
    assert len(text.encode()) < 500_000 and "https://" not in text and "<script" not in text
    for colour in ("main", "edge", "run3"):
        assert text.count(f"--f-{colour}:") == 2 and f"var(--f-{colour})" in text
    assert "news <b>" not in text and "news &lt;b&gt;" in text


def test_doubts_and_failures_are_said(compared: Made):
    """A failed control or a crashed model would be passed on as a result."""
    for name in ("compare.html", "compare.md"):
        text = compared.text(name).replace("\\", "")
        assert text.count("control failed: news") == text.count("control failed") == 1 and "out of | memory" in text
    assert "The models chosen in 3 runs keep 9" in compared.text("compare.html")


def test_the_table_has_all_numbers(compared: Made, runs):
    """The CSV would say something else than the runs' own results."""
    lines = list(csv.DictReader((compared.folder / "compare.csv").open()))
    assert len(lines) == 3 * len(LEVELS) + 1
    rows = [row for run in runs for row in json.loads((run / "results.json").read_text())["rows"]]
    for line in lines:
        assert any(
            line["relative_emission_ci_low"] == str((row["relative_emission_ci"] or [""])[0])
            and line["sha256"] == row["sha256"]
            for row in rows
        )


def test_what_cannot_be_compared_is_refused_and_leaves_nothing(runs, tmp_path: Path):
    """A wrong folder would give a traceback, or a figure that lacks a run without a word."""
    for name, change in (("other", {"format": 2}), ("rowless", {"rows": None}), ("odd", {"rows": [{"a": 1}]})):
        (tmp_path / name).mkdir()
        document = json.loads((runs[0] / "results.json").read_text()) | change
        (tmp_path / name / "results.json").write_text(json.dumps(document))
    only = json.loads((runs[0] / "results.json").read_text())
    (tmp_path / "only.json").write_text(json.dumps(only | {"rows": only["rows"][:1]}))
    out = tmp_path / "out"
    for second, words in (
        (tmp_path, r"no file at .*results.json: make it with `bonsai run`"),
        (tmp_path / "other", "has format 2, this version reads 1"),
        (tmp_path / "rowless", "it has no 'rows'"),
        (tmp_path / "odd", "it has no 'rows\\[0\\]."),
        (tmp_path / "only.json", "no compressed model"),
    ):
        with pytest.raises(BonsaiError, match=words):
            compare([runs[0], second], out)
    with pytest.raises(BonsaiError, match="two runs or more"):
        compare([runs[0]], out)
    assert not out.exists()


def test_a_floor_that_was_not_passed_and_the_other_metrics_are_seen(runs, tmp_path: Path):
    """A headline of 100 % of a baseline that knows nothing; a table cut off, as four metrics stand in one line."""
    document = json.loads((runs[0] / "results.json").read_text())
    document["floor_accuracy"] = 0.99
    for row in document["rows"]:
        row["scores"] = {"accuracy": row["accuracy"], "f1": 0.8, "matthews_correlation": 0.62}
    (tmp_path / "low.json").write_text(json.dumps(document))
    made = Made(tmp_path / "out", compare([tmp_path / "low.json", runs[2]], tmp_path / "out"))
    assert "no better than a bag of words: reviews" in made.text("compare.md")
    assert made.text("compare.md").count("no better than") == 1
    assert "<small>Matthews correlation 0.620</small>" in made.text("compare.html")


def test_a_model_that_missed_its_target_is_not_shown_as_chosen(tmp_path: Path):
    """The nearest of a run that failed beside the best of one that did not, under the same badge."""
    measurement = made_measurement()
    missed = made_selection(measurement) | {"target": {"min_accuracy": 0.999, "max_emission": None}}
    folder = make(tmp_path / "run", measurement, missed).folder
    compare([folder, folder], tmp_path / "out")
    text = (tmp_path / "out" / "compare.md").read_text(encoding="utf-8")
    assert "(nearest)" in text and "(chosen)" not in text and "(not met)" in text
