"""Options in a file: `bonsai compile --settings cluster.yaml`, whose keys are the names of the options."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, get_origin, get_type_hints

from kfp_bonsai.pipelines.yaml_file import read_mapping
from kfp_bonsai.shared.core.errors import BonsaiError, nearest

OWN = ("output", "settings")  # which are of one call alone


def in_settings(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function's option `settings` name a file with its others, which what is given wins over."""

    @functools.wraps(function)
    def call(*, settings: str = "", **given: Any) -> Any:
        return function(settings=settings, **{**(_read(settings, function) if settings else {}), **given})

    return call


def _read(file: str, function: Callable[..., Any]) -> dict[str, Any]:
    """Return a function's options that a file has, by their parameters' names.

    Args:
        file: YAML whose keys are names of options, "gpu-node" or "gpu_node".
        function: whose parameters the options are.

    Raises:
        BonsaiError: the file cannot be read, or a key or a value is none of the options'.
    """
    hints = get_type_hints(function)
    known = [name.replace("_", "-") for name in inspect.signature(function).parameters if name not in OWN]
    found = {}
    for key, value in read_mapping(file, "--settings", "cpu: 8").items():
        name = str(key).replace("_", "-")
        if name not in known:
            raise BonsaiError(
                f"--settings {file}: {key} is unknown{nearest(str(key), known)} (known: {', '.join(known)})"
            )
        name = name.replace("-", "_")
        found[name] = _fitting(value, hints[name], f"--settings {file}: {key}")
    return found


def _fitting(value: Any, hint: Any, what: str) -> Any:
    """Return a value of a file as an option has it: 8 for the text "8", {pool: gpu} for the list ["pool=gpu"]."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if get_origin(hint) is Sequence:
        if isinstance(value, dict):
            return [f"{_text(key, what)}={_text(each, what)}" for key, each in value.items()]
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
            return value
        raise BonsaiError(f"{what}: write a list such as [pool=gpu], or a mapping such as {{pool: gpu}}")
    if hint is str and (number or isinstance(value, str)):
        return str(value)
    if (hint is int and number and isinstance(value, int)) or (hint is bool and isinstance(value, bool)):
        return value
    kind = {str: "text", int: "a whole number", bool: "true or false"}[hint]
    raise BonsaiError(f"{what}: {value!r} is not {kind}")


def _text(value: Any, what: str) -> str:
    """Return a key or a value as it was written; YAML keeps no number so: 010 is 8, and 1.10 is 1.1."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    raise BonsaiError(f"{what}: YAML reads {value!r} there, which may not be what is written: put it in quotes")
