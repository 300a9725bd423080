"""The models under measurement: loaded, each with the memory that it takes at most."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kfp_bonsai.evaluate_emissions import memory
from kfp_bonsai.evaluate_emissions.protocol import Batch, Subject
from kfp_bonsai.evaluate_emissions.readers import read_by
from kfp_bonsai.shared.inference import runtimes, writers


def load_all(
    folders: Sequence[Path], readers: Sequence[int], device: str, threads: int, batch: Batch
) -> tuple[list[Subject], list[memory.Peak]]:
    """Load all models, and find the peak memory of each: before the others are loaded, or beside them on a GPU.

    Args:
        folders: the baseline, which must load, and the candidates.
        readers: which reader of rows each of them is.
        device: cpu or cuda.
        threads: threads that each gets.
        batch: the largest one.
    """
    writes = writers.TO_WRITE in batch
    loads = [
        partial(load, folder, reader, device, threads, writes, needed=folder is folders[0])
        for folder, reader in zip(folders, readers, strict=True)
    ]
    if device == "cpu":
        peaks = memory.peaks(folders, [read_by(reader, batch) for reader in readers], threads)
        return [one() for one in loads], peaks
    both = [memory.cuda_peak(one, batch) for one in loads]
    return [subject for subject, _ in both], [peak for _, peak in both]


def load(folder: Path, reader: int, device: str, threads: int, writes: bool, needed: bool = True) -> Subject:
    """Load a model.

    Args:
        folder: the model's.
        reader: which reader of rows it is.
        device: cpu or cuda.
        threads: threads that it gets.
        writes: whether it is to write.
        needed: raise why it does not load; else it raises that as soon as it runs.
    """
    run = _loaded(folder, device, threads, writes, needed)
    predict = (lambda rows: run.predict(read_by(reader, rows))) if reader else run.predict
    return Subject(str(folder), predict, run if isinstance(run, writers.Writer) else None, reader)


def _loaded(folder: Path, device: str, threads: int, writes: bool, needed: bool) -> Any:
    """Return what runs a batch on a model; for a candidate that does not load, what raises the reason."""
    try:
        load = writers.load_writer if writes else runtimes.load_predictor
        return load(folder, device, threads=threads)
    except Exception as error:
        if needed:
            raise
        reason = error

        def refuse(_batch: Any) -> Any:
            raise reason

        return SimpleNamespace(predict=refuse)
