"""study.json: what a study's cells are and how they stand, which its page is made of."""

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core import written
from kfp_bonsai.shared.core.documents import read_document
from kfp_bonsai.shared.core.files import new_file

STUDY = "study.json"
DONE, FAILED, REFUSED, WAITING = "done", "failed", "refused", "waiting"
GLUE = {  # training rows of its tasks
    "cola": 8_551,
    "sst2": 67_349,
    "mrpc": 3_668,
    "stsb": 5_749,
    "qqp": 363_846,
    "mnli": 392_702,
    "qnli": 104_743,
    "rte": 2_490,
    "wnli": 635,
}
FEW_ROWS = 10_000
FEW, MANY = "GLUE, below 10,000 rows", "GLUE, 10,000 rows and above"  # the white paper's figures, beside IMDb's


def group_of(data: str, data_name: str, rows: int | None, max_rows: int = 0) -> str:
    """Return the group of data sets, drawn into one figure, that one belongs to if nobody says it.

    Args:
        data: as it was given: a path, a hub name.
        data_name: what it is called.
        rows: how many labelled rows are trained on; None if that is not known.
        max_rows: how many there are at the most; 0 for all.
    """
    parts = [each.partition(".")[0].lower() for each in re.split(r"[/:]", data)]
    for before, part in pairwise(parts):
        task = re.sub(r"[-_]|(mis)?matched$", "", part)
        if before == "glue" and task in GLUE:
            known = rows if rows is not None else min(GLUE[task], max_rows or GLUE[task])
            return FEW if known < FEW_ROWS else MANY
    return data_name


def read_study(path: Path) -> dict[str, Any]:
    """Read a study.json, whole.

    Raises:
        BonsaiError: there is none, or it is damaged.
    """
    return read_document(path, "bonsai study", "cells", shape=written.STUDY)


def write_study(path: Path, document: Mapping[str, Any]) -> None:
    """Write a study.json, whole or not at all."""
    with new_file(path) as scratch:
        scratch.write_text(json.dumps({"format": 1, **document}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_results(path: Path) -> dict[str, Any]:
    """Read a cell's results.json.

    Raises:
        BonsaiError: there is none, or it is damaged.
    """
    return read_document(path, "bonsai run", "rows", "task", shape=written.RESULTS)


def joules_of(results: Mapping[str, Any]) -> float | None:
    """Return what making all of a cell's models cost; measuring is not told."""
    return (results.get("cost") or {}).get("joules")
