"""Run the fine-tuned teacher once over all text that students will learn from."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import new_folder
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.core.ranges import ONE_OR_MORE, Range, check_ranges
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.data.encoding import tokens_sha256
from kfp_bonsai.shared.kinds.kind import ROW, Kind
from kfp_bonsai.shared.kinds.kinds import kind_of, unknown
from kfp_bonsai.shared.saved.checkpoint import load
from kfp_bonsai.shared.saved.records import extend_record, read_record, task_of, write_record
from kfp_bonsai.teacher_outputs import room
from kfp_bonsai.teacher_outputs.more_text import changed_copies, unlabelled_texts

MOST_COPIES, MOST_COPIED_TOKENS = 65_000, 65_000 * 64  # of changed copies, where nothing else is asked for
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
    arXiv 1909.10351, section 3, data augmentation, with simpler changes), and unlabelled text. What it takes on disk
    is told first; where there is no room for all, fewer hidden states a row are kept, and then fewer copies and texts.
    Of a model that writes, it holds at each token of an answer the 32 likeliest tokens and the mass of the rest, and
    the teacher's own answers to text without one.

    Args:
        model: The fine-tuned baseline.
        train: Training split.
        unlabelled: Split with text only; may have no rows.
        output: Folder to write the transfer set to.
        augmentations: Changed copies of each training row, where a change makes another text of it; -1 makes 8, or as
            many as give 65,000 rows and 4 million tokens in all; none of texts that are to be answered in writing, each
            of which the teacher would have to answer.
        unlabelled_rows: Rows of unlabelled text to use; -1 for all.
        hidden_positions: Tokens a row whose hidden states are kept (evenly spaced in longer rows).
        batch_size: Rows a step; fewer of rows above 128 tokens.
        seed: Seed of the changed copies and the choice of unlabelled rows.

    Returns:
        Rows and tokens in the transfer set, hidden states kept of a row at the most, megabytes, seconds and joules.

    Raises:
        BonsaiError: the model or a split cannot be used, or the disk has no room for the training rows.

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
    from kfp_bonsai.shared.saved.weights import size_bytes
    from kfp_bonsai.shared.training import attempts, scaling, transfer
    from kfp_bonsai.shared.training.distillation import states_width
    from kfp_bonsai.shared.training.trainer import device
    from kfp_bonsai.teacher_outputs import own_answers

    kind = kind_of(task)
    asked = [augmentations, unlabelled_rows, hidden_positions, batch_size, seed]
    given = [record["sha256"], task.sha256, tasks.read_task(unlabelled).sha256]
    with attempts.attempt("teacher-outputs", output, [given, asked]) as attempt, new_folder(output) as folder:
        with energy.track() as meter:
            attempt.meter = meter
            network, tokenizer = load(model)
            network.to(device())
            if kind.writes:
                copies = max(0, augmentations)
                parts = own_answers.parts(
                    network, tokenizer, train, unlabelled, record, copies, unlabelled_rows, seed, attempt.once
                )
            else:
                parts = _parts(train, unlabelled, tokenizer, record["max_length"], augmentations, unlabelled_rows, seed)
            if parts.cut:
                say(f"teacher-outputs  {parts.cut:,} rows are longer than {record['max_length']} tokens and cut there")
            width, said = states_width(network), partial(_numbers, kind, len(kind.outputs(task)))
            weights = size_bytes(model)
            told = transfer.told_in(attempt.folder)
            if told:  # what there was room for before a part was written
                size = room.Size(**told["size"])
            else:
                size = room.settle(parts, output, width, said, hidden_positions, weights)
            items, positions = parts.first(size), size.positions
            scale = scaling.scale_of(record)
            if scale:  # what the students learn
                scaling.to_learnt(network, scale)
                for item in items[: size.training]:
                    item["labels"] = scale.of(item["labels"])
            _write(network, items, attempt, folder, tokenizer.pad_token_id, size, batch_size, told)
        there = tasks.read_task(unlabelled).rows
        used = min(there if unlabelled_rows < 0 else min(unlabelled_rows, there), size.unlabelled)
        arguments = {"augmentations": augmentations, "unlabelled_rows": used, "seed": seed}
        cost = attempt.total(meter.reading)
        made = extend_record(
            record,
            stage="teacher-outputs",
            arguments=arguments,
            reading=cost,
            hidden_positions=positions,
            tokens_sha256=tokens_sha256(model),
            hidden_sha256=transfer.hidden_sha256(folder),
        )
        write_record(folder, made)
        taken = sum(path.stat().st_size for path in folder.iterdir())
    return {
        "rows": len(items),
        "tokens": size.tokens,
        "hidden_positions": positions,
        "megabytes": round(taken / 1e6, 1),
        "seconds": cost.seconds,
        "joules": cost.joules,
    }


def suggested_copies(rows: int, tokens: int) -> int:
    """Return the changed copies of each of so many training rows: few rows, once learnt by heart, teach no more.

    Args:
        rows: how many there are.
        tokens: how many tokens they have, as long texts are paid for by the token.
    """
    return min(8, MOST_COPIES // max(rows, 1), MOST_COPIED_TOKENS // max(tokens, 1))


def _numbers(kind: Kind, outputs: int, item: dict[str, Any]) -> int:
    """Return how many numbers a teacher says of an input."""
    from kfp_bonsai.shared.training import soft_answers

    if kind.writes:
        return soft_answers.NUMBERS * len(item["labels"])
    return outputs * (1 if kind.head == ROW else len(item["input_ids"]))


def _parts(
    train: Path, unlabelled: Path, tokenizer: Any, max_length: int, copies: int, unlabelled_rows: int, seed: int
) -> room.Parts:
    from kfp_bonsai.shared.data.rows import read_rows, tokenize

    task = tasks.read_task(train)
    windows = kind_of(task).windows
    known = read_rows(train, tokenizer, max_length)
    cut = known.cut

    def tokenized(texts: Iterable[list[list[str]]]) -> list[dict]:
        nonlocal cut
        found: list[dict] = []
        for block in texts:
            inputs = tokenize(tokenizer, block, max_length, windows)
            items = [inputs[index] for index in range(len(inputs))]
            items = [{**item, "labels": unknown(task, len(item["input_ids"]))} for item in items]
            found += items if windows else _with_texts(items, block, task)  # else a row may be several inputs
            cut += inputs.cut
        return found

    columns = tasks.read_columns(train)
    if copies < 0:
        copies = suggested_copies(task.rows, sum(known.lengths))
    given = [columns[name] for name in task.columns]
    training = [known[index] for index in range(len(known))]
    if not windows:
        training = _with_texts(training, given, task)
    changed = tokenized(changed_copies(given, copies, seed))
    more = tokenized(unlabelled_texts(unlabelled, task, unlabelled_rows, seed))
    return room.Parts(training, more, changed, cut)


def _with_texts(items: list[dict], texts: list[list[str]], task: tasks.Task) -> list[dict]:
    """Return inputs, each with its row's texts, of which a student with a tokenizer of its own makes its inputs."""
    given = zip(*texts, strict=True)
    return [item | dict(zip(task.columns, row, strict=True)) for item, row in zip(items, given, strict=True)]


