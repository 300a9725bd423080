"""Outputs appear whole or not at all."""

import errno

import pytest

from kfp_bonsai.shared.errors import BonsaiError
from kfp_bonsai.shared.files import check_writable, new_file, new_folder


@pytest.mark.parametrize("make", [new_file, new_folder])
def test_a_failure_leaves_nothing(make, tmp_path):
    """Else a half-written model is taken for a whole one."""
    with pytest.raises(ValueError, match="in the midst"), make(tmp_path / "out") as scratch:
        (scratch / "part" if scratch.is_dir() else scratch).write_text("half")
        raise ValueError("in the midst")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", [new_file, new_folder])
def test_a_full_disk_is_told_as_one(make, tmp_path):
    """Else the user reads OSError 28, and finds half an output."""
    with pytest.raises(BonsaiError, match="no space left on the disk"), make(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_only_when_the_new_one_is_whole(tmp_path):
    """Else a failed second run loses the first one's result."""
    (tmp_path / "out").write_text("first")
    with pytest.raises(ValueError, match="x"), new_file(tmp_path / "out") as scratch:
        scratch.write_text("second")
        raise ValueError("x")
    assert (tmp_path / "out").read_text() == "first"
    with new_file(tmp_path / "out") as scratch:
        scratch.write_text("second")
    assert (tmp_path / "out").read_text() == "second"


def test_an_output_below_a_file_is_refused_early(tmp_path):
    """Else a measurement of an hour ends in NotADirectoryError."""
    (tmp_path / "file").write_text("kept")
    with pytest.raises(BonsaiError, match="cannot be written"):
        check_writable(tmp_path / "file" / "out.json")
    check_writable(tmp_path / "new" / "out.json")
    assert list((tmp_path / "new").iterdir()) == []
