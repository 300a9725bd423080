"""A run's folder holds one run."""

import errno
import json
import os
import shutil

import pytest

from kfp_bonsai.pipelines.local import folder as folders
from kfp_bonsai.pipelines.local.folder import run_folder
from kfp_bonsai.pipelines.local.inputs import fingerprint
from kfp_bonsai.shared.core.errors import BonsaiError

ARGUMENTS = {"model": "m", "epochs": 3.0, "levels": [{"label": "small"}]}


def interrupted(output, arguments=ARGUMENTS):
    """Leave a run behind that finished one task."""
    with pytest.raises(KeyboardInterrupt), run_folder(output, arguments, overwrite=False) as work:
        (work / "finished").mkdir(parents=True, exist_ok=True)
        (work / "finished" / "task.json").write_text("{}")
        raise KeyboardInterrupt


def test_the_same_run_goes_on(tmp_path):
    """Work that is lost, though nothing changed."""
    interrupted(tmp_path / "run")
    with run_folder(tmp_path / "run", ARGUMENTS, overwrite=False) as work:
        assert (work / "finished" / "task.json").is_file()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["state"] == "finished" and record["arguments"] == ARGUMENTS


def test_what_tasks_that_were_killed_left_goes(tmp_path):
    """Half a transfer set of gigabytes stays in the run's folder for each kill: the next start works elsewhere."""
    interrupted(tmp_path / "run")
    left = tmp_path / "run" / folders.WORK / "run-1" / "teacher-outputs" / ".transfer.12345678.unfinished"
    left.mkdir(parents=True)
    with run_folder(tmp_path / "run", ARGUMENTS, overwrite=False):
        assert not left.exists() and left.parent.exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"epochs": 4.0}, "--epochs"), ({"levels": []}, "--level"), ({"seed": 1}, "--seed"), ({"files": {}}, "the files")],
)
def test_other_arguments_are_refused_by_name(tmp_path, changed, said):
    """A report that mixes two runs."""
    interrupted(tmp_path / "run")
    refused = pytest.raises(BonsaiError, match=f"{said}.*--overwrite")
    with refused, run_folder(tmp_path / "run", ARGUMENTS | changed, overwrite=False):
        pass


def test_a_mistake_in_what_the_last_task_is_given_can_be_mended(tmp_path):
    """Hours of training to be done again, as a bucket's name was wrong."""
    interrupted(tmp_path / "run", ARGUMENTS | {"upload": "gs://typo/x", "register": ""})
    mended = ARGUMENTS | {"upload": "gs://bucket/x", "register": "http://registry", "license": "mit"}
    with run_folder(tmp_path / "run", mended, overwrite=False) as work:
        assert (work / "finished" / "task.json").is_file()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["arguments"] == mended


@pytest.mark.parametrize("name", ["reviews [2024].csv", "*.csv", "a?b.csv"])
def test_files_whose_names_are_patterns_too_are_told_apart(tmp_path, name):
    """A run that goes on with other rows than it began with, since [2024] matches no file."""
    (tmp_path / name).write_text("one")
    before = fingerprint(str(tmp_path / name))
    (tmp_path / name).write_text("two rows")
    assert [*before] == [str(tmp_path / name)] and fingerprint(str(tmp_path / name)) != before


def test_other_code_is_refused(tmp_path):
    """A report that mixes two versions."""
    interrupted(tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"code": "other"}))
    with pytest.raises(BonsaiError, match="changed since"), run_folder(tmp_path / "run", ARGUMENTS, overwrite=False):
        pass


def test_overwrite_starts_over_and_touches_nothing_else(tmp_path):
    """Results of an earlier run beside new ones, or a user's own file that is gone."""
    interrupted(tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    (tmp_path / "run" / "report.html").write_text("old")
    with run_folder(tmp_path / "run", ARGUMENTS | {"epochs": 4.0}, overwrite=True) as work:
        assert not work.exists() and not (tmp_path / "run" / "report.html").exists()
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_a_folder_of_other_files_is_never_used(tmp_path):
    """--overwrite on the wrong folder."""
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BonsaiError, match="other files"), run_folder(tmp_path, ARGUMENTS, overwrite=True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_runs_at_once_are_refused(tmp_path):
    """Two runs that write into each other's files."""
    with run_folder(tmp_path / "run", ARGUMENTS, overwrite=False):
        second = run_folder(tmp_path / "run", ARGUMENTS, overwrite=True)
        with pytest.raises(BonsaiError, match="another run is at work"), second:
            pass


def test_a_run_that_got_nowhere_leaves_nothing(tmp_path):
    """A folder that refuses the corrected command."""
    with pytest.raises(BonsaiError), run_folder(tmp_path / "run", ARGUMENTS, overwrite=False):
        raise BonsaiError("a column is missing")
    assert not (tmp_path / "run").exists()


def test_the_log_that_an_error_names_is_kept_and_in_no_ones_way(tmp_path):
    """An error that sends its reader to a file that is gone, or a folder that refuses the next run."""
    log = tmp_path / "run" / "run.log"
    with pytest.raises(BonsaiError), run_folder(tmp_path / "run", ARGUMENTS, overwrite=False) as work:
        work.mkdir()
        log.write_text("Killed")
        raise BonsaiError(f"prepare-data failed (its last lines are above, all of them in {log})")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.log"] and log.read_text() == "Killed"
    with run_folder(tmp_path / "run", ARGUMENTS | {"epochs": 4.0}, overwrite=False):
        assert not log.exists()


def test_a_log_beside_other_files_is_no_run(tmp_path):
    """A folder of another program's, in which its log is overwritten."""
    (tmp_path / "run.log").write_text("mine")
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BonsaiError, match="other files"), run_folder(tmp_path, ARGUMENTS, overwrite=True):
        pass
    assert (tmp_path / "run.log").read_text() == "mine"


