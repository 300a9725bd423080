"""A ready-made model in the place of the baseline's layers: its head, its tokens, and what it is taught."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from kinds_made import splits
from rivals import WORDS, letters, ready
from transformers import AutoTokenizer

from kfp_bonsai.distill.distill import distill
from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.saved.checkpoint import load
from kfp_bonsai.shared.saved.records import read_record, write_record
from kfp_bonsai.shared.training import students, transfer
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs


def opened(folder, transferred):
    """Return a transfer set as the model in a folder reads it."""
    network, tokenizer = load(folder)
    return students.open_for(transferred, folder, network.config, tokenizer, read_record(folder))


def test_it_says_what_it_is_and_learns_from_a_teacher_with_its_tokens(made, tmp_path):
    """A table that calls it a compressed baseline, or a student that is taught less than it could learn."""
    model = ready(tmp_path / "small-model")
    found = layer_remove(made.baseline, made.validation, tmp_path / "taken", keep="1/3", student=str(model), seed=3)
    assert (found["layers"], found["layers_before"]) == ("0", 1)
    record, base = read_record(tmp_path / "taken"), read_record(made.baseline)
    assert record["student"] == str(model) and record["level"] == "small-model"
    assert record["max_length"] == base["max_length"] and record["task"] == base["task"]
    stages = [entry["stage"] for entry in record["lineage"]]
    assert stages == ["fine-tune", "layer-remove"] and record["lineage"][1]["arguments"]["student"] == str(model)
    data, plain = opened(tmp_path / "taken", made.transfer), transfer.open_set(made.transfer)
    assert data.hidden is None and data[5]["input_ids"].tolist() == plain[5]["input_ids"].tolist()
    learnt = distill(
        tmp_path / "taken", made.transfer, made.validation, tmp_path / "done", epochs=6, learning_rate=3e-3
    )
    assert learnt["accuracy"] > 0.85
    assert read_record(tmp_path / "done")["student"] == str(model)


def test_features_of_another_model_are_not_taught(made, tmp_path):
    """A small rival spends all it has on hidden states that are not its own, and looks worse than it is."""
    layer_remove(made.baseline, made.validation, tmp_path / "own", keep="1/3")
    layer_remove(made.baseline, made.validation, tmp_path / "taken", student=str(ready(tmp_path / "model")))
    found = [opened(tmp_path / name, made.transfer)[0] for name in ("own", "taken")]
    assert ["teacher_hidden" in item for item in found] == [True, False]


def test_another_tokenizer_learns_from_the_logits_of_the_same_texts(made, tmp_path):
    """The teacher's tokens mean other words there, or the logits are those of another row."""
    model = ready(tmp_path / "model", WORDS[::-1], layers=2)
    layer_remove(made.baseline, made.validation, tmp_path / "taken", student=str(model), level="rival")
    data, plain = opened(tmp_path / "taken", made.transfer), transfer.open_set(made.transfer)
    assert data.hidden is None and "teacher_hidden" not in data[0]
    mine, theirs = (AutoTokenizer.from_pretrained(one) for one in (tmp_path / "taken", made.baseline))
    for at in range(0, len(data), 50):
        assert mine.decode(data[at]["input_ids"]) == theirs.decode(plain[at]["input_ids"])
        assert data[at]["input_ids"].tolist() != plain[at]["input_ids"].tolist()
        assert data[at]["teacher_logits"].tolist() == plain[at]["teacher_logits"].tolist()
    learnt = distill(
        tmp_path / "taken", made.transfer, made.validation, tmp_path / "done", epochs=6, learning_rate=3e-3
    )
    assert learnt["accuracy"] > 0.85


def test_a_ready_made_model_can_be_pruned_too(made, tmp_path):
    """The stage by itself fails on tokens that are not the model's."""
    layer_remove(made.baseline, made.validation, tmp_path / "taken", student=str(ready(tmp_path / "m", WORDS[::-1])))
    found = matrix_prune(tmp_path / "taken", made.transfer, tmp_path / "pruned", flops=0.2, steps=4)
    assert found["flops_ratio"] < 0.25 and read_record(tmp_path / "pruned")["student"]


def test_texts_are_cut_where_the_baseline_cuts_or_the_rival_ends(made, tmp_path, capsys):
    """Letters are more tokens than words: a rival that reads half a text loses for no reason of its own."""
    layer_remove(made.baseline, made.validation, tmp_path / "taken", student=str(letters(tmp_path / "letters")))
    assert read_record(made.baseline)["max_length"] < 24 < read_record(tmp_path / "taken")["max_length"] == 64
    assert "note:" not in capsys.readouterr().out
    shutil.copytree(made.baseline, tmp_path / "base")
    record = read_record(made.baseline)
    record["lineage"][0]["arguments"]["max_length"] = record["max_length"]
    write_record(tmp_path / "base", record)
    layer_remove(tmp_path / "base", made.validation, tmp_path / "asked", student=str(tmp_path / "letters"))
    assert read_record(tmp_path / "asked")["max_length"] == record["max_length"]


