"""Costs of shapes by a table: made by hand here, nothing is timed."""

import random
from dataclasses import replace

import models
import pytest
import torch

from kfp_bonsai.shared.models import one_token, shapes, surgery
from kfp_bonsai.shared.models.costs import Costs, Priced, features, fitted, shape_in
from kfp_bonsai.shared.models.shapes import LayerShape, Shape

TRUE = {"model": 5.0, "layer.0": 2.0, "heads.0": 0.7, "ffn.0": 0.01, "layer.last": 1.0, "heads.last": 0.3}
TRUE |= {"ffn.last": 0.001}
WHOLE = Shape(384, 32, (LayerShape(12, 1536),) * 6, (6,))


def drawn(count, one, prices):
    """Shapes of one to six ragged layers, and what they cost by the prices."""
    chance, made = random.Random(0), Costs(prices, 1.0, 0.0, "")
    found = []
    for number in range(count):
        layers = tuple(LayerShape(chance.randint(1, 12), 32 * chance.randint(1, 48)) for _ in range(1 + number % 6))
        shape = replace(WHOLE, layers=layers, stacks=(len(layers),))
        found.append(Priced(shape, one, made.of(shape, one)))
    return found


def test_a_cost_that_is_linear_is_found_exactly():
    """A table that is off although the shapes timed leave no doubt."""
    timed = [*drawn(20, True, TRUE), *drawn(20, False, TRUE)]
    found = fitted(timed[:30], timed[30:], baseline=100.0, device="made")
    assert found.error < 1e-9
    for one in timed:
        assert found.of(one.shape, one.one_token) == pytest.approx(one.seconds)
        assert found.share(one.shape, one.one_token) == pytest.approx(one.seconds / 100)


def test_the_error_is_that_of_shapes_that_were_held_out():
    """An error stated on the shapes that the table was fitted to, which is no error at all."""
    timed = drawn(20, True, TRUE)
    off = [replace(one, seconds=one.seconds / 1.25) for one in timed[-2:]]
    assert fitted(timed[:-2], off, 100.0, "").error == pytest.approx(0.25)
    assert min(fitted([*timed[:-2], *off], [], 100.0, "").seconds.values()) >= 0


def test_a_narrower_stream_costs_what_it_was_timed_to():
    """Stock shapes that are budgeted as if their hidden width stayed."""
    prices = {"model": 3.0, "model.wide": 0.01, "layer.0": 1.0, "heads.0.wide": 0.002, "ffn.0": 0.001}
    prices["ffn.0.wide"] = 5e-5
    made = Costs(prices, 1.0, 0.0, "")
    found = []
    for heads, ffn, count in [
        (1, 32, 1),
        (2, 320, 2),
        (4, 64, 3),
        (6, 900, 2),
        (9, 128, 1),
        (12, 1536, 6),
        (8, 512, 4),
    ]:
        shape = Shape(32 * heads, 32, (LayerShape(heads, ffn),) * count, (count,))
        found.append(Priced(shape, False, made.of(shape, False)))
    table = fitted(found, [], 1.0, "")
    for one in found:
        assert table.of(one.shape, False) == pytest.approx(one.seconds, rel=0.01)


@pytest.mark.parametrize("name", ["bert", "llama", "t5", "gpt2"])
def test_units_and_the_rest_are_the_whole(name):
    """Budgets that leave out a kind of unit, or count one twice."""
    model = models.made(name)
    free = surgery.cut(model, [{} for _ in shapes.shape_of(model).layers], free=True)
    shape, single = shapes.shape_of(free), one_token.leaves_out(free)
    prices = {key: 1.0 + number for number, key in enumerate(features(shape, single))}
    table = Costs(prices, 1.0, 0.0, "")
    units = table.units(shape, single)
    for index, layer in enumerate(shape.layers):
        for unit, count in shape.units(layer).items():
            if count < 2:
                continue
            kept = [{} for _ in shape.layers]
            kept[index] = {unit: torch.arange(count - 1)}
            smaller = shapes.shape_of(surgery.cut(free, kept))
            assert table.of(shape, single) - table.of(smaller, single) == pytest.approx(units[f"{unit}.{index}"])


def test_a_record_says_the_baselines_widths():
    """A baseline that is priced as the few layers that are left of it."""
    record = {"shape": {"hidden": 384, "stacks": [6], "layers": [{"heads": 12, "ffn": 1536, "cross_heads": 0}] * 6}}
    few = replace(WHOLE, layers=WHOLE.layers[:2], stacks=(2,))
    assert shape_in(record, few) == WHOLE
