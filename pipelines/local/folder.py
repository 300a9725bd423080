"""A run's folder: one run, never a mix of two."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from kfp_bonsai import __version__
from kfp_bonsai.shared.core.documents import kept_document
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import (
    FOREIGN,
    check_writable,
    is_full_disk,
    new_file,
    remove_whole,
    sweep_below,
    try_lock,
)
from kfp_bonsai.shared.core.progress import say

RECORD, LOCK, WORK, LOG = "run.json", ".lock", "work", "run.log"
RESULTS = (
    *("report.html", "report.md", "results.json", "figures", "model", "edge-model", "decision.json"),
    *("search.json", "best", "energy.json"),  # of a search
)
MADE = (RECORD, LOG, WORK, *RESULTS)
BEFORE = ".before"  # what --overwrite replaces, until the new run has finished a task
# What only the last tasks are given, so that the work before them still counts.
LATE = ("license", "ship_code", "upload", "register", "fetch_as", "edge", "runtime")
RUNNING, FINISHED = "running", "finished"


@contextmanager
def run_folder(
    output: Path, arguments: Mapping[str, Any], overwrite: bool, late: Sequence[str] = LATE
) -> Iterator[Path]:
    """Hold a run's folder, new or of the same run that was interrupted, and yield its folder for the work.

    Args:
        output: the run's folder.
        arguments: all that decides what the run gives.
        overwrite: start over, whatever is there of an earlier run.
        late: what may differ from an interrupted run's, as only its last tasks are given it.

    Raises:
        BonsaiError: the folder holds something else, a finished run or one with other arguments, or is in use; or this
            is Windows.
    """
    check_free(output, overwrite)
    check_writable(output / RECORD)
    with held(output, "run"):
        _put_back(output)
        started = _check(output, arguments, overwrite, late)
        if overwrite:
            _set_aside(output)
        record = {
            "format": 1,
            "version": __version__,
            "code": code(),
            "arguments": dict(arguments),
            "started": started,
        }
        _write(output, {**record, "state": RUNNING})
        sweep_below(output)  # of tasks that were killed: each start gives its tasks other places
        try:
            yield output / WORK
        except BaseException as error:
            if not _finished(output):  # nothing that a later run could use
                told = str(output / LOG) in str(error)  # the error sends its reader to the log
                clear(output, (RECORD, WORK, *RESULTS) if told else MADE)
                _put_back(output)
                (output / LOCK).unlink()
                with suppress(OSError):  # it holds something else, or is mounted
                    output.rmdir()
            if is_full_disk(error):
                raise BonsaiError(
                    f"no space left on the disk while working in {output}: free some and start again in the same way"
                ) from error
            raise
        _write(output, {**record, "state": FINISHED, "finished": _now()})
        clear(output, (BEFORE,))


def check_free(output: Path, overwrite: bool) -> None:
    """Refuse a folder in which no run may work, whatever it is given; the first of all checks, as it is the quickest.

    Args:
        output: the run's folder.
        overwrite: start over, whatever is there of an earlier run.

    Raises:
        BonsaiError: it is a file, it holds something else or a finished run, or this is Windows.
    """
    check_platform()
    if output.exists() and not output.is_dir():
        raise BonsaiError(f"--output {output} is a file: name a folder")
    found = {path.name for path in output.iterdir()} if output.is_dir() else set()
    ours = {LOG, LOCK, BEFORE, FOREIGN}  # a log alone is of a run that failed at its first task
    if found - ours and RECORD not in found:
        raise BonsaiError(f"--output {output} holds other files: name a new or empty folder")
    if RECORD in found:
        _started(output, overwrite)


def check_platform() -> None:
    """Refuse to run a pipeline where folders cannot be locked."""
    if find_spec("fcntl") is None:
        raise BonsaiError("bonsai runs pipelines on Linux and macOS: on Windows, use WSL")


@contextmanager
def held(output: Path, what: str) -> Iterator[None]:
    """Hold a folder that exists for this process alone.

    Args:
        output: the folder.
        what: what works in it, for messages: a run, a study.

    Raises:
        BonsaiError: another process holds it, or it cannot be written.
    """
    try:
        lock = (output / LOCK).open("w")
    except OSError as error:
        raise BonsaiError(f"{output / LOCK} cannot be written ({error.strerror}): name another --output") from error
    with lock:
        locked = try_lock(lock)
        if locked is False or not _is_there(lock):
            raise BonsaiError(f"another {what} is at work in {output}: wait for it, or name another --output")
        if locked is None:
            say(f"note: the file system of {output} has no locks: start no second {what} there before this one's end")
        yield


def _is_there(lock: IO) -> bool:
    """Say whether a file that was opened and locked is still the one of its name: one that failed removed its lock."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), os.stat(lock.name))
    except OSError:
        return False


