"""Peak memory is that of one model alone, and what cannot be measured is said and holds up nothing."""

import json
import os
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from kfp_bonsai.evaluate_emissions import memory
from kfp_bonsai.evaluate_emissions.protocol import Subject
from kfp_bonsai.shared.inference.onnx_export import export
from kfp_bonsai.shared.saved import checkpoint, records

ROWS, TOKENS = 8, 32
BATCH = {name: np.ones((ROWS, TOKENS), dtype=np.int64) for name in ("input_ids", "attention_mask")}


@pytest.fixture(scope="module")
def found(made, memory_too, tmp_path_factory):
    """The peaks of a small model, of one that is 60 MB larger, of a damaged one and of one for CPUs."""
    root = tmp_path_factory.mktemp("memory")
    wider = root / "wider"
    model, tokenizer = checkpoint.load(made.baseline)
    model.resize_token_embeddings(500_000)  # of 32 floats
    checkpoint.save(model, tokenizer, wider, records.read_record(made.baseline))
    damaged = root / "damaged"
    damaged.mkdir()
    (damaged / "bonsai.json").write_text('{"lineage": []}')
    quantized = root / "quantized"
    quantized.mkdir()
    export(made.baseline, quantized / "model.onnx")
    (quantized / "bonsai.json").write_text(json.dumps({"runtime": "onnxruntime", "lineage": []}))
    ballast = np.ones(50_000_000)  # what this process holds is no model's
    started = time.monotonic()
    peaks = memory.peaks([made.baseline, wider, damaged, quantized], [BATCH] * 4, 1)
    assert ballast.sum() and time.monotonic() - started < 60
    return dict(zip(("small", "wider", "damaged", "quantized"), peaks, strict=True))


def test_a_larger_model_needs_that_much_more(found):
    """The peak would be that of libraries, of other models or of the test itself."""
    assert 1e8 < found["small"].bytes < 1.5e9
    assert 55e6 < found["wider"].bytes - found["small"].bytes < 250e6


def test_a_quantized_model_is_served_without_torch(found):
    """An edge device would be bought for memory that only torch needs."""
    assert found["quantized"].bytes < 0.6 * found["small"].bytes


def test_a_model_that_does_not_load_says_so_and_keeps_the_others(found):
    """One damaged folder would cost all models their figure, or end the measurement."""
    assert found["damaged"].bytes is None and "damaged" in found["damaged"].problem
    assert not found["small"].problem


def test_a_model_that_is_killed_says_so(tmp_path, monkeypatch):
    """Where memory runs out, a process is gone without a word: that is the very case to report."""
    monkeypatch.setattr(memory, "_import_torch", lambda: None)
    monkeypatch.setattr(memory, "_serve", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    np.savez(tmp_path / "0.npz", **BATCH)
    memory._serve_each(tmp_path, 1, [tmp_path])
    assert json.loads((tmp_path / "0.json").read_text()) == {
        "bytes": None,
        "problem": "its process was ended by SIGKILL, as when memory runs out",
    }


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/python"])
def test_no_process_is_no_error(tmp_path, monkeypatch, memory_too, program):
    """A sandbox that starts no processes would lose the whole measurement for one figure beside it."""
    monkeypatch.setattr(sys, "executable", program)
    (peak,) = memory.peaks([tmp_path], [BATCH], 1)
    assert peak.bytes is None and "process" in peak.problem


def test_on_a_gpu_the_other_models_memory_is_not_counted(monkeypatch):
    """With all models in one process, the last would seem to need what all of them hold."""
    import torch

    held = {"now": 700, "peak": 5000}
    monkeypatch.setattr(torch, "ones", lambda *_, device: torch.eye(8))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: held["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: held["peak"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: held.update(peak=held["now"]))

    def load():
        held.update(now=1000)
        return Subject("s", lambda batch: held.update(peak=held["now"] + batch))

    assert memory.cuda_peak(load, 40)[1] == memory.Peak(340)
    failing = SimpleNamespace(predict=lambda _: 1 / 0)
    assert "ZeroDivisionError" in memory.cuda_peak(lambda: failing, 40)[1].problem
