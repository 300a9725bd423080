"""Run the fine-tuned teacher once over all text that students will learn from."""

from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import new_folder
from kfp_bonsai.shared.core.ranges import ONE_OR_MORE, Range, check_ranges
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.kinds.kinds import kind_of, unknown
from kfp_bonsai.shared.models.checkpoint import load
from kfp_bonsai.shared.models.records import extend_record, read_record, task_of, write_record
from kfp_bonsai.teacher_outputs.more_text import changed_copies, unlabelled_texts

RANGES = {
    "augmentations": Range(-1, words="0 or more, or -1"),
    "unlabelled_rows": Range(-1, words="a number of rows, or -1 for all"),
    "hidden_positions": ONE_OR_MORE,
    "batch_size": ONE_OR_MORE,
}


def teacher_outputs(
    model: Path,
    train: Path,
    unlabelled: Path,
    output: Path,
    *,
    augmentations: int = -1,
    unlabelled_rows: int = -1,
    hidden_positions: int = 64,
    batch_size: int = 64,
    seed: int = 0,
) -> dict:
    """Compute the teacher's logits and hidden states once, for all levels to be distilled from.

    The transfer set is the training rows, changed copies of them (word dropout, crops, mixes; as in TinyBERT,
    arXiv 1909.10351, section 3, data augmentation, with simpler changes), and unlabelled text. What it
    takes on disk is bounded by rows x hidden-positions x hidden width x 2 bytes. Of a model that writes, it holds at
    each token of an answer the 32 likeliest tokens and the mass of the rest, at most 264 bytes, and the teacher's own
    answers to text without one.

    Args:
        model: The fine-tuned baseline.
        train: Training split.
        unlabelled: Split with text only; may have no rows.
        output: Folder to write the transfer set to.
        augmentations: Changed copies of each training row, where a change makes another text of it; -1 makes 8, or as
            many as give 65,000 in all; none of texts that are to be answered in writing, each of which the teacher would have
            to answer.
        unlabelled_rows: Rows of unlabelled text to use; -1 for all.
        hidden_positions: Tokens a row whose hidden states are kept (evenly spaced in longer rows).
        batch_size: Rows a step.
        seed: Seed of the changed copies and the choice of unlabelled rows.

    Returns:
        Rows and tokens in the transfer set, megabytes, seconds and joules.

    Raises:
        BonsaiError: the model or a split cannot be used, or the disk is full.

    Example:
        bonsai teacher-outputs --model baseline --train data/train.parquet --unlabelled data/unlabelled.parquet --output transfer
    """  # noqa: E501
    record = read_record(model)
    task = tasks.read_task(train)
    if task.split == "unlabelled":
        raise BonsaiError(f"{train} has no labels: give the training split as --train")
    tasks.check_unseen(task, train)
    if not task.is_of_one_data_set_with(task_of(record)):
        raise BonsaiError(f"{train} is not of the data set that {model} was trained on: give its training split")
    if not record["validation"].get(task.metric, 1) > 0:
        raise BonsaiError(
            f"{model} scores {record['validation'][task.metric]:.3g} by {task.metric} on its validation rows, so "
            "nothing can be relative to it: fine-tune it longer or at another --learning-rate, or look at the labels"
        )
    if tasks.read_task(unlabelled).columns != task.columns:
        raise BonsaiError(f"{unlabelled} has other text columns than {train}: prepare them in one run")
    check_ranges(RANGES, locals())

    from kfp_bonsai.shared.energy import energy
    from kfp_bonsai.shared.training import scaling, transfer
    from kfp_bonsai.shared.training.trainer import device
    from kfp_bonsai.teacher_outputs import own_answers

    writes = kind_of(task).writes
    copies = augmentations if augmentations >= 0 else 0 if writes else suggested_copies(task.rows)
    with new_folder(output) as folder:
        with energy.track() as meter:
            network, tokenizer = load(model)
            network.to(device())
            if writes:
                items = own_answers.items(network, tokenizer, train, unlabelled, record, copies, unlabelled_rows, seed)
            else:
                items = _items(train, unlabelled, tokenizer, record["max_length"], copies, unlabelled_rows, seed)
            scale = scaling.scale_of(record)
            if scale:  # what the students learn
                scaling.to_learnt(network, scale)
                for item in items[: task.rows]:
                    item["labels"] = scale.of(item["labels"])
            tokens = _write(network, items, folder, tokenizer.pad_token_id, hidden_positions, batch_size)
        there = tasks.read_task(unlabelled).rows
        used = there if unlabelled_rows < 0 else min(unlabelled_rows, there)
        arguments = {"augmentations": augmentations, "unlabelled_rows": used, "seed": seed}
        made = extend_record(
            record,
            stage="teacher-outputs",
            arguments=arguments,
            reading=meter.reading,
            hidden_positions=hidden_positions,
            hidden_sha256=transfer.hidden_sha256(folder),
        )
        write_record(folder, made)
        size = sum(path.stat().st_size for path in folder.iterdir())
    return {
        "rows": len(items),
        "tokens": tokens,
        "megabytes": round(size / 1e6, 1),
        "seconds": meter.reading.seconds,
        "joules": meter.reading.joules,
    }


