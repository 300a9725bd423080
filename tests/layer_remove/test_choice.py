"""Which layers go: those whose absence costs a model's answers least."""

from copy import deepcopy
from types import SimpleNamespace

import models
import numpy as np
import pytest
import torch
from transformers import AutoModelForTokenClassification
from writers_made import tuned

from kfp_bonsai.layer_remove import choice, kept_order
from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.saved.checkpoint import load
from kfp_bonsai.shared.training import writing

WRITES = KINDS["generation"]
LAST = {"llama": ("o_proj", "down_proj"), "gpt2": ("c_proj",), "t5": (".o", ".wo")}  # what a layer adds by


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
    assert choice.least_missed(WRITES, network, tokenizer, split, [2], 0, "padded") == [[0, 4]]
    one = choice.least_missed(WRITES, network, tokenizer, split, [1], 0, "padded")
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
    assert choice.least_missed(WRITES, network, tokenizer, split, [3], 0, "stand-ins") in ([[0, 2, 4]], [[0, 1, 4]])
    assert len(tried) == 1 + 5 + 2  # of four layers left, two again: one became dear, the next is cheaper than the rest


@pytest.fixture
def asked(padded, monkeypatch):
    """What is asked for, of a cheap stand-in for the likelihood; and how often that was called."""
    network, tokenizer, split = padded
    layers, calls = list(network.model.layers), []

    def likelihood(*_):
        gone = [at for at, layer in enumerate(layers) if len(layer._forward_hooks)]
        calls.append(gone)
        return 0.9 - sum(0.01 * (at + 1) ** 2 for at in gone) - 0.1 * (0 in gone and 2 in gone)

    def choose(count, seed, weights, some=split):
        calls.clear()
        return choice.least_missed(WRITES, network, tokenizer, some, [count], seed, weights), len(calls)

    monkeypatch.setattr(writing, "likelihood_of", likelihood)
    return choose, split


def test_one_order_serves_all_levels(asked):
    """Each level asks all layers again what they are worth, an hour of a large model; or goes on to another model."""
    choose, split = asked
    afresh, all_calls = choose(1, 0, "a")
    assert choose(3, 0, "a")[1] == choose(2, 0, "a")[1] == 0
    two, some_calls = choose(3, 0, "b")
    rest, more_calls = choose(1, 0, "b")
    assert rest == afresh and two == choose(3, 0, "a")[0] and some_calls + more_calls == all_calls
    assert more_calls
    assert choose(1, 1, "a")[1] == choose(1, 0, "c")[1] == all_calls  # other rows, other weights
    fewer = [split[index] for index in range(3)]
    assert choose(1, 0, "a", fewer)[1] == all_calls


def test_a_choice_that_was_killed_goes_on(asked, monkeypatch):
    """An hour of asking lost, or a damaged file that ends every level."""
    choose, _ = asked
    afresh, all_calls = choose(1, 0, "d")
    kept, write = [], kept_order._write

    def killed(file, *rest):
        write(file, *rest)
        kept.append(file)
        if len(kept) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(kept_order, "_write", killed)
        choose(1, 0, "e")
    found, calls = choose(1, 0, "e")
    assert found == afresh and 0 < calls < all_calls - 5
    for text in ("{", '{"key": 1}', kept[0].read_text().replace('"gone": [', '"gone": [7, ')):
        kept[0].write_text(text)
        assert choose(1, 0, "e") == (afresh, all_calls)


@pytest.mark.parametrize(
    ("kind", "family", "head", "counts"),
    [
        ("classification", "llama", None, [2]),
        ("multi-label", "gpt2", None, [2]),
        ("tokens", "llama", AutoModelForTokenClassification, [2]),
        ("classification", "t5", None, [3, 2]),
    ],
)
def test_what_adds_nothing_to_other_answers_goes_first_too(kind, family, head, counts, monkeypatch):
    """Layers of a classifier taken by their place, of which the answers need some, while others do nothing."""
    network = models.made(family, head)
    _, layers = choice.shapes.stacks_of(network)[-1]
    with torch.no_grad():
        for name, weights in layers[1].named_parameters():
            if name.endswith(tuple(f"{last}.{part}" for last in LAST[family] for part in ("weight", "bias"))):
                weights.zero_()
    few = [{"input_ids": np.arange(5 + row, 12 + 2 * row, dtype=np.int32), "labels": 0} for row in range(20)]
    few = [{**one, "input_ids": one["input_ids"] % 85 + 5} for one in few]
    tokenizer = SimpleNamespace(pad_token_id=0)
    monkeypatch.setattr(choice, "bf16_is_faster", lambda: False)
    kept = choice.least_missed(KINDS[kind], network, tokenizer, few, counts, 0, f"{kind} {family}")
    assert kept[-1] == [0, 2]
