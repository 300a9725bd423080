"""Quantized models that write: they say what their checkpoint says, whoever asks, and bad input stops at once."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import writers_made
from transformers import GPT2Config, GPT2LMHeadModel

from kfp_bonsai.package_model.card import _usage
from kfp_bonsai.quantize import decoders
from kfp_bonsai.quantize.quantize import quantize
from kfp_bonsai.serve.served import load
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.inference import writers
from kfp_bonsai.shared.inference.decoder_export import export
from kfp_bonsai.shared.inference.runtimes import load_predictor, runtime_of
from kfp_bonsai.shared.saved import checkpoint
from kfp_bonsai.shared.saved.records import read_record, task_of


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A Llama that learnt to write, and what quantize made of it."""
    folder = tmp_path_factory.mktemp("llama")
    base, _, validation = writers_made.tuned(folder, "llama", count=320, epochs=4)
    told = quantize(base, folder / "train.parquet", folder / "int8", calibration_rows=24)
    texts = tasks.read_columns(validation)["text"]
    return SimpleNamespace(
        folder=folder, base=base, train=folder / "train.parquet", int8=folder / "int8", told=told, texts=texts
    )


def test_it_writes_what_its_checkpoint_writes_and_says_how_well(made):
    """A small model that is fast and wrong, or figures of another one."""
    task = task_of(read_record(made.int8))
    ours, theirs = (writers.load_writer(one) for one in (made.int8, made.base))
    batch = writers.prompt_batch(made.int8, made.texts, task)
    same = [
        one == other
        for one, other in zip(ours.texts(ours.write(batch)), theirs.texts(theirs.write(batch)), strict=True)
    ]
    assert np.mean(same) > 0.9 and len(set(ours.texts(ours.write(batch)))) > 3
    answers = [np.array([7, ours.end])] * len(made.texts)
    assert np.abs(ours.likelihoods(batch, answers) - theirs.likelihoods(batch, answers)).max() < 0.5
    assert {len(one) for one in ours.write(batch, 6).tokens} == {6}
    assert max(len(one) for one in ours.write(batch, fewer=1).tokens) == 1
    told, record = made.told, read_record(made.int8)
    assert told["runtime"] == runtime_of(made.int8) == ours.runtime == "openvino"
    assert told["next_tokens"] > 0.9 and told["agreement"] > 0.9 and told["agreement_rows"] == 24
    assert told["token_ratio_1"] > 0 and told["cpu_ms_token_8"] > 0 and told["export_difference"] < 1e-4
    assert record["quantization"].items() >= told.items() and record["lineage"][-1]["arguments"]["weight_bits"] == 8
    assert not (made.int8 / "work").exists() and not list(made.int8.glob("*.safetensors"))


def test_four_bits_are_fewer_bytes(made):
    """An option that changes nothing."""
    told = quantize(made.base, made.train, made.folder / "int4", calibration_rows=8, weight_bits=4)
    sizes = [(one / "openvino_model.bin").stat().st_size for one in (made.folder / "int4", made.int8)]
    assert sizes[0] < sizes[1] and told["weight_bits"] == 4
    task = task_of(read_record(made.int8))
    assert writers.load_writer(made.folder / "int4").write(writers.prompt_batch(made.int8, made.texts[:2], task))


def shown_code_writes(folder, text):
    """Return what the code on a quantized model's card writes, where neither torch nor we are."""
    record = read_record(folder)
    shown = _usage(record, record["task"], {"stage": "quantized", "runtime": "openvino"})
    code = shown.partition("```python\n")[2].removesuffix("```").replace("a fine film", text)
    blocked = "import sys\nsys.modules |= dict.fromkeys(['torch', 'transformers', 'kfp_bonsai'])\n"
    command = [sys.executable, "-c", blocked + code]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


def test_the_documented_snippet_writes_the_same_without_torch_and_without_us(made):
    """A card whose code does not run, or that answers otherwise than the model that was measured."""
    writer = writers.load_writer(made.int8)
    batch = writers.prompt_batch(made.int8, made.texts[:1], task_of(read_record(made.int8)))
    assert shown_code_writes(made.int8, made.texts[0]) == writer.texts(writer.write(batch))[0]


def changed(made, tmp_path, **settings):
    """A copy of the checkpoint that says something else of how it writes."""
    folder = tmp_path / "changed"
    shutil.copytree(made.base, folder)
    file = folder / "generation_config.json"
    found = {**json.loads(file.read_text()), **settings}
    file.write_text(json.dumps({name: value for name, value in found.items() if value is not None}))
    return folder


