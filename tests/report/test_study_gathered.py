"""A study of which each cell was made in tasks of its own."""

import json
import sys
from types import SimpleNamespace

import pytest

from kfp_bonsai.report.study_gathered import report_study
from kfp_bonsai.report.study_record import read_study


def cell(name: str, state: str = "waiting", error: str = "") -> dict:
    """Return what the first task tells of a cell."""
    texts = {"model": "m", "model_name": "m", "data": "d", "data_name": "d", "group": "d"}
    return {"name": name, **texts, "seed": 0, "state": state, "error": error}


@pytest.fixture
def page(monkeypatch):
    """A page that says of which record it was made."""

    def study_page(study, output):
        (output / "study.html").write_text(",".join(one["state"] for one in read_study(study / "study.json")["cells"]))

    monkeypatch.setitem(sys.modules, "kfp_bonsai.report.study", SimpleNamespace(study_page=study_page))


def test_results_find_their_cells_in_any_order(page, tmp_path):
    """A seed's figures under another one's name; or a cell without results that counts, or waits for ever."""
    paths = []
    for name, joules in (("b", 2.5), ("a", 1.5)):
        paths.append(tmp_path / f"results of {name}")
        document = {"title": name, "task": {"name": "d", "metric": "accuracy"}, "rows": []}
        paths[-1].write_text(json.dumps(document | {"cost": {"seconds": 9, "joules": joules}}))
    cells = [cell("a"), cell("lost"), cell("b"), cell("c", "refused", "no such model")]
    found = report_study(paths, cells, tmp_path / "out", tmp_path / "page.html", title="T")
    assert found == {"cells": 4, "done": 2}
    document = read_study(tmp_path / "out" / "study.json")
    assert [(one["name"], one["state"], one["joules"], one["seconds"]) for one in document["cells"]] == [
        ("a", "done", 1.5, 9),
        ("lost", "failed", None, 0),
        ("b", "done", 2.5, 9),
        ("c", "refused", None, 0),
    ]
    assert document["title"] == "T" and document["cells"][1]["error"].startswith("its tasks left no results")
    for one in (document["cells"][0], document["cells"][2]):
        assert json.loads((tmp_path / "out" / one["results"]).read_text())["title"] == one["name"]
    assert (tmp_path / "page.html").read_text() == "done,failed,done,refused"
