"""A ready-made model instead of the baseline with fewer layers: what a user would take without compressing."""

from pathlib import Path
from typing import Any

from transformers import set_seed

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.data.encoding import tokens_of, tokens_sha256
from kfp_bonsai.shared.models import tokens
from kfp_bonsai.shared.models.configuration import positions_of
from kfp_bonsai.shared.models.shapes import last_matrix
from kfp_bonsai.shared.saved import pretrained
from kfp_bonsai.shared.saved.checkpoint import rehearse
from kfp_bonsai.shared.saved.fitted import fit
from kfp_bonsai.shared.saved.records import task_of
from kfp_bonsai.shared.training import scaling, students

STAGE = "layer-remove"


def ready_made(
    source: pretrained.Pretrained, student: str, baseline: Path, record: dict[str, Any], data: Path, seed: int
) -> tuple[Any, Any, int]:
    """Return a ready-made model with a head for the baseline's task, its tokenizer, and where it cuts rows.

    Args:
        source: the model, read.
        student: what the user called it.
        baseline: the model that is to teach it.
        record: the baseline's record.
        data: a split, whose rows tell how long they are in its tokens.
        seed: of the head.

    Raises:
        BonsaiError: it can have no head for the task, or not be taught.
    """
    set_seed(seed)
    network, tokenizer, new_head = fit(source, task_of(record), STAGE)
    odd = [[*tokens.ODD_TEXTS]] * len(record["task"]["columns"])
    rehearse(network, tokenizer, odd, min(positions_of(network.config), rows.LONGEST))
    scale = scaling.scale_of(record)
    if scale and last_matrix(network).bias is None and scale.centre:
        raise BonsaiError(
            f"{student} has no bias in its last matrix, which the baseline's labels, {scale.centre:.4g} on average, "
            "take: give a ready-made model that reads both sides"
        )
    if scale and new_head:  # it answers near 0, which is where labels are learnt: distill begins there
        scaling.to_labels(network, scale)
    same = tokens_of(tokenizer) == tokens_sha256(baseline)
    length = _cut_at(network.config, tokenizer, student, same, record, data)
    if not same or length < record["max_length"]:
        students.check_tokens(student, record["task"]["kind"])
    return network, tokenizer, length


def _cut_at(config: Any, tokenizer: Any, student: str, same: bool, record: dict[str, Any], data: Path) -> int:
    """Return how many tokens of a row the model takes: what was asked for, or what the rows have, as it has room.

    A length that was asked for holds for it too. Where the baseline takes whole texts, so does a model that makes more
    tokens of them.
    """
    length, positions = int(record["max_length"]), positions_of(config)
    if not same and not record["lineage"][0]["arguments"].get("max_length"):
        most = tokens.most_tokens(tokenizer, positions)
        length = max(length, rows.longest(data, tokenizer, most))
    if positions < length:
        say(f"{STAGE}  note: {student} has {positions} positions: texts of up to {length} tokens are cut there")
    return min(length, positions)
