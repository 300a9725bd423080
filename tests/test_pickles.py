"""A pickle that runs code when it is loaded, planted wherever one could be: no code of it is ever run."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch

from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.prepare_data.prepare import prepare_data
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.saved import checkpoint, pretrained
from kfp_bonsai.shared.training import transfer

NAMES = (  # that transformers, the Trainer, KFP or older versions of any of them would load
    *("pytorch_model.bin", "model.pt", "model.pth", "pytorch_model-00001-of-00001.bin", "training_args.bin"),
    *("optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state.pth", "rng_state_0.pth"),
    *("tokenizer.pkl", "vocab.pkl", "sentencepiece.pkl", "model.pkl", "data.pkl", "model.joblib", "flax_model.msgpack"),
    *("heads.pt", "model.ckpt", "state.db", "dataset.pkl", "cache.pkl"),
)


class Planted:
    """What makes a folder when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.proof),)


@pytest.fixture
def plant(tmp_path):
    """Plants pickles into a folder; the test ends by looking whether one was loaded."""
    proof = tmp_path / "proof"
    content = pickle.dumps(Planted(proof))
    pickle.loads(content)
    assert proof.is_dir(), "the pickle is none that runs code"
    proof.rmdir()

    def into(folder: Path, names=NAMES) -> bytes:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / name).write_bytes(content)
        return content

    yield into
    assert not proof.exists(), "a pickle was loaded"


def code_beside(folder: Path, proof: Path) -> None:
    """Write a module that makes a folder when it is imported, and name it wherever transformers looks for such."""
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(proof)!r})\nclass Own: pass\n")
    shutil.copy(folder / "own.py", folder / "__init__.py")
    (folder / "custom_generate").mkdir()
    shutil.copy(folder / "own.py", folder / "custom_generate" / "generate.py")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": ["own.Own", "own.Own"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_a_model_folder_full_of_pickles_and_code(plant, tmp_path, made):
    """A model of somebody's hub page that takes over the machine that compresses it."""
    folder = tiny.pretrained(tmp_path / "model", layers=1)
    plant(folder)
    code_beside(folder, tmp_path / "proof")
    for read in (
        lambda: pretrained.load(folder, pretrained.read(folder).config),
        lambda: pretrained.find_model(str(folder)),
    ):
        try:
            read()
        except BonsaiError as error:
            assert "tokenizer" in str(error), error
    (folder / "model.safetensors").unlink()
    with pytest.raises(BonsaiError, match="pickled weights, which can run code"):
        pretrained.read(folder)
    stages_own = tmp_path / "own"
    shutil.copytree(made.baseline, stages_own)
    plant(stages_own)
    checkpoint.load(stages_own)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "bonsai.json"])
def test_a_pickle_under_another_name(plant, tmp_path, made, name):
    """A loader that tries pickle where a file is not what its name says."""
    folder = tmp_path / "own"
    shutil.copytree(made.baseline, folder)
    plant(folder, [name])
    with pytest.raises(BonsaiError):
        checkpoint.load(folder)


def test_training_goes_on_beside_pickles(plant, tmp_path, made):
    """Checkpoints of an earlier attempt that somebody else wrote: the Trainer's own are pickled."""
    model = tiny.pretrained(tmp_path / "model", layers=1)
    for name in ("checkpoint-1", ".out.0123456789ab.checkpoints", ".out.0123456789ab.checkpoints/checkpoint-1"):
        plant(tmp_path / name)
    fine_tune(str(model), made.train, made.validation, tmp_path / "out", epochs=0.1)
    checkpoint.load(tmp_path / "out")


def test_numbers_are_not_unpickled(plant, tmp_path, made):
    """A transfer set from elsewhere, whose hidden states are an array of objects: numpy would unpickle those."""
    folder = tmp_path / "transfer"
    shutil.copytree(made.transfer, folder)
    np.save(folder / "hidden.npy", np.array([Planted(tmp_path / "proof")], dtype=object), allow_pickle=True)
    with pytest.raises(BonsaiError, match="damaged"):
        transfer.open_set(folder)
    torch.save(Planted(tmp_path / "proof"), folder / "hidden.npy")
    with pytest.raises(BonsaiError):
        transfer.open_set(folder)


def test_data_is_not_unpickled(plant, tmp_path):
    """A Parquet file whose type is a Python class, as old versions of pyarrow had it, or a pickle with its name."""
    for name in ("arrow.py_extension_type", "own.type"):
        notes = {"ARROW:extension:name": name, "ARROW:extension:metadata": plant(tmp_path / "data", [])}
        fields = [pa.field("text", pa.string(), metadata=notes), pa.field("label", pa.string())]
        rows = [f"film {row}" for row in range(40)], ["bad", "good"] * 20
        pq.write_table(pa.table(rows, schema=pa.schema(fields)), tmp_path / "rows.parquet")
        prepare(tmp_path / "rows.parquet", tmp_path)
    for end in ("parquet", "csv", "jsonl", "pkl"):
        plant(tmp_path / "data", [f"rows.{end}"])
        with pytest.raises(BonsaiError):
            prepare(tmp_path / "data" / f"rows.{end}", tmp_path)


def prepare(data: Path, folder: Path) -> None:
    prepare_data(str(data), *(folder / f"out-{name}.parquet" for name in ("train", "validation", "test", "unlabelled")))
