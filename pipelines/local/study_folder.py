"""A study's folder: one study, never a mix of two; a folder a cell, and what tells of them all beside."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kfp_bonsai.pipelines.cells import Cell
from kfp_bonsai.pipelines.local.folder import FINISHED, LATE, LOCK, LOG, RECORD, check_platform, code, differences, held
from kfp_bonsai.pipelines.options import LEVELS
from kfp_bonsai.report.study_record import STUDY, read_study
from kfp_bonsai.shared.core.documents import kept_document
from kfp_bonsai.shared.core.errors import BonsaiError, listed
from kfp_bonsai.shared.core.files import FOREIGN, check_writable

PAGE = ("study.html", "study.md", "study.csv", "evidence.json", "figure-*.svg", "figure-*.png")
TO_DO = "give its arguments to go on with it, add --overwrite to start over, or name another --output"


@contextmanager
def study_folder(output: Path) -> Iterator[dict[str, Any]]:
    """Hold a study's folder, and yield what study.json says of it; nothing is changed there.

    Args:
        output: the folder.

    Raises:
        BonsaiError: the folder holds something else, or is in use.
    """
    check_platform()
    if output.exists() and not output.is_dir():
        raise BonsaiError(f"--output {output} is a file: name a folder")
    found = {path.name for path in output.iterdir()} if output.is_dir() else set()
    if found - {LOCK, FOREIGN} and STUDY not in found:
        raise BonsaiError(f"--output {output} holds other files, and no study: name a new or empty folder")
    check_writable(output / STUDY)
    with held(output, "study"):
        try:
            yield read_study(output / STUDY) if STUDY in found else {"cells": []}
        finally:
            if {path.name for path in output.iterdir()} <= {LOCK}:
                (output / LOCK).unlink()
                output.rmdir()


def check_same(output: Path, before: Mapping[str, Any], cells: Sequence[Cell]) -> None:
    """Refuse to go on where cells were made that are none of this study's; a study may gain some.

    Args:
        output: the folder.
        before: what its study.json says.
        cells: those that are asked for.

    Raises:
        BonsaiError: there are such cells.
    """
    asked = {cell.name for cell in cells}
    others = [one["name"] for one in before["cells"] if one["name"] not in asked and _record(output / one["name"])]
    if others:
        raise BonsaiError(f"{output} holds another study, which has {listed(others)} too: {TO_DO}")


def is_begun(folder: Path) -> bool:
    """Return whether a cell's run was begun."""
    return _record(folder) is not None


def is_done(folder: Path, arguments: Mapping[str, Any]) -> bool:
    """Return whether a cell's run is finished.

    Args:
        folder: its folder.
        arguments: those that it is to have; without levels, where nobody can tell which these are.

    Raises:
        BonsaiError: what is there was made with other arguments.
    """
    record = _record(folder)
    if record is None:
        return False
    finished = record.get("state") == FINISHED and (folder / "results.json").is_file()
    unknown = () if LEVELS in arguments else (LEVELS,)
    different = differences(record["arguments"], arguments, (*unknown, *(() if finished else LATE)))
    if different:
        raise BonsaiError(f"{folder} holds a cell of another study (it differs in {', '.join(different)}): {TO_DO}")
    return finished


def is_of_other_code(folder: Path) -> bool:
    """Return whether an interrupted run is there that this code cannot go on with."""
    record = _record(folder)
    return record is not None and record.get("code") != code()


def _record(folder: Path) -> dict[str, Any] | None:
    found = kept_document(folder / RECORD)
    return found if isinstance(found, dict) and isinstance(found.get("arguments"), dict) else None


def clear(output: Path, before: Mapping[str, Any]) -> None:
    """Remove a study's cells, its record and its page.

    Args:
        output: the folder.
        before: what its study.json says.
    """
    for name in [one["name"] for one in before["cells"]]:
        folder = output / name
        if folder.parent == output and ((folder / RECORD).is_file() or (folder / LOG).is_file()):
            shutil.rmtree(folder)
    for pattern in (STUDY, *PAGE):
        for path in output.glob(pattern):
            path.unlink()


def draw(output: str) -> None:
    """Make a study's page and its figures anew, beside its cells."""
    from kfp_bonsai.report.study import study_page

    study_page(Path(output), Path(output))
