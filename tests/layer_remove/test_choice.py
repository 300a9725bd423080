"""Which layers of a model that writes go: those whose absence costs its right answers least."""

from copy import deepcopy

import pytest
import torch
from writers_made import tuned

from kfp_bonsai.layer_remove import choice
from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.models.checkpoint import load
from kfp_bonsai.shared.training import writing


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    """A Llama of two layers that learnt to write, with three between them that add nothing; its rows."""
    folder, told, validation = tuned(tmp_path_factory.mktemp("llama"), "llama", count=640, epochs=8)
    assert told["exact_text"] > 0.5
    network, tokenizer = load(folder)
    layers = network.model.layers
    for _ in range(3):
        idle = deepcopy(layers[0])
        torch.nn.init.zeros_(idle.self_attn.o_proj.weight)
        torch.nn.init.zeros_(idle.mlp.down_proj.weight)
        layers.insert(1, idle)
    for index, layer in enumerate(layers):
        layer.self_attn.layer_idx = index
    network.config.num_hidden_layers = len(layers)
    return network, tokenizer, rows.read_rows(validation, tokenizer, 64)


def test_what_adds_nothing_goes_first(padded):
    """Layers taken away that the answers need, as those of a place in the stack are, while others do nothing."""
    network, tokenizer, split = padded
    before = writing.likelihood_of(network, split, tokenizer.pad_token_id)
    assert choice.least_missed(network, tokenizer, split, [2], seed=0) == [[0, 4]]
    one = choice.least_missed(network, tokenizer, split, [1], seed=0)
    assert one in ([[0]], [[4]])
    assert writing.likelihood_of(network, split, tokenizer.pad_token_id) == before  # nothing is left behind


def test_a_layer_that_seemed_cheap_is_tried_again_among_fewer(padded, monkeypatch):
    """Two layers that stand in for each other both taken away, as each alone had cost nothing."""
    network, tokenizer, split = padded
    layers, tried = list(network.model.layers), []

    def likelihood(model, *_):
        """1 and 2 stand in for each other; 3 is worth a little, the others more."""
        gone = {at for at, layer in enumerate(layers) if len(layer._forward_hooks)}
        tried.append(gone)
        return 1 - 0.01 * len(gone) - 0.3 * ({1, 2} <= gone) - 0.1 * (3 in gone) - 0.2 * len(gone & {0, 4})

    monkeypatch.setattr(writing, "likelihood_of", likelihood)
    assert choice.least_missed(network, tokenizer, split, [3], seed=0) in ([[0, 2, 4]], [[0, 1, 4]])
    assert len(tried) == 1 + 5 + 2  # of four layers left, two again: one became dear, the next is cheaper than the rest
