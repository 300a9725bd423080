"""Joules must come from a named counter, be labelled as weak as they are, and never be zero in silence."""

import pytest
from counters import process_sources

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.energy import energy


def test_a_total_is_as_weak_as_its_weakest_part():
    """One estimated part must not hide behind a measured one."""
    assert energy.weakest(["measured", "proxy", "estimated"]) == "proxy"
    assert energy.weakest(["measured", "measured"]) == "measured"
    with pytest.raises(BonsaiError):
        energy.weakest([])


def test_a_meter_has_no_reading_before_its_block_ends():
    """Half a block's reading must not be written into a record."""
    with energy.track(process_sources()) as meter, pytest.raises(BonsaiError):
        _ = meter.reading
