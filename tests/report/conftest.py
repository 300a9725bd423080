"""A made report, written once for all tests that only read it."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@dataclass
class Made:
    """What `report` wrote, and what it returned."""

    folder: Path
    returned: dict[str, Any]

    def text(self, name: str) -> str:
        """Return a file's text."""
        return (self.folder / name).read_text()


def make(folder: Path, measurement: Any, selection: Any, edge: Any = None, **options: str) -> Made:
    """Write a report from made documents."""
    from made_measurement import write

    from kfp_bonsai.report.report import report

    folder.mkdir(parents=True, exist_ok=True)
    returned = report(
        write(folder / "m.json", measurement),
        write(folder / "s.json", selection),
        folder / "report.html",
        folder / "report.md",
        folder / "results.json",
        folder / "figures",
        edge_measurement=str(write(folder / "e.json", edge)) if edge else "",
        **options,
    )
    return Made(folder, returned)


def told(folder: Path, *documents: Any, **options: str) -> Made:
    """Write a report whose words are looked at: its figures are made too, but not rendered, which takes longest."""
    from matplotlib.figure import Figure

    def savefig(_figure: Figure, file: Any, **_: Any) -> None:
        if hasattr(file, "write"):
            file.write("<svg></svg>")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", savefig)
        return make(folder, *documents, **options)


@pytest.fixture(scope="session")
def full(tmp_path_factory) -> Made:
    """Three levels, and the smallest as int8 on the edge."""
    from made_measurement import made_measurement, made_selection

    level = "1/3 layers + matrix pruning"
    measurement = made_measurement()
    edge = made_measurement(levels=(level,), quantized=level, seed=3)
    folder = tmp_path_factory.mktemp("full")
    return make(folder, measurement, made_selection(measurement), edge, command="bonsai run --seed 0 & echo <done>")
