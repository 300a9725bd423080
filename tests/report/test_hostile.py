"""Names and texts that mean ill: in report, figures, manifest and log they are what they say, and nothing else."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import make
from made_measurement import made_measurement, made_selection
from markdown_it import MarkdownIt

from kfp_bonsai.package_model import kserve
from kfp_bonsai.package_model.card import model_card
from kfp_bonsai.report.compare import compare
from kfp_bonsai.report.study import study_page
from kfp_bonsai.shared.core import markup
from kfp_bonsai.shared.core.progress import put

HOSTILE = (
    "\"'><script>alert(1)</script><img src=x onerror=alert(1)>${{7*7}}$(touch x)`id`</title></style></svg>"
    "\n---\nkind: Secret\n```\n<script>\r- &a [*a]\u2028](javascript:alert(1)) ../../x|y\\ {% raw %}{{ 1 }}"
)
CODE = re.compile(r"<script|<img src=x|href=\"javascript|src=\"javascript")
KEPT = {
    *("stage", "sha256", "kind", "metric", "columns", "split", "energy_label", "emission_label", "student", "shape"),
    *("family", "runtime", "measurement", "state", "control", "created", "device_kind", "label_kind", "results"),
}


def hostile(value: Any) -> Any:
    """Add it to every text of a document, but to those that say which of a few things something is."""
    if isinstance(value, dict):
        return {key: one if key in KEPT else hostile(one) for key, one in value.items()}
    if isinstance(value, list):
        return [hostile(one) for one in value]
    return value + HOSTILE if isinstance(value, str) and value else value


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "run"
    found = made_measurement()
    make(folder, hostile(found), hostile(made_selection(found)), title="Reviews" + HOSTILE)
    return folder


def check_page(folder: Path) -> None:
    """Check that nothing of a folder's pages and figures is code."""
    pages = [*folder.glob("**/*.html"), *folder.glob("**/*.svg")]
    assert pages
    for page in pages:
        assert not CODE.search(page.read_text()), page
        assert "alert(1)" in page.read_text() or page.suffix == ".svg", f"{page} does not show the names"
    for page in folder.glob("**/*.md"):
        shown = MarkdownIt("commonmark").enable("table").render(page.read_text())
        assert not CODE.search(shown), page
        assert "alert(1)" in shown, page


def test_a_report_shows_code_in_names_as_text(run):
    """A data set with a label of script, which runs in the browser of who reads the report."""
    check_page(run)


def test_comparisons_show_code_in_names_as_text(run, tmp_path):
    """The same of runs that are shown together."""
    compare([run / "results.json", run / "results.json"], output=tmp_path / "both", title=HOSTILE)
    check_page(tmp_path / "both")


def test_a_study_shows_code_in_names_as_text(run, tmp_path):
    """The same of a study, whose cells are named by their data."""
    cell = dict.fromkeys(("name", "model", "model_name", "data", "data_name", "group"), HOSTILE)
    cell |= {
        "seed": 0,
        "flags": [HOSTILE],
        "rows": 9,
        "state": "done",
        "error": "",
        "results": "results.json",
        "seconds": 1.0,
        "joules": 2.0,
    }
    failed = cell | {"name": "b", "state": "failed", "error": HOSTILE, "results": "", "seed": 1}
    told = {**dict.fromkeys(("title", "command"), HOSTILE), "started": "2026-11-29T08:00:00+00:00", "finished": ""}
    (run / "study.json").write_text(json.dumps({"format": 1, **told, "cells": [cell, failed]}))
    study_page(run, output=tmp_path / "page")
    check_page(tmp_path / "page")


def test_names_do_not_leave_their_place_in_a_manifest(run):
    """A label with a line break that adds a document to what is applied to a cluster, or makes it no YAML."""
    results = json.loads((run / "results.json").read_text())
    row = next(row for row in results["rows"] if row["chosen"])
    record = {"task": {"labels": [HOSTILE]}, "shape": {"kind": "stock"}, "model_type": "bert", "sha256": "0" * 64}
    name, text = kserve.manifest(run, "reviews" + HOSTILE, record, results, row | {"sha256": "0" * 64}, "", "images")
    assert name == "kserve-gpu.yaml"
    found = [*yaml.safe_load_all(text)]
    assert [one["kind"] for one in found if one] and {one["kind"] for one in found} <= {
        "InferenceService",
        "ServingRuntime",
    }
    assert all(re.fullmatch(r"[a-z0-9.-]+", one["metadata"]["name"]) for one in found)


def test_a_model_card_shows_code_in_names_as_text(run):
    """The card is what a hub renders, beside the files that are downloaded."""
    results = json.loads((run / "results.json").read_text())
    lineage = [{"stage": "fine-tune", "arguments": {"model": HOSTILE, "note": HOSTILE}, "seconds": 1.0, "joules": 2.0}]
    record = {"max_length": 16, "model_type": "bert", "shape": {"kind": "stock"}, "lineage": lineage}
    record |= {"sha256": "0" * 64, "versions": {"torch": HOSTILE}, "student": HOSTILE}
    for row in results["rows"][:2]:
        card = model_card("reviews" + HOSTILE, "", record, results, row)
        _, head, body = card.split("---\n", 2)
        assert yaml.safe_load(head)["model-index"][0]["name"] == "reviews" + HOSTILE
        shown = MarkdownIt("commonmark").enable("table").render(body)
        assert not CODE.search(shown) and "alert(1)" in shown
        assert shown.count("<pre>") == 1 and shown.count("<table>") == 2


def test_a_card_holds_no_commands_and_no_halves_of_signs():
    """`cat README.md` would clear a screen, or turn a name around; or a name ends packaging in a traceback."""
    for odd in ("\x1b[2J", "\x07", "\0", "\u202e", "\ud800", "\x9b"):
        shown = [markup.text(f"a{odd}b"), markup.span(f"a{odd}b"), *markup.code(f"a{odd}b")]
        assert not any(odd in one for one in shown), repr(odd)
        "".join(shown).encode()
    assert markup.text("क्‍ष 👩‍🔬 é") == "क्‍ष 👩‍🔬 é"


def test_texts_give_a_terminal_no_commands():
    """A row that is quoted in an error, and that clears the screen or writes over the lines before it."""
    stream = io.StringIO()
    put("error: row 1 is '\x1b[2J\x1b]0;title\x07\x9b31m\rgood\b\b' \t ä €\n  and more", stream)
    assert stream.getvalue() == "error: row 1 is '?[2J?]0;title??31m?good??' \t ä €\n  and more\n"
