"""A model's files as transformers writes them: what a folder must hold, checked without loading any of it."""

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.documents import read_document
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.models.configuration import FREE_PREFIX, family_name
from kfp_bonsai.shared.saved.weights import CODE_FILE

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model.onnx", "openvino_model.xml")
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "pytorch_adapter.bin")
SAVED_BY = "save_pretrained"
FLOATS = ("F64", "F32", "F16", "BF16")
SCALES = ("weight_scale", "scale_inv", "SCB", "absmax", "quant_map", "qweight", "qzeros", "scales", "weight_packed")


def check_folder(folder: Path) -> None:
    """Check that a folder holds a whole model we can compress, with its tokenizer, without loading it.

    Raises:
        BonsaiError: config.json or the tokenizer is missing or broken, the model type is unknown, or the weights are
            pickled, cut off, quantized or an adapter's.
    """
    for name in ADAPTERS:
        if (folder / name).exists():
            raise BonsaiError(
                f"{folder} holds an adapter ({name}), which changes the weights of another model: merge it first, with "
                "peft's AutoPeftModelForSequenceClassification.from_pretrained('FOLDER').merge_and_unload()"
                ".save_pretrained('NEW_FOLDER'), and give NEW_FOLDER; or remove it if it is not wanted"
            )
    if not (folder / "config.json").is_file():
        raise BonsaiError(f"{folder} has no config.json: give a folder written by save_pretrained")
    check_config(folder / "config.json")
    if not any((folder / name).is_file() for name in WEIGHTS):
        if any(any(folder.glob(f"*.{ending}")) for ending in ("bin", "pt", "pth")):
            found = read_document(folder / "config.json", SAVED_BY)
            raise BonsaiError(pickled(str(folder), found.get("architectures")))
        raise BonsaiError(f"{folder} has no model.safetensors: give a folder written by save_pretrained")
    _check_vocabulary(folder)
    tensors_of(folder)


def pickled(model: str, made_by: Any, first: str = "") -> str:
    """Say what to do with a model of pickled weights: load it as the class that saved it, or its head is lost.

    Args:
        model: what was given.
        made_by: the classes that its config.json names.
        first: what else can be done, which is easier.
    """
    kind = made_by[0] if isinstance(made_by, list) and made_by else "AutoModel"
    return (
        f"{model} has no safetensors weights, but pickled weights, which can run code when loaded: {first}convert them "
        f"once, where you trust them, with transformers.{kind}.from_pretrained('{model}')"
        ".save_pretrained('NEW_FOLDER'), save the tokenizer there too, and give NEW_FOLDER"
    )


def check_config(file: Path) -> str:
    """Check that a config.json speaks of a model that we can compress; return the model's type.

    Raises:
        BonsaiError: it does not, or is broken.
    """
    found = read_document(file, SAVED_BY)
    try:
        family_name(found.get("model_type", ""))
    except BonsaiError as error:
        raise BonsaiError(f"{file}: {error}") from error
    if found.get("quantization_config") is not None:
        raise BonsaiError(
            f"{file} has a quantization_config: quantized weights cannot be trained or cut: give the model that they "
            "were made from"
        )
    if not _is_shipped(found):
        raise BonsaiError(
            f"{file} has an auto_map: the model comes with code of its own, which is never run here: if it is a plain "
            f"{found['model_type']} without that code, remove the entry"
        )
    return str(found["model_type"])


def _is_shipped(config: Mapping[str, Any]) -> bool:
    """Say whether a config.json names no code, or what we put beside free shapes, in whose place we run our own."""
    named = config.get("auto_map") or {}
    free = str(config["model_type"]).startswith(FREE_PREFIX)
    ours = isinstance(named, dict) and all(str(one).startswith(f"{Path(CODE_FILE).stem}.") for one in named.values())
    return not named or (free and ours)


def _check_vocabulary(folder: Path) -> None:
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
        read_document(folder / "tokenizer.json", SAVED_BY, "model")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            read_document(folder / name, SAVED_BY)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that transformers reads of a folder.

    Raises:
        BonsaiError: one is missing, or the index is broken.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [folder / "model.safetensors"] if (folder / "model.safetensors").is_file() else []
    stated = read_document(index, SAVED_BY, "weight_map")["weight_map"]
    names = set(map(str, stated.values())) if isinstance(stated, dict) else set()
    if not names:
        raise BonsaiError(f"{index} names no weight files: copy the folder again")
    for name in sorted(names):
        if Path(name).name != name:
            raise BonsaiError(f"{index} names {name}, which is not in its folder: give a whole model folder")
        if not (folder / name).is_file():
            raise BonsaiError(f"{folder / name} is missing, one of the model's weight files: copy the folder again")
    alone = folder / "model.safetensors"
    return [alone] if alone.is_file() else [folder / name for name in sorted(names)]


def tensors_of(folder: Path) -> Mapping[str, tuple[str, Sequence[int]]]:
    """Return type and shape of each tensor of a folder's weights, by their files' headers.

    Raises:
        BonsaiError: a file is cut off, a tensor is in two of them, or the weights are quantized.
    """
    found: dict[str, tuple[str, Sequence[int]]] = {}
    for file in weight_files(folder):
        for name, (kind, shape) in _header(file).items():
            if name in found:
                raise BonsaiError(f"{file} holds {name}, and another of its weight files too: copy the folder again")
            if name.endswith(SCALES) or (name.endswith((".weight", "_proj")) and kind not in FLOATS):
                raise BonsaiError(
                    f"{file} holds quantized weights ({name}, {kind}), which cannot be trained or cut: give the model "
                    "that they were made from"
                )
            found[name] = kind, shape
    return found


def _header(file: Path) -> dict[str, tuple[str, Sequence[int]]]:
    """Return the header of a safetensors file, once its size is what that says."""
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            whole = file.stat().st_size
            header = json.loads(opened.read(size)) if 0 < size < whole else {}
        tensors = {name: one for name, one in header.items() if name != "__metadata__"}
        if 8 + size + max(one["data_offsets"][1] for one in tensors.values()) == whole:
            return {name: (str(one["dtype"]), [int(each) for each in one["shape"]]) for name, one in tensors.items()}
    except OSError as error:
        raise BonsaiError(f"{file} cannot be read ({error.strerror}): let this user read it") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        pass
    raise BonsaiError(f"{file} is cut off or no safetensors file: copy it again")
