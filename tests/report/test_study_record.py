"""study.json, and which data sets are drawn together."""

import pytest

from kfp_bonsai.report.study_record import FEW, MANY, group_of, joules_of, read_study, write_study
from kfp_bonsai.shared.core.errors import BonsaiError


@pytest.mark.parametrize(
    ("data", "rows", "group"),
    [
        ("glue:mrpc", 3_300, FEW),
        ("nyu-mll/glue:sst2", 60_000, MANY),
        ("../data/glue/cola", 7_663, FEW),
        ("/cache/glue/sst2", 9_999, FEW),
        ("/cache/glue/sst2/", 10_000, MANY),
        ("glue/sst2.parquet", None, MANY),
        ("glue:rte", None, FEW),
        ("glue:STS-B", None, FEW),
        ("glue:mnli_mismatched", None, MANY),
        ("stanfordnlp/imdb", 25_000, "imdb"),
        ("data/mrpc", 3_300, "mrpc"),
        ("glue/other.csv", 500, "other"),
    ],
)
def test_groups_are_those_of_the_papers_figures(data, rows, group):
    """A mean over tasks of which some have little data, beside the paper's figure of them."""
    name = data.rstrip("/").replace(":", "/").rsplit("/", 1)[-1].partition(".")[0]
    assert group_of(data, name, rows) == group


def test_rows_that_are_left_out_count_for_a_task_whose_rows_are_not_known_yet():
    """SST-2 cut to 2,000 rows among the tasks with many."""
    assert group_of("glue:sst2", "sst2", None, max_rows=2_000) == FEW


def entry(**change):
    """Return a cell of study.json."""
    texts = dict.fromkeys(("name", "model", "model_name", "data", "data_name", "group", "error", "results"), "x")
    return {**texts, "seed": 0, "flags": None, "rows": None, "state": "done", "seconds": 1.5, "joules": None, **change}


def test_what_is_written_is_read(tmp_path):
    """A study that cannot be gone on with."""
    document = {"title": "é", "started": "now", "finished": "", "command": "", "cells": [entry(), entry(rows=3)]}
    write_study(tmp_path / "study.json", document)
    assert read_study(tmp_path / "study.json") == {"format": 1, **document}


@pytest.mark.parametrize("change", [{"state": "maybe"}, {"seed": -1}, {"rows": "many"}, {"name": None}])
def test_a_damaged_study_is_refused_by_name(tmp_path, change):
    """A traceback, or cells that are made again."""
    document = {"title": "", "started": "", "finished": "", "command": "", "cells": [entry(**change)]}
    write_study(tmp_path / "study.json", document)
    with pytest.raises(BonsaiError, match=rf"cells\[0\].{next(iter(change))}"):
        read_study(tmp_path / "study.json")


def test_results_without_their_cost_have_none():
    """A study of which half the cells count as free."""
    assert joules_of({}) is None and joules_of({"cost": {"joules": 3.5}}) == 3.5
