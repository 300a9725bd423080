"""Every family exports, at any width, batch and length, and a file that differs from torch is refused."""

import json

import models
import numpy as np
import onnx
import onnxruntime
import pytest
import tiny
import torch
from transformers import Qwen2Tokenizer

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.inference import onnx_export
from kfp_bonsai.shared.inference.runtimes import ONNXRUNTIME, load_predictor, onnx_predictor
from kfp_bonsai.shared.models import shapes, surgery
from kfp_bonsai.shared.saved import checkpoint


def letters():
    """A tokenizer of the kind that transformers makes of any tokenizer in a folder of Qwen 2."""
    words = [*tiny.SPECIAL, *(chr(code) for code in range(ord("a"), ord("z") + 1)), "Ġ"]
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[SEP]"}
    return Qwen2Tokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[], **names)


def saved(folder, name="bert", free=False):
    """Save a random model of a family, its layers of different widths if `free`."""
    model = models.made(name).float()
    if free:
        counts = [{"heads": 1, "ffn": 17}, {"heads": 2, "ffn": 30}, {"heads": 1, "ffn": 50}] * 2
        kept = [{unit: torch.arange(count) for unit, count in one.items()} for one in counts]
        model = surgery.cut(model, kept[: len(shapes.layers_of(model))])
    model.save_pretrained(folder)
    (letters() if name == "qwen2" else tiny.tokenizer()).save_pretrained(folder)
    (folder / "bonsai.json").write_text(json.dumps({"max_length": 32, "lineage": []}))
    return folder


@pytest.mark.parametrize("free", [False, True], ids=["stock", "free"])
@pytest.mark.parametrize("name", models.NAMES)
def test_every_family_exports_and_equals_torch(tmp_path, name, free):
    """Else a model that was compressed could not be served on a CPU."""
    folder = saved(tmp_path / "model", name, free)
    assert onnx_export.export(folder, tmp_path / "model.onnx") < 1e-4
    here, there = load_predictor(folder), onnx_predictor(tmp_path / "model.onnx", ONNXRUNTIME)
    random = np.random.default_rng(0)
    for rows, length in ((1, 2), (1, 32), (17, 5)):
        batch = {"input_ids": random.integers(5, 25, (rows, length)), "attention_mask": np.ones((rows, length), int)}
        np.testing.assert_allclose(there.predict(batch), here.predict(batch), atol=2e-4)


def test_the_graph_takes_any_batch_and_length_and_gives_logits(tmp_path):
    """Else a server could send one shape only."""
    onnx_export.export(saved(tmp_path / "model"), tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    sizes = {
        one.name: [side.dim_param or side.dim_value for side in one.type.tensor_type.shape.dim]
        for one in (*graph.input, *graph.output)
    }
    assert sizes == {
        **{key: ["rows", "tokens"] for key in ("input_ids", "attention_mask", "token_type_ids")},
        "logits": ["rows", 2],
    }


def test_a_file_that_differs_from_torch_is_refused(tmp_path):
    """Else a silent fault of the exporter would be quantized and served."""
    folder = saved(tmp_path / "model")
    onnx_export.export(folder, tmp_path / "model.onnx")
    model, _tokenizer = checkpoint.load(folder)
    with torch.no_grad():
        model.classifier.bias += 0.01
    batch = {"input_ids": np.full((2, 9), 7), "attention_mask": np.ones((2, 9), int)}
    with pytest.raises(BonsaiError, match=r"differs from torch by 0\.0.* at 2 rows x 9 tokens"):
        expected = onnx_export._asked(model, ["input_ids", "attention_mask"], batch)
        onnx_export._largest_difference("bert", tmp_path / "model.onnx", [batch], [expected])


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_stock_classifiers_graph_leaves_out_what_is_never_read(tmp_path, name):
    """Two fifths of a model of two layers computed for nothing, on each CPU that it runs on."""
    folder = saved(tmp_path / "model", name)
    onnx_export.export(folder, tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    before, after = [
        node.output[0]
        for node in model.graph.node
        if node.op_type in ("Gelu", "Erf", "Tanh") and "pooler" not in node.name  # of the neurons of each layer
    ][-2:]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(one) for one in (before, after))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    asked = {one.name: np.full((3, 9), 1 if "mask" in one.name else 0) for one in session.get_inputs()}
    _, of_all, of_one = session.run(None, asked)
    assert (of_all.shape[:2], of_one.shape[:2]) == ((3, 9), (3, 1))


def test_a_model_that_cannot_be_traced_is_refused_with_its_type(tmp_path, monkeypatch):
    """Else a traceback of the exporter hides which model it was about."""
    folder = saved(tmp_path / "model")

    def broken(*arrays, **options):
        raise RuntimeError("no such operator")

    monkeypatch.setattr("torch.onnx.export", broken)
    with pytest.raises(BonsaiError, match=r"model_type 'bert'\) does not export to ONNX: no such operator"):
        onnx_export.export(folder, tmp_path / "model.onnx")
