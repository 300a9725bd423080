"""What a teacher that writes hands over: the data's answers, and its own to texts that have none."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.progress import Ticker
from kfp_bonsai.shared.data import prompts, tasks
from kfp_bonsai.shared.data.rows import Item, read_rows
from kfp_bonsai.shared.kinds.task import CHAT
from kfp_bonsai.shared.training import answer_batches, writing
from kfp_bonsai.teacher_outputs import room
from kfp_bonsai.teacher_outputs.more_text import changed_copies, unlabelled_texts


def parts(
    network: Any,
    tokenizer: Any,
    train: Path,
    unlabelled: Path,
    record: dict[str, Any],
    copies: int,
    unlabelled_rows: int,
    seed: int,
    once: Callable[[str, Callable[[], Any]], Any],
) -> room.Parts:
    """Return what the transfer set can hold: training rows with their answers, other texts with the teacher's.

    Args:
        network: the teacher.
        tokenizer: its tokenizer.
        train: training split.
        unlabelled: texts without answers.
        record: the teacher's.
        copies: changed copies of each training text; a conversation is never changed.
        unlabelled_rows: how many rows of those; -1 for all.
        seed: of the copies and the choice.
        once: gives what an earlier attempt found, by a name, or finds it: answers take longest.
    """
    task = tasks.read_task(train)
    start = answer_batches.start_of(network)
    known = read_rows(train, tokenizer, record["max_length"])
    training = [
        answer_batches.item(prompt, answer, True, start)
        for prompt, answer in zip(known.inputs["input_ids"], known.labels, strict=True)
    ]
    end, most = network.generation_config.eos_token_id, network.generation_config.max_new_tokens

    def answered(where: Path, blocks: Iterable[list[list[str]]]) -> list[Item]:
        found = []
        for number, (texts,) in enumerate(blocks):
            encoded = prompts.asked(tokenizer, texts, task, str(where), 1, record["max_length"])
            asked = [np.asarray(one.ids or [tokenizer.pad_token_id], np.int32) for one in encoded]
            ticker = Ticker("teacher-outputs  answers", len(asked))
            write = partial(writing.write_tokens, network, asked, tokenizer.pad_token_id, ticker=ticker)
            said = once(f"answers-{where.stem}-{number}", write)
            for prompt, answer in zip(asked, said, strict=True):
                ended = [*answer, end] if len(answer) < most else answer
                found.append(answer_batches.item(prompt, np.array(ended, np.int32), False, start))
        return found

    changed = answered(train, _changed(train, task, copies, seed))
    return room.Parts(
        training, answered(unlabelled, unlabelled_texts(unlabelled, task, unlabelled_rows, seed)), changed, 0
    )


def _changed(train: Path, task: tasks.Task, copies: int, seed: int) -> Iterable[list[list[str]]]:
    if not copies or task.setting == CHAT:
        return []
    columns = tasks.read_columns(train)
    return changed_copies([columns[name] for name in task.columns], copies, seed)
