"""Models that answer by a rule, as the server loads them."""

from pathlib import Path

import numpy as np
import pytest
from served_made import written

from kfp_bonsai.serve.served import load
from kfp_bonsai.shared.data.encoding import FIELDS
from kfp_bonsai.shared.inference import runtimes


@pytest.fixture
def loaded(monkeypatch):
    """Load a folder with a runtime that only notes its batches: (model, batches)."""

    def loading(folder: Path, classes: int = 2):
        batches: list[dict[str, np.ndarray]] = []

        def run(batch):
            batches.append(batch)
            rows = batch["input_ids"].sum(axis=1).astype(np.float32)
            return np.stack([rows % (3 + at) for at in range(classes)], axis=1)

        made = runtimes.Predictor("made", tuple(FIELDS), run)
        monkeypatch.setitem(runtimes._ONNX_RUNTIMES, "made", lambda file, threads: made)
        model = load(folder)
        batches.clear()  # of what is tried as it is loaded
        return model, batches

    return loading


@pytest.fixture
def simple(loaded, tmp_path):
    """A model of single texts with two classes."""
    return loaded(written(tmp_path / "model", {}, task={"columns": ["text"], "labels": ["bad", "good"]}))[0]
