"""Every family goes through every stage that touches its weights, from a pretrained folder to an int8 file."""

import numpy as np
import pytest
import tiny
import torch

from kfp_bonsai.distill.distill import distill
from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.quantize.quantize import quantize
from kfp_bonsai.shared.data.encoding import encode
from kfp_bonsai.shared.inference.runtimes import load_predictor
from kfp_bonsai.shared.models.families import FAMILIES
from kfp_bonsai.shared.saved.checkpoint import load
from kfp_bonsai.shared.saved.records import read_record
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

TEXTS = ["the film was good and great", "dull plot", "it is a very very lovely scene and the music was fine"]


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("bert", "mistral", "qwen2")])
def test_a_family_learns_shrinks_and_runs_quantized(made, family, tmp_path):
    """Else a family passes the contract of surgery but breaks in a stage: its tokenizer, its training or its export."""
    model = tiny.pretrained(tmp_path / "pretrained", family=family)
    rate = 1e-3 if family == "t5" else 3e-3
    tuned = fine_tune(
        str(model), made.train, made.validation, tmp_path / "base", epochs=6, learning_rate=rate, batch_size=16
    )
    assert tuned["accuracy"] > 0.8
    teacher_outputs(tmp_path / "base", made.train, made.unlabelled, tmp_path / "transfer", augmentations=1)
    layer_remove(tmp_path / "base", made.validation, tmp_path / "short", keep="2/3")
    for shape in ("free", "stock"):
        pruned = matrix_prune(
            tmp_path / "short",
            tmp_path / "transfer",
            tmp_path / shape,
            flops=0.45,
            shape=shape,
            steps=20,
        )
        assert 0.25 < pruned["flops_ratio"] <= 0.46  # told at the longest text, met at the mean length
        assert read_record(tmp_path / shape)["shape"]["kind"] == shape
    learnt = distill(tmp_path / "free", tmp_path / "transfer", made.validation, tmp_path / "small", epochs=4)
    assert learnt["accuracy"] > 0.7
    quantize(tmp_path / "small", made.train, tmp_path / "int8", calibration_rows=32)
    batch = encode(tmp_path / "int8", TEXTS)
    whole, small = load_predictor(tmp_path / "small").predict(batch), load_predictor(tmp_path / "int8").predict(batch)
    assert (whole.argmax(1) == small.argmax(1)).all()


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt"])
def test_decoders_classify_by_the_last_real_token(made, family, tmp_path):
    """Else padding decides, as with a tokenizer that has no padding token or pads on the left."""
    model = tiny.pretrained(tmp_path / "pretrained", family=family)
    fine_tune(str(model), made.train, made.validation, tmp_path / "base", epochs=1, learning_rate=3e-3)
    network, tokenizer = load(tmp_path / "base")
    assert tokenizer.pad_token_id == network.config.pad_token_id
    predictor = load_predictor(tmp_path / "base")
    together = predictor.predict(encode(tmp_path / "base", TEXTS))
    alone = np.concatenate([predictor.predict(encode(tmp_path / "base", [text])) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_text_without_tokens_is_answered_too(made, tmp_path):
    """Else one empty text, where the tokenizer marks no beginning, breaks its batch or gives NaN."""
    from kfp_bonsai.shared.data import rows

    model = tiny.pretrained(tmp_path / "pretrained", family="gpt2")
    fine_tune(str(model), made.train, made.validation, tmp_path / "base", epochs=0.1)
    _, tokenizer = load(tmp_path / "base")
    here = rows.tokenize(tokenizer, [["", "good film"]], 8).inputs["input_ids"]
    there = encode(tmp_path / "base", ["", "good film"])
    assert here[0].tolist() == [tokenizer.pad_token_id] == there["input_ids"][0, :1].tolist()
    assert there["attention_mask"].tolist() == [[1, 0], [1, 1]]
    predictor = load_predictor(tmp_path / "base")
    together, alone = predictor.predict(there), predictor.predict(encode(tmp_path / "base", [""]))
    np.testing.assert_allclose(together[:1], alone, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "gpt2"])  # which mark a text's ends, or do not
def test_a_tokenizer_of_another_language_is_refused(made, tmp_path, family):
    """Else hours of training on unknown tokens end at chance, without a word."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from kfp_bonsai.shared.core.errors import BonsaiError

    table = pq.read_table(made.train)
    words = pa.array(["πολύ κακό βιβλίο"] * table.num_rows)
    pq.write_table(table.set_column(0, table.schema.field("text"), words), tmp_path / "greek.parquet")
    model = tiny.pretrained(tmp_path / "pretrained", family=family)
    with pytest.raises(BonsaiError, match="knows nothing of 320 of 320 texts"):
        fine_tune(str(model), tmp_path / "greek.parquet", made.validation, tmp_path / "base")


def test_t5_writes_the_label_it_classifies_as(made, tmp_path):
    """Else the model that was trained to write its answer only scores it, and generate() is broken."""
    from transformers import AutoModelForSeq2SeqLM

    model = tiny.pretrained(tmp_path / "pretrained", family="t5")
    fine_tune(str(model), made.train, made.validation, tmp_path / "base", epochs=6, learning_rate=1e-3, batch_size=16)
    network, tokenizer = load(tmp_path / "base")
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        classes = network(**inputs).logits.argmax(1)
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "base")
    assert type(plain).__module__.startswith("transformers.")
    written = tokenizer.batch_decode(plain.generate(**inputs), skip_special_tokens=True)
    assert written == [("bad", "good")[one] for one in classes]


def test_a_packed_t5_says_how_it_writes(made, tmp_path):
    """Else its card shows a classifier that the folder is not."""
    from kfp_bonsai.package_model.card import _usage

    record = {"model_type": "bonsai-t5", "max_length": 8, "shape": {"kind": "free"}, "lineage": []}
    shown = _usage(record, {"columns": ["text"]}, {"stage": "compressed"})
    assert "AutoModelForSeq2SeqLM" in shown and "generate" in shown and "import kfp_bonsai" in shown


@pytest.mark.parametrize("family", ["gpt2", "t5", "bert"])
def test_pairs_are_told_apart_by_every_tokenizer(made, family, tmp_path):
    """Else a tokenizer without separators makes one text of two, here or where the model is served."""
    from transformers import AutoConfig

    from kfp_bonsai.shared.models.tokens import separate, settle

    folder = tiny.pretrained(tmp_path / "model", family=family)
    tokenizer, config = tiny.tokenizer(family), AutoConfig.from_pretrained(folder)
    settle(tokenizer, config)
    separate(tokenizer, config)
    tokenizer.save_pretrained(folder)
    there = encode(folder, ["good film"], ["bad plot"], 16)["input_ids"][0].tolist()
    here = tokenizer("good film", "bad plot")["input_ids"]
    assert here == there
    one, two = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("good film", "bad plot"))
    assert here[here.index(one[-1]) + 1] == tokenizer.convert_tokens_to_ids("[SEP]")
    assert [token for token in here if token > 4] == one + two


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_a_token_that_was_added_gets_an_embedding(made, family, tmp_path):
    """Else the usual way to give GPT-2 a padding token ends in an index error, or in a refusal."""
    model = tiny.pretrained(tmp_path / "pretrained", family=family)
    tokenizer = tiny.tokenizer(family)
    tokenizer.add_special_tokens({"pad_token": "<added>"})
    tokenizer.save_pretrained(model)
    fine_tune(str(model), made.train, made.validation, tmp_path / "base", epochs=0.1)
    network, saved = load(tmp_path / "base")
    assert saved.pad_token == "<added>" and network.config.pad_token_id == len(saved) - 1
    assert network.get_input_embeddings().weight.shape[0] == network.config.vocab_size == len(saved)
    layer_remove(tmp_path / "base", made.validation, tmp_path / "short", keep="2/3")
    load_predictor(tmp_path / "short").predict(encode(tmp_path / "short", TEXTS))


def test_another_models_tokenizer_is_refused(made, tmp_path):
    """Else its tokens index embeddings that are not there."""
    from transformers import AutoConfig

    from kfp_bonsai.shared.core.errors import BonsaiError
    from kfp_bonsai.shared.models.tokens import settle

    config = AutoConfig.from_pretrained(tiny.pretrained(tmp_path / "model"))
    config.vocab_size = 10
    with pytest.raises(BonsaiError, match="as token 24, and the model 10 embeddings"):
        settle(tiny.tokenizer(), config)
