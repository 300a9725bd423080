"""The int8 model predicts what its checkpoint predicts, says so, and bad input stops before anything is written."""

import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from importlib import util
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from transformers import AutoModelForSequenceClassification

from kfp_bonsai.quantize import quantize as stage
from kfp_bonsai.quantize import timing
from kfp_bonsai.quantize.quantize import quantize
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.data.encoding import encode
from kfp_bonsai.shared.inference import processor
from kfp_bonsai.shared.inference.onnx_export import export
from kfp_bonsai.shared.inference.runtimes import Predictor, load_predictor, onnx_predictor
from kfp_bonsai.shared.models.flops import Flops
from kfp_bonsai.shared.saved import checkpoint, records, weights

README = Path(stage.__file__).with_name("README.md")


@pytest.fixture(scope="module")
def auto(made, tmp_path_factory):
    """The baseline quantized with the runtime left open: the folder, and what the stage returned."""
    folder = tmp_path_factory.mktemp("quantized") / "int8"
    return folder, quantize(made.baseline, made.train, folder, calibration_rows=64)


def classes(folder, split):
    batch = encode(folder, tasks.read_columns(split)["text"])
    return load_predictor(folder).predict(batch).argmax(axis=1)


def test_int8_predicts_what_the_checkpoint_predicts(made, auto):
    """Else the small model is fast and wrong."""
    folder, result = auto
    assert (classes(folder, made.test) == classes(made.baseline, made.test)).mean() >= 0.98
    assert result["agreement"] >= 0.98
    assert (result["calibration_rows"], result["agreement_rows"]) == (64, 128)
    assert result["export_difference"] < 1e-3
    assert result["runtime"] in ("openvino", "onnxruntime")
    assert all(value is not None and isinstance(value, str | int | float) for value in result.values())


@pytest.mark.parametrize(("long", "most"), [(128, 16), (4, 4), (1, 2)])
def test_long_rows_are_read_a_few_at_a_time(made, monkeypatch, long, most):
    """Else sixteen rows of 512 tokens, with what every layer gives for them, take gigabytes; or a row is lost."""
    monkeypatch.setattr(stage, "LONG", long)
    texts = [("good film " * 6,)] * 18 + [("bad",)] * 2
    shapes = [one.batch["input_ids"].shape for one in stage._batches(made.baseline, texts, tasks.read_task(made.train))]
    assert sum(rows for rows, _ in shapes) == 20 and max(shapes)[0] == most
    assert all(rows == 1 or rows * width <= 16 * long for rows, width in shapes)


@pytest.mark.parametrize(("runtime", "scheme"), [("openvino", "static"), ("onnxruntime", None)])
def test_the_runtime_asked_for_is_used(made, tmp_path, runtime, scheme, capsys):
    """Else a device without OpenVINO would get a folder that it cannot run."""
    result = quantize(made.baseline, made.train, tmp_path / "int8", runtime=runtime, calibration_rows=32)
    assert result["runtime"] == load_predictor(tmp_path / "int8").runtime == runtime
    assert scheme in (None, result["scheme"])
    printed = capsys.readouterr().out
    assert f"{runtime} int8" in printed
    other = {"openvino": "onnxruntime", "onnxruntime": "openvino"}[runtime]
    assert f"{other} int8" not in printed


def test_weights_beside_the_onnx_file_are_found(made, tmp_path):
    """fp32 weights of over 2 GiB, which ONNX keeps in a second file: hours of training, and no int8 model."""
    batch = dict(encode(made.baseline, ["a fine film", "the film"]))
    export(made.baseline, tmp_path / "whole.onnx")
    apart = tmp_path / "apart" / "fp32.onnx"
    apart.parent.mkdir()
    graph = onnx.load(tmp_path / "whole.onnx")
    batch = {one.name: batch[one.name] for one in graph.graph.input}
    onnx.save_model(graph, apart, save_as_external_data=True, location="weights", size_threshold=256)
    assert (apart.parent / "weights").stat().st_size > apart.stat().st_size
    for source, target in ((tmp_path / "whole.onnx", "one.onnx"), (apart, "two.onnx")):
        stage.schemes.static(source, tmp_path / target, [batch] * 4)
    found = [onnx_predictor(tmp_path / name, "onnxruntime").predict(batch) for name in ("one.onnx", "two.onnx")]
    assert np.array_equal(*found)


def test_a_model_too_large_for_one_file_is_refused(made, tmp_path, monkeypatch):
    """Minutes of export and calibration, and then a file that cannot be written."""
    monkeypatch.setattr("kfp_bonsai.shared.inference.int8_form.MOST_PARAMETERS", 1000)
    with pytest.raises(BonsaiError, match="parameters, and one ONNX file holds 1,000"):
        quantize(made.baseline, made.train, tmp_path / "int8")


