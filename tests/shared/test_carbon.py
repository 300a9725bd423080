"""Grams must come from a table that is named, and never from a silent world average."""

import pytest

from kfp_bonsai.shared.carbon import intensity_of
from kfp_bonsai.shared.errors import BonsaiError


def test_a_country_has_its_own_intensity_with_source_and_year():
    """France and Poland must differ, or the table was not read."""
    france, poland = intensity_of("fra"), intensity_of("POL")
    assert france.intensity_g_per_kwh < 100 < 400 < poland.intensity_g_per_kwh
    assert france.year >= 2020 and "codecarbon" in france.source and france.name == "France"


def test_a_kilowatt_hour_is_the_intensity_in_grams():
    """A slip between joules, kWh and kg would be off by thousands."""
    assert intensity_of(intensity=100).grams(3.6e6) == pytest.approx(100)


@pytest.mark.parametrize(
    ("country", "hint"), [("France", "'FRA'"), ("Germny", "'DEU'"), ("us", "'USA'"), ("XQZ", "XQZ")]
)
def test_a_country_that_does_not_exist_is_an_error_with_a_near_name(country, hint):
    """Codecarbon itself turns a bogus country into the world's average without a word."""
    with pytest.raises(BonsaiError, match=hint):
        intensity_of(country)


@pytest.mark.parametrize("intensity", [-1, 5000])
def test_impossible_intensity_is_an_error(intensity):
    """Kg instead of g, or a sign, must not pass."""
    with pytest.raises(BonsaiError, match="--intensity"):
        intensity_of("FRA", intensity)


def test_a_stated_intensity_goes_before_the_countrys_and_none_gives_none():
    """Nobody asked for grams: then there must be none."""
    assert intensity_of("FRA", 20).intensity_g_per_kwh == 20
    assert intensity_of() is None
