"""package-model: a folder that explains itself, whose snippets run as they are printed."""

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kfp_bonsai.package_model.package import package_model
from kfp_bonsai.shared.checkpoint import weights_sha256
from kfp_bonsai.shared.errors import BonsaiError

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))
from made_measurement import lineage, made_measurement, made_selection, write

LEVEL = "1/3 layers + matrix pruning"


def make_results(folder: Path, quantized: str = "", carbon: bool = True, **options: Any) -> Path:
    """Write a real results.json with the report stage."""
    from kfp_bonsai.report.report import report

    measurement = made_measurement(carbon=carbon, **options)
    edge = ""
    if quantized:
        document = made_measurement(levels=(LEVEL,), quantized=LEVEL, seed=3)
        document["models"][-1]["runtime"] = quantized
        edge = str(write(folder / "e.json", document))
    outputs = [folder / name for name in ("r.html", "r.md", "results.json", "figures")]
    paths = write(folder / "m.json", measurement), write(folder / "s.json", made_selection(measurement))
    report(*paths, *outputs, edge_measurement=edge)
    return folder / "results.json"


def write_record(folder: Path, results: Path, **changes: Any) -> None:
    """Write the model's record, and the weights' true hash into record and results."""
    chosen = json.loads(results.read_text())["chosen"]
    digest = weights_sha256(folder)
    results.write_text(results.read_text().replace(chosen["sha256"], digest))
    record = {
        "format": 1,
        "stage": "quantize" if chosen["stage"] == "quantized" else "distill",
        "level": LEVEL,
        "shape": {"kind": "stock", "hidden": 8, "layers": [{"heads": 2, "ffn": 16}] * 2},
        "max_length": 16,
        "sha256": digest,
        "lineage": lineage(LEVEL, 3420.0, 84.0, chosen["stage"] == "quantized"),
        "versions": {"kfp_bonsai": "0.1.0"},
        "seed": 0,
    }
    write(folder / "bonsai.json", record | changes)


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "a", "fine", "dull", "film", "one"]
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)


def run_snippet(folder: Path) -> str:
    """Run the Python code of the packaged README.md as it is, in the folder, and return what it prints."""
    code = "\n".join(re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.S))
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    return printed.getvalue()


