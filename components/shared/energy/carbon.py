"""From joules to grams of CO2: the carbon intensity of electricity, with its source and year."""

import difflib
import json
from dataclasses import asdict, dataclass
from importlib import metadata, resources
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.energy.energy import JOULES_PER_KWH

MOST_HINTS = 3
ALIKE = 0.8  # Germny and Germany are 0.92 alike, World and Poland 0.55
OTHER_NAMES = {
    "czech republic": "CZE",
    "great britain": "GBR",
    "holland": "NLD",
    "ivory coast": "CIV",
    "korea": "KOR",
    "türkiye": "TUR",
    "uae": "ARE",
    "uk": "GBR",
    "united states of america": "USA",
}


@dataclass(frozen=True)
class Intensity:
    """How much CO2 a kilowatt-hour stands for.

    Attributes:
        intensity_g_per_kwh: grams of CO2 equivalent for each kWh.
        country: the country's ISO 3166 code of three letters, "" for a stated intensity.
        name: the country's name.
        year: the year of the figure, 0 if not known.
        source: where the figure is from.
    """

    intensity_g_per_kwh: float
    country: str
    name: str
    year: int
    source: str

    def grams(self, joules: float) -> float:
        """Return the grams of CO2 equivalent of an amount of energy."""
        return joules / JOULES_PER_KWH * self.intensity_g_per_kwh

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, as the measurement file keeps them."""
        return asdict(self)


def intensity_of(country: str = "", intensity: float = 0) -> Intensity | None:
    """Return the intensity asked for, or nothing if none was.

    Args:
        country: ISO 3166 code of three letters, such as "FRA", or the country's English name, which is said with its
            code.
        intensity: grams per kWh, from a contract or a grid's operator; it goes before the country's.

    Raises:
        BonsaiError: the country is not in codecarbon's table, or the intensity is below zero or above 2,000.
    """
    mix = _mix() if country.strip() else {}
    code = _code(country, mix) if mix else ""
    name = mix[code]["country_name"] if code else ""
    if intensity:
        if not 0 < intensity <= 2000:
            raise BonsaiError(f"--intensity {intensity} g/kWh cannot be: electricity is between 1 and 2000 g/kWh")
        return Intensity(float(intensity), code, name, 0, "stated by the user")
    if not code:
        return None
    entry = mix[code]
    source = f"codecarbon {metadata.version('codecarbon')}, global energy mix (Our World in Data)"
    return Intensity(float(entry["carbon_intensity"]), code, name, int(entry["year"]), source)


def _mix() -> dict[str, Any]:
    """Return codecarbon's table of countries that have an intensity."""
    file = resources.files("codecarbon").joinpath("data/private_infra/global_energy_mix.json")
    table = json.loads(file.read_text(encoding="utf-8"))
    return {code: entry for code, entry in table.items() if entry.get("carbon_intensity")}


def _code(country: str, mix: dict[str, Any]) -> str:
    """Return a country's code, given that or its English name.

    Raises:
        BonsaiError: it is not in the table.
    """
    wanted = country.strip()
    if wanted.upper() in mix:
        return wanted.upper()
    name = wanted.lower().removeprefix("the ")
    names = {entry["country_name"].lower(): code for code, entry in mix.items()} | OTHER_NAMES
    if name not in names:
        raise BonsaiError(
            f"--country '{country}' is not in codecarbon's table: give an ISO 3166 code of three letters such as "
            f"FRA, or --intensity in g/kWh{_hint(name, names, mix)}"
        )
    say(f"--country '{country}' is {names[name]} ({mix[names[name]]['country_name']})")
    return names[name]


def _hint(wanted: str, names: dict[str, str], mix: dict[str, Any]) -> str:
    """Return "; did you mean ...?" for a few names or codes that are really near, or ""."""
    if len(wanted) == 2:
        near = [code for code in mix if code.lower().startswith(wanted)]
    elif len(wanted) == 3:
        near = [code for name, code in names.items() if name.startswith(wanted)]
        near = near or [code for code in mix if code.lower() == wanted[0] + wanted[2] + wanted[1]]
    else:
        near = [names[name] for name in difflib.get_close_matches(wanted, names, MOST_HINTS, ALIKE)]
    near = list(dict.fromkeys(near))
    if not 0 < len(near) <= MOST_HINTS:
        return ""
    return "; did you mean " + " or ".join(f"'{code}' ({mix[code]['country_name']})" for code in near) + "?"
