"""A new head begins with answers as frequent as the training rows have them."""

import numpy as np
import pytest
import tiny
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
)

from kfp_bonsai.shared.data.rows import Rows
from kfp_bonsai.shared.kinds.kind import IGNORED
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.training import prior, trainer

SIZES = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4, "vocab_size": 2}


def learnt(labels):
    """Return training rows with these targets."""
    return Rows({"input_ids": []}, labels)


def test_labels_that_are_rare_begin_as_rare():
    """Two dozen rare labels, of which MiniLM learnt for four epochs that each is rare, and nothing of any row."""
    network = BertForSequenceClassification(BertConfig(num_labels=3, **SIZES))
    labels = np.zeros((998, 3), np.float32)
    labels[:99, 0], labels[:499, 1] = 1, 1
    prior.begin(network, KINDS["multi-label"], learnt(labels), 0)
    assert network.classifier.bias.sigmoid().tolist() == pytest.approx([0.1, 0.5, 0.001])


def test_words_without_a_name_are_most():
    """What is no word of its own (the rest of a word, padding) would be counted as the last class, or break it."""
    network = BertForTokenClassification(BertConfig(num_labels=3, **SIZES))
    labels = [np.array([IGNORED, 0, 0, 0, 1, IGNORED]), np.array([0, 0, 0])]
    prior.begin(network, KINDS["tokens"], learnt(labels), 0)
    assert network.classifier.bias.softmax(0).tolist() == pytest.approx([0.7, 0.2, 0.1])


@pytest.mark.parametrize("kind", ["regression", "questions"])
def test_what_has_no_frequency_begins_at_nothing(kind):
    """Numbers counted as classes, or places of answers as labels."""
    network = BertForTokenClassification(BertConfig(num_labels=2, **SIZES))
    before = network.classifier.bias.detach().clone()
    prior.begin(network, KINDS[kind], learnt([np.array([1.0, 3.5])]), 0)
    assert torch.equal(network.classifier.bias, before)


@pytest.mark.parametrize("family", ["gpt2", "llama", "opt", "gpt_neox"])
def test_labels_that_are_rare_begin_as_rare_in_a_head_without_a_bias(family, tmp_path):
    """Decoders, whose classifiers have no bias: all their labels would begin at a half, and rare ones stay unlearnt."""
    network = AutoModelForSequenceClassification.from_pretrained(tiny.pretrained(tmp_path, family=family))
    network.config.pad_token_id = 0
    chance = np.random.default_rng(0)
    texts = {"input_ids": [chance.integers(5, 20, 9).astype(np.int32) for _ in range(400)]}
    labels = np.zeros((400, 2), np.float32)
    labels[:199, 0], labels[:19, 1] = 1, 1
    prior.begin(network, KINDS["multi-label"], Rows(texts, labels), 0)
    others = {"input_ids": [chance.integers(5, 20, 9).astype(np.int32) for _ in range(100)]}
    found = torch.from_numpy(trainer.predict(network, Rows(others), 0)).sigmoid()
    assert found.mean(0).tolist() == pytest.approx([0.5, 0.05], abs=0.03)
    assert found[:, 1].max() < 0.2
