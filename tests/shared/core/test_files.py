"""Outputs appear whole or not at all."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from kfp_bonsai.shared.core import files
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import (
    CHECKPOINTS,
    HELD,
    UNFINISHED,
    check_apart,
    check_writable,
    copy_folder,
    new_file,
    new_folder,
    place_of,
    put_copy,
    try_lock,
)


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


@pytest.mark.parametrize("dies", ["copytree", "rmtree"])
def test_a_copy_is_whole_or_not_there_when_its_process_is_killed(dies, tmp_path, monkeypatch):
    """Half a model under the name of the chosen one, which is served from then on."""
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        for file in ("weights", "words"):
            (tmp_path / name / file).write_text(name)
    target = tmp_path / "old"

    def killed(path, *others, **_):
        if others:
            (others[0] / "weights").write_text("new")
        else:
            (path / target.name / "weights").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, dies, killed)
        with pytest.raises(KeyboardInterrupt):
            put_copy(tmp_path / "new", target)
    assert not target.exists()
    put_copy(tmp_path / "new", target)
    put_copy(tmp_path / "new", target)
    assert {file.name: file.read_text() for file in target.iterdir()} == {"weights": "new", "words": "new"}
    assert {one.name for one in tmp_path.iterdir()} == {"new", "old"}


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


def fails(number):
    def call(*_, **__):
        raise OSError(number, os.strerror(number))

    return call


def write(scratch):
    for name in ("bonsai.json", "model.safetensors", "inner/file"):
        (scratch / name).parent.mkdir(exist_ok=True)
        (scratch / name).write_text(name)


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


WRITTEN = ["bonsai.json", "inner/file", "model.safetensors"]


def test_a_folder_that_is_there_stays_the_same_folder(tmp_path):
    """A mounted volume cannot be renamed over: the model was lost after its training."""
    target = tmp_path / "model"
    target.mkdir(mode=0o750)
    before = target.stat()
    (target / "lost+found").mkdir()
    (target / ".model.left").mkdir()  # of an attempt that was killed
    with new_folder(target) as scratch:
        assert scratch.parent.parent == target == place_of(target)
        write(scratch)
    assert (target.stat().st_ino, target.stat().st_mode) == (before.st_ino, before.st_mode)
    assert files_in(target) == WRITTEN
    assert sorted(path.name for path in target.iterdir() if path.is_dir()) == ["inner", "lost+found"]
    with pytest.raises(BonsaiError, match="exists already"), new_folder(target):
        pass


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EBUSY, errno.EOPNOTSUPP, errno.EPERM])
@pytest.mark.parametrize("there", [False, True])
def test_a_file_system_that_does_not_rename_gets_copies(number, there, tmp_path, monkeypatch):
    """A trained model is lost where it could have been copied."""
    target = tmp_path / "model"
    if there:
        target.mkdir()
    with new_folder(target) as scratch:
        write(scratch)
        monkeypatch.setattr(os, "rename", fails(number))
        monkeypatch.setattr(os, "replace", fails(number))
    assert files_in(tmp_path) == [f"model/{name}" for name in WRITTEN]
    (tmp_path / "out.json").write_text("before")
    with new_file(tmp_path / "out.json") as scratch:
        scratch.write_text("after")
    assert (tmp_path / "out.json").read_text() == "after" and len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_put_in_its_place_is_kept_and_named(tmp_path, monkeypatch):
    """A trained model is thrown away for what comes after it; or half of it is taken for a whole one."""
    (tmp_path / "model").mkdir()
    with (
        pytest.raises(BonsaiError, match="what was made is whole in") as told,
        new_folder(tmp_path / "model") as scratch,
    ):
        write(scratch)
        copied = []
        monkeypatch.setattr(os, "rename", fails(errno.EXDEV))
        monkeypatch.setattr(shutil, "copyfile", lambda *paths: copied.append(paths) or fails(errno.EIO)())
    kept = Path(str(told.value).partition("whole in ")[2].partition(": ")[0])
    assert files_in(kept) == WRITTEN and copied
    assert [path for path in (tmp_path / "model").iterdir() if not path.name.startswith(".model.")] == []


def test_the_record_comes_last(tmp_path, monkeypatch):
    """A model that is half there, after a machine that went down, is taken for a whole one."""
    moved, rename = [], os.rename
    (tmp_path / "model").mkdir()
    with new_folder(tmp_path / "model") as scratch:
        write(scratch)
        monkeypatch.setattr(os, "rename", lambda a, b: moved.append(Path(b).name) or rename(a, b))
    assert moved == ["inner", "model.safetensors", "bonsai.json"]


def test_an_output_that_another_process_filled_meanwhile_is_left_alone(tmp_path):
    """Two models mixed in one folder, or the slower of the two lost."""
    with (
        pytest.raises(BonsaiError, match=r"written there meanwhile.*whole in"),
        new_folder(tmp_path / "out") as scratch,
    ):
        write(scratch)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "other").write_text("other")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["other"]


def test_links_are_followed(tmp_path, monkeypatch):
    """`--output model`, where model leads to a large disk: lost at the end, or written on the small disk."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "model").symlink_to(disk)
    (tmp_path / "new").symlink_to(disk / "new")
    (tmp_path / "out.json").symlink_to(disk / "out.json")
    (disk / "old").mkdir()
    monkeypatch.chdir(disk / "old")
    for target in (Path("../../new"), Path(".")):
        with new_folder(target) as scratch:
            write(scratch)
    with new_file(tmp_path / "out.json") as scratch:
        scratch.write_text("x")
    assert (tmp_path / "out.json").is_symlink() and files_in(disk) == sorted(
        ["out.json", *(f"{folder}/{name}" for folder in ("new", "old") for name in WRITTEN)]
    )


