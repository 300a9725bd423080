"""A new head begins with answers as frequent as the training rows have them."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification, GPT2Config
from transformers import GPT2ForSequenceClassification as Gpt2

from kfp_bonsai.shared.kinds.kind import IGNORED
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.training import prior

SIZES = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4, "vocab_size": 2}


def test_labels_that_are_rare_begin_as_rare():
    """Two dozen rare labels, of which MiniLM learnt for four epochs that each is rare, and nothing of any row."""
    network = BertForSequenceClassification(BertConfig(num_labels=3, **SIZES))
    labels = np.zeros((998, 3), np.float32)
    labels[:99, 0], labels[:499, 1] = 1, 1
    prior.begin(network, KINDS["multi-label"], labels)
    assert network.classifier.bias.sigmoid().tolist() == pytest.approx([0.1, 0.5, 0.001])


def test_words_without_a_name_are_most():
    """What is no word of its own (the rest of a word, padding) would be counted as the last class, or break it."""
    network = BertForTokenClassification(BertConfig(num_labels=3, **SIZES))
    labels = [np.array([IGNORED, 0, 0, 0, 1, IGNORED]), np.array([0, 0, 0])]
    prior.begin(network, KINDS["tokens"], labels)
    assert network.classifier.bias.softmax(0).tolist() == pytest.approx([0.7, 0.2, 0.1])


@pytest.mark.parametrize("kind", ["regression", "questions"])
def test_what_has_no_frequency_begins_at_nothing(kind):
    """Numbers counted as classes, or places of answers as labels."""
    network = BertForTokenClassification(BertConfig(num_labels=2, **SIZES))
    before = network.classifier.bias.detach().clone()
    prior.begin(network, KINDS[kind], [np.array([1.0, 3.5])])
    assert torch.equal(network.classifier.bias, before)


def test_a_head_without_a_bias_stays():
    """Decoders' classifiers, which have none."""
    sizes = {"n_embd": 4, "n_layer": 1, "n_head": 1, "vocab_size": 2, "num_labels": 2}
    network = Gpt2(GPT2Config(**sizes))
    prior.begin(network, KINDS["classification"], np.array([0, 0, 1]))
    assert network.score.bias is None
