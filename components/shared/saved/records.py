"""A model's record, bonsai.json: what no weights file says.

Which stage made the model from which parent with which arguments, what that cost, and how many parameters and FLOPs it
has.
"""

import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import NoneType
from typing import Any

from kfp_bonsai.shared.core.documents import COUNT, LENGTH, RECORD, Kind, read_document
from kfp_bonsai.shared.core.downloads import EMBEDDED
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.kinds.task import Task

MADE_BY = "a bonsai stage such as fine-tune"
FLOPS = ("per_sequence", "per_token", "per_pair", "per_written", "per_written_read", "per_written_own")
NUMBER = (int, float, NoneType)
TYPES: dict[str, Any] = {  # of what a record holds: types, kinds of value, objects of them, or lists of them
    "stage": str,
    "level": str,
    "student": str,
    "sha256": str,
    "tokenizer_sha256": str,
    "code_sha256": str,
    "runtime": str,
    "model_type": str,
    "max_length": LENGTH,
    "parameters": int,
    "pad_token_id": int,
    "read_tokens": (int, float),
    "written_tokens": (int, float),
    "seed": int,
    "parent": (dict, NoneType),
    "lineage": [{"stage": str, "arguments": dict, "seconds": NUMBER, "joules": NUMBER, "energy_label": str}],
    "versions": dict,
    "validation": dict,
    "quantization": {"positions": COUNT, "agreement": NUMBER, "scheme": str, "processor": dict},
    "vocabulary": {"kept": int, "whole": int},
    "predicted_emission": {"share": (int, float), "error": (int, float), "device": str},
    "flops": dict.fromkeys(FLOPS, (int, float)),
    "task": {
        **dict.fromkeys(("name", "kind", "metric", "source", "split", "sha256", "setting"), str),
        **{"columns": [str], "labels": [str], "notes": [str], "rows": int},
    },
    "shape": {
        "kind": str,
        "hidden": int,
        "head_dim": int,
        "stacks": [int],
        "layers": [{"heads": int, "ffn": int, "cross_heads": int}],
    },
}


class Record(dict[str, Any]):
    """A record that was read; what it lacks is said in words."""

    def __init__(self, path: Path | str, found: Mapping[str, Any]) -> None:
        super().__init__(found)
        self.path = path

    def __missing__(self, key: str) -> Any:
        raise BonsaiError(f"{self.path} says nothing of '{key}': give a model folder written by {MADE_BY}")


def read_record(folder: Path) -> dict[str, Any]:
    """Read a model folder's record.

    Raises:
        BonsaiError: the folder was not written by a stage, or its record is damaged.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        raise BonsaiError(f"{folder} has no {RECORD}: give a model folder written by {MADE_BY}")
    return checked(path, read_document(path, MADE_BY, "lineage"))


def checked(where: Path | str, found: Mapping[str, Any]) -> Record:
    """Return a record that was read, once what is there of it has the types that it should have.

    Args:
        where: the file, or its address.
        found: what it holds.

    Raises:
        BonsaiError: an entry is of another type.
    """
    _check_types(dict(found), TYPES, f"{where}: ")
    return Record(where, found)


def _check_types(found: Any, wanted: Any, where: str) -> None:
    """Check that what is there of a record has the types that it should have."""
    if isinstance(wanted, Kind):
        fits = wanted.holds(found)
    else:
        expected = type(wanted) if isinstance(wanted, dict | list) else wanted
        fits = isinstance(found, expected) and not (isinstance(found, bool) and expected is int)
    if not fits:
        raise BonsaiError(f"{where} is {json.dumps(found)[:80]}, which no stage writes: make the model again")
    if isinstance(wanted, list):
        for number, one in enumerate(found):
            _check_types(one, wanted[0], f"{where}[{number}]")
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in wanted.keys() & found.keys():
            _check_types(found[key], wanted[key], f"{where}{'.' if where[-1] != ' ' else ''}{key}")


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a model folder's record."""
    (Path(folder) / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def extend_record(
    parent: Mapping[str, Any] | None, *, stage: str, arguments: Mapping[str, Any], reading: Any, **changes: Any
) -> dict[str, Any]:
    """Return the record of a model that `stage` makes from a parent's record (None: from outside).

    Args:
        parent: the record of the model that the stage started from.
        stage: the stage's name, such as "distill".
        arguments: what the stage was called with; values are made JSON by str() where they need it.
        reading: what the stage cost, an energy.Reading.
        changes: entries of the record that the stage sets or replaces.
    """
    entry = {
        "stage": stage,
        "arguments": {key: value if isinstance(value, int | float) else str(value) for key, value in arguments.items()},
        "seconds": round(reading.seconds, 3),
        "joules": round(reading.joules, 3),
        "energy_label": reading.label,
    }
    start: dict[str, Any] = dict(parent) if parent else {"format": 1, "lineage": []}
    start.pop("code_sha256", None)  # of a file in the parent's folder
    return {
        **start,
        "stage": stage,
        "parent": {"sha256": parent["sha256"], "stage": parent["stage"]} if parent else None,
        "lineage": [*start["lineage"], entry],
        "versions": versions(),
        **changes,
    }


def task_of(record: Mapping[str, Any]) -> Task:
    """Return the task that a model's record says it was trained for."""
    from kfp_bonsai.shared.data.tasks import task_in  # which reads Parquet, and what serves does not

    return task_in(record["task"], f"the task in {RECORD}", "make the model again")


def short_name(model: str) -> str:
    """Return what people call a model that is named by a folder, a hub name or embedded:NAME."""
    return model.removeprefix(EMBEDDED).rstrip("/").rsplit("/", 1)[-1]


def start_of(record: Mapping[str, Any]) -> str:
    """Return the pretrained model that a model is made of: the baseline's, or the ready-made one that it was; or ""."""
    first = (record.get("lineage") or [{}])[0]
    return str(record.get("student") or (first.get("arguments") or {}).get("model") or "")


def versions() -> dict[str, str]:
    """Return the versions that decide a result."""
    found = {"python": platform.python_version()}
    for name in ("kfp-bonsai", "torch", "transformers", "datasets", "codecarbon", "onnxruntime", "openvino", "nncf"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