def test_a_full_disk_is_told_as_one_and_the_work_is_kept(tmp_path):
    """A traceback of the log file, or hours of finished tasks that are lost."""
    interrupted(tmp_path / "run")
    run = run_folder(tmp_path / "run", ARGUMENTS, overwrite=False)
    with pytest.raises(BonsaiError, match=r"no space left on the disk.*start again"), run:
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (tmp_path / "run" / "work" / "finished" / "task.json").is_file()


def test_an_output_below_a_file_is_an_error_in_words(tmp_path):
    """A traceback of NotADirectoryError."""
    (tmp_path / "file").write_text("mine")
    refused = pytest.raises(BonsaiError, match="cannot be written")
    with refused, run_folder(tmp_path / "file" / "run", ARGUMENTS, overwrite=False):
        pass


def test_overwriting_with_a_mistake_costs_nothing(tmp_path):
    """A finished run's report and model, gone for a typo in a column's name, or as the machine went down."""
    run, copy = tmp_path / "run", tmp_path / "copy"
    interrupted(run)
    with run_folder(run, ARGUMENTS, overwrite=False):
        (run / "report.html").write_text("hours")
    before = (run / "run.json").read_text()
    wrong = pytest.raises(BonsaiError, match="a column is missing")
    with wrong, run_folder(run, ARGUMENTS | {"epochs": 4.0}, overwrite=True):
        shutil.copytree(run, copy)
        raise BonsaiError("a column is missing")
    finished = pytest.raises(BonsaiError, match="holds a finished run")
    with finished, run_folder(copy, ARGUMENTS, overwrite=False):
        pass
    for folder in (run, copy):
        assert (folder / "report.html").read_text() == "hours" and (folder / "run.json").read_text() == before
        assert (folder / "work" / "finished" / "task.json").is_file() and not (folder / ".before").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("beside", [".lock", "run.json"])
def test_another_programs_folder_is_left_alone(tmp_path, beside, overwrite):
    """A project with a `model/` of its own, emptied because something there is called run.json or .lock."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("mine")
    (tmp_path / beside).write_text("{}")
    with pytest.raises(BonsaiError, match=r"other files|no run's"), run_folder(tmp_path, ARGUMENTS, overwrite):
        pass
    assert (tmp_path / "model" / "mine").read_text() == "mine"


def test_a_run_goes_on_where_the_file_system_has_no_locks(tmp_path, monkeypatch, capsys):
    """A run refused for another that is not there; or one in a volume that is new, or cannot be removed."""
    import fcntl

    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / "run" / "lost+found").mkdir(parents=True)
    with pytest.raises(ZeroDivisionError), run_folder(tmp_path / "run", {}, overwrite=False):
        raise ZeroDivisionError
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lost+found"]
    assert "has no locks" in capsys.readouterr().out


def test_a_lock_that_was_removed_is_nobodys(tmp_path, monkeypatch):
    """Two runs in a folder: one that fails removes its lock, which a second one has opened, and a third makes anew."""
    (tmp_path / "run").mkdir()

    def won_too_late(file):
        (tmp_path / "run" / folders.LOCK).unlink()
        return True

    monkeypatch.setattr(folders, "try_lock", won_too_late)
    with pytest.raises(BonsaiError, match="is at work in"), folders.held(tmp_path / "run", "run"):
        pytest.fail("it works without a lock that others see")


OTHERS = (b"", b"[]", b"{}", b'{"state": "running", "arguments": [], "started": ""}', b"\xff", b"[" * 100_000)


def test_a_record_that_is_no_file_is_told(tmp_path):
    """A pipe into which a run writes for ever, as nobody reads it."""
    interrupted(tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    os.mkfifo(tmp_path / "run" / "run.json")
    with pytest.raises(BonsaiError, match=r"run\.json is no file"), run_folder(tmp_path / "run", ARGUMENTS, False):
        pytest.fail("it went on")


@pytest.mark.parametrize("content", OTHERS, ids=range(len(OTHERS)))
def test_a_record_that_is_damaged_is_told(tmp_path, content):
    """A traceback, or a run that goes on with another one's work."""
    interrupted(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_bytes(content)
    with pytest.raises(BonsaiError, match="is damaged, or no run's"), run_folder(tmp_path / "run", ARGUMENTS, False):
        pass
