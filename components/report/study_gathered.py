"""A study of which each cell was made elsewhere: its record and its page, of the results that came of them."""

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kfp_bonsai.report.study_record import DONE, FAILED, STUDY, WAITING, joules_of, read_results, write_study
from kfp_bonsai.shared.core.files import new_file, new_folder


def report_study(
    results: list[Path], cells: Sequence[Mapping[str, Any]], output: Path, html: Path, *, title: str = ""
) -> dict[str, str | int | float]:
    """Write study.json of finished cells beside those that were refused, and the study's page.

    Args:
        results: the results.json of each cell that was made, whose title is the cell's name.
        cells: what study.json says of each cell, without what its results say; those that wait were made, or failed.
        output: the folder to make, for study.json, the page, and the results.
        html: the page once more, as one file.
        title: what the study is called.

    Returns:
        How many cells there are, and how many are done.

    Raises:
        BonsaiError: results are not there or damaged, or output exists.
    """
    from kfp_bonsai.report.study import study_page

    found = {str(document.get("title")): (path, document) for path in results if (document := read_results(path))}
    with new_folder(output) as folder, new_file(html) as page:
        entries = []
        for cell in cells:
            entry = {"rows": None, "results": "", "seconds": 0.0, "joules": None, **cell}
            if cell["name"] in found:
                path, document = found[cell["name"]]
                entry |= {"state": DONE, "joules": joules_of(document), "results": f"{cell['name']}/results.json"}
                entry["seconds"] = (document["cost"] or {}).get("seconds") or 0.0
                (folder / cell["name"]).mkdir()
                shutil.copyfile(path, folder / cell["name"] / "results.json")
            elif cell["state"] == WAITING:
                entry |= {"state": FAILED, "error": "its tasks left no results: their logs say why"}
            entries.append(entry)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        document = {"title": title or "Study", "started": now, "finished": now, "command": "", "cells": entries}
        write_study(folder / STUDY, document)
        study_page(folder, folder)
        shutil.copyfile(folder / "study.html", page)
    return {"cells": len(entries), "done": sum(entry["state"] == DONE for entry in entries)}
