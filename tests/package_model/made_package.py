"""Tiny models with real results: what package-model starts from."""

import json
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from kfp_bonsai.shared.saved.weights import weights_sha256

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from made_measurement import lineage, made_measurement, made_selection, write

LEVEL = "1/3 layers + matrix pruning"


def make_results(folder: Path, quantized: str = "", carbon: bool = True) -> Path:
    """Write a real results.json."""
    folder.mkdir(parents=True, exist_ok=True)
    results = folder / "results.json"
    results.write_text(_results(quantized, carbon))
    return results


@cache
def _results(quantized: str, carbon: bool) -> str:
    """Return a results.json of the report stage, which draws it once for all tests."""
    from kfp_bonsai.report.report import report

    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        measurement = made_measurement(carbon=carbon)
        edge = ""
        if quantized:
            document = made_measurement(levels=(LEVEL,), quantized=LEVEL, seed=3)
            document["models"][-1]["runtime"] = quantized
            edge = str(write(folder / "e.json", document))
        outputs = [folder / name for name in ("r.html", "r.md", "results.json", "figures")]
        paths = write(folder / "m.json", measurement), write(folder / "s.json", made_selection(measurement))
        report(*paths, *outputs, edge_measurement=edge)
        return (folder / "results.json").read_text()


def results_of(model: Path, folder: Path) -> Path:
    """Write a real results.json whose chosen model is one that a stage made."""
    folder.mkdir()
    results = make_results(folder)
    digest = json.loads(results.read_text())["chosen"]["sha256"]
    results.write_text(results.read_text().replace(digest, weights_sha256(model)))
    return results


def write_record(folder: Path, results: Path, **changes: Any) -> None:
    """Write the model's record, and the weights' true hash into record and results."""
    chosen = json.loads(results.read_text())["chosen"]
    digest = weights_sha256(folder)
    results.write_text(results.read_text().replace(chosen["sha256"], digest))
    quantized = chosen["stage"] == "quantized"
    record = {
        "format": 1,
        "stage": "quantize" if quantized else "distill",
        "level": LEVEL,
        "model_type": "bert",
        "shape": {"kind": "stock", "hidden": 8, "layers": [{"heads": 2, "ffn": 16}] * 2},
        "task": {"labels": ["negative", "positive"], "columns": ["text"]},
        "max_length": 16,
        "sha256": digest,
        "lineage": lineage(LEVEL, 3420.0, 84.0, quantized),
        "versions": {"kfp_bonsai": "0.1.0", "torch": "2.12.1"},
        "seed": 0,
    }
    record |= {"runtime": chosen["runtime"]} if quantized else {}
    write(folder / "bonsai.json", record | changes)


def write_tokenizer(folder: Path, lowercase: bool = False) -> None:
    """Write a word-level tokenizer."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "a", "fine", "dull", "film", "one"]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)


def make_stock(folder: Path) -> tuple[Path, Path]:
    """Return a tiny model's folder and its results."""
    from transformers import BertConfig, BertForSequenceClassification

    results = make_results(folder)
    model = folder / "model"
    config = BertConfig(vocab_size=7, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    BertForSequenceClassification(config).save_pretrained(model)
    write_tokenizer(model)
    write_record(model, results)
    return model, results


def make_quantized(folder: Path, runtime: str, outputs: int = 1) -> tuple[Path, Path]:
    """Return an ONNX model that answers with the sum of the token ids (in each of its outputs), and its results."""
    import onnx
    from onnx import TensorProto, helper

    results = make_results(folder, quantized=runtime)
    model = folder / "model"
    model.mkdir()
    write_tokenizer(model)
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "tokens"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", outputs])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], np.array([1]))
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["float", "axes"], ["sum"], keepdims=1),
        helper.make_node("Concat", ["sum"] * outputs, ["logits"], axis=1),
    ]
    graph = helper.make_graph(nodes, "tiny", [ids], [logits], [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), model / "model.onnx")
    write(model / "config.json", {"pad_token_id": 0})
    write_record(model, results)
    return model, results