@pytest.fixture
def stock(tmp_path: Path) -> tuple[Path, Path]:
    """A tiny model folder and its results."""
    from transformers import BertConfig, BertForSequenceClassification

    results = make_results(tmp_path)
    folder = tmp_path / "model"
    config = BertConfig(vocab_size=7, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    BertForSequenceClassification(config).save_pretrained(folder)
    write_tokenizer(folder)
    write_record(folder, results)
    return folder, results


def test_stock_model(stock: tuple[Path, Path], tmp_path: Path):
    """The card would be refused by the hub, say other numbers than the report, or show code that does not run."""
    from huggingface_hub import ModelCard

    folder, results = stock
    found = package_model(folder, results, tmp_path / "package", license="apache-2.0")
    assert found["name"] == "movie-reviews-1-3-layers-matrix-pruning"
    package = tmp_path / "package"
    card = ModelCard.load(package / "README.md")
    row = next(row for row in json.loads(results.read_text())["rows"] if row["chosen"])
    assert card.data.license == "apache-2.0" and card.data.library_name == "transformers"
    [result] = card.data.eval_results
    assert result.metric_value == row["accuracy"] and result.metric_type == "accuracy"
    grams = (2640 + 3420) / 3.6e6 * 463
    assert card.data.co2_eq_emissions["emissions"] == pytest.approx(grams, rel=1e-3)
    assert "estimated" in card.data.co2_eq_emissions["source"]
    body = card.content.replace("\u00a0", " ")
    assert f"{100 * row['relative_emission']:.1f} %" in body and "79.1 %" in body and "Weakest class" in body
    assert "longer than 16 tokens" in body and "| fine-tune |" in body
    assert (package / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=package, check=True)
    listed = {line.split("  ")[1] for line in (package / "SHA256SUMS").read_text().splitlines()}
    assert listed == {path.name for path in package.iterdir()} - {"SHA256SUMS"}
    assert "tensor" in run_snippet(package)


def test_free_shape_says_what_it_needs(stock: tuple[Path, Path], tmp_path: Path):
    """A free shape would fail to load, and the card would not say why."""
    folder, results = stock
    write_record(folder, results, shape={"kind": "free", "hidden": 8, "layers": [{"heads": 2, "ffn": 16}]})
    package_model(folder, results, tmp_path / "package", name="tiny")
    text = (tmp_path / "package/README.md").read_text()
    assert "import kfp_bonsai" in text.split("```python")[1] and "1 layer of width 8" in text
    assert "No license was stated" in text and "\n# tiny\n" in text


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_quantized_model_runs_by_its_snippet_without_torch(runtime: str, tmp_path: Path):
    """The printed code would not run, or would need torch after all."""
    import onnx
    from onnx import TensorProto, helper

    results = make_results(tmp_path, quantized=runtime)
    folder = tmp_path / "model"
    folder.mkdir()
    write_tokenizer(folder)
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "tokens"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["rows", 1])
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], np.array([1]))
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["float", "axes"], ["logits"], keepdims=1),
    ]
    graph = helper.make_graph(nodes, "tiny", [ids], [logits], [axes])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "model.onnx"
    )
    write(folder / "config.json", {"pad_token_id": 0})
    write_record(folder, results)
    package_model(folder, results, tmp_path / "package")
    text = (tmp_path / "package/README.md").read_text()
    assert f"library_name: {runtime}" in text and "quantized to int8" in text
    code = text.split("```python")[1].split("```")[0]
    assert "torch" not in code and "transformers" not in code
    # a fine film = 2+3+5; a dull one = 2+4+6
    assert re.findall(r"[\d.]+", run_snippet(tmp_path / "package")) == ["10.", "12."]


def test_no_intensity_no_grams(stock: tuple[Path, Path], tmp_path: Path):
    """Grams of CO2 would be claimed without a known intensity."""
    folder, _ = stock
    (tmp_path / "second").mkdir()
    results = make_results(tmp_path / "second", carbon=False)
    write_record(folder, results)
    package_model(folder, results, tmp_path / "package")
    assert "co2_eq_emissions" not in (tmp_path / "package/README.md").read_text()


def test_bad_input(stock: tuple[Path, Path], tmp_path: Path):
    """Another model's numbers would be printed on this one, or half a package be left behind."""
    folder, results = stock
    with pytest.raises(BonsaiError, match=r"no file at .*none\.json: make it with `bonsai report`"):
        package_model(folder, tmp_path / "none.json", tmp_path / "package")
    with pytest.raises(BonsaiError, match=r"config\.json was not written by `bonsai report`"):
        package_model(folder, folder / "config.json", tmp_path / "package")
    write_record(folder, results, sha256="f" * 64)
    with pytest.raises(BonsaiError, match=r"no measurement of .* ffffffffffff"):
        package_model(folder, results, tmp_path / "package")
    (folder / "bonsai.json").unlink()
    with pytest.raises(BonsaiError, match=r"bonsai\.json"):
        package_model(folder, results, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_weights_that_broke_off(stock: tuple[Path, Path], tmp_path: Path):
    """A model that does not load would be passed on with checksums that say it is whole."""
    folder, results = stock
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BonsaiError, match=r"model are not those that its bonsai\.json tells of"):
        package_model(folder, results, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_a_configuration_that_is_no_json(stock: tuple[Path, Path], tmp_path: Path):
    """A traceback of the JSON decoder, which names no file."""
    folder, results = stock
    (folder / "config.json").write_text('{"pad_token_id": ')
    with pytest.raises(BonsaiError, match=r"config\.json is not JSON, or is cut off"):
        package_model(folder, results, tmp_path / "package")