def test_numbers_begin_where_the_labels_are(made, tmp_path):
    """A new head answers 0 where the labels are 50: all of distilling goes into getting there."""
    base = tmp_path / "base"
    shutil.copytree(made.baseline, base)
    task = replace(tasks.read_task(made.train), kind="regression", labels=(), metric="pearson")
    for name in ("train", "validation"):
        table = pq.read_table(getattr(made, name)).to_pydict()
        labels = [50.0 + 10 * label for label in table["label"]]
        pq.write_table(pa.table({**table, "label": labels}).cast(tasks.schema(task)), tmp_path / f"{name}.parquet")
    rows = [tmp_path / f"{name}.parquet" for name in ("train", "validation")]
    fine_tune(str(made.pretrained), *rows, tmp_path / "numbers", epochs=1)
    layer_remove(tmp_path / "numbers", rows[1], tmp_path / "taken", student=str(ready(tmp_path / "model")))
    network, tokenizer = load(tmp_path / "taken")
    found = network(**tokenizer("a good film", return_tensors="pt")).logits.item()
    assert 45 < found < 65
    decoder = ready(tmp_path / "decoder", family="gpt2")
    with pytest.raises(BonsaiError, match=r"no bias in its last matrix.*reads both sides"):
        layer_remove(tmp_path / "numbers", rows[1], tmp_path / "other", student=str(decoder))


@pytest.mark.parametrize("kind", ["tokens", "questions"])
def test_what_is_answered_token_by_token_takes_the_baselines_tokens(kind, tmp_path):
    """Tags of words learnt from the teacher's tags of other words."""
    data = splits(tmp_path / "data", kind)
    model, base = tiny.pretrained(tmp_path / "model"), tmp_path / "base"
    fine_tune(str(model), data["train"], data["validation"], base, epochs=4, learning_rate=3e-3, max_length=16)
    teacher_outputs(base, data["train"], data["unlabelled"], tmp_path / "transfer", augmentations=0)
    with pytest.raises(BonsaiError, match=r"another tokenizer than the baseline.*cannot be taught yet"):
        layer_remove(base, data["validation"], tmp_path / "taken", student=str(ready(tmp_path / "other", WORDS[::-1])))
    layer_remove(base, data["validation"], tmp_path / "taken", student=str(ready(tmp_path / "alike")))
    assert len(opened(tmp_path / "taken", tmp_path / "transfer"))
    distill(tmp_path / "taken", tmp_path / "transfer", data["validation"], tmp_path / "done", epochs=0.5)


def test_inputs_that_the_teacher_has_not_are_made(made, tmp_path):
    """A BERT after a DistilBERT would read second texts as first ones; the other way round, it takes no types."""
    distilbert = tiny.pretrained(tmp_path / "distilbert", family="distilbert")
    layer_remove(made.baseline, made.validation, tmp_path / "fewer", student=str(distilbert))
    assert [*opened(tmp_path / "fewer", made.transfer).inputs] == ["input_ids"]
    base = tmp_path / "base"
    fine_tune(str(distilbert), made.train, made.validation, base, epochs=0.2)
    teacher_outputs(base, made.train, made.unlabelled, tmp_path / "transfer", augmentations=0)
    layer_remove(base, made.validation, tmp_path / "more", student=str(ready(tmp_path / "bert")))
    data = opened(tmp_path / "more", tmp_path / "transfer")
    assert {*data.inputs} == {"input_ids", "token_type_ids"}


def test_a_transfer_set_without_texts_is_told_of(made, tmp_path):
    """A traceback of pyarrow, for a set that was made before texts were kept."""
    folder = shutil.copytree(made.transfer, tmp_path / "old")
    pq.write_table(pq.read_table(folder / transfer.ROWS).drop(["text"]), folder / transfer.ROWS)
    layer_remove(made.baseline, made.validation, tmp_path / "taken", student=str(ready(tmp_path / "m", WORDS[::-1])))
    with pytest.raises(BonsaiError, match="holds no texts for a model with tokens of its own: make it again"):
        distill(tmp_path / "taken", folder, made.validation, tmp_path / "done")
    assert np.isfinite(transfer.open_set(folder).logits).all()


@pytest.mark.parametrize(
    ("student", "said"), [("embedded:bert-tinyy", "did you mean"), ("./nowhere", "no model folder")]
)
def test_what_cannot_be_had_leaves_nothing(made, tmp_path, student, said):
    """Half a folder that a later stage takes for a model."""
    with pytest.raises(BonsaiError, match=said):
        layer_remove(made.baseline, made.validation, tmp_path / "taken", student=student)
    assert not (tmp_path / "taken").exists()
