"""`bonsai doctor`: told whole, quick, without secrets, and broken only where no run works."""

import json
import re
import tempfile

import pytest

from kfp_bonsai import doctor as doctors
from kfp_bonsai.doctor import doctor


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """Let the hub not be asked."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_all_that_a_report_needs_is_told(monkeypatch):
    """A report of a bug that says neither what it ran on nor with what; or one with somebody's password."""
    monkeypatch.setenv("HF_TOKEN", "canary-of-the-hub")
    found = doctor()
    assert found.keys() == doctors.LOOKS.keys()
    assert "torch 2." in found["versions"] and "estimated" in found["energy"] + "estimated"
    assert found["hub"].startswith("NOTE: is not asked") and "canary" not in str(found)


def test_what_no_run_can_do_without_ends_with_one(monkeypatch, capsys):
    """A script that goes on where nothing will work; or that stops for what is only a note."""
    monkeypatch.setattr(tempfile, "TemporaryDirectory", _full)
    with pytest.raises(SystemExit) as ended:
        doctor(json=True)
    told = json.loads(capsys.readouterr().out)
    assert ended.value.code == 1 and told["broken"]
    assert [one["about"] for one in told["found"] if one["state"] == "broken"] == ["temporary files"]


def _full(*_, **__):
    raise OSError(28, "No space left on device")


def test_what_cannot_be_told_is_a_note(monkeypatch):
    """A doctor that needs one."""
    monkeypatch.setitem(doctors.LOOKS, "memory", lambda: 1 / 0)
    assert doctor()["memory"].startswith("NOTE: cannot be told (ZeroDivisionError")


@pytest.mark.parametrize(("asked", "said"), [("torch>=99", "torch .*, and >=99 is"), ("no-such", "no-such is mis")])
def test_wrong_versions_are_broken(monkeypatch, asked, said):
    """An upgrade of torch that nobody thinks of when a run fails."""
    monkeypatch.setattr(doctors.metadata, "requires", lambda _: [asked, "no-other; extra == 'kfp'"])
    state, told = doctors._versions()
    assert state == doctors.BROKEN and re.search(said, told) and "no-other" not in told


def test_a_home_that_takes_no_files_is_noted(monkeypatch, tmp_path):
    """Downloads that are gone after each run, and nobody knows why."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("BONSAI_CACHE", str(tmp_path / "file"))
    assert doctor()["cache"].startswith("NOTE: $BONSAI_CACHE takes no files")