def _started(output: Path, overwrite: bool) -> tuple[str, dict[str, Any]]:
    """Return when the run began that a folder holds, and its record, or refuse it.

    Raises:
        BonsaiError: the record is none, or of a finished run.
    """
    path = output / RECORD
    if not path.is_file():
        raise BonsaiError(f"{path} is no file: remove it, or name another --output")
    found = kept_document(path)
    found = found if isinstance(found, dict) else {}
    state, known, started = (found.get(key) for key in ("state", "arguments", "started"))
    if not (isinstance(state, str) and isinstance(known, dict) and isinstance(started, str)):
        raise BonsaiError(f"{path} is damaged, or no run's: remove what you do not need, or name another --output")
    if state == FINISHED and not overwrite:
        raise BonsaiError(f"{output} holds a finished run: add --overwrite to start over, or name another --output")
    return started, found


def _check(output: Path, arguments: Mapping[str, Any], overwrite: bool, late: Sequence[str]) -> str:
    """Check that a run with these arguments may work here, and return when it began."""
    if not (output / RECORD).exists():
        clear(output, (LOG,))
        return _now()
    started, found = _started(output, overwrite)
    if overwrite:
        return _now()
    different = differences(found["arguments"], arguments, late)
    if found.get("code") != code():
        different.append(f"the code of kfp-bonsai (version {found.get('version')}, now {__version__})")
    if different:
        flags = ", ".join(different)
        raise BonsaiError(
            f"{output} holds an interrupted run that differs in {flags}: run with its arguments to go on with it, "
            "add --overwrite to start over, or name another --output"
        )
    return started


def differences(known: Mapping[str, Any], arguments: Mapping[str, Any], but: Sequence[str] = LATE) -> list[str]:
    """Return the flags of the arguments that are not those of a run's record.

    Args:
        known: those of the record.
        arguments: those that are asked for.
        but: which may differ.
    """
    asked = json.loads(_json(arguments))
    named = {"levels": "--level", "files": "the files that it reads"}
    return [
        named.get(key, "--" + key.replace("_", "-") if key in arguments else key)
        for key in sorted({*known, *asked} - {*but})
        if known.get(key) != asked.get(key)
    ]


def _finished(output: Path) -> bool:
    """Return whether a task is finished, which a later run can use."""
    return any((output / WORK / "finished").glob("*.json"))


def _set_aside(output: Path) -> None:
    """Keep what an earlier run made until the new one has finished a task: a typo is to cost nothing."""
    (output / BEFORE).mkdir()
    for name in MADE:
        if (output / name).exists():
            (output / name).rename(output / BEFORE / name)


def _put_back(output: Path) -> None:
    """Put back what was set aside for a run that got nowhere; forget it if that run finished a task."""
    before = output / BEFORE
    if not before.is_dir():
        return
    if not _finished(output):
        clear(output, (RECORD, WORK, *RESULTS))
        for path in before.iterdir():
            if not (output / path.name).exists():  # the new log, which an error may have named
                path.rename(output / path.name)
    clear(output, (BEFORE,))


def clear(output: Path, names: Sequence[str] = MADE) -> None:
    """Remove what a run makes, and nothing else."""
    for name in names:
        remove_whole(output / name)


def _write(output: Path, record: Mapping[str, Any]) -> None:
    with new_file(output / RECORD) as scratch:
        scratch.write_text(_json(record) + "\n", encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, default=str)


def code() -> str:
    """Return a hash of this package's source: results of other code are another run's."""
    digest = hashlib.sha256()
    for name in ("kfp_bonsai", "kfp_bonsai.pipelines"):
        for folder in import_module(name).__path__:
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
