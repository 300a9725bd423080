"""Grams must come from a table that is named, and never from a silent world average."""

import pytest

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.energy.carbon import intensity_of


def test_a_country_has_its_own_intensity_with_source_and_year():
    """France and Poland must differ, or the table was not read."""
    france, poland = intensity_of("fra"), intensity_of("POL")
    assert france.intensity_g_per_kwh < 100 < 400 < poland.intensity_g_per_kwh
    assert france.year >= 2020 and "codecarbon" in france.source and france.name == "France"


def test_a_kilowatt_hour_is_the_intensity_in_grams():
    """A slip between joules, kWh and kg would be off by thousands."""
    assert intensity_of(intensity=100).grams(3.6e6) == pytest.approx(100)


@pytest.mark.parametrize(
    ("country", "hint"),
    [
        ("Frnace", r"'FRA' \(France\)\?"),
        ("Germny", "'DEU'"),
        ("us", "'USA'"),
        ("ger", "'DEU'"),
        ("DUE", "'DEU'"),
        ("ch", "'CHE' .* or 'CHL' .* or 'CHN'"),
    ],
)
def test_a_country_that_does_not_exist_is_an_error_with_a_near_name(country, hint):
    """Codecarbon itself turns a bogus country into the world's average without a word."""
    with pytest.raises(BonsaiError, match=hint):
        intensity_of(country)


@pytest.mark.parametrize("country", ["WORLD", "Narnia", "XQZ", "EUR", "Europe", "x", "MAL"])
def test_what_is_near_no_country_gets_no_hint(country):
    """WORLD was said to mean Poland: whoever believes it, reports Poland's grams."""
    with pytest.raises(BonsaiError, match=f"'{country}' is not in") as raised:
        intensity_of(country)
    assert "did you mean" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "code"), [("France", "FRA"), ("united states", "USA"), ("The Netherlands", "NLD"), ("UK", "GBR")]
)
def test_a_countrys_english_name_is_taken_and_its_code_said(name, code, capsys):
    """Nobody knows all codes by heart; but what was understood must be seen."""
    assert intensity_of(name) == intensity_of(code)
    assert f"'{name}' is {code}" in capsys.readouterr().out


@pytest.mark.parametrize("intensity", [-1, 5000])
def test_impossible_intensity_is_an_error(intensity):
    """Kg instead of g, or a sign, must not pass."""
    with pytest.raises(BonsaiError, match="--intensity"):
        intensity_of("FRA", intensity)


def test_a_stated_intensity_goes_before_the_countrys_and_none_gives_none():
    """Nobody asked for grams: then there must be none."""
    assert intensity_of("FRA", 20).intensity_g_per_kwh == 20
    assert intensity_of() is None