def _write(
    network: Any,
    items: list[dict],
    attempt: Any,
    folder: Path,
    pad_id: int,
    size: room.Size,
    batch_size: int,
    told: dict[str, Any],
) -> None:
    """Run the teacher in batches of like length, from where an earlier attempt was ended."""
    import numpy as np
    import torch

    from kfp_bonsai.shared.core import stopping
    from kfp_bonsai.shared.core.progress import Ticker
    from kfp_bonsai.shared.data import rows
    from kfp_bonsai.shared.data.batches import by_length
    from kfp_bonsai.shared.models.heads import writes
    from kfp_bonsai.shared.training import answer_batches, soft_answers, sparing, transfer
    from kfp_bonsai.shared.training.distillation import states_of, states_width
    from kfp_bonsai.shared.training.trainer import bf16_is_faster, device

    def answer(chosen: Sequence[dict]) -> list[tuple]:
        """Return the logits of each input, and its last hidden states that are kept."""
        if writing:
            batch = answer_batches.inputs(chosen, pad_id)
        else:
            batch = rows.pad([{name: item[name] for name in item if name.endswith("_ids")} for item in chosen], pad_id)
        given = {name: value.to(device()) for name, value in batch.items()}
        found = answer_batches.run(network, given, output_hidden_states=True)
        last = states_of(found)[-1].float().cpu().numpy()
        kept = [last[row, transfer.positions(len(item["input_ids"]), most)] for row, item in enumerate(chosen)]
        if writing:
            told = soft_answers.told(found.logits)
            logits = np.split(told, np.cumsum([len(item["labels"]) for item in chosen])[:-1])
        else:
            logits = found.logits.float().cpu().numpy()
            if logits.ndim > 2:
                logits = [one[: len(item["input_ids"])] for one, item in zip(logits, chosen, strict=True)]
        return [*zip(logits, kept, strict=True)]

    writing = writes(network)
    lengths, most = np.array([len(item["input_ids"]) for item in items]), size.positions
    writer = transfer.Writer(attempt.folder, states_width(network), int(np.minimum(lengths, most).sum()))
    ticker, done = Ticker("teacher-outputs", len(items)), 0
    bf16 = told.get("bf16", bf16_is_faster())
    if there := writer.batches:
        say(f"teacher-outputs  resuming after batch {there}, from {attempt.folder}")
        attempt.resume(told.get("spent"))

    def noted() -> dict[str, Any]:
        return {"size": asdict(size), "bf16": bf16, "spent": attempt.spent()}

    precision = torch.autocast(device(), torch.bfloat16, enabled=bf16)
    with stopping.heeded(), torch.inference_mode(), precision:
        for batch_number, numbers in enumerate(by_length(lengths, batch_size)):
            if batch_number < there:
                done += len(numbers)
                continue
            if stopping.asked() or attempt.is_due():
                attempt.keep(lambda: writer.keep(noted()))
                if stopping.asked():
                    stopping.stop()
            chosen = [items[number] for number in numbers]
            logits, kept = zip(*sparing.in_halves(answer, chosen), strict=True)
            writer.add(chosen, logits, kept)
            done += len(chosen)
            ticker.step(done)
    writer.close(folder, noted())