def test_weights_and_embeddings_are_8_bits(auto):
    """Else the file would not be a quarter of the size: no matrix may stay in full precision."""
    folder, _ = auto
    large = [one for one in onnx.load(folder / "model.onnx").graph.initializer if np.prod(one.dims) >= 28 * 32]
    assert len(large) >= 1 + 3 * 6  # word embeddings; query, key, value, output and two of the FFN in each layer
    assert {onnx.TensorProto.DataType.Name(one.data_type) for one in large} <= {"INT8", "UINT8"}


@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_weights_of_seven_bits_fit_where_a_processor_has_no_vnni(made, tmp_path, scheme):
    """Sums of two products that do not fit into 16 bits: other answers than were measured, without a word."""
    export(made.baseline, tmp_path / "fp32.onnx")
    batch = dict(encode(made.baseline, ["a fine film", "the film"]))
    inputs = {one.name: batch[one.name] for one in onnx.load(tmp_path / "fp32.onnx").graph.input}
    for fitting in (False, True):
        more = [[inputs] * 4] if scheme == "static" else []
        getattr(stage.schemes, scheme)(tmp_path / "fp32.onnx", tmp_path / "int8.onnx", *more, fitting)
        graph = onnx.load(tmp_path / "int8.onnx").graph
        looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}  # not summed
        looked_up |= {node.input[0] for node in graph.node if node.output[0] in looked_up}
        arrays = [onnx.numpy_helper.to_array(one) for one in graph.initializer if one.name not in looked_up]
        matrices = [one for one in arrays if one.dtype == np.int8 and one.ndim == 2 and 32 in one.shape]
        largest = [int(np.abs(one.astype(int)).max()) for one in matrices]
        assert len(largest) >= 18 and (max(largest) <= 64 if fitting else min(largest) > 64), largest


def test_the_stage_asks_for_what_fits_where_it_must_or_is_told_to(made, tmp_path, monkeypatch):
    """A low agreement on a processor without VNNI that could have been high, or a fleet with models that differ."""
    asked = []
    dynamic = stage.schemes.dynamic
    monkeypatch.setattr(stage, "CANDIDATES", {"onnxruntime": (("onnxruntime", "dynamic"),)})
    monkeypatch.setattr(stage.schemes, "dynamic", lambda a, b, fitting: asked.append(fitting) or dynamic(a, b, fitting))
    for exact, any_processor in ((True, False), (True, True), (False, False), (None, False)):
        monkeypatch.setattr(stage.processor, "sums_exactly", lambda exact=exact: exact)
        out = tmp_path / f"{exact}{any_processor}"
        options = {"runtime": "onnxruntime", "calibration_rows": 8, "any_processor": any_processor}
        found = quantize(made.baseline, made.train, out, **options)
        assert found["weight_bits"] == records.read_record(out)["quantization"]["processor"]["weight_bits"]
        assert found["weight_bits"] == (7 if asked[-1] else 8)
    assert asked == [False, True, True, True]


