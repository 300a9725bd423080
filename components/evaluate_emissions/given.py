"""What goes into a measurement: checked before anything is loaded, and encoded once for all models."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.evaluate_emissions.readers import Reader, mean_lengths, side_by_side
from kfp_bonsai.shared.core.errors import BonsaiError, check_choice, listed
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.data.encoding import tokens_sha256
from kfp_bonsai.shared.inference.asking import Asked, askable, asked, tokens_a_row
from kfp_bonsai.shared.kinds.kinds import check_stage, kind_of
from kfp_bonsai.shared.saved import weights
from kfp_bonsai.shared.saved.records import read_record

AUTO = "auto"
DEVICES = (AUTO, "cpu", "cuda")
FEWEST_PAIRS, SHORTEST_BLOCK, SHORTEST_GPU_BLOCK = 2, 0.3, 5.0
CHUNK = 1024
Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class MeasuredRows:
    """The rows that all models run, sorted by length.

    Attributes:
        batches: padded to the longest row of each.
        singles: the same rows' shortest to longest, a few, one at a time.
        sizes: a batch of each size asked for, of the rows around the middle length; the smallest first.
        right: the right answers in the batches' order, as the metrics take them.
        labels: those of each batch, as its split has them.
        rows: how many there are.
        left_out: how many others there were, which the first reader, the baseline, cannot be asked.
        mean_lengths: tokens an input, padding included, of each reader: what the models compute.
        inputs_a_row: how many inputs a row is, 1 where none is parted into windows.
    """

    batches: list[Asked]
    singles: list[Batch]
    sizes: list[Batch]
    right: Any
    labels: list[list[Any]]
    rows: int
    left_out: int
    mean_lengths: list[float]
    inputs_a_row: float


def check_numbers(
    pairs: int = FEWEST_PAIRS,
    block_seconds: float = SHORTEST_BLOCK,
    batch_size: int = 1,
    precision: float = 0,
    time_budget: float = 0,
    traffic: int = 0,
    embodied: float = 0,
) -> None:
    """Check those of the protocol's numbers that are given.

    Raises:
        BonsaiError: too few pairs, too short blocks, or a number below zero.
    """
    if pairs < FEWEST_PAIRS:
        raise BonsaiError(f"--pairs {pairs}: an interval needs {FEWEST_PAIRS} pairs at the least; 10 are usual")
    if not block_seconds >= SHORTEST_BLOCK:
        raise BonsaiError(
            f"--block-seconds {block_seconds:g}: shorter blocks than {SHORTEST_BLOCK:g} s are noise; 2 are usual"
        )
    if batch_size < 1:
        raise BonsaiError(f"--batch-size {batch_size}: give 1 or more")
    at_least_zero = {"precision": precision, "time-budget": time_budget, "traffic": traffic, "embodied": embodied}
    for name, value in at_least_zero.items():
        if not 0 <= value < math.inf:
            raise BonsaiError(f"--{name} {value}: give a number of 0 or more")


def check_known(device: str) -> None:
    """Refuse a device that has no name here.

    Raises:
        BonsaiError: it is unknown.
    """
    check_choice("--device", device, DEVICES)


def check_device(device: str, folders: Sequence[Path]) -> str:
    """Return the device to run on: the GPU for "auto" where there is one and no model is quantized for CPUs.

    Raises:
        BonsaiError: an unknown device, or "cuda" without a GPU or with a quantized model.
    """
    check_known(device)
    if device == "cpu":
        return device
    quantized = [folder for folder in folders if weights.is_quantized(folder)]
    if device == "cuda" and quantized:
        raise BonsaiError(f"--device cuda: {quantized[0]} is quantized for CPUs: measure it with --device cpu")
    import torch

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise BonsaiError("--device cuda: torch sees no GPU here: use --device cpu, or ask for a node with a GPU")
    return "cuda" if there and not quantized else "cpu"


def check_task(train: Path, test: Path) -> tasks.Task:
    """Return the test split's task.

    Raises:
        BonsaiError: the test split is empty, or the splits are not of one data set.
    """
    task, other = tasks.read_task(test), tasks.read_task(train)
    check_stage(task.kind, "evaluate-emissions")
    if not task.rows:
        raise BonsaiError(f"{test} has no rows: prepare the data set again, with a larger --test-fraction")
    if task.split in ("unlabelled", "train"):
        raise BonsaiError(f"{test} is the {task.split} split: give the test split")
    tasks.check_unseen(other, train)
    if not task.is_of_one_data_set_with(other):
        raise BonsaiError(f"{train} and {test} are not of one data set: give two splits of one prepare-data run")
    return task


def check_models(folders: Sequence[Path], task: tasks.Task, test: Path) -> list[dict[str, Any]]:
    """Return all models' records, the baseline's first.

    Raises:
        BonsaiError: a folder is missing, no model of a stage, of another task, or has another tokenizer and is no
            ready-made model beside the baseline, nor one with fewer tokens.
    """
    records = []
    first = ""
    for folder in folders:
        if not folder.is_dir():
            raise BonsaiError(f"no model folder at {folder}: give one written by fine-tune, distill or quantize")
        record = read_record(folder)
        trained = record["task"]
        if (trained["kind"], tuple(trained["labels"])) != (task.kind, task.labels):
            raise BonsaiError(
                f"{folder} was trained for the labels {_listed(trained['labels'])}, but {test} has "
                f"{_listed(task.labels)}: give models and a test split of one data set"
            )
        if tuple(trained["columns"]) != task.columns:
            raise BonsaiError(f"{folder} reads the columns {_listed(trained['columns'])}, not {_listed(task.columns)}")
        found = tokens_sha256(folder)
        first = first or found
        own = bool(record.get("student") or record.get("vocabulary")) and not kind_of(task).windows
        if found != first and not own:
            raise BonsaiError(
                f"{folder} has another tokenizer than {folders[0]}, so the two would not run the same tokens: "
                "give candidates that were made from this baseline"
            )
        records.append(record)
    return records


def read_test_rows(
    readers: Sequence[Reader],
    task: tasks.Task,
    test: Path,
    batch_size: int,
    max_rows: int,
    singles: int,
    sizes: Sequence[int],
    seed: int,
) -> MeasuredRows:
    """Encode the test rows as all readers have them.

    Args:
        readers: whose tokenizers are used; by the first one's tokens rows are sorted.
        task: the test split's task.
        test: the test split.
        batch_size: rows a batch.
        max_rows: rows to draw at random if there are more; 0 for all.
        singles: rows to give one at a time as well.
        sizes: further batch sizes to give a batch of; those above the rows are left out.
        seed: seed of the draw.

    Raises:
        BonsaiError: there are too many that the first one cannot be asked.
    """
    columns = tasks.read_columns(test)
    drawn = list(range(task.rows))
    if 0 < max_rows < task.rows:
        drawn = sorted(random.Random(seed).sample(drawn, max_rows))
    baseline, max_length = readers[0]
    chosen = askable(baseline, columns, task, str(test), drawn, max_length)
    texts = [[columns[name][row] for row in chosen] for name in task.columns]

    def encode(rows: Sequence[int]) -> Asked:
        columns, first = [[side[row] for row in rows] for side in texts], chosen[rows[0]] + 1
        return side_by_side([asked(folder, columns, task, length, str(test), first) for folder, length in readers])

    lengths = np.concatenate(
        [tokens_a_row(encode(range(at, min(at + CHUNK, len(chosen))))) for at in range(0, len(chosen), CHUNK)]
    )
    by_length = np.argsort(lengths, kind="stable").tolist()
    batches = [encode(by_length[start : start + batch_size]) for start in range(0, len(chosen), batch_size)]
    picked = np.linspace(0, len(chosen) - 1, min(singles, len(chosen))).round().astype(int)
    middles = [(len(chosen) - size) // 2 for size in sizes]
    sized = [encode(by_length[at : at + size]).batch for at, size in zip(middles, sizes, strict=True) if at >= 0]
    single = [encode([by_length[one]]).batch for one in picked]
    in_order = {name: [values[chosen[row]] for row in by_length] for name, values in columns.items()}
    inputs, right = sum(len(each.batch["input_ids"]) for each in batches), kind_of(task).right(in_order, task)
    tokens = mean_lengths([each.batch for each in batches], len(readers))
    labels = [in_order["label"][start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    left_out = len(drawn) - len(chosen)
    return MeasuredRows(batches, single, sized, right, labels, len(chosen), left_out, tokens, inputs / len(chosen))


def _listed(names: Sequence[str]) -> str:
    return f"({listed(names)})" if names else "(a number)"
