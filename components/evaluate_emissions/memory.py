"""Peak memory: what a process that loads and serves one model needs at most, each model in a process of its own.

One helper process imports the libraries once and forks for each model, so that a model takes a second, not ten.
Models for CPUs alone go first, before torch is imported, as a process that serves them needs no torch.

    python -m kfp_bonsai.evaluate_emissions.memory FOLDER_OF_BATCHES_AND_RESULTS THREADS MODEL...
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kfp_bonsai.evaluate_emissions.protocol import Subject
from kfp_bonsai.shared.core.documents import kept_document
from kfp_bonsai.shared.core.errors import in_words
from kfp_bonsai.shared.inference.runtimes import load_predictor
from kfp_bonsai.shared.inference.writers import TO_WRITE, load_writer
from kfp_bonsai.shared.saved.weights import is_quantized

LONGEST_SECONDS = 120  # for one model; one that hangs must not hold up the measurement
IMPORT_SECONDS = 60
PROCESS = Path("/proc/self")


@dataclass(frozen=True)
class Peak:
    """A model's peak memory.

    Attributes:
        bytes: the most that was resident at once; nothing if it could not be measured.
        problem: why it could not be, "" if it was.
    """

    bytes: int | None
    problem: str = ""


def peaks(folders: Sequence[Path], batches: Sequence[dict[str, np.ndarray]], threads: int) -> list[Peak]:
    """Return the peak memory of processes that each load one model and run a batch on the CPU; never raises.

    Args:
        folders: the models.
        batches: what each runs, the largest that it is to serve.
        threads: threads that each gets.
    """
    try:
        return _peaks(folders, batches, threads)
    except OSError as error:  # no folder for temporary files, or a full one
        return [Peak(None, f"no process to measure it in ({error})")] * len(folders)


def _peaks(folders: Sequence[Path], batches: Sequence[dict[str, np.ndarray]], threads: int) -> list[Peak]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        for at, batch in enumerate(batches):
            np.savez(Path(scratch) / f"{at}.npz", **batch)  # type: ignore[arg-type]
        command = [sys.executable, "-m", __name__, scratch, str(threads), *(str(path.resolve()) for path in folders)]
        limit = IMPORT_SECONDS + LONGEST_SECONDS * len(folders)
        problem = "its process left no result"
        try:
            ended = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
            problem = " ".join([problem, *ended.stderr.splitlines()[-1:]]) if ended.returncode else problem
        except (OSError, subprocess.SubprocessError) as error:
            problem = f"no process to measure it in ({error})"
        return [_read(Path(scratch) / f"{at}.json", problem) for at in range(len(folders))]


def cuda_peak(load: Callable[[], Subject], batch: dict[str, np.ndarray]) -> tuple[Subject, Peak]:
    """Return a model, loaded in this process, and the GPU memory that it and a batch take; only `load` may raise.

    Args:
        load: loads the model.
        batch: the largest batch that it is to serve.
    """
    import torch

    ones = torch.ones(8, 8, device="cuda")
    torch.nn.functional.linear(ones, ones, ones[0])  # the first product takes room to work in, which is no model's
    before = torch.cuda.memory_allocated()
    subject = load()
    try:
        torch.cuda.reset_peak_memory_stats()
        subject.predict(batch)
        return subject, Peak(torch.cuda.max_memory_allocated() - before)
    except Exception as error:
        return subject, Peak(None, in_words(error))


def _read(file: Path, problem: str) -> Peak:
    found = kept_document(file)
    return Peak(**found) if found else Peak(None, problem)


def _serve_each(scratch: Path, threads: int, folders: Sequence[Path]) -> None:
    """Fork a process for each model, one after the other; each leaves its result in a file."""
    needs_torch = [not is_quantized(folder) for folder in folders]
    for at in sorted(range(len(folders)), key=lambda at: needs_torch[at]):
        if needs_torch[at]:
            _import_torch()
        child = os.fork()
        if not child:
            signal.alarm(LONGEST_SECONDS)
            try:
                found = _serve(folders[at], dict(np.load(scratch / f"{at}.npz")), threads)
            except BaseException as error:
                found = Peak(None, in_words(error))
            (scratch / f"{at}.json").write_text(json.dumps(vars(found)), encoding="utf-8")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            why = {"SIGKILL": ", as when memory runs out", "SIGALRM": f", after {LONGEST_SECONDS} s"}.get(name, "")
            result = Peak(None, f"its process was ended by {name}{why}")
            (scratch / f"{at}.json").write_text(json.dumps(vars(result)), encoding="utf-8")


def _import_torch() -> None:
    """Import what every child needs that loads a checkpoint: some two seconds of CPU time each, else."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, modeling_layers  # noqa: F401

    from kfp_bonsai.shared.saved import checkpoint  # noqa: F401


def _serve(folder: Path, batch: dict[str, np.ndarray], threads: int) -> Peak:
    """Load a model, run a batch, and return this process's peak, with all weights in it."""
    load = load_writer if TO_WRITE in batch else load_predictor
    predictor = load(folder, "cpu", threads=threads)
    for _ in range(2):
        predictor.predict(batch)
    for line in (PROCESS / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return Peak(1024 * int(line.split()[1]) + _not_read_yet(folder))
    return Peak(None, f"{PROCESS}/status of this system has no VmHWM")


def _not_read_yet(folder: Path) -> int:
    """Return the bytes of a model's files that are mapped but that this batch did not touch, as other rows will."""
    missing, ours = 0, False
    for line in (PROCESS / "smaps").read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name in ("Size", "Rss") and ours:
            missing += (1 if name == "Size" else -1) * 1024 * int(value.split()[0])
        elif "-" in name:
            ours = f" {folder}/" in line
    return missing


if __name__ == "__main__":
    _serve_each(Path(sys.argv[1]), int(sys.argv[2]), [Path(folder) for folder in sys.argv[3:]])
