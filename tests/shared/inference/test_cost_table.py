"""Tables of costs: which shapes are timed, where a table is kept, and what is refused. Clocks are made up here."""

import json
from dataclasses import replace
from itertools import count

import models
import pytest

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.inference import cost_table
from kfp_bonsai.shared.inference.writers import torch_writer
from kfp_bonsai.shared.models import one_token, shapes
from kfp_bonsai.shared.models.costs import Costs, Request, features


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BONSAI_CACHE", str(tmp_path))
    return tmp_path


def priced_by_hand(monkeypatch, calls, spoilt=0):
    """Let every shape take a second, and a tenth for each of its layers, heads and neurons; first something else."""

    def timed(config, whole, wanted, rows, tokens, device, kind, written, vocabulary):
        calls.append((rows, tokens, device))

        def seconds(shape):
            return 1.0 + 0.1 * sum(features(shape, kind == "free").values())

        found = [cost_table.Priced(shape, kind == "free", seconds(shape)) for shape in wanted]
        if len(calls) <= spoilt:
            found = [replace(one, seconds=one.seconds * (1 + at % 3)) for at, one in enumerate(found)]
        return seconds(whole), found

    monkeypatch.setattr(cost_table, "_timed", timed)


def test_a_table_is_timed_once_for_each_device_and_length(cache, monkeypatch):
    """Half a minute in each level, or a table of another machine that passes for this one's."""
    calls = []
    priced_by_hand(monkeypatch, calls)
    model = models.made("bert")
    given = (model.config, shapes.shape_of(model), (2,), "free")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    first = cost_table.cost_table(*given, Request(27.6), "cpu")
    assert cost_table.cost_table(*given, Request(28.1), "cpu") == first
    assert "threads: 1" in first.device and "torch" in first.device
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert "threads: 2" in cost_table.cost_table(*given, Request(28), "cpu").device
    cost_table.cost_table(*given, Request(700), "cpu")
    assert calls == [(32, 28, "cpu"), (32, 28, "cpu"), (11, 700, "cpu")]


@pytest.mark.parametrize(("spoilt", "timings", "kept"), [(1, 2, 1), (9, cost_table.TRIES, 0)])
def test_a_table_that_a_neighbour_spoilt_is_timed_again_and_never_kept(
    cache, monkeypatch, capsys, spoilt, timings, kept
):
    """Prices half of which were zero, kept for all later levels: an emission that was asked for, and off by half."""
    calls = []
    priced_by_hand(monkeypatch, calls, spoilt)
    model = models.made("bert")
    cost_table.cost_table(model.config, shapes.shape_of(model), (2,), "free", Request(28), "cpu")
    assert len(calls) == timings and len([*cache.glob("costs/*.json")]) == kept
    assert ("WARNING" in capsys.readouterr().out) == (not kept)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": 1}'])
def test_a_damaged_table_is_timed_anew(cache, monkeypatch, damage):
    """A run that ends at a file of the cache that a full disk cut off."""
    calls = []
    priced_by_hand(monkeypatch, calls)
    model = models.made("bert")
    given = (model.config, shapes.shape_of(model), (2,), "free", Request(28), "cpu")
    first = cost_table.cost_table(*given)
    (file,) = (cache / "costs").glob("*.json")
    assert json.loads(file.read_text())["timed"]
    file.write_text(damage)
    assert cost_table.cost_table(*given) == first and len(calls) == 2


def test_a_cache_that_takes_no_files_costs_no_run(tmp_path, monkeypatch):
    """A level that fails after its training for a note that cannot be kept."""
    priced_by_hand(monkeypatch, [])
    monkeypatch.setattr(cost_table, "cached", lambda name: tmp_path / "file" / name)
    (tmp_path / "file").write_text("no folder")
    model = models.made("bert")
    assert isinstance(
        cost_table.cost_table(model.config, shapes.shape_of(model), (2,), "free", Request(28), "cpu"), Costs
    )


def test_a_gpu_that_is_not_here_is_not_guessed(monkeypatch):
    """A share of a GPU's energy by what this CPU takes."""
    monkeypatch.setattr(cost_table.torch.cuda, "is_available", lambda: False)
    model = models.made("bert")
    with pytest.raises(BonsaiError, match="torch sees no GPU here"):
        cost_table.cost_table(model.config, shapes.shape_of(model), (2,), "free", Request(28), "cuda")


@pytest.mark.parametrize("kind", ["free", "stock"])
@pytest.mark.parametrize("name", models.NAMES)
def test_every_shape_that_is_timed_can_be_and_runs(name, kind):
    """A family whose table cannot be timed, found after its training."""
    model = models.made(name).float()
    whole = shapes.shape_of(model)
    wanted = cost_table.designs(whole, [max(1, total - 1) for total in whole.stacks], kind, model.config)
    assert len(wanted) == cost_table.TIMED + cost_table.HELD_OUT
    batch = cost_table._batch(model.config, 2, 5)
    for shape in (wanted[0], wanted[-1]):
        network = cost_table._network(model.config, shape, kind == "free", "", {})
        assert shapes.shape_of(network) == shape
        assert kind == "free" or not one_token.leaves_out(network)
        cost_table._run(network, batch, "cpu")()


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_of_a_model_that_writes_an_answer_is_timed(name, monkeypatch):
    """Shapes that read alone, a baseline with the smaller vocabulary, or a vocabulary's weights for each shape."""
    model = models.made(name).float()
    whole, fewer, asked = shapes.shape_of(model), model.config.vocab_size // 2, []

    def writer(network, tokenizer, device):
        asked.append(network)
        return torch_writer(network, tokenizer, device)

    monkeypatch.setattr(cost_table, "torch_writer", writer)
    monkeypatch.setattr(cost_table, "_seconds", lambda run, *_: asked.append(run()) or 1.0)
    cost_table._timed(model.config, whole, [whole, whole], 2, 5, "cpu", "free", 3, fewer)
    networks, said = asked[:3], asked[3:]
    tables = [one.get_output_embeddings().weight for one in networks]
    assert [len(one) for one in tables] == [model.config.vocab_size, fewer, fewer] and tables[1] is tables[2]
    assert {len(tokens) for one in said for tokens in one.tokens} == {3}


def test_what_is_timed_is_told_apart(monkeypatch):
    """Shapes that all get the same seconds, or the baseline's."""
    model = models.made("bert").float()
    whole, ticks = shapes.shape_of(model), count()
    monkeypatch.setattr(cost_table, "_seconds", lambda *_: 1.0 + next(ticks) % 3)
    baseline, found = cost_table._timed(model.config, whole, [whole, whole], 2, 5, "cpu", "stock")
    assert [baseline, *(one.seconds for one in found)] == [1.0, 2.0, 3.0]
