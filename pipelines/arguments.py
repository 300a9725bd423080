"""Arguments of a compiled pipeline: NAME=VALUE as text becomes what the pipeline asks for, or an error."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp_bonsai.pipelines.inputs import check_values
from kfp_bonsai.pipelines.levels import DEFAULTS, parse_levels
from kfp_bonsai.prepare_data.read import is_hub_name
from kfp_bonsai.shared.bucket import GCS
from kfp_bonsai.shared.embedded import EMBEDDED
from kfp_bonsai.shared.errors import BonsaiError, nearest


def read_arguments(pipeline: Path, texts: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE arguments as the types that a compiled pipeline asks for, and check their values.

    Raises:
        BonsaiError: the file is no compiled pipeline; or an argument is unknown, of another type, missing, or one that
            a stage would refuse, perhaps hours later. Data are not opened: the cluster may read what we may not.
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
    _check_for_cluster(found)
    try:
        if "levels" in found:
            found["levels"] = _levels(found["levels"])
        check_values(found)
    except BonsaiError as error:
        raise BonsaiError(_as_arguments(str(error), known)) from error
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
        words = {
            "NUMBER_INTEGER": "a whole number",
            "NUMBER_DOUBLE": "a number",
            "BOOLEAN": "true or false",
            "LIST": 'a JSON list such as ["half:layers=1/2", "tiny:layers=1/3"]',
        }
        raise BonsaiError(f"--argument {text}: give {words.get(kind, f'JSON for a {kind.lower()}')}")
    return found


def _levels(given: Sequence[Any]) -> list[dict[str, Any]]:
    """Return levels as the pipeline's loop reads them, which knows no defaults.

    Args:
        given: texts as `bonsai run` takes them, or objects such as {"label": "half", "layers": "1/2"}.

    Raises:
        BonsaiError: there is none, or one that `bonsai run` would refuse too.
    """
    if not given:
        raise BonsaiError("--level: the list is empty: give a level, or leave it out for the three of the white paper")
    return parse_levels([_level_text(each) for each in given])


def _level_text(level: Any) -> str:
    if isinstance(level, str):
        return level
    if not isinstance(level, dict) or "label" not in level or ":" in str(level["label"]):
        raise BonsaiError(
            f'--level {json.dumps(level)}: write a text such as "half:layers=1/2", or an object such as '
            '{"label": "half", "layers": "1/2"}, without a colon in the label'
        )
    settings = {key: value for key, value in level.items() if key != "label"} or {"layers": DEFAULTS["layers"]}
    return f"{level['label']}:" + ",".join(f"{key}={value}" for key, value in settings.items())


def _as_arguments(message: str, known: Mapping[str, Any]) -> str:
    """Return a message in which the options of `bonsai run` are called as the pipeline's arguments."""

    def name(option: re.Match) -> str:
        found = "levels" if option[1] == "level" else option[1].replace("-", "_")
        return f"--argument {found}" if found in known else option[0]

    return re.sub(r"--([a-z]+(?:-[a-z]+)*)", name, message)


def _check_for_cluster(arguments: Mapping[str, Any]) -> None:
    """Refuse places that a folder on one's own machine may be, and what a task's pod cannot reach or install."""
    for name in ("model", "data", "test_data", "validation_data", "unlabelled_data"):
        if EMBEDDED in (value := arguments.get(name, "")):
            raise BonsaiError(
                f"--argument {name}={value}: {EMBEDDED}... comes by pip, which the images have not: give a hub name, a "
                "folder on the cache volume such as /cache/models/bert, or for data gs://bucket/path"
            )
    upload, model = arguments.get("upload", ""), arguments.get("model", "")
    if upload and not re.match(f"{GCS}[^/]", upload):
        raise BonsaiError(
            f"--argument upload={upload}: a cluster's task publishes to Google Cloud Storage only (it has no volume, "
            "and a folder would be lost with its pod): give gs://bucket/prefix"
        )
    for name in ("data", "test_data", "validation_data", "unlabelled_data"):
        for value in filter(None, map(str.strip, arguments.get(name, "").split(","))):
            if not value.startswith((GCS, "/")) and not is_hub_name(value):
                raise BonsaiError(
                    f"--argument {name}={value}: a task's pod does not read that: give gs://bucket/path, a path on the "
                    "cache volume such as /cache/data/reviews.parquet, or a data set's name on the hub"
                )
    if "://" in model or not re.match(r"/|\w", model or "/") or (model[:1] != "/" and model.count("/") > 1):
        raise BonsaiError(
            f"--argument model={model}: models are not read from there: give a hub name such as "
            "google-bert/bert-base-uncased, or a folder on the cache volume such as /cache/models/bert"
        )
