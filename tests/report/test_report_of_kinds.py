"""The report of every kind of task: in its own words, and by label where it has any."""

import csv
import html
import json
import re

import pytest
from conftest import make
from made_kinds import TASKS, measurement_of
from made_measurement import made_measurement, made_selection

from kfp_bonsai.report.compare import compare
from kfp_bonsai.report.words import metric_value
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.metrics.scores import METRICS


def read(page: str) -> str:
    """Return what a reader sees of a page: its text, without marks, in single spaces."""
    page = page.replace("accuracy-emission.", "")  # files' names
    body = re.sub(r"<style>.*?</style>|<svg.*?</svg>", " ", page.partition("<body>")[2], flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of each kind."""
    folder, found = tmp_path_factory.mktemp("kinds"), {}
    for kind in TASKS:
        measurement = measurement_of(kind)
        found[kind] = make(folder / kind, measurement, made_selection(measurement, min_accuracy=0.96))
    return found


@pytest.mark.parametrize("kind", TASKS)
def test_the_metric_is_called_by_its_name(made, kind):
    """A verdict about an accuracy that nobody measured, on the page or in the Markdown."""
    metric = METRICS[TASKS[kind]["metric"]].words
    for name in ("report.html", "report.md"):
        text = read(made[kind].text(name)) if name.endswith("html") else made[kind].text(name)
        assert "accuracy" not in text.lower() and metric in text
        assert f"of the {metric} at" in text
    assert metric in made[kind].text("report.html").partition("<svg")[2]  # the figure's title
    assert json.loads(made[kind].text("results.json"))["rows"][1]["accuracy"] > 0.5


def test_a_labels_table_is_of_what_is_counted(made):
    """A table of classes and rows, where rows have any number of spans; or none, where a label loses all."""
    text = read(made["tokens"].text("report.html"))
    assert "Label by label" in text and "spans" in text and "Class by class" not in text
    assert re.search(r"LOC 40 90.0 % 80.0 % 85.0 % – 80.0 % 0.0 % −85.0", text), text
    assert "| LOC | 40 | 90.0 % → – | 80.0 % → 80.0 % | 85.0 % → 0.0 % |" in made["tokens"].text("report.md").replace(
        "\u00a0", " "
    )
    assert "labels LOC, PER" in text and "classes LOC" not in text
    text = read(made["multi-label"].text("report.html"))
    assert "Label by label" in text and "F1, points" in text and "PER 41 90.0 % 80.0 % 85.0 % 90.0 %" in text
    for kind in ("questions", "ranking"):
        assert "Label by label" not in read(made[kind].text("report.html"))


def test_labels_are_a_table_too(made):
    """Figures of entities that are to be read out of JSON, one model after the other."""
    rows = json.loads(made["tokens"].text("results.json"))["rows"]
    lines = list(csv.DictReader((made["tokens"].folder / "figures/labels.csv").open()))
    expected = [(row["level"], row["stage"], one) for row in rows for one in row["by_label"]]
    assert len(lines) == len(expected) > 0
    for line, (level, stage, one) in zip(lines, expected, strict=True):
        assert (line["level"], line["stage"], line["label"]) == (level, stage, one["label"])
        assert (float(line["f1"]), int(line["items"])) == (one["f1"], one["items"])
    assert "labels.csv" in made["tokens"].text("report.html")
    assert not (made["ranking"].folder / "figures/labels.csv").exists()


def test_the_paired_test_says_what_a_wrong_row_is(made):
    """Errors of rows beside an F1 of spans, of which nobody knows when a row is wrong; or a test that there is not."""
    text = made["tokens"].text("report.md")
    assert "errs on 450 of 2,000 rows and the baseline on 300 (a row is wrong unless all its spans are right)" in text
    assert "(a row is wrong unless its answer is exactly right)" in made["questions"].text("report.md")
    assert "McNemar" not in made["ranking"].text("report.md") and "errs on" not in made["ranking"].text("report.md")


def test_queries_are_what_is_drawn(made):
    """Two thousand rows that are but 125 queries; and advice to give more rows, where more queries are needed."""
    for name in ("report.html", "report.md"):
        text = read(made["ranking"].text(name)) if name.endswith("html") else made["ranking"].text(name)
        assert "with other queries it might be missed. More test queries would tell." in text
        assert "NDCG" not in text
    assert "2,000 test rows of 125 queries" in read(made["ranking"].text("report.html"))
    assert "2,000 test rows of" not in read(made["tokens"].text("report.html"))


def test_the_floor_is_called_what_it_is(made):
    """A bag of words with a linear model that was never trained, beside a figure of something else."""
    for kind, name in (("tokens", "list of words"), ("questions", "count of shared words")):
        page = made[kind].text("report.html")
        assert name in read(page) and f"A {name} keeps" in page and "bag of words" not in page
    assert "bag of words that compares query and text" in read(made["ranking"].text("report.html"))


def test_tables_of_other_labels_are_refused(tmp_path):
    """One label's figures under another one's name."""
    measurement = measurement_of("tokens")
    measurement["models"][1]["by_label"].reverse()
    with pytest.raises(BonsaiError, match=r"figures by label for 2/3 layers that are not of its task's labels"):
        make(tmp_path, measurement, made_selection(measurement))


def test_runs_of_several_kinds_are_compared_by_score(made, tmp_path):
    """A table that calls an F1 of spans an accuracy."""
    measurement = made_measurement()
    make(tmp_path / "reviews", measurement, made_selection(measurement))
    compare([made["tokens"].folder, made["ranking"].folder], output=tmp_path / "both")
    page, text = (tmp_path / "both/compare.html").read_text(), (tmp_path / "both/compare.md").read_text()
    assert "accuracy" not in read(page).lower() and "accuracy" not in text.lower() and "of the score at" in text
    compare([made["tokens"].folder, tmp_path / "reviews"], output=tmp_path / "mixed")
    assert "of the score at" in (tmp_path / "mixed/compare.md").read_text()


@pytest.mark.parametrize(("metric", "shown"), [("span_f1", "85.0 %"), ("exact_match", "85.0 %"), ("ndcg@10", "0.850")])
def test_a_metric_is_shown_as_people_show_it(metric, shown):
    """0.85 in one column and 85 % in the next."""
    assert metric_value(0.85, {"metric": metric}).replace("\u00a0", " ") == shown
