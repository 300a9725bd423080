"""A study in a file: YAML, whose keys are `models`, `data`, `levels`, `seeds`, `options` and `title`."""

from collections.abc import Mapping
from typing import Any

from kfp_bonsai.pipelines.cells import Entry, Study
from kfp_bonsai.pipelines.values import fitting
from kfp_bonsai.pipelines.yaml_file import read_mapping
from kfp_bonsai.shared.core.errors import BonsaiError, nearest
from kfp_bonsai.shared.core.signatures import Option

KEYS = ("title", "models", "data", "levels", "seeds", "options")
OWN = {"model": ("name", "levels"), "data": ("name", "levels", "group")}  # of an entry, beside options
LEVEL = '["half:layers=1/2"]'


def read_study(file: str, known: Mapping[str, Option]) -> Study:
    """Read a study's file.

    Args:
        file: where it is.
        known: the options of `bonsai run` that it may have.

    Raises:
        BonsaiError: it cannot be read, or a key or a value is none that a study has.
    """
    return study_of(read_mapping(file, "study", "models: [embedded:minilm]"), known, f"study {file}: ")


def study_of(found: Mapping[Any, Any], known: Mapping[str, Option], where: str = "") -> Study:
    """Return the study that a mapping describes.

    Args:
        found: its keys and values.
        known: the options of `bonsai run` that it may have.
        where: what stands before a key in messages.

    Raises:
        BonsaiError: a key or a value is none that a study has.
    """
    for key in found:
        if key not in KEYS:
            hint = nearest(str(key), [*KEYS])
            if _named(key) in known:
                hint = ": it is an option of a run, so put it under options (or a model's or data set's own)"
            raise BonsaiError(f"{where}{key} is unknown{hint} (known: {', '.join(KEYS)})")
    return Study(
        models=_entries(found.get("models"), "models", "model", known, where),
        data=_entries(found.get("data"), "data", "data", known, where),
        levels=levels_of(found.get("levels"), f"{where}levels"),
        seeds=_seeds(found.get("seeds"), f"{where}seeds"),
        options=_options(found.get("options"), known, f"{where}options"),
        title=_text(found.get("title"), f"{where}title"),
    )


def levels_of(value: Any, what: str) -> list[str]:
    """Return a list of levels, each a text."""
    found = _list(value, what, LEVEL)
    for one in found:
        if not isinstance(one, str):
            raise BonsaiError(f'{what}: {one!r} is no text: write each level in quotes, such as "half:layers=1/2"')
    return found


def _entries(value: Any, what: str, key: str, known: Mapping[str, Option], where: str) -> list[Entry]:
    example = "[embedded:minilm]" if key == "model" else "[reviews.csv]"
    return [_entry(one, f"{where}{what}", key, known) for one in _list(value, f"{where}{what}", example)]


def _entry(value: Any, what: str, key: str, known: Mapping[str, Option]) -> Entry:
    """Read a model or a data set: a text, or a mapping with options of its own."""
    if isinstance(value, str) and value.strip():
        return Entry(value.strip())
    if not isinstance(value, dict) or key not in value:
        raise BonsaiError(
            f"{what}: {value!r} is neither a text nor a mapping with '{key}': write its place, or '{key}: PLACE' with "
            "options below it"
        )
    place = _text(value[key], f"{what}: {key}")
    if not place:
        raise BonsaiError(f"{what}: '{key}' is empty: write its place")
    where = f"{what}: {place}"
    rest = {name: one for name, one in value.items() if name != key and name not in OWN[key]}
    name = _text(value.get("name"), f"{where}: name")
    named = {"name": name} if name and key == "data" else {}  # which its reports bear too
    return Entry(
        place,
        name=name,
        group=_text(value.get("group"), f"{where}: group"),
        options={**_options(rest, known, where, OWN[key]), **named},
        levels=levels_of(value.get("levels"), f"{where}: levels"),
    )


def _options(value: Any, known: Mapping[str, Option], what: str, beside: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return options of `bonsai run` by their parameters' names, each of its type."""
    if not isinstance(value or {}, dict):
        raise BonsaiError(f"{what} is {value!r}: write one 'option: value' a line below it, such as 'epochs: 2'")
    found: dict[str, Any] = {}
    for key, one in (value or {}).items():
        name = _named(key)
        if name not in known:
            shown = [*beside, *(each.replace("_", "-") for each in known)]
            raise BonsaiError(f"{what}: {key} is unknown{nearest(str(key), shown)} (known: {', '.join(shown)})")
        if name in found:
            raise BonsaiError(f"{what}: {key} is there twice: leave one of them out")
        found[name] = fitting(one, known[name].annotation, f"{what}: {key}")
    return found


def _seeds(value: Any, what: str) -> list[int]:
    found = _list(value, what, "[0, 1, 2]") if value is not None else [0]
    return [fitting(one, int, f"{what}: one of them") for one in found]


def _list(value: Any, what: str, example: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise BonsaiError(f"{what} is {value!r}, and not a list: write one '- ' a line, or such as {example}")
    return value


def _text(value: Any, what: str) -> str:
    return "" if value is None else fitting(value, str, what).strip()


def _named(key: Any) -> str:
    return str(key).replace("-", "_")