def test_a_device_is_written_to_and_not_replaced(tmp_path):
    """`--output /dev/null` as root, and the machine has no /dev/null any more."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_writable(pipe)
    with new_file(pipe) as scratch:
        scratch.write_text("told")
    assert os.read(reader, 9) == b"told" and pipe.is_fifo()
    os.close(reader)


@pytest.mark.parametrize(
    ("number", "found"),
    [(errno.EWOULDBLOCK, False), (errno.EACCES, False), (errno.ENOLCK, None), (errno.EOPNOTSUPP, None)],
)
def test_a_file_system_without_locks_is_told_from_a_lock_that_is_held(number, found, tmp_path, monkeypatch):
    """A run that waits for nobody, as its folder is on a network."""
    import fcntl

    with (tmp_path / "lock").open("w") as file:
        assert try_lock(file) is True
        monkeypatch.setattr(fcntl, "flock", fails(number))
        assert try_lock(file) is found


def test_a_folder_is_no_file(tmp_path):
    """A measurement of an hour that cannot be written at its end."""
    with pytest.raises(BonsaiError, match="is a folder"), new_file(tmp_path):
        pass


@pytest.mark.parametrize("moment", ["at work", "hardly begun", "almost gone"])
@pytest.mark.parametrize("make", [new_folder, new_file])
def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(make, moment, tmp_path):
    """Folders of half-made models that fill the disk with each kill; or the work of another process is removed."""
    killed = tmp_path / f".out.12345678{UNFINISHED}"
    killed.mkdir()
    if moment == "at work":
        (killed / HELD).touch()
    if moment != "hardly begun":
        (killed / "out").write_text("half")
    of_others = [tmp_path / f".{name}" for name in ("out.settings", "out.0123456789ab.checkpoints", f"in{UNFINISHED}")]
    for path in of_others:
        path.mkdir()
    with make(tmp_path / "out") as first:
        assert not killed.exists()
        (first / "part" if first.is_dir() else first).write_text("mine")
        with make(tmp_path / "out.more") as other:
            (other / "part" if other.is_dir() else other).write_text("mine")
        with pytest.raises(ValueError, match="second"), make(tmp_path / "out"):
            assert first.parent.exists()
            raise ValueError("second")
    assert (tmp_path / "out").exists() and sorted(tmp_path.glob(".*")) == sorted(of_others)


def test_what_was_left_of_an_output_that_is_there_goes(tmp_path):
    """A stage that is killed right after its output is in place leaves a folder for ever: it is never made again."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model").touch()
    kept = [f".out.b.0123456789ab{CHECKPOINTS}", ".out.b", f".out.notes{CHECKPOINTS}"]
    for name in (f".out.12345678{UNFINISHED}", f".out.0123456789ab{CHECKPOINTS}", *kept):
        (tmp_path / name).mkdir()
    for record in (False, True):  # without one it is somebody else's, and what was kept may still be of use
        if record:
            (tmp_path / "out" / "bonsai.json").touch()
        with pytest.raises(BonsaiError, match="exists already"), new_folder(tmp_path / "out"):
            pass
        left = [] if record else [f".out.0123456789ab{CHECKPOINTS}"]
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["out", *left, *kept])


def test_what_could_not_be_put_in_its_place_is_never_removed(tmp_path, monkeypatch):
    """The night's work, told of as being whole where it was made, goes as soon as somebody starts again."""
    with monkeypatch.context() as patch:
        patch.setattr(files, "_put_folder", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
        with pytest.raises(BonsaiError, match="what was made is whole in"), new_folder(tmp_path / "out") as scratch:
            (scratch / "model").write_text("whole")
    with new_folder(tmp_path / "out"):
        pass
    assert (scratch / "model").read_text() == "whole"


@pytest.mark.parametrize("sweeps", ["before it is held", "once it is held"])
def test_who_sweeps_takes_no_folder_that_is_just_made(tmp_path, monkeypatch, sweeps):
    """Of two processes that begin at once, one has its folder removed under it, and its work fails."""
    lock, times = files.try_lock, []

    def meanwhile(file):
        times.append(file)
        if len(times) == 1:
            if sweeps == "before it is held":
                files.sweep(".out.", tmp_path)
                return lock(file)
            found = lock(file)
            files.sweep(".out.", tmp_path)
            return found
        return lock(file)

    monkeypatch.setattr(files, "try_lock", meanwhile)
    with new_folder(tmp_path / "out") as scratch:
        (scratch / "model").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("spoil", "said"), [("link", "outside of the folder"), ("pipe", "is no file")])
def test_a_model_folder_takes_nothing_along_from_elsewhere(spoil, said, tmp_path):
    """A stranger's model with a link to one's keys, which are packaged and published; or a copy that never ends."""
    model, secret, copy = tmp_path / "model", tmp_path / "credentials", tmp_path / "copy"
    (model / "more").mkdir(parents=True)
    copy.mkdir()
    (model / "weights").write_text("w")
    (model / "more" / "again").symlink_to(model / "weights")
    copy_folder(model, copy)
    assert (copy / "more" / "again").read_text() == "w"
    secret.write_text("s")
    (model / "x").symlink_to(secret) if spoil == "link" else os.mkfifo(model / "x")
    with pytest.raises(BonsaiError, match=said):
        copy_folder(model, tmp_path / "other")
    assert not (tmp_path / "other").exists()
