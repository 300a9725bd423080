"""The benchmarks' own code, where a mistake would make a table wrong; they are run by hand."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))


@pytest.mark.parametrize(
    "script", sorted(path.name for path in BENCHMARKS.glob("*.py") if "argparse" in path.read_text())
)
def test_its_options_can_be_listed(script):
    """One that fails at its import, found by whoever wants to check a figure."""
    shown = subprocess.run([sys.executable, BENCHMARKS / script, "--help"], capture_output=True, text=True, check=True)
    assert "--json" in shown.stdout


def test_every_ablation_has_outputs_of_its_own(tmp_path, monkeypatch):
    """Two ingredients that share a transfer set, so that one of them is measured twice."""
    import quality

    monkeypatch.setattr(quality, "made", lambda folder, _: folder)
    room = quality.Room(tmp_path, {"train": tmp_path, "unlabelled": tmp_path}, tmp_path, 0, 1)
    wanted = [change.outputs for change in quality.ABLATIONS.values()]
    folders = {room.outputs(**each).name for each in wanted}
    assert len(folders) == len({str(each) for each in wanted}) > 3


def test_figures_of_other_data_are_refused(tmp_path):
    """A table of yesterday's rows, under today's file."""
    import quality

    file = tmp_path / "reviews.csv"
    file.write_text("text,label\n")
    given = {"data": str(file), "unlabelled": None, "test_rows": 9, "validation_rows": 500, "max_rows": 0}
    before = quality.asked(SimpleNamespace(**given, baseline_epochs=4, shorter=1))
    file.write_text("text,label\na,b\n")
    assert quality.asked(SimpleNamespace(**given, baseline_epochs=4, shorter=1)) != before
