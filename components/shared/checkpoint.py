"""The folders that stages write: models with their record, bonsai.json, loaded strictly.

The record says what no weights file says: which stage made the model from which parent with which
arguments, what that cost, and how many parameters and FLOPs it has.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from types import NoneType
from typing import Any

import numpy as np

from kfp_bonsai.shared import pretrained
from kfp_bonsai.shared.documents import read_document
from kfp_bonsai.shared.errors import BonsaiError
from kfp_bonsai.shared.families import is_free
from kfp_bonsai.shared.inference import check_files, encode, tokenizer_sha256, weights_sha256
from kfp_bonsai.shared.tasks import Task

RECORD = "bonsai.json"
MADE_BY = "a bonsai stage such as fine-tune"
NUMBER = (int, float, NoneType)
TYPES: dict[str, Any] = {  # of what a record holds: types, objects of them, or lists of them
    "stage": str,
    "level": str,
    "sha256": str,
    "tokenizer_sha256": str,
    "runtime": str,
    "model_type": str,
    "max_length": int,
    "parameters": int,
    "pad_token_id": int,
    "seed": int,
    "parent": (dict, NoneType),
    "lineage": [{"stage": str, "arguments": dict, "seconds": NUMBER, "joules": NUMBER, "energy_label": str}],
    "versions": dict,
    "validation": dict,
    "quantization": dict,
    "flops": dict.fromkeys(("per_sequence", "per_token", "per_pair"), (int, float)),
    "task": {
        **dict.fromkeys(("name", "kind", "metric", "source", "split", "sha256"), str),
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

    def __init__(self, path: Path, found: Mapping[str, Any]) -> None:
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
    found = read_document(path, MADE_BY, "lineage")
    _check_types(found, TYPES, f"{path}: ")
    return Record(path, found)


def _check_types(found: Any, wanted: Any, where: str) -> None:
    """Check that what is there of a record has the types that it should have."""
    expected = type(wanted) if isinstance(wanted, dict | list) else wanted
    if not isinstance(found, expected) or (isinstance(found, bool) and expected is int):
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


def load(folder: Path) -> tuple[Any, Any]:
    """Load a stage's model and its tokenizer, in evaluation mode and float32.

    Weights and tokenizer must be those that the record speaks of (some half a second a gigabyte), and what transformers
    makes of the tokenizer must be what tokenizer.json holds, with which models are measured and served.

    Raises:
        BonsaiError: the folder is no stage's, or is damaged.
    """
    folder = Path(folder)
    record = read_record(folder)
    found = pretrained.read(folder)
    check_files(folder, record)
    loaded = pretrained.load(folder, found.config)
    if loaded.new or loaded.spare:
        wrong = ", ".join((*loaded.new, *loaded.spare)[:5])
        raise BonsaiError(f"{folder} is damaged: weights missing or not expected: {wrong}")
    check_tokenizer(folder, found.tokenizer)
    return loaded.network.eval(), found.tokenizer


def check_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Check that a tokenizer, as transformers made it from a folder, is what the folder's tokenizer.json holds.

    Then all that is trained, measured and served gets the same tokens of any text.
    """
    from tokenizers import Tokenizer

    stored = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for one in (stored, tokenizer.backend_tokenizer):
        one.no_padding()
        one.no_truncation()
    if _content(stored) != _content(tokenizer.backend_tokenizer):
        raise BonsaiError(
            f"{folder / 'tokenizer_config.json'} makes another tokenizer of tokenizer.json than that holds by itself, "
            f"so that texts would be split differently where the model is served: make the model again"
        )


def _content(tokenizer: Any) -> Any:
    """Return what a tokenizer holds, its pieces' scores (Unigram) to the 12 digits that survive reading a file."""
    return json.loads(tokenizer.to_str(), parse_float=lambda score: f"{float(score):.12g}")


