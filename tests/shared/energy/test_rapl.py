"""The processor packages' own counters are read right, or not at all."""

import time

import pytest
from counters import process_sources, zone

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.energy.rapl import rapl
from kfp_bonsai.shared.energy.reading import STUCK_SECONDS


def test_rapl_is_measured_and_wraps_around(tmp_path):
    """After a wrap-around the difference would be negative, or 262 kJ too low."""
    zones = [zone(tmp_path, "intel-rapl:0", 900, 999), zone(tmp_path, "intel-rapl:1", 100, 999)]
    zone(tmp_path, "intel-rapl:0:0", 5, 999, name="core")
    zone(tmp_path, "intel-rapl:2", 5, 999, name="psys")
    source = rapl(tmp_path)
    before = source.mark()
    (zones[0] / "energy_uj").write_text("50")
    (zones[1] / "energy_uj").write_text("300")
    assert source.between(before, source.mark()) == pytest.approx((150 + 200) / 1e6)
    assert source.label == energy.MEASURED and source.zones == tuple(zones)


def test_rapl_is_preferred_where_it_can_be_read_and_missed_without_a_word_where_not(tmp_path):
    """A machine without counters must be labelled estimated, one with them measured."""
    assert rapl(tmp_path) is None
    zone(tmp_path, "intel-rapl:0", 1, 999)
    assert energy.find_sources(powercap=tmp_path)[0].label == energy.MEASURED
    assert process_sources()[0].label == energy.ESTIMATED


def test_a_counter_that_stands_still_is_an_error(tmp_path):
    """Zero joules for a second of work would make every ratio infinite or free."""
    zone(tmp_path, "intel-rapl:0", 1, 999)
    with pytest.raises(BonsaiError, match="did not move"), energy.track([rapl(tmp_path)]):
        time.sleep(STUCK_SECONDS)


def test_a_counter_that_was_set_back_is_not_taken_for_one_that_wrapped(tmp_path):
    """262 kJ that nobody used, in a ratio."""
    file = zone(tmp_path, "intel-rapl:0", 9_000_000, 262_143_328_850) / "energy_uj"
    source = rapl(tmp_path)
    file.write_text("10")
    for _ in range(2):
        with pytest.raises(energy.CounterError, match="set back"):
            source.mark()


def test_counters_that_cannot_be_used_are_none(tmp_path):
    """Nothing can be trained or measured in a container that shows half of the counters."""
    (zone(tmp_path, "intel-rapl:0", 1, 999) / "max_energy_range_uj").write_text("unknown")
    assert rapl(tmp_path) is None
    assert energy.find_sources(powercap=tmp_path)[0].label == energy.ESTIMATED
