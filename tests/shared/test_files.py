"""Outputs appear whole or not at all."""

import errno
import shutil

import pytest

from kfp_bonsai.shared.errors import BonsaiError
from kfp_bonsai.shared.files import check_apart, check_writable, new_file, new_folder


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


@pytest.mark.parametrize(
    "error",
    [
        shutil.Error([("from", "to", "[Errno 28] No space left on device: 'from' -> 'to'")]),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 63424 vs 63316"),
    ],
    ids=["copytree", "safetensors", "torch.save"],
)
def test_a_full_disk_is_told_as_one_whatever_a_library_makes_of_it(error, tmp_path):
    """Else only what raises OSError itself is explained; weights and copies of folders end in a traceback."""
    with pytest.raises(BonsaiError, match="no space left on the disk"), new_folder(tmp_path / "out"):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_as_one_below_another_reason(tmp_path):
    """Else a model that does not fit on the disk is said not to export to ONNX."""
    with pytest.raises(BonsaiError, match="no space left on the disk"), new_folder(tmp_path / "out"):
        raise BonsaiError("does not export") from OSError(errno.ENOSPC, "No space left on device")


def test_an_output_in_a_folder_that_is_a_file_is_an_error_in_words(tmp_path):
    """Else `--output notes.txt/model` ends in a traceback."""
    (tmp_path / "file").write_text("kept")
    with pytest.raises(BonsaiError, match="cannot be written"), new_folder(tmp_path / "file" / "out"):
        pass


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


@pytest.mark.parametrize(
    ("outputs", "inputs"),
    [(["a", "a"], []), (["a", "a/b"], []), (["a"], ["a"]), (["model/inner"], ["model"]), (["./x/../a"], ["", "a"])],
)
def test_an_output_in_the_place_of_another_is_refused(tmp_path, monkeypatch, outputs, inputs):
    """A test split that its measurement replaces, or a model that is copied into itself."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BonsaiError, match="name another output"):
        check_apart(outputs, inputs)
    check_apart(["b", "c", ""], ["d", "", *inputs])


def test_a_folder_is_no_file(tmp_path):
    """A measurement of an hour that cannot be written at its end."""
    with pytest.raises(BonsaiError, match="is a folder"), new_file(tmp_path):
        pass
