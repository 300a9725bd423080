"""Losses of logits, by what they say: one of the classes (of the tokens, for a span), any of them, or a number."""

from typing import Any

import torch
from torch.nn import functional

from kfp_bonsai.shared.core import parallel
from kfp_bonsai.shared.kinds.kind import ANY, IGNORED, NEVER, SPAN, TOKEN, Kind
from kfp_bonsai.shared.models.configuration import family_of


def of_teacher(
    kind: Kind, logits: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return how far a student's outputs are from its teacher's: the mean divergence of rows, tokens, or ends.

    Args:
        kind: what logits say.
        logits: the student's, shape (rows, labels), or (rows, tokens, labels).
        teacher: the teacher's, of the same shape.
        mask: 1 where there is a token, shape (rows, tokens).
        temperature: softens both distributions.
    """
    if kind.is_number:
        return functional.mse_loss(logits, teacher)
    if kind.head == TOKEN:
        logits, teacher = logits[mask.bool()], teacher[mask.bool()]
    if kind.head == SPAN:
        logits, teacher = _ends(logits, mask), _ends(teacher, mask)
    if kind.says == ANY:
        student, wanted = logits / temperature, (teacher / temperature).sigmoid()
        entropy = functional.binary_cross_entropy_with_logits(teacher / temperature, wanted, reduction="sum")
        crossed = functional.binary_cross_entropy_with_logits(student, wanted, reduction="sum")
        return (crossed - entropy) / len(logits) * temperature**2
    student_log = functional.log_softmax(logits / temperature, dim=1)
    teacher_log = functional.log_softmax(teacher / temperature, dim=1)
    return functional.kl_div(student_log, teacher_log, log_target=True, reduction="batchmean") * temperature**2


def of_labels(kind: Kind, logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, config: Any) -> torch.Tensor:
    """Return the mean loss of what has a label, 0 if nothing has one; nothing here waits for a GPU.

    Args:
        kind: what logits say.
        logits: shape (rows, labels), or (rows, tokens, labels); of what is written (tokens, vocabulary).
        labels: targets as the kind gives them, IGNORED where there is none.
        mask: 1 where there is a token, shape (rows, tokens).
        config: the model's configuration.
    """
    known = labels != IGNORED
    if kind.writes:
        total = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
    elif kind.is_number:
        total = ((logits[:, 0] - labels.float()) * known).square().sum()
    elif kind.says == ANY:
        right = labels.float() * known
        total = (functional.binary_cross_entropy_with_logits(logits, right, reduction="none") * known).sum()
    elif family_of(config).answers_in_text:  # its scores are log-probabilities among all texts, and shall stay so
        total = functional.nll_loss(logits, labels.long(), ignore_index=IGNORED, reduction="sum")
    else:
        right = labels.T.flatten() if kind.head == SPAN else labels.flatten()
        choices = _ends(logits, mask) if kind.head == SPAN else logits.flatten(0, -2)
        total = functional.cross_entropy(choices, right.long(), ignore_index=IGNORED, reduction="sum")
    return parallel.share(total, known.sum())


def _ends(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return logits of two places among the tokens as choices of one: (rows, tokens, 2) -> (2 * rows, tokens)."""
    return logits.masked_fill(~mask.bool()[..., None], NEVER).permute(2, 0, 1).flatten(0, 1)
