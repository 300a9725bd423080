"""A vocabulary cut to the tokens that a task needs: fewer rows of the embedding and the output matrix, and of the work.

BPE tokenizers alone whose letters are bytes (GPT-2, Llama 3, Qwen, SmolLM2), or that write a letter that they lack as
its bytes, <0x0A> (Llama 2, Mistral v0.1, Gemma): there every text that had tokens has some whatever is left out, at the
worst one a byte. A token stays if it occurs, is on the way to one that does, stands for a byte, or was added (special
tokens). Merges of two tokens that lead to one that is gone are left out with it. Then a text whose
tokens all stay gets the same tokens as before, since each merge on its way is there still, and in the same order; and
the logits of what stays are the same, as they are the same rows times the same states.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.saved import pretrained

WHOLE, TASK = "whole", "task"
VOCABULARIES = (WHOLE, TASK)
IDS = ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "decoder_start_token_id")


def check(tokenizer: Any) -> None:
    """Refuse a tokenizer whose vocabulary cannot be cut.

    Raises:
        BonsaiError: it is no BPE with a token for each byte.
    """
    _read(tokenizer)


def can(tokenizer: Any) -> bool:
    """Say whether a tokenizer's vocabulary can be cut."""
    try:
        check(tokenizer)
    except BonsaiError:
        return False
    return True


def needed(tokenizer: Any, used: Iterable[np.ndarray]) -> np.ndarray:
    """Return which tokens a task needs, in their order.

    Args:
        tokenizer: the model's.
        used: the tokens of texts and answers.

    Raises:
        BonsaiError: its vocabulary cannot be cut.
    """
    data = _read(tokenizer)
    vocabulary = data["model"]["vocab"]
    names = {number: token for token, number in vocabulary.items()}
    ways: dict[str, list[tuple[str, str]]] = {}
    for pair in _merges(data):
        ways.setdefault("".join(pair), []).append(pair)
    kept = {number for row in used for number in np.unique(row).tolist()}
    kept |= {vocabulary[token] for token in _bytes_of(data) & vocabulary.keys()}
    kept |= {*tokenizer.all_special_ids, *(one["id"] for one in data["added_tokens"])}
    kept &= {*names, *(one["id"] for one in data["added_tokens"])}  # rows that fill a matrix up are no tokens
    waiting = [names[number] for number in kept if number in names]
    while waiting:
        for part in {part for pair in ways.get(waiting.pop(), ()) for part in pair}:
            if part in vocabulary and vocabulary[part] not in kept:
                kept.add(vocabulary[part])
                waiting.append(part)
    return np.array(sorted(kept))


def cut(network: Any, tokenizer: Any, kept: Sequence[int]) -> Any:
    """Leave out all other tokens of a model, in place, and return its new tokenizer.

    Args:
        network: a model that writes.
        tokenizer: its tokenizer.
        kept: the tokens that stay, in their order.
    """
    import torch
    from torch import nn

    numbers = {int(old): new for new, old in enumerate(kept)}
    rows, table = torch.as_tensor(kept), network.get_input_embeddings()
    fewer = nn.Embedding(len(kept), table.weight.shape[1], numbers.get(table.padding_idx))
    output = network.get_output_embeddings()
    narrow = nn.Linear(output.in_features, len(kept), output.bias is not None)
    with torch.no_grad():
        fewer.weight = nn.Parameter(table.weight[rows.to(table.weight.device)].clone())
        narrow.weight = nn.Parameter(output.weight[rows.to(output.weight.device)].clone())
        if output.bias is not None:
            narrow.bias = nn.Parameter(output.bias[rows.to(output.bias.device)].clone())
    tied = output.weight is table.weight
    network.set_input_embeddings(fewer)
    network.set_output_embeddings(narrow)
    network.config.vocab_size = len(kept)
    if tied:
        network.tie_weights()
    for settings in (network.config, network.generation_config):
        for name in IDS:
            value = getattr(settings, name, None)
            if value is not None:
                several = value if isinstance(value, list) else [value]
                found = [numbers[one] for one in several if one in numbers]
                setattr(settings, name, (found if isinstance(value, list) else found[0]) if found else None)
    return _fewer(tokenizer, numbers)


def _fewer(tokenizer: Any, numbers: Mapping[int, int]) -> Any:
    """Return a tokenizer with these tokens alone, by their new numbers."""
    data = _read(tokenizer)
    vocabulary = {token: numbers[old] for token, old in data["model"]["vocab"].items() if old in numbers}
    data["model"]["vocab"] = vocabulary
    data["model"]["merges"] = [
        [one, other] for one, other in _merges(data) if {one, other, one + other} <= vocabulary.keys()
    ]
    for one in data["added_tokens"]:
        one["id"] = numbers[one["id"]]
    if data["post_processor"]:
        data["post_processor"] = _renumbered(data["post_processor"], numbers)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tokenizer.save_pretrained(folder)
        for name in ("vocab.json", "merges.txt", "added_tokens.json", "tokenizer.model"):
            (folder / name).unlink(missing_ok=True)
        (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        if "added_tokens_decoder" in settings:
            added = settings["added_tokens_decoder"].items()
            settings["added_tokens_decoder"] = {str(numbers[int(old)]): one for old, one in added}
            (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        found = pretrained.read_tokenizer(folder)
    found.name_or_path = tokenizer.name_or_path
    return found


def _renumbered(part: Any, numbers: Mapping[int, int]) -> Any:
    """Return what adds special tokens, with their new numbers: lists of "ids", and pairs such as ("</s>", 2)."""
    if isinstance(part, dict):
        return {
            name: [numbers[old] for old in each] if name == "ids" else _renumbered(each, numbers)
            for name, each in part.items()
        }
    if isinstance(part, list) and len(part) == 2 and isinstance(part[0], str) and isinstance(part[1], int):
        return [part[0], numbers[part[1]]]
    return [_renumbered(each, numbers) for each in part] if isinstance(part, list) else part


def _read(tokenizer: Any) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    model, where = data["model"], tokenizer.name_or_path
    is_of_bytes = any(_has_bytes(data.get(name)) for name in ("pre_tokenizer", "decoder"))
    falls_back = bool(model.get("byte_fallback"))
    lacks = model["type"] != "BPE" or is_of_bytes == falls_back
    if lacks or (falls_back and not _bytes_of(data) <= model["vocab"].keys()):
        raise BonsaiError(
            f"the tokenizer of {where} ({model['type']}) does not fall back to bytes, so that a text with a word that "
            "was left out would have no tokens: its vocabulary stays whole, leave vocabulary=task out"
        )
    return data


def _has_bytes(part: Any) -> bool:
    if isinstance(part, dict):
        return part.get("type") == "ByteLevel" or any(map(_has_bytes, part.values()))
    return isinstance(part, list) and any(map(_has_bytes, part))


def _bytes_of(data: Mapping[str, Any]) -> set[str]:
    """Return the tokens that stand for bytes."""
    from tokenizers.pre_tokenizers import ByteLevel

    if data["model"].get("byte_fallback"):
        return {f"<0x{value:02X}>" for value in range(256)}
    return {*ByteLevel.alphabet()}


def _merges(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = [one.split(" ") if isinstance(one, str) else one for one in data["model"]["merges"]]
    return [(one, other) for one, other in pairs]
