"""A transfer set as a student reads it: one that was made of the teacher, or a ready-made model with tokens of its own.

The teacher's logits of a row hold for whoever reads the row; those of single tokens are of its own tokens. A student
with others tokenizes the texts itself. A ready-made model learns from logits alone: taught the hidden states of a
teacher that it was not made of too (weight 10), through a projection, BERT-tiny learnt nothing of 1,000 texts in 4
passes (50.5 % of 200 test rows right; 56.0 % at weight 1, 58.5 % by logits alone).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.data.encoding import tokens_sha256
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.models.configuration import inputs_of
from kfp_bonsai.shared.training import transfer


def open_for(folder: Path, model: Path, config: Any, tokenizer: Any, record: Mapping[str, Any]) -> transfer.TransferSet:
    """Open a transfer set with the inputs that a student takes.

    Args:
        folder: the transfer set's.
        model: the student's.
        config: its configuration.
        tokenizer: its tokenizer.
        record: its record.

    Raises:
        BonsaiError: the folder is no transfer set, or a student with tokens of its own cannot be taught from it.
    """
    data = transfer.open_set(folder)
    if KINDS[data.record["task"]["kind"]].writes:
        return data
    mine, theirs = tokens_sha256(model), data.record.get("tokens_sha256")
    taken = [name for name in inputs_of(config) if name != "attention_mask"]
    same = theirs in (None, mine) and record["max_length"] == data.record["max_length"]
    hidden = None if "student" in record else data.hidden
    if same and data.inputs.keys() >= {*taken}:
        return replace(data, inputs={name: data.inputs[name] for name in taken}, hidden=hidden)
    check_tokens(str(model), data.record["task"]["kind"])
    found = rows.tokenize(tokenizer, transfer.texts_of(folder), record["max_length"]).inputs
    return replace(data, inputs=found, hidden=None)


def check_tokens(who: str, kind: str) -> None:
    """Refuse a student whose tokens are not its teacher's, where these are what is answered for.

    Args:
        who: the student, for the message.
        kind: the kind of task.

    Raises:
        BonsaiError: rows of this kind are answered token by token.
    """
    if KINDS[kind].windows or KINDS[kind].writes:
        raise BonsaiError(
            f"{who} has another tokenizer than the baseline, or cuts rows elsewhere: it cannot be taught yet what the "
            f"baseline says of each token ({KINDS[kind].answer}): take a ready-made model with the baseline's tokenizer"
        )
