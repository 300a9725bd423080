"""The vocabulary of a student that writes, cut to what its task needs once it has learnt."""

from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.kinds.kind import Kind
from kfp_bonsai.shared.saved import kept_tokens
from kfp_bonsai.shared.training.answer_batches import READ
from kfp_bonsai.shared.training.transfer import TransferSet


def check_fewer(kind: Kind, tokenizer: Any) -> None:
    """Refuse, before it is trained, a student whose vocabulary cannot be cut.

    Raises:
        BonsaiError: it writes nothing, or its tokenizer does not fall back to bytes.
    """
    if not kind.writes:
        raise BonsaiError(
            "--vocabulary task is for models that write: what reads alone spends nothing on words that it does not "
            "meet, leave it out"
        )
    kept_tokens.check(tokenizer)


def fewer_tokens(
    student: Any, tokenizer: Any, data: TransferSet, validation: Path, max_length: int
) -> tuple[Any, dict[str, Any]]:
    """Leave out tokens that neither the transfer set, with the teacher's answers, nor the validation split has.

    Args:
        student: the model, changed in place.
        tokenizer: its tokenizer.
        data: the transfer set, in its tokens.
        validation: the validation split.
        max_length: tokens at which texts are cut.

    Returns:
        The new tokenizer, and what the model's record says of it.

    Raises:
        BonsaiError: the new tokenizer splits a text of the validation split otherwise.
    """
    before = rows.read_rows(validation, tokenizer, max_length)
    used = [*data.inputs["input_ids"], *data.inputs.get(READ, ()), *before.inputs["input_ids"], *before.labels]
    kept, whole = kept_tokens.needed(tokenizer, used), student.config.vocab_size
    fewer = kept_tokens.cut(student, tokenizer, kept)
    after = rows.read_rows(validation, fewer, max_length)
    for one, other in (
        *zip(before.inputs["input_ids"], after.inputs["input_ids"], strict=True),
        *zip(before.labels, after.labels, strict=True),
    ):
        if not np.array_equal(one, kept[other]):
            raise BonsaiError(
                f"the tokenizer of {tokenizer.name_or_path} splits texts otherwise once words are left out of it: "
                "leave vocabulary=task out"
            )
    say(f"distill  the vocabulary has {len(kept):,} of {whole:,} tokens: those of the task, and bytes for other words")
    return fewer, {"vocabulary": {"kept": len(kept), "whole": whole}}
