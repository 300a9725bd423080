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

    def load(folder: Path, reader: int) -> Subject:
        run = _loaded(folder, device, threads, writers.TO_WRITE in batch, needed=folder is folders[0])
        predict = (lambda rows: run.predict(read_by(reader, rows))) if reader else run.predict
        return Subject(str(folder), predict, run if isinstance(run, writers.Writer) else None, reader)

    each = list(zip(folders, readers, strict=True))
    if device == "cpu":
        peaks = memory.peaks(folders, [read_by(reader, batch) for reader in readers], threads)
        return [load(*one) for one in each], peaks
    both = [memory.cuda_peak(partial(load, *one), batch) for one in each]
    return [subject for subject, _ in both], [peak for _, peak in both]


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
