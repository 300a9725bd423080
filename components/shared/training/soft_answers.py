"""What a student that writes learns of its teacher: at each place of an answer, likely tokens and the rest's mass.

A vocabulary of logits a token would fill the disk. The `TOP` largest are kept, with the logarithm of the sum over all,
and the divergence is that of as many classes and one more, the rest: without it a student is led astray (arXiv
2503.16870). It is 0 where student and teacher agree, and never above the divergence of all tokens.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.training import answer_batches

TOP = 32  # tokens a place
TEMPERATURES = (1.0, 2.0)  # at which the sum over all tokens is kept
NUMBERS = 2 * TOP + len(TEMPERATURES)  # that are kept of a place, at the most


def told(logits: torch.Tensor) -> np.ndarray:
    """Return what is kept of a teacher's logits (tokens, vocabulary): TOP tokens, their logits, and the sums over all.

    The shape is (tokens, 2 * TOP + 2), or less where the vocabulary is; logits and sums are less the largest logit.
    """
    logits = logits.float()
    best, ids = logits.topk(min(TOP, logits.shape[-1]))
    sums = [(logits / one).logsumexp(-1) - best[:, 0] / one for one in TEMPERATURES]
    return torch.cat([ids.float(), best - best[:, :1], torch.stack(sums, 1)], 1).cpu().numpy()


def collate(items: Sequence[rows.Item], pad_id: int) -> dict[str, torch.Tensor]:
    """Return a batch of answers with what the teacher told of their tokens, "teacher_logits" (tokens, ...)."""
    teacher = torch.from_numpy(np.concatenate([one["teacher_logits"] for one in items]))
    return {**answer_batches.with_labels(items, pad_id), "teacher_logits": teacher}


def divergence(logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return the mean divergence of a student's logits (tokens, vocabulary) from what its teacher told."""
    kept = (teacher.shape[1] - len(TEMPERATURES)) // 2
    ids, sums = teacher[:, :kept].long(), teacher[:, 2 * kept + TEMPERATURES.index(temperature)]
    wanted = teacher[:, kept : 2 * kept] / temperature - sums[:, None]
    student = functional.log_softmax(logits / temperature, dim=-1)
    found = student.gather(1, ids)
    left = (1 - wanted.exp().sum(1)).clamp(min=0)
    other = student.scatter(1, ids, -torch.inf).logsumexp(1)  # of the rest, exactly, however little that is
    of_rest = torch.where(left > 1e-6, left * (left.clamp(min=1e-6).log() - other.clamp(min=-50)), 0)
    return ((wanted.exp() * (wanted - found)).sum(1) + of_rest).mean() * temperature**2


def check_temperature(temperature: float) -> None:
    """Refuse a temperature at which the mass of the rest is not known.

    Raises:
        BonsaiError: it is another one than those that are kept.
    """
    if temperature not in TEMPERATURES:
        shown = " or ".join(f"{one:g}" for one in TEMPERATURES)
        raise BonsaiError(f"--temperature {temperature:g}: a teacher that writes is kept at {shown}: give one of these")
