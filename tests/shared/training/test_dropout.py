"""Dropout drawn by bytes drops as often as was asked for, and trains as torch's own does."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from kfp_bonsai.shared.training.dropout import drawn_by_bytes, drops, without_dropout

SIZE = (1000, 333)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_as_much_is_dropped_as_was_asked_for_and_the_rest_is_scaled(rate, kind):
    """A wrong rate or scale would train another model than the one that is asked."""
    torch.manual_seed(0)
    given = torch.ones(SIZE, dtype=kind, requires_grad=True)
    with drawn_by_bytes():
        found = functional.dropout(given, rate)
    assert (found == 0).float().mean() == pytest.approx(rate, abs=1 / 256 + 0.003)
    assert found.dtype == kind and float(found.detach().float().mean()) == pytest.approx(1.0, abs=0.02)
    assert len(set(found.detach().flatten().tolist())) == 2
    found.float().sum().backward()
    assert torch.equal(given.grad, found.detach())  # the same numbers are left out on the way back


def test_each_place_is_dropped_by_chance():
    """A byte of a draw that is never high (the sign's, of whole numbers) would never drop its column."""
    torch.manual_seed(0)
    with drawn_by_bytes():
        kept = (functional.dropout(torch.ones(4000, 16), 0.25) > 0).float()
    assert kept.mean(0) == pytest.approx([0.75] * 16, abs=0.04)
    assert torch.corrcoef(kept.T).fill_diagonal_(0).abs().max() < 0.08


def test_what_is_dropped_follows_the_seed():
    """A training that goes on from a checkpoint would otherwise drop other numbers than one that was not ended."""

    def drawn():
        with drawn_by_bytes():
            return functional.dropout(torch.ones(SIZE), 0.1)

    torch.manual_seed(7)
    first, second = drawn(), drawn()
    torch.manual_seed(7)
    assert torch.equal(drawn(), first) and torch.equal(drawn(), second) and not torch.equal(first, second)


def test_nothing_is_dropped_where_nothing_should_be():
    """Answers would depend on chance."""
    given = torch.ones(SIZE)
    with drawn_by_bytes():
        assert functional.dropout(given, 0.5, training=False) is given
        assert torch.equal(functional.dropout(given, 0.0), given)
        assert not functional.dropout(given, 1.0).any()
        assert torch.equal(nn.Dropout(0.5).eval()(given), given)
        assert (nn.Dropout(0.5)(given) == 0).any()


def test_what_drops_is_known():
    """Where attention is dropped it may not be computed by the kernel that is slow at it."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1))
    assert drops(model)
    without_dropout(model)
    assert not drops(model)
    model[0].attention_dropout = 0.1
    assert drops(model)
