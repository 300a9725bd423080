"""What quality.py sets a level beside: the same FLOPs, rows and steps, in simpler ways or by another tool."""

import copy
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from trained import mean_length
from transformers import set_seed

from kfp_bonsai.shared.core.files import new_folder
from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.kinds import kinds
from kfp_bonsai.shared.saved import checkpoint, records
from kfp_bonsai.shared.training import trainer
from kfp_bonsai.shared.training.attempts import Attempt

TAYLOR_ROWS = 512  # whose gradients score the units


def random_like(model: Path, to: Path, seed: int) -> None:
    """Write a model of the same shape with random weights."""
    set_seed(seed)
    network, tokenizer = checkpoint.load(model)
    with new_folder(to) as folder:
        checkpoint.save(type(network)(network.config), tokenizer, folder, records.read_record(model))


def by_torch_pruning(
    base: Path, data: dict[str, Path], to: Path, share: float, recipe: trainer.Recipe, rates: Sequence[float]
) -> dict[str, float]:
    """Prune a BERT by Torch-Pruning's group Taylor importance, fine-tune it on the labels, and return its figures.

    All of its layers are narrowed alike: heads, neurons and hidden features, by the ratio that gives the share of the
    FLOPs. No checkpoint of transformers' holds such a model, so only its figures are kept.

    Args:
        base: the fine-tuned baseline.
        data: the splits.
        to: file to keep the figures in.
        share: FLOPs, relative to the baseline's.
        recipe: how long to train; the epoch that is best by validation counts.
        rates: learning rates to try; the best by validation counts.
    """
    if to.exists():
        return json.loads(to.read_text())
    network, tokenizer = checkpoint.load(base)
    network.set_attn_implementation("eager")  # whose products torch counts, and Torch-Pruning sees
    record, pad = records.read_record(base), tokenizer.pad_token_id
    length = round(mean_length(base, data["test"]))
    task = records.task_of(record)
    train, validation, test = (
        rows.read_rows(data[name], tokenizer, record["max_length"]) for name in ("train", "validation", "test")
    )
    for start in range(0, min(TAYLOR_ROWS, len(train)), recipe.batch_size):
        some = [train[index] for index in range(start, min(start + recipe.batch_size, len(train)))]
        network(**rows.pad(some, pad)).loss.backward()
    whole, low, high = measured_flops(network, length), 0.0, 0.95
    pruned: Any = None
    for _ in range(8):
        middle = (low + high) / 2
        tried = narrowed(network, middle, length)
        if measured_flops(tried, length) <= share * whole:
            pruned, high = tried, middle
        else:
            low = middle
    pruned.zero_grad()
    best = {"validation": -1.0}
    for rate in rates:
        tuned = copy.deepcopy(pruned)
        with tempfile.TemporaryDirectory() as scratch:
            own = replace(recipe, learning_rate=rate)
            trainer.train(tuned, train, own, Attempt(Path(scratch)), validation=validation, task=task, pad_id=pad)
        mine, other = (
            kinds.score(task, trainer.predict(tuned, split, pad), split.right) for split in (validation, test)
        )
        if mine > best["validation"]:
            best = {"validation": mine, "accuracy": other, "learning_rate": rate}
    found = {**best, "flops_ratio": measured_flops(pruned, length) / whole, "pruning_ratio": high}
    to.write_text(json.dumps(found))
    return found


def narrowed(network: Any, ratio: float, length: int) -> Any:
    """Return a copy that Torch-Pruning has narrowed by a ratio, as its examples do it for BERT."""
    import torch_pruning

    small = copy.deepcopy(network)
    for mine, other in zip(small.parameters(), network.parameters(), strict=True):
        mine.grad = other.grad.clone()
    heads = {}
    for layer in small.bert.encoder.layer:
        attention = layer.attention.self
        heads |= dict.fromkeys((attention.query, attention.key, attention.value), small.config.num_attention_heads)
    pruner = torch_pruning.pruner.BasePruner(
        small,
        example(length),
        importance=torch_pruning.importance.GroupTaylorImportance(),
        pruning_ratio=ratio,
        head_pruning_ratio=ratio,
        prune_num_heads=True,
        prune_head_dims=False,
        num_heads=heads,
        ignored_layers=[small.classifier],
        output_transform=lambda found: found.logits.sum(),
    )
    pruner.step()
    for layer in small.bert.encoder.layer:
        attention = layer.attention.self
        attention.num_attention_heads = pruner.num_heads[attention.query]
        attention.attention_head_size = attention.query.out_features // attention.num_attention_heads
        attention.all_head_size = attention.query.out_features
    return small


def example(length: int) -> dict[str, torch.Tensor]:
    """Return a batch of one row."""
    return {"input_ids": torch.ones(1, length, dtype=torch.long), "attention_mask": torch.ones(1, length)}


def measured_flops(network: nn.Module, length: int) -> int:
    """Return what torch counts for one row; all matrix products, as our own definition."""
    network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(**example(length))
    return counter.get_total_flops()
