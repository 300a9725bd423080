"""Numbers to predict go through the stages in whatever unit they have."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

from kfp_bonsai.distill.distill import distill
from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.data.tasks import Task, schema
from kfp_bonsai.shared.saved.checkpoint import load
from kfp_bonsai.shared.training import trainer
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs


def splits(folder, low, high):
    """Made texts whose label is one of two numbers."""
    made = {}
    for name, count in (("train", 320), ("validation", 64), ("unlabelled", 0)):
        found = tiny.texts(count, 7)
        task = Task("made", "regression", ("text",), (), "pearson", "made", name, count, name)
        columns = {"text": [text for text, _ in found], "label": [(low, high)[label] for _, label in found]}
        table = pa.table({name: columns[name] for name in schema(task).names}, schema=schema(task))
        pq.write_table(table, made.setdefault(name, folder / f"{name}.parquet"))
    return made


def answers(model, split):
    network, tokenizer = load(model)
    data = rows.read_rows(split, tokenizer, 64)
    return trainer.predict(network, data, tokenizer.pad_token_id)[:, 0], data.labels


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.01), (30.0, 80.0), (200_000.0, 260_000.0)])
def test_labels_of_any_unit_are_learnt_and_answered_in_it(made, tmp_path, low, high):
    """Else ratings of 0 to 100, or prices, are never reached, and hundredths are drowned by the hidden states."""
    data = splits(tmp_path, low, high)
    options = {"epochs": 6, "learning_rate": 3e-3}
    base, transfer, short, cut, small = (tmp_path / name for name in ("base", "transfer", "short", "cut", "small"))
    tuned = fine_tune(str(made.pretrained), data["train"], data["validation"], base, **options)
    assert tuned["pearson"] > 0.7
    assert json.loads((base / "config.json").read_text())["problem_type"] == "regression"
    teacher_outputs(base, data["train"], data["unlabelled"], transfer, augmentations=1)
    layer_remove(base, data["validation"], short, keep="2/3")
    matrix_prune(short, transfer, cut, flops=0.45, steps=20)
    learnt = distill(cut, transfer, data["validation"], small, **options)
    assert learnt["pearson"] > 0.7
    for model in (base, small):
        found, right = answers(model, data["validation"])
        assert np.abs(found - right).mean() < 0.25 * (high - low)


def test_epochs_are_scored_in_the_labels_own_unit(made, tmp_path, monkeypatch):
    """The best epoch of a kind whose predictions are no straight line of logits, chosen by numbers about 0."""
    data, seen = splits(tmp_path, 30.0, 80.0), []
    monkeypatch.setattr(
        trainer.kinds, "score", lambda task, logits, right, *_: seen.append((np.mean(logits), {*right})) or 1.0
    )
    fine_tune(str(made.pretrained), data["train"], data["validation"], tmp_path / "base", epochs=2, learning_rate=3e-3)
    assert len(seen) == 2 and all(30 < mean < 80 and right == {30.0, 80.0} for mean, right in seen)


def test_numbers_that_a_decoder_cannot_reach_are_refused(tmp_path):
    """Years, or degrees about 300 K: constant answers after hours, and the advice to train longer."""
    model = tiny.pretrained(tmp_path / "gpt2", family="gpt2")
    data = splits(tmp_path, 1990.0, 2010.0)
    with pytest.raises(BonsaiError, match=r"2000 on average and spread by 9\.998.*take 2000 off them"):
        fine_tune(str(model), data["train"], data["validation"], tmp_path / "out")


def test_a_trained_head_goes_on_where_it_was(made, tmp_path):
    """Else a regression model that is tuned on more of the same begins far from where it had come."""
    data = splits(tmp_path, 30.0, 80.0)
    fine_tune(str(made.pretrained), data["train"], data["validation"], tmp_path / "base", epochs=6, learning_rate=3e-3)
    again = fine_tune(
        str(tmp_path / "base"), data["train"], data["validation"], tmp_path / "again", epochs=0.1, learning_rate=1e-6
    )
    assert again["pearson"] > 0.7
    (before, _), (after, _) = (answers(tmp_path / name, data["validation"]) for name in ("base", "again"))
    np.testing.assert_allclose(before, after, atol=0.5)


def test_a_decoder_whose_head_has_no_bias_learns_large_numbers(tmp_path, made):
    """Else GPT-2 and Llama fail on what BERT does."""
    data = splits(tmp_path, 30.0, 80.0)
    model = tiny.pretrained(tmp_path / "pretrained", family="gpt2")
    tuned = fine_tune(str(model), data["train"], data["validation"], tmp_path / "base", epochs=6, learning_rate=3e-3)
    assert tuned["pearson"] > 0.7
