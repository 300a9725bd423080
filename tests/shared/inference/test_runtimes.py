"""A model folder predicts the same whichever runtime runs it, and quantized folders need no torch."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tiny
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data.encoding import encode
from kfp_bonsai.shared.inference.onnx_export import export
from kfp_bonsai.shared.inference.runtimes import load_predictor, onnx_predictor

TEXTS = ["A fine film, the plot was lovely", "dull", "", "café 中 naïve unseen☃", "the cast " * 40]
PAIRS = ["music", "very poor scene " * 30, "it", "", "a"]
LENGTHS = ((1, 2), (1, 30), (3, 9), (8, 64))


def wordpiece(folder):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz,", *tiny.PLAIN[:6]]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    words = list(dict.fromkeys(words))
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(folder)


def byte_bpe(folder):
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator(TEXTS, trainer)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def padding_left(folder):
    made = tiny.tokenizer()
    made.padding_side = made.truncation_side = "left"
    made.save_pretrained(folder)


def padded_to_a_fixed_length(folder):
    made = tiny.tokenizer()
    made(TEXTS, padding="max_length", max_length=40, truncation=True)  # the file keeps what was asked for last
    made.save_pretrained(folder)
    normal = json.loads((folder / "tokenizer.json").read_text())
    assert normal["padding"], "the file must carry a padding for this case to mean anything"


@pytest.mark.parametrize("save", [wordpiece, byte_bpe, padding_left, padded_to_a_fixed_length])
@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["single", "pairs"])
def test_tokens_are_those_of_transformers(tmp_path, save, pairs):
    """Else the edge feeds other tokens than the model was trained on."""
    save(tmp_path)
    found = encode(tmp_path, TEXTS, pairs, max_length=24)
    columns = [TEXTS] if pairs is None else [TEXTS, pairs]
    expected = AutoTokenizer.from_pretrained(tmp_path)(
        *columns, padding=True, truncation=True, max_length=24, return_tensors="np", return_token_type_ids=True
    )
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
    assert found["input_ids"].shape == (5, 24)


def test_the_length_is_the_one_the_model_was_trained_with(tmp_path):
    """Else long rows reach positions that were never trained, or are cut too early."""
    tiny.tokenizer().save_pretrained(tmp_path)
    (tmp_path / "bonsai.json").write_text('{"max_length": 17}')
    assert encode(tmp_path, ["the film " * 50])["input_ids"].shape == (1, 17)
    assert encode(tmp_path, [])["input_ids"].shape == (0, 0)


@pytest.fixture(scope="module")
def int8_like(made, tmp_path_factory):
    """A folder as quantize leaves it, but in full precision so that logits can be compared exactly."""
    folder = tmp_path_factory.mktemp("onnx")
    export(made.baseline, folder / "model.onnx")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((made.baseline / name).read_bytes())
    return folder


def of_runtime(folder, runtime):
    (folder / "bonsai.json").write_text(json.dumps({"runtime": runtime, "max_length": 64, "lineage": []}))
    return folder


def batch(rows, length):
    random = np.random.default_rng(rows * length)
    ids = random.integers(5, 25, (rows, length))
    mask = (np.arange(length) < length - np.arange(rows)[:, None] * length // (2 * rows)).astype(np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids), "unknown": ids}


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_runtimes_agree_with_torch_at_every_size(made, int8_like, runtime):
    """Else the edge serves another model: other inputs, other logits, or one shape only."""
    torch, edge = load_predictor(made.baseline), load_predictor(of_runtime(int8_like, runtime), threads=1)
    assert (torch.runtime, edge.runtime) == ("torch", runtime)
    for rows, length in LENGTHS:
        sent = batch(rows, length)
        expected, found = torch.predict(sent), edge.predict(sent)
        assert found.dtype == expected.dtype == np.float32
        assert found.shape == (rows, 2)
        # OpenVINO computes in bfloat16 where the CPU has it
        np.testing.assert_allclose(found, expected, atol=0.1 if runtime == "openvino" else 1e-4)


def test_answers_are_kept_when_the_next_batch_comes(int8_like):
    """Else OpenVINO's output memory, which it uses again, would change earlier answers."""
    predictor = load_predictor(of_runtime(int8_like, "openvino"))
    first = predictor.predict(batch(2, 9))
    copy = first.copy()
    predictor.predict({name: array[::-1].copy() for name, array in batch(2, 9).items()})
    np.testing.assert_array_equal(first, copy)


def test_missing_token_types_count_as_zeros(int8_like):
    """Else callers of models with one text would have to know which arrays a family wants."""
    predictor = load_predictor(of_runtime(int8_like, "openvino"))
    sent = batch(2, 9)
    np.testing.assert_array_equal(
        predictor.predict(sent), predictor.predict({name: sent[name] for name in ("input_ids", "attention_mask")})
    )


ALONE = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "nncf", "onnx", "pyarrow", "sklearn", "datasets"}:
            raise ImportError(f"{name} is not part of the edge")
sys.meta_path.insert(0, Blocker())
from pathlib import Path
from kfp_bonsai.shared.data.encoding import encode
from kfp_bonsai.shared.inference.runtimes import load_predictor
from kfp_bonsai.shared.saved.weights import size_bytes
folder = Path(sys.argv[1])
print(load_predictor(folder).predict(encode(folder, ["the film was lovely and good", "poor"])).argmax(1).tolist())
"""


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_quantized_folder_runs_without_torch(int8_like, runtime):
    """Else a small CPU device would need gigabytes of libraries that it never uses."""
    found = subprocess.run(
        [sys.executable, "-c", ALONE, of_runtime(int8_like, runtime)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[1, 0]"


def test_bad_folders_are_named(made, int8_like, tmp_path, monkeypatch):
    """Else a user sees a traceback from deep inside a runtime."""
    with pytest.raises(BonsaiError, match=r"bonsai.json: runtime 'tpu' is not one of openvino, onnxruntime"):
        load_predictor(of_runtime(int8_like, "tpu"))
    with pytest.raises(BonsaiError, match="quantized for CPUs and does not run on 'cuda'"):
        load_predictor(of_runtime(int8_like, "openvino"), "cuda")
    with pytest.raises(BonsaiError, match="torch sees no GPU"):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        load_predictor(made.baseline, "cuda")
    with pytest.raises(BonsaiError, match=r"tokenizer.json is missing"):
        encode(tmp_path, ["a"])
    with pytest.raises(BonsaiError, match=r"pip install openvino"):
        monkeypatch.setitem(sys.modules, "openvino", None)
        onnx_predictor(int8_like / "model.onnx", "openvino")


def test_a_missing_padding_token_is_named(tmp_path):
    """Else batches would be padded with a token that means something."""
    tiny.tokenizer().save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": "<nothing>"}))
    with pytest.raises(BonsaiError, match=r"padding token '<nothing>' is not in the vocabulary"):
        encode(tmp_path, ["a"])


def test_a_damaged_onnx_file_is_named(int8_like, tmp_path):
    """Else a truncated copy ends in a traceback."""
    for runtime in ("openvino", "onnxruntime"):
        broken = tmp_path / f"{runtime}.onnx"
        broken.write_bytes((int8_like / "model.onnx").read_bytes()[:2000])
        with pytest.raises(BonsaiError, match="is not a whole ONNX file"):
            onnx_predictor(broken, runtime)