def suggested_copies(rows: int) -> int:
    """Return the changed copies of each of so many training rows: few rows, once learnt by heart, teach no more."""
    return min(8, 65_000 // max(rows, 1))


def _items(
    train: Path, unlabelled: Path, tokenizer: Any, max_length: int, copies: int, unlabelled_rows: int, seed: int
) -> list[dict]:
    from kfp_bonsai.shared.data.rows import read_rows, tokenize

    task = tasks.read_task(train)
    known = read_rows(train, tokenizer, max_length)
    items = [known[index] for index in range(len(known))]
    columns = tasks.read_columns(train)
    texts = changed_copies([columns[name] for name in task.columns], copies, seed)
    if more := unlabelled_texts(unlabelled, task, unlabelled_rows, seed):
        texts.append(more)
    for block in texts:
        inputs = tokenize(tokenizer, block, max_length, kind_of(task).windows)
        found = (inputs[index] for index in range(len(inputs)))
        items += [{**item, "labels": unknown(task, len(item["input_ids"]))} for item in found]
    return items


def _write(network: Any, items: list[dict], folder: Path, pad_id: int, most: int, batch_size: int) -> int:
    """Run the teacher in batches of like length; return the number of hidden states written."""
    import numpy as np
    import torch

    from kfp_bonsai.shared.core.progress import Ticker
    from kfp_bonsai.shared.data import rows
    from kfp_bonsai.shared.models.heads import writes
    from kfp_bonsai.shared.training import soft_answers, transfer
    from kfp_bonsai.shared.training.distillation import states_of, states_width
    from kfp_bonsai.shared.training.trainer import bf16_is_faster, device

    network.to(device())
    lengths = np.array([len(item["input_ids"]) for item in items])
    order = np.argsort(lengths, kind="stable")
    writer = transfer.Writer(folder, states_width(network), int(np.minimum(lengths, most).sum()))
    ticker = Ticker("teacher-outputs", len(items))
    with torch.inference_mode(), torch.autocast(device(), torch.bfloat16, enabled=bf16_is_faster()):
        for start in range(0, len(order), batch_size):
            chosen = [items[index] for index in order[start : start + batch_size]]
            told_at = None
            if writes(network):
                batch = soft_answers.inputs(chosen, pad_id)
                told_at = batch.pop("told_at")
            else:
                batch = rows.pad([{name: item[name] for name in item if name != "labels"} for item in chosen], pad_id)
            found = network(**{name: value.to(device()) for name, value in batch.items()}, output_hidden_states=True)
            last = states_of(found)[-1].float().cpu().numpy()
            kept = [last[row, transfer.positions(len(item["input_ids"]), most)] for row, item in enumerate(chosen)]
            if told_at is not None:
                told = soft_answers.told(found.logits.flatten(0, 1)[told_at.to(found.logits.device)])
                logits = np.split(told, np.cumsum([len(item["labels"]) for item in chosen])[:-1])
            else:
                logits = found.logits.float().cpu().numpy()
                if logits.ndim > 2:
                    logits = [one[: len(item["input_ids"])] for one, item in zip(logits, chosen, strict=True)]
            writer.add(chosen, logits, kept)
            ticker.step(min(start + batch_size, len(items)))
    writer.close()
    return writer.filled
