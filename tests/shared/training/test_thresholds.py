"""The threshold of labels: where validation rows say, in the model itself."""

import numpy as np
import pytest
import tiny
import torch
from kinds_made import task_of
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data.rows import Rows
from kfp_bonsai.shared.kinds import kinds
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.training import trainer
from kfp_bonsai.shared.training.thresholds import settle


def small():
    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
    return BertForSequenceClassification(BertConfig(vocab_size=2, num_labels=2, **sizes))


def test_the_threshold_goes_into_the_model():
    """Rare labels that a model is never sure enough of: all missed, though it puts their rows before all others."""
    network, task = small(), task_of("multi-label")
    before = network.classifier.bias.detach().clone()
    logits = np.array([[-3.0, -3.0], [-1.0, -3.0], [-3.0, -1.2], [-1.1, -1.4]], np.float32)
    held_out = Rows({"input_ids": [np.zeros(1, int)] * 4}, right=[(), ((0,),), ((1,),), ((0,), (1,))])
    assert kinds.score(task, logits, held_out.right) == 0
    after = settle(network, task, logits, held_out, 0)
    assert kinds.score(task, after, held_out.right) == 1
    moved = network.classifier.bias.detach() - before
    assert torch.allclose(moved, torch.tensor(after - logits)[0], atol=1e-5) and 1.4 < moved[0] < 3.0


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "gpt_neox"])
def test_the_threshold_goes_into_a_head_without_a_bias(family, tmp_path):
    """A decoder that orders rows rightly and finds no label: what scores well here answers wrongly where it is served.

    The same logits are to come from the saved model, in transformers' own class.
    """
    network = AutoModelForSequenceClassification.from_pretrained(tiny.pretrained(tmp_path, family=family))
    network.config.pad_token_id = 0
    network.score.weight.data.mul_(10)  # so that answers differ by about 1, as learnt ones do at the least
    chance = np.random.default_rng(0)
    held_out = Rows({"input_ids": [chance.integers(5, 20, 9).astype(np.int32) for _ in range(80)]})
    before = trainer.predict(network, held_out, 0)
    cut = np.quantile(before, 0.9)
    held_out = Rows(held_out.inputs, right=[tuple((one,) for one in np.flatnonzero(row > cut)) for row in before])
    task = task_of("multi-label")
    after = settle(network, task, before, held_out, 0)
    assert kinds.score(task, after, held_out.right) > kinds.score(task, before, held_out.right) + 0.2
    network.save_pretrained(tmp_path / "saved")
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert np.allclose(trainer.predict(saved, held_out, 0), after, atol=1e-5)


def test_a_broken_decoder_is_told_in_words(tmp_path):
    """A traceback of scikit-learn, after hours of training."""
    network = AutoModelForSequenceClassification.from_pretrained(tiny.pretrained(tmp_path, family="gpt2"))
    held_out = Rows({"input_ids": [np.array([5, 6], np.int32)] * 2}, right=[(), ((0,),)])
    with pytest.raises(BonsaiError, match="NaN or infinity"):
        settle(network, task_of("multi-label"), np.full((2, 2), np.nan, np.float32), held_out, 0)


def test_classes_have_no_threshold():
    """A classifier whose bias is moved by rows that say nothing of it."""
    network, task = small(), Task("a", "classification", ("text",), ("x", "y"), "f1", "", "test", 1, "")
    before, logits = network.classifier.bias.detach().clone(), np.zeros((2, 2), np.float32)
    assert settle(network, task, logits, Rows({"input_ids": []}, right=[0, 1]), 0) is logits
    assert torch.equal(before, network.classifier.bias)
