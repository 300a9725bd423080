"""Rows as a model is asked for them, and what it says put together again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.data.encoding import encode_windows
from kfp_bonsai.shared.inference.runtimes import Batch, load_predictor
from kfp_bonsai.shared.inference.writers import OWN, check_row, load_writer, of_length, prompt_batch
from kfp_bonsai.shared.kinds.kind import Logits
from kfp_bonsai.shared.kinds.kinds import kind_of, predict
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.kinds.windows import Windows, join

ROW_OF = "row_of"  # in a batch, beside a model's inputs
MOST_LEFT_OUT = 0.1  # of the rows: what is left then says little of the whole


@dataclass(frozen=True)
class Asked:
    """A batch of rows.

    Attributes:
        batch: a model's inputs, padded; with windows, which row each is of, too.
        windows: which part of which row each input is; None where each is a row.
    """

    batch: Batch
    windows: Windows | None


def asked(
    folder: Path,
    columns: Sequence[Sequence[str]],
    task: Task,
    max_length: int = 0,
    where: str = "what is asked",
    first: int = 1,
) -> Asked:
    """Encode rows with a model's tokenizer.

    Args:
        folder: the model's.
        columns: the rows' texts, or first and second texts.
        task: what it answers.
        max_length: the most tokens of an input; 0 takes the length the model was trained with.
        where: where the rows are from, for messages.
        first: the number of the first of them.
    """
    if kind_of(task).writes:
        return Asked(of_length(prompt_batch(folder, columns[0], task, max_length, where, first), OWN), None)
    batch, windows = encode_windows(folder, columns, max_length, kind_of(task).windows)
    return Asked(batch if windows is None else {**batch, ROW_OF: windows.rows}, windows)


def askable(
    folder: Path,
    columns: Mapping[str, Sequence[Any]],
    task: Task,
    where: str,
    chosen: Sequence[int],
    max_length: int = 0,
) -> list[int]:
    """Return those rows of a split that a model can be asked, and say how many it cannot.

    Every model can be asked all of them, but one that writes: its chat template may refuse a conversation, which may be
    too long, too; and text and answer may be more than it reads.

    Args:
        folder: the model's.
        columns: the split's.
        task: its task.
        where: its file, for messages.
        chosen: the rows in question, from 0.
        max_length: as for `asked`.

    Raises:
        BonsaiError: it cannot be asked more than a tenth of them.
    """
    if not kind_of(task).writes:
        return list(chosen)
    refused: dict[int, str] = {}
    for row in chosen:
        try:
            check_row(folder, columns[task.columns[0]][row], columns["label"][row], task, where, row + 1, max_length)
        except BonsaiError as error:
            refused[row] = str(error)
    if refused:
        count, first = f"{len(refused):,} of {len(chosen):,} rows", next(iter(refused.values()))
        if len(refused) > MOST_LEFT_OUT * len(chosen):
            raise BonsaiError(f"{folder} cannot be asked {count}, and a tenth may be left out at the most: {first}")
        say(f"{count} are left out, as {folder} cannot be asked them; the first: {first}")
    return [row for row in chosen if row not in refused]


def rows_in(batch: Batch) -> int:
    """Return how many rows a batch is of, some of which may be several inputs."""
    return len(np.unique(batch[ROW_OF])) if ROW_OF in batch else len(batch["input_ids"])


def tokens_a_row(part: Asked) -> np.ndarray:
    """Return how many tokens each row of a batch takes, in all its windows."""
    tokens = part.batch["attention_mask"].sum(axis=1)
    return tokens if part.windows is None else np.bincount(part.windows.rows, tokens).astype(tokens.dtype)


def together(logits: Sequence[np.ndarray], batches: Sequence[Asked]) -> tuple[Logits, Windows | None]:
    """Return the logits of all batches, without those of padding, and which part of which row they are of."""
    windows = [each.windows for each in batches if each.windows is not None]
    if not windows:
        return np.concatenate(logits), None
    found = [
        one[real]
        for each, part in zip(logits, batches, strict=True)
        for one, real in zip(each, part.batch["attention_mask"].astype(bool), strict=True)
    ]
    return found, join(windows)


def predictions(folder: Path, task: Task, batches: Iterable[Mapping[str, Sequence[str]]]) -> Any:
    """Return what a model predicts for all rows of batches of a split, in their order."""
    rows = [asked(folder, [batch[name] for name in task.columns], task) for batch in batches]
    if kind_of(task).writes:
        writer = load_writer(folder)
        return predict(task, [text for each in rows for text in writer.texts(writer.predict(each.batch))])
    predictor = load_predictor(folder)
    logits, windows = together([predictor.predict(each.batch) for each in rows], rows)
    return predict(task, logits, windows)
