"""Tokenized rows of a split, and the padded batches that models train on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.data.encoding import FIELDS, encode_rows

LONGEST = 512
Item = dict[str, Any]


@dataclass(frozen=True)
class Rows(torch.utils.data.Dataset):
    """Tokenized rows in memory (4 bytes a token), with labels where there are any.

    Attributes:
        inputs: one array a row for each input of the model except the attention mask ("input_ids", ...).
        labels: int64 classes or float32 values, shape (rows,); None for unlabelled text.
    """

    inputs: dict[str, list[np.ndarray]]
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])

    def __getitem__(self, index: int) -> Item:
        item: Item = {name: rows[index] for name, rows in self.inputs.items()}
        if self.labels is not None:
            item["labels"] = self.labels[index]
        return item

    @property
    def lengths(self) -> list[int]:
        """Tokens in each row."""
        return [len(row) for row in self.inputs["input_ids"]]


def read_rows(path: Path, tokenizer: Any, max_length: int) -> Rows:
    """Tokenize a split.

    Args:
        path: a Parquet split.
        tokenizer: the model's tokenizer.
        max_length: tokens at which rows are cut.
    """
    task = tasks.read_task(path)
    inputs: dict[str, list[np.ndarray]] = {}
    labels: list[float] = []
    silent = 0
    for batch in tasks.batches(path):
        made = tokenize(tokenizer, [batch[column] for column in task.columns], max_length)
        for name, rows in made.items():
            inputs.setdefault(name, []).extend(rows)
        silent += _silent(tokenizer, made["input_ids"])
        if silent > len(inputs["input_ids"]) / 2:
            raise BonsaiError(
                f"the tokenizer knows nothing of {silent:,} of {len(inputs['input_ids']):,} texts in {path}: does it "
                "belong to the model, and to the language?"
            )
        labels.extend(batch.get("label", []))
    if not inputs:
        raise BonsaiError(f"{path} has no rows: prepare the data set again")
    kind = np.int64 if task.kind == tasks.CLASSIFICATION else np.float32
    return Rows(inputs, np.asarray(labels, kind) if labels else None)


def _silent(tokenizer: Any, rows: list[np.ndarray]) -> int:
    """Return how many rows hold no token of a text, only unknown ones and those that mark its ends."""
    unknown = {*tokenizer.all_special_ids, tokenizer.unk_token_id}
    return sum(unknown.issuperset(row.tolist()) for row in rows)


def tokenize(tokenizer: Any, columns: Sequence[list[str]], max_length: int) -> dict[str, list[np.ndarray]]:
    """Tokenize texts (one column) or pairs (two): an int32 array a row for each model input but the mask.

    The tokens are those of `inference.encode` on the tokenizer's folder, for any text: both ask the tokenizers library
    itself, and `checkpoint.load` makes sure that it is the same tokenizer.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    backend.encode_special_tokens = tokenizer.split_special_tokens
    encoded = encode_rows(backend, *columns)
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
        found = max(found, *(len(row) for row in tokenize(tokenizer, columns, limit)["input_ids"]))
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
        batch["labels"] = torch.from_numpy(np.array([item["labels"] for item in items]))
    return batch
