"""From joules to grams of CO2: the carbon intensity of electricity, with its source and year."""

import json
from dataclasses import asdict, dataclass
from importlib import metadata, resources
from typing import Any

from kfp_bonsai.shared.energy import JOULES_PER_KWH
from kfp_bonsai.shared.errors import BonsaiError, nearest


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
        country: ISO 3166 code of three letters, such as "FRA".
        intensity: grams per kWh, from a contract or a grid's operator; it goes before the country's.

    Raises:
        BonsaiError: the country is not in codecarbon's table, or the intensity is below zero or above 2,000.
    """
    code = country.strip().upper()
    mix = _mix() if code else {}
    if code and code not in mix:
        raise BonsaiError(
            f"--country '{country}' is not in codecarbon's table: give an ISO 3166 code of three letters such as "
            f"FRA, or --intensity in g/kWh{_near(country, mix)}"
        )
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


def _near(country: str, mix: dict[str, Any]) -> str:
    """Return a hint: the code of the country of this name or one alike, or the code that begins like it."""
    wanted = country.strip().lower()
    names = {entry["country_name"].lower(): code for code, entry in mix.items()}
    if len(wanted) > 3:
        alike = nearest(wanted, [*names])
        found = next((name for name in names if f"'{name}'" in alike), "")
    else:
        found = next((name for name, code in names.items() if code.lower().startswith(wanted[:2])), "")
    return f"; did you mean '{names[found]}' ({mix[names[found]]['country_name']})?" if found else ""
