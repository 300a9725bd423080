"""Tokenized rows of a split, and the padded batches that models train on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import prompts, tasks
from kfp_bonsai.shared.data.encoding import FIELDS, encode_rows, split
from kfp_bonsai.shared.kinds.kind import IGNORED
from kfp_bonsai.shared.kinds.kinds import kind_of
from kfp_bonsai.shared.kinds.windows import Windows, join

LONGEST = 512
PORTION = 1 << 20  # characters whose tokens are made at once, each of which takes some 100 bytes until it is cut
Item = dict[str, Any]


@dataclass(frozen=True)
class Rows(torch.utils.data.Dataset):
    """Tokenized rows in memory (4 bytes a token), with labels where there are any.

    Attributes:
        inputs: one array for each input of a model, by its name ("input_ids", ...); the attention mask is made later.
        labels: the losses' targets, one an input of the model, as the kind gives them, or the tokens of what is to be
            written; None for unlabelled text.
        right: the right answers, one a row, as the metrics take them; None for unlabelled text.
        windows: which part of which row each input is; None where each is a row.
        cut: how many rows are longer than an input, and cut.
    """

    inputs: dict[str, list[np.ndarray]]
    labels: Any = None
    right: Any = None
    windows: Windows | None = None
    cut: int = 0

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])

    def __getitem__(self, index: int) -> Item:
        item: Item = {name: rows[index] for name, rows in self.inputs.items()}
        if self.labels is not None:
            item["labels"] = self.labels[index]
        return item

    @property
    def lengths(self) -> list[int]:
        """Tokens in each input."""
        return [len(row) for row in self.inputs["input_ids"]]


def read_rows(path: Path, tokenizer: Any, max_length: int) -> Rows:
    """Tokenize a split.

    Args:
        path: a Parquet split.
        tokenizer: the model's tokenizer.
        max_length: tokens at which rows are cut, or parted; of a model that writes, its prompts.
    """
    task = tasks.read_task(path)
    kind = kind_of(task)
    parts: list[Rows] = []
    answers: dict[str, list] = {}
    tokens = silent = 0
    targets: list[np.ndarray] = []
    for batch in tasks.batches(path):
        columns = [batch[column] for column in task.columns]
        if kind.writes:
            encoded = prompts.asked(tokenizer, columns[0], task, str(path), tokens + 1, max_length)
            parts.append(Rows(_arrays(tokenizer, encoded)))
            targets += prompts.answers(tokenizer, batch.get("label", ()), str(path), tokens + 1)
        else:
            parts.append(tokenize(tokenizer, columns, max_length, kind.windows))
        silent += _silent(tokenizer, parts[-1].inputs["input_ids"])
        tokens += len(parts[-1])
        if silent > tokens / 2:
            raise BonsaiError(
                f"the tokenizer knows nothing of {silent:,} of {tokens:,} texts in {path}: does it belong to the "
                "model, and to the language?"
            )
        for name in (*task.columns, *(["label"] if "label" in batch else [])):
            answers.setdefault(name, []).extend(batch[name])
    if not parts:
        raise BonsaiError(f"{path} has no rows: prepare the data set again")
    inputs, windows = _joined(parts)
    cut = sum(part.cut for part in parts)
    if "label" not in answers:
        return Rows(inputs, windows=windows, cut=cut)
    labels = targets if kind.writes else kind.targets(answers["label"], task, windows)
    return Rows(inputs, labels, kind.right(answers, task), windows, cut)


def _joined(parts: Sequence[Rows]) -> tuple[dict[str, list[np.ndarray]], Windows | None]:
    """Return all batches' inputs, and windows, in one."""
    inputs = {name: [row for part in parts for row in part.inputs[name]] for name in parts[0].inputs}
    found = [part.windows for part in parts if part.windows is not None]
    return inputs, join(found) if found else None


def _silent(tokenizer: Any, rows: list[np.ndarray]) -> int:
    """Return how many rows hold no token of a text, only unknown ones and those that mark its ends."""
    unknown = {*tokenizer.all_special_ids, tokenizer.unk_token_id}
    return sum(unknown.issuperset(row.tolist()) for row in rows)