def rehearse(network: Any, tokenizer: Any, columns: Sequence[Sequence[str]], max_length: int) -> None:
    """Save all of a model but its weights, read it back, and see that texts get the same tokens, and answers, of it.

    Args:
        network: a model that is to be trained; on "meta" it is not asked for answers.
        tokenizer: its tokenizer.
        columns: the rows' texts, or first and second texts.
        max_length: tokens at which rows are cut.

    Raises:
        BonsaiError: what would be saved after training cannot be saved, or is read as another tokenizer; or the model
            does not work, in training or after it.
    """
    from kfp_bonsai.shared import rows

    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with pretrained.in_words(f"a part of {tokenizer.name_or_path}", "it could not be saved after training"):
            network.save_pretrained(folder, state_dict={})
            tokenizer.save_pretrained(folder)
        again = pretrained.read_tokenizer(folder)
        check_tokenizer(folder, again)
        mine = rows.tokenize(tokenizer, columns, max_length)
        served = encode(folder, *columns, max_length=max_length)
        theirs = again(*columns, padding=True, truncation=True, max_length=max_length, return_tensors="np")
    for name, found in mine.items():
        for number, row in enumerate(found):
            others = [served[name][number], *([theirs[name][number]] if theirs["attention_mask"][number].any() else [])]
            if not all(np.array_equal(row, other[: len(row)]) for other in others):
                raise BonsaiError(
                    f"the tokenizer of {tokenizer.name_or_path} splits a text otherwise once it is saved "
                    f"({columns[0][number][:80]!r}): save it with this version of transformers, and look at its tokens"
                )
    if network.device.type != "meta":
        items = [{name: found[number] for name, found in mine.items()} for number in (0, -1)]
        _try(network, rows.pad(items, tokenizer.pad_token_id))


def _try(network: Any, batch: Mapping[str, Any]) -> None:
    """See that a model gives numbers, in training and in use."""
    import torch

    where = f"the model in {network.config.name_or_path}"
    wrong = pretrained.in_words(where, "its config.json describes no model that runs")
    with wrong, torch.random.fork_rng(), torch.no_grad():
        found = [network.train(training)(**batch).logits for training in (True, False)]
    if not all(torch.isfinite(logits).all() for logits in found):
        raise BonsaiError(f"{where} gives NaN or infinity for a text: its config.json or weights are damaged")


def save(model: Any, tokenizer: Any, folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Write a model, its tokenizer and its record, which is returned; parameters, FLOPs, shape and hash are read off.

    Of several processes only the first one writes the weights.
    """
    from kfp_bonsai.shared import flops, parallel, shapes

    shape = shapes.shape_of(model)
    if parallel.is_first():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        mode = (Path(folder) / "config.json").stat().st_mode
        for weights in Path(folder).glob("*.safetensors"):  # written for their owner alone: no server could read them
            weights.chmod(mode)
    digest = weights_sha256(folder)
    lineage = [dict(one) for one in record["lineage"]]
    lineage[-1]["sha256"] = digest
    measured = {
        "sha256": digest,
        "tokenizer_sha256": tokenizer_sha256(folder),
        "lineage": lineage,
        "model_type": model.config.model_type,
        "pad_token_id": tokenizer.pad_token_id,
        **({"split_special_tokens": True} if tokenizer.split_special_tokens else {}),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "flops": flops.count(model).as_dict(),
        "shape": {
            "kind": shapes.FREE if is_free(model.config) else shapes.STOCK,
            "hidden": shape.hidden,
            "head_dim": shape.head_dim,
            "stacks": list(shape.stacks),
            "layers": [asdict(one) for one in shape.layers],
        },
    }
    written = {**record, **measured}
    write_record(folder, written)
    return written


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
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in record["task"].items()}
    with pretrained.in_words(f"the task in {RECORD}", "make the model again"):
        return Task(**values)


def versions() -> dict[str, str]:
    """Return the versions that decide a result."""
    found = {"python": platform.python_version()}
    for name in ("kfp-bonsai", "torch", "transformers", "datasets", "codecarbon", "onnxruntime", "openvino", "nncf"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def size_bytes(folder: Path) -> int:
    """Return the bytes on disk of a model folder's weights."""
    files = [*Path(folder).glob("*.safetensors"), *Path(folder).glob("model.onnx*")]
    return sum(path.stat().st_size for path in files)
