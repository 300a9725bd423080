"""Arguments of a compiled pipeline: NAME=VALUE as text becomes what the pipeline asks for, or an error."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.errors import BonsaiError, nearest


def read_arguments(pipeline: Path, texts: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE arguments as the types that a compiled pipeline asks for.

    Raises:
        BonsaiError: the file is no compiled pipeline; or an argument is unknown, of another type, or missing.
    """
    known = _parameters(Path(pipeline))
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise BonsaiError(
                f"--argument {text}: write NAME=VALUE, with a parameter of {pipeline}"
                f"{nearest(name, [*known])} (parameters: {', '.join(known)})"
            )
        found[name] = _value(text, value, known[name].get("parameterType", "STRING"))
    missing = [
        name
        for name, one in known.items()
        if name not in found and "defaultValue" not in one and not one.get("isOptional")
    ]
    if missing:
        raise BonsaiError(f"{pipeline} needs --argument {' --argument '.join(f'{name}=...' for name in missing)}")
    return found


def _parameters(pipeline: Path) -> dict[str, Mapping[str, Any]]:
    import yaml

    if not pipeline.is_file():
        raise BonsaiError(f"--pipeline {pipeline}: there is no such file: make it with `bonsai compile`")
    try:
        spec = next(iter(yaml.safe_load_all(pipeline.read_text(encoding="utf-8"))))
        root = spec["root"]
    except OSError as error:
        raise BonsaiError(f"--pipeline {pipeline} cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError, StopIteration, KeyError, TypeError) as error:
        raise BonsaiError(f"--pipeline {pipeline} is no compiled pipeline: make it with `bonsai compile`") from error
    return root.get("inputDefinitions", {}).get("parameters", {})


def _value(text: str, value: str, kind: str) -> Any:
    if kind == "STRING":
        return value
    try:
        found = json.loads(value.lower() if kind == "BOOLEAN" else value)
    except ValueError:
        found = None
    number = isinstance(found, int | float) and not isinstance(found, bool)
    fits = {
        "NUMBER_INTEGER": number and isinstance(found, int),
        "NUMBER_DOUBLE": number,
        "BOOLEAN": isinstance(found, bool),
        "LIST": isinstance(found, list),
        "STRUCT": isinstance(found, dict),
    }
    if not fits.get(kind, found is not None):
        words = {"NUMBER_INTEGER": "a whole number", "NUMBER_DOUBLE": "a number", "BOOLEAN": "true or false"}
        raise BonsaiError(f"--argument {text}: give {words.get(kind, f'JSON for a {kind.lower()}')}")
    return found