def test_the_record_says_how_it_was_made(made, auto):
    """Else nobody can tell which model was quantized, what that cost, and what runs it."""
    folder, result = auto
    record, parent = records.read_record(folder), records.read_record(made.baseline)
    assert record["stage"] == record["lineage"][-1]["stage"] == "quantize"
    assert record["parent"] == {"sha256": parent["sha256"], "stage": parent["stage"]}
    assert record["sha256"] == record["lineage"][-1]["sha256"] == weights.weights_sha256(folder)
    kept = ("level", "parameters", "max_length", "shape")
    assert [record[key] for key in kept] == [parent[key] for key in kept]
    whole, left = (Flops.from_record(each).at(12) for each in (parent, record))
    assert 0.7 * whole < left < 0.9 * whole, "of the last of three layers, most tokens are left out"
    assert record["lineage"][-1]["joules"] > 0
    seen = record["quantization"].pop("processor")
    assert record["quantization"] == result
    assert (
        seen == processor.as_record(result["weight_bits"]) and seen["instruction_sets"] == processor.instruction_sets()
    )
    assert record["validation"] == {}, "the parent's accuracy is not this model's"
    assert sorted(one.name for one in folder.iterdir()) == [
        "bonsai.json",
        "config.json",
        "model.onnx",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_the_documented_snippet_runs_without_torch_and_without_us(auto, tmp_path):
    """Else a user who copies it from the README onto a small device gets an error."""
    folder, _ = auto
    snippet = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1)
    blocked = {"torch", "transformers", "kfp_bonsai", "nncf", "onnx", "onnxruntime", "pyarrow"}
    code = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
{snippet}"""
    (tmp_path / "int8").symlink_to(folder)
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    expected = load_predictor(folder).predict(encode(folder, ["a fine film", "a dull one"])).argmax(axis=1)
    assert found.stdout.strip() == str(expected)


def written(path, task, columns):
    pq.write_table(pa.table(columns).cast(tasks.schema(task)), path)
    return path


def test_regression_on_pairs_is_compared_by_correlation(made, tmp_path):
    """Else a model with one output would always "agree", and pairs would be encoded as single texts."""
    texts = [text for text, _ in tiny.texts(60, 5)]
    task = tasks.Task("pairs", "regression", ("text_a", "text_b"), (), "pearson", "made", "train", 60, "x")
    values = {"text_a": texts, "text_b": texts[::-1], "label": [float(row) for row in range(60)]}
    split = written(tmp_path / "train.parquet", task, values)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        made.pretrained, num_labels=1, ignore_mismatched_sizes=True
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    record = {**records.read_record(made.baseline), "task": asdict(task)}
    checkpoint.save(model, tiny.tokenizer(), tmp_path / "model", record)
    result = quantize(tmp_path / "model", split, tmp_path / "int8", runtime="openvino")
    assert result["agreement_kind"] == "correlation"
    assert 0.9 < result["agreement"] < 1
    assert (result["calibration_rows"], result["agreement_rows"]) == (30, 30)


def test_low_agreement_is_said_with_what_to_try(made, tmp_path, capsys, monkeypatch):
    """Else a broken quantization is deployed in silence."""
    monkeypatch.setattr(stage, "FAITHFUL", 1.01)
    quantize(made.baseline, made.train, tmp_path / "int8", runtime="openvino", calibration_rows=8)
    printed = capsys.readouterr().out
    assert "WARNING: agreement" in printed
    assert "--runtime onnxruntime" in printed


def chosen(times, agreements):
    """Return which of these files is chosen, and which of them were run to see how well they agree."""
    candidates = [stage.Candidate(name, "static", Path(name), busy(1)) for name in agreements]
    asked = []

    def agreement(one):
        asked.append(one.runtime)
        return agreements[one.runtime], "equal classes"

    found, value = stage._choose(candidates, {f"{name} int8 static": row for name, row in times.items()}, agreement)
    assert value[0] == agreements[found.runtime]
    return found.runtime, asked


def busy(amount):
    return Predictor("made", ("input_ids",), lambda batch: sum(range(amount)))


TIMES = {
    "fast": {"1x32": 1.0, "32x128": 10.0},
    "good": {"1x32": 2.0, "32x128": 15.0},
    "slow": {"1x32": 1.9, "32x128": 90.0},
}


def test_the_cheapest_of_the_faithful_is_chosen():
    """Else a runtime that gives other answers could win by its speed."""
    assert chosen(TIMES, {"fast": 0.8, "good": 0.99, "slow": 0.999}) == ("good", ["fast", "good"])
    assert chosen(TIMES, {"slow": 0.99, "fast": 0.98}) == ("fast", ["fast"])
    assert chosen(TIMES, {"fast": 0.8}) == ("fast", ["fast"])


def test_where_none_is_faithful_the_closest_is_chosen():
    """Else a file that answers at random is served because it does so fast."""
    assert chosen(TIMES, {"fast": 0.6, "slow": 0.96, "good": 0.9})[0] == "slow"


def test_one_that_fell_behind_is_not_chosen_for_the_shapes_it_was_spared():
    """The slowest runtime: it was timed at the short texts alone, whose times are the smallest."""
    times = {"fast": {"1x32": 2.0, "32x128": 50.0}, "spared": {"1x32": 9.0}}
    assert chosen(times, {"spared": 1.0, "fast": 0.98})[0] == "fast"
    assert chosen(times, {"spared": 1.0, "fast": 0.9})[0] == "spared"


def test_what_is_clearly_behind_is_not_timed_at_the_long_texts(capsys):
    """A minute of timing for a runtime that cannot win, for each model of a run."""
    predictors = {"fp32": busy(2_000), "a": busy(20_000), "b": busy(24_000), "slow": busy(80_000)}
    times = timing.compare(predictors, 64, 25, reference="fp32")
    whole = ["1x32", "1x64", "32x32", "32x64"]
    assert [list(times[name]) for name in predictors] == [whole, whole, whole, ["1x32"]]
    assert timing.ranked(times) == ["fp32", "a", "b", "slow"]
    timing.table(times)
    assert [len(line.split()) for line in capsys.readouterr().out.splitlines()[1:]] == [4, 5, 5, 5, 2]


def test_timing_tells_more_work_from_less():
    """Else `auto` would choose by chance."""
    times = timing.compare({"large": busy(200_000), "small": busy(20_000)}, 64, 25)
    assert timing.ranked(times) == ["small", "large"]
    assert 3 < times["large"]["1x32"] / times["small"]["1x32"] < 30
    assert timing.shapes(16) == [(1, 16), (32, 16)]


def test_rows_are_chosen_by_the_seed_and_held_out_rows_are_others(made):
    """Else the check would reward ranges fitted to the rows it checks, or differ from run to run."""
    task = tasks.read_task(made.train)
    first = stage._sample(made.train, task, 128, seed=1)
    assert first == stage._sample(made.train, task, 128, seed=1) != stage._sample(made.train, task, 128, seed=2)
    everything = stage._sample(made.train, task, 10_000, seed=1)
    assert sorted(text for (text,) in everything) == sorted(tasks.read_columns(made.train)["text"])


def empty_split(made, folder):
    task = replace(tasks.read_task(made.train), rows=0)
    return {"calibration": written(folder / "empty.parquet", task, {"text": [], "label": []})}


def pairs_split(made, folder):
    task = replace(tasks.read_task(made.train), columns=("text_a", "text_b"), rows=2)
    return {
        "calibration": written(
            folder / "p.parquet", task, {"text_a": ["a", "b"], "text_b": ["a", "b"], "label": [0, 1]}
        )
    }


def no_tokenizer(made, folder):
    for name in ("config.json", "model.safetensors", "bonsai.json"):
        (folder / name).write_bytes((made.baseline / name).read_bytes())
    return {"model": folder}


BAD = {
    "runtime": (
        lambda made, folder: {"runtime": "openvin"},
        r"--runtime 'openvin' is unknown .*did you mean 'openvino'",
    ),
    "rows": (lambda made, folder: {"calibration_rows": 3}, r"--calibration-rows 3: give 8 or more"),
    "empty": (empty_split, r"empty.parquet has 0 rows"),
    "columns": (pairs_split, r"columns text_a, text_b, but the model was trained on text"),
    "test split": (lambda made, folder: {"calibration": made.test}, r"is the test split, which must stay unseen"),
    "no model": (lambda made, folder: {"model": folder / "nothing"}, r"no model folder at .*nothing"),
    "no tokenizer": (no_tokenizer, r"has no tokenizer: save"),
    "no split": (lambda made, folder: {"calibration": folder / "none.parquet"}, r"no data set at .*none.parquet"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_before_anything_is_written(made, tmp_path, case):
    """Else a user waits half a minute for a traceback."""
    change, message = BAD[case]
    (tmp_path / "in").mkdir()
    given = {"model": made.baseline, "calibration": made.train, "output": tmp_path / "out"}
    with pytest.raises(BonsaiError, match=message):
        quantize(**{**given, **change(made, tmp_path / "in")})
    assert sorted(one.name for one in tmp_path.iterdir()) == ["in"]


def test_a_runtime_that_does_not_run_here_is_left_out(made, tmp_path, monkeypatch, capsys):
    """Hours of training end without an int8 model for a runtime that another one would have replaced."""
    load = stage.onnx_predictor

    def refusing(file, runtime, **options):
        if runtime == "openvino":
            raise BonsaiError("openvino does not run here")
        return load(file, runtime, **options)

    monkeypatch.setattr(stage, "onnx_predictor", refusing)
    found = stage.quantize(made.baseline, made.train, tmp_path / "int8", calibration_rows=16)
    assert found["runtime"] == "onnxruntime" and "openvino does not run here; it is left out" in capsys.readouterr().out
    with pytest.raises(BonsaiError, match="openvino does not run here"):
        stage.quantize(made.baseline, made.train, tmp_path / "other", calibration_rows=16, runtime="openvino")


def test_a_quantized_folder_is_not_quantized_again(made, auto, tmp_path):
    """Else int8 of int8 would be made from a checkpoint that is not there."""
    with pytest.raises(BonsaiError, match="is quantized already: give the checkpoint it was made from"):
        quantize(auto[0], made.train, tmp_path / "out")


def test_missing_packages_are_named_with_the_extra(made, tmp_path, monkeypatch):
    """Else a user of the core package gets an ImportError after the export."""
    monkeypatch.setattr(stage, "find_spec", lambda name: None if name == "nncf" else util.find_spec(name))
    with pytest.raises(BonsaiError, match=r"quantize needs nncf: pip install 'kfp-bonsai\[cpu\]'"):
        quantize(made.baseline, made.train, tmp_path / "out")


def test_a_failure_leaves_nothing_behind(made, tmp_path, monkeypatch):
    """Else the next run finds half a model."""

    def full(*arguments):
        raise RuntimeError("as if NNCF failed")

    monkeypatch.setattr(stage.schemes, "static", full)
    with pytest.raises(RuntimeError):
        quantize(made.baseline, made.train, tmp_path / "out", runtime="openvino")
    assert list(tmp_path.iterdir()) == []


def test_the_record_is_json_a_program_can_read(auto):
    """Else NaN or numpy values would break the report."""
    json.loads((auto[0] / "bonsai.json").read_text(), parse_constant=lambda text: pytest.fail(text))