def tokenize(tokenizer: Any, columns: Sequence[Sequence[str]], max_length: int, cut: str = "") -> Rows:
    """Tokenize texts (one column) or pairs (two): an int32 array an input of the model, for each of its arrays.

    The tokens are those of `encoding.encode` on the tokenizer's folder, for any text: both ask the tokenizers library
    itself, and `checkpoint.load` makes sure that it is the same tokenizer.

    Args:
        tokenizer: the model's tokenizer.
        columns: the rows' texts, or first and second texts.
        max_length: tokens at which rows are cut.
        cut: which text is parted into windows instead, as a kind says it.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    backend.encode_special_tokens = tokenizer.split_special_tokens
    if cut:
        encoded, windows = split(backend, columns, max_length, cut)
        return Rows(_arrays(tokenizer, encoded), windows=windows, cut=0)
    inputs, beyond = _arrays(tokenizer, []), 0
    for part in _portions(columns):
        encoded = encode_rows(backend, *part)
        beyond += sum(bool(row.overflowing) for row in encoded)
        for name, arrays in _arrays(tokenizer, encoded).items():
            inputs[name] += arrays
    return Rows(inputs, windows=None, cut=beyond)


def _portions(columns: Sequence[Sequence[str]]) -> Iterator[list[Sequence[str]]]:
    """Yield rows in portions of some `PORTION` characters: a text's tokens are all there before it is cut."""
    first, size = 0, 0
    for at, texts in enumerate(zip(*columns, strict=True), 1):
        size += sum(map(len, texts))
        if size > PORTION or at == len(columns[0]):
            yield [column[first:at] for column in columns]
            first, size = at, 0


def _arrays(tokenizer: Any, encoded: Sequence[Any]) -> dict[str, list[np.ndarray]]:
    """Return the inputs of a model of encoded rows."""
    empty = {"input_ids": [tokenizer.pad_token_id]}  # a text of no tokens, where nothing marks beginning or end
    return {
        name: [np.asarray(getattr(row, field) or empty.get(name, [0]), np.int32) for row in encoded]
        for name, field in FIELDS.items()
        if name in tokenizer.model_input_names and name != "attention_mask"
    }


def longest(path: Path, tokenizer: Any, positions: int) -> int:
    """Return the length to cut rows at: the longest row's, rounded up to 8, at most 512 or the model's positions."""
    task = tasks.read_task(path)
    limit = min(LONGEST, positions)
    found = 1
    for batch in tasks.batches(path):
        columns = [batch[column] for column in task.columns]
        found = max(found, *(len(row) for row in tokenize(tokenizer, columns, limit).inputs["input_ids"]))
        if found >= limit:
            break
    return min(limit, -(-found // 8) * 8)


def pad(items: Sequence[Item], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad items into a batch: each input (rows, longest), the attention mask, and labels if present."""
    width = max(len(item["input_ids"]) for item in items)
    batch: dict[str, torch.Tensor] = {}
    for name in items[0]:
        if not name.endswith("_ids"):
            continue
        block = np.full((len(items), width), pad_id if name == "input_ids" else 0, np.int64)
        for row, item in enumerate(items):
            block[row, : len(item[name])] = item[name]
        batch[name] = torch.from_numpy(block)
    lengths = np.array([len(item["input_ids"]) for item in items])
    batch["attention_mask"] = torch.from_numpy((np.arange(width) < lengths[:, None]).astype(np.int64))
    if "labels" in items[0]:
        batch["labels"] = torch.from_numpy(stack([item["labels"] for item in items], width))
    return batch


def stack(labels: Sequence[Any], width: int) -> np.ndarray:
    """Return a batch's targets: as many of each input, or one a token, padded with what is ignored."""
    if len({np.shape(one) for one in labels}) == 1:
        return np.array(labels)
    block = np.full((len(labels), width), IGNORED, np.int64)
    for row, one in enumerate(labels):
        block[row, : len(one)] = one
    return block
