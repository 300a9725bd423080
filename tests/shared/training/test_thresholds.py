"""The threshold of labels: where validation rows say, in the model itself."""

import numpy as np
import torch
from kinds_made import task_of
from transformers import BertConfig, BertForSequenceClassification

from kfp_bonsai.shared.data.rows import Rows
from kfp_bonsai.shared.kinds import kinds
from kfp_bonsai.shared.kinds.task import Task
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
    after = settle(network, task, logits, held_out)
    assert kinds.score(task, after, held_out.right) == 1
    moved = network.classifier.bias.detach() - before
    assert torch.allclose(moved, torch.tensor(after - logits)[0], atol=1e-5) and 1.4 < moved[0] < 3.0


def test_classes_have_no_threshold():
    """A classifier whose bias is moved by rows that say nothing of it."""
    network, task = small(), Task("a", "classification", ("text",), ("x", "y"), "f1", "", "test", 1, "")
    before, logits = network.classifier.bias.detach().clone(), np.zeros((2, 2), np.float32)
    assert settle(network, task, logits, Rows({"input_ids": []}, right=[0, 1])) is logits
    assert torch.equal(before, network.classifier.bias)