BAD = {
    "no end": ({"eos_token_id": None}, {}, "names no token that ends an answer"),
    "no length": ({"max_new_tokens": None}, {}, "how long answers may be"),
    "length of no token": ({"max_new_tokens": 0}, {}, "set it to 1 to 1,048,576 tokens"),
    "length of true": ({"max_new_tokens": True}, {}, "set it to 1 to 1,048,576 tokens"),
    "length below none": ({"max_new_tokens": -1}, {}, "set it to 1 to 1,048,576 tokens"),
    "end of true": ({"eos_token_id": True}, {}, "names no token that ends an answer"),
    "drawn": ({"do_sample": True}, {}, "sets do_sample to True, and a quantized model writes greedily"),
    "beams": ({"num_beams": 4}, {}, "sets num_beams to 4"),
    "penalty": ({"repetition_penalty": 1.3}, {}, "sets repetition_penalty to 1.3"),
    "suppressed": ({"suppress_tokens": [5]}, {}, r"sets suppress_tokens to \[5\]"),
    "other runtime": ({}, {"runtime": "onnxruntime"}, "models that write run on openvino"),
    "any processor": ({}, {"any_processor": True}, "a model that writes has no such form yet"),
    "odd bits": ({}, {"weight_bits": 5}, "--weight-bits"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_would_be_written_otherwise_is_refused(made, tmp_path, case):
    """Minutes of work for a model that never stops, or that answers otherwise than the one that was measured."""
    settings, options, message = BAD[case]
    with pytest.raises(BonsaiError, match=message):
        quantize(changed(made, tmp_path, **settings), made.train, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_an_encoder_decoder_writes_what_its_checkpoint_writes(tmp_path):
    """A T5 whose encoder stays behind on its way to a device, or that a server or its card asks otherwise."""
    base, _, validation = writers_made.tuned(tmp_path, "t5", count=160, epochs=2)
    told = quantize(base, tmp_path / "train.parquet", tmp_path / "int8", calibration_rows=8)
    assert told["next_tokens"] > 0.9 and told["agreement"] > 0.9
    record, texts = read_record(tmp_path / "int8"), tasks.read_columns(validation)["text"]
    batch = writers.prompt_batch(tmp_path / "int8", texts, task_of(record))
    ours, theirs = (writers.load_writer(one) for one in (tmp_path / "int8", base))
    said = ours.texts(ours.write(batch))
    assert np.mean([one == other for one, other in zip(said, theirs.texts(theirs.write(batch)), strict=True)]) > 0.9
    served = load(tmp_path / "int8", threads=1)
    assert [one["answer"] for one in served.tell(texts)] == said
    assert shown_code_writes(tmp_path / "int8", texts[0]) == said[0]
    (tmp_path / "int8" / "openvino_encoder_model.xml").unlink()
    with pytest.raises(BonsaiError, match="changed or damaged"):
        writers.load_writer(tmp_path / "int8")


def test_a_model_of_few_positions_is_proven_and_timed_within_them(tmp_path):
    """A traceback of an index out of range where short texts are all that a model reads."""
    config = GPT2Config(vocab_size=40, n_positions=9, n_embd=16, n_layer=1, n_head=2, bos_token_id=2, eos_token_id=3)
    network = GPT2LMHeadModel(config).eval()
    assert export(network, tmp_path / "model.xml") < 1e-5
    writer = writers.torch_writer(network, SimpleNamespace(pad_token_id=0))
    assert decoders._times(writer, tmp_path / "model.xml", 9, 40)["cpu_ms_token_8"] > 0


def test_a_quantized_writer_is_taken_for_nothing_else(made, tmp_path):
    """A traceback of a stage that trains, classifies or quantizes again."""
    with pytest.raises(BonsaiError, match="is quantized already"):
        quantize(made.int8, made.train, tmp_path / "out")
    with pytest.raises(BonsaiError, match="load it with load_writer"):
        load_predictor(made.int8)
    with pytest.raises(BonsaiError, match="is quantized, to be served on CPUs, and can be neither trained nor cut"):
        checkpoint.load(made.int8)
    with pytest.raises(BonsaiError, match="use --device cpu"):
        writers.load_writer(made.int8, "cuda")


@pytest.mark.parametrize("part", ["openvino_model.bin", "openvino_model.xml"])
def test_damaged_parts_are_told(made, tmp_path, part):
    """Answers by weights that were cut off on their way."""
    shutil.copytree(made.int8, tmp_path / "copy")
    file = tmp_path / "copy" / part
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BonsaiError, match="changed or damaged"):
        writers.load_writer(tmp_path / "copy")


def test_a_full_context_is_told_before_anything_is_written(made):
    """Tokens at positions that the model does not have."""
    writer = writers.load_writer(made.int8)
    ids = np.full((1, 62), 7)
    with pytest.raises(BonsaiError, match="a text of 62 tokens leaves no room for an answer of 3: the model takes 64"):
        writer.write({"input_ids": ids, "attention_mask": np.ones_like(ids)}, 3)
    assert len(writer.write({"input_ids": ids, "attention_mask": np.ones_like(ids)}, 2).tokens[0]) == 2


def test_a_split_of_another_kind_is_refused(made, tmp_path):
    """A model that writes, calibrated as a classifier."""
    import tiny

    with pytest.raises(BonsaiError, match=r"is of the kind classification, but the model was trained for generation"):
        quantize(made.base, tiny.split(Path(tmp_path), "train", 16, 0), tmp_path / "out")
