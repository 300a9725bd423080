"""Arguments of a pipeline: NAME=VALUE as text becomes what the pipeline asks for, or an error."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kfp_bonsai.pipelines.cluster.form import FORMS, OPTIONS, settle
from kfp_bonsai.pipelines.cluster.study_form import settle_study
from kfp_bonsai.pipelines.options import EDGE, FIRST, LEVELS, STUDY, arguments
from kfp_bonsai.pipelines.values import fitting
from kfp_bonsai.pipelines.yaml_file import read_first
from kfp_bonsai.shared.core.errors import BonsaiError, nearest
from kfp_bonsai.shared.core.signatures import REQUIRED

FLAG, SET = "--argument ", "--set "


def read_arguments(pipeline: Path, texts: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE arguments as a compiled pipeline takes them, and check their values.

    Returns:
        The fields of its form that are given, and all other arguments as its options.

    Raises:
        BonsaiError: the file is no compiled pipeline; or an argument is unknown, of another type, missing, or one that
            a stage would refuse, perhaps hours later. Data are not opened: the cluster may read what we may not.
    """
    name, fields, fixed = _compiled(Path(pipeline))
    found = read_texts(name, texts, FLAG)
    if EDGE in found and EDGE not in fields and found.pop(EDGE) != fixed.get(EDGE):
        how = "without --edge" if fixed.get(EDGE) else "with --edge"
        raise BonsaiError(
            f"{FLAG}{EDGE}: {pipeline} was compiled for the other branch: compile it {how}, or with --edge-at-run-time"
        )
    needed = [each for each, one in arguments(name).items() if one.default is REQUIRED]
    missing = [each for each in needed if not str(found.get(each, fields[each].get("defaultValue", ""))).strip()]
    if missing:
        raise BonsaiError(f"{pipeline} needs {FLAG}{f' {FLAG}'.join(f'{each}=...' for each in missing)}")
    settled = settle_any(name, found, fixed, FLAG)
    if LEVELS in found:
        found[LEVELS] = settled[LEVELS]
    options = {} if OPTIONS in arguments(name) else found.pop(OPTIONS, {})
    options |= {each: found.pop(each) for each in [*found] if each not in fields}
    return {**found, OPTIONS: options} if options else found


def settle_any(pipeline: str, given: Mapping[str, Any], fixed: Mapping[str, Any], flag: str) -> dict[str, Any]:
    """Check the arguments that a pipeline is given, and return them, as `settle` and `settle_study` do."""
    own = settle_study if pipeline == STUDY else partial(settle, pipeline)
    return own(given, fixed, flag, whole=False)


def read_texts(pipeline: str, texts: Sequence[str], flag: str) -> dict[str, Any]:
    """Read NAME=VALUE texts by the types of a pipeline's arguments.

    Args:
        pipeline: which one.
        texts: such as "epochs=1"; an object of options may be among them.
        flag: what stands before each in messages.

    Raises:
        BonsaiError: a text is no such thing, or its name is unknown.
    """
    known = {name: one.annotation for name, one in arguments(pipeline).items()} | {OPTIONS: dict}
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            first = [*FORMS[pipeline], *(each for each in known if each not in FORMS[pipeline])]
            raise BonsaiError(
                f"{flag}{text}: write NAME=VALUE, with an argument of {pipeline}{nearest(name, first)} (arguments: "
                f"{', '.join(first)})"
            )
        found[name] = _value(value, known[name], f"{flag}{name}")
    return found


def _value(value: str, kind: type, what: str) -> Any:
    if kind is str:
        return value
    try:
        read = json.loads(value.lower() if kind is bool else value)
    except (ValueError, RecursionError):
        read = value
    return fitting(read, kind, what)


def _compiled(pipeline: Path) -> tuple[str, dict[str, Mapping[str, Any]], dict[str, Any]]:
    """Return a compiled pipeline's name, the fields of its form, and what was fixed when compiling."""
    if not pipeline.is_file():
        raise BonsaiError(f"--pipeline {pipeline}: there is no such file: make it with `bonsai compile`")
    spec = read_first(pipeline, f"--pipeline {pipeline}", ": make it with `bonsai compile`", more=True)
    try:
        name, root = spec["pipelineInfo"]["name"], spec["root"]
        first = root["dag"]["tasks"][FIRST[name]]["inputs"]["parameters"]
        fields, fixed = root["inputDefinitions"]["parameters"], first["fixed"]["runtimeValue"]["constant"]
        return name, {each: dict(one) for each, one in fields.items()}, dict(fixed)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BonsaiError(f"--pipeline {pipeline} is no compiled pipeline: make it with `bonsai compile`") from error
