"""Embeddings of the tokens that occur are trained alone, and the model is the one that training all would give."""

from contextlib import nullcontext
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
import tiny
import torch
from transformers import AutoModelForSequenceClassification, set_seed

from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.training import trainer, vocabulary
from kfp_bonsai.shared.training.attempts import Attempt

TOKENS = [2, 6, 7, 9, 20, 3]  # of 25


def trained(folder, family, change=lambda model: None):
    """Train a random model for six steps; return its weights before and after."""
    model = AutoModelForSequenceClassification.from_pretrained(folder / family)
    change(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chance = np.random.default_rng(0)
    inputs = [chance.choice(TOKENS, size).astype(np.int32) for size in (4, 9, 9, 5, 7, 7)]
    given = rows.Rows({"input_ids": inputs}, np.array([0, 1, 0, 1, 1, 0]))
    set_seed(0)
    recipe = trainer.Recipe("fine-tune", 2, 1e-2, 2, weight_decay=0.1)
    trainer.train(model, given, recipe, Attempt(Path(mkdtemp(dir=folder))))
    return before, model


@pytest.mark.parametrize("family", ["bert", "mpnet", "gpt2", "opt", "deberta-v2", "llama"])
def test_a_model_learns_the_same(tmp_path, monkeypatch, family):
    """Another result than AdamW's over all embeddings, tokens at others' places, or a model that does not save."""
    tiny.pretrained(tmp_path / family, family=family)
    monkeypatch.setattr(trainer, "bf16_is_faster", lambda: False)
    before, found = trained(tmp_path, family)
    monkeypatch.setattr(trainer, "only_used", lambda *_: nullcontext())
    _, wanted = trained(tmp_path, family)
    embedding = next(name for name, value in wanted.named_parameters() if value is wanted.get_input_embeddings().weight)
    others = [number for number in range(len(before[embedding])) if number not in (0, *TOKENS)]
    assert type(found.get_input_embeddings()) is torch.nn.Embedding
    assert list(found.state_dict()) == list(wanted.state_dict())
    for name, value in wanted.state_dict().items():
        ours = found.state_dict()[name]
        if name == embedding:
            assert torch.equal(ours[others], before[name][others]) and not torch.equal(
                ours[TOKENS], before[name][TOKENS]
            )
            ours, value = ours[TOKENS], value[TOKENS]
        assert torch.allclose(ours, value, atol=1e-5), name


@pytest.mark.parametrize(("family", "frozen"), [("t5", False), ("bert", True)])
def test_embeddings_that_are_shared_or_frozen_stay_as_they_are(tmp_path, family, frozen):
    """A head that writes words would lose those that do not occur, or its tie; frozen ones would be trained."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny.pretrained(tmp_path / family, family=family))
    whole = model.get_input_embeddings()
    whole.weight.requires_grad = not frozen
    with vocabulary.only_used(model, [np.array([5])], 0):
        assert model.get_input_embeddings() is whole


def test_a_training_that_ends_early_leaves_a_whole_model(tmp_path):
    """A model without most of its words, after an error that somebody caught."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny.pretrained(tmp_path / "model"))
    whole = model.get_input_embeddings()
    with pytest.raises(KeyboardInterrupt), vocabulary.only_used(model, [np.array([5, 6])], 0):
        assert model.get_input_embeddings().weight.shape == (3, 32)
        with torch.no_grad():
            model.get_input_embeddings().weight.fill_(7)
        raise KeyboardInterrupt
    assert model.get_input_embeddings() is whole
    assert (whole.weight == 7).all(1).nonzero().flatten().tolist() == [0, 5, 6]
