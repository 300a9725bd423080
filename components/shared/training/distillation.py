"""What a student learns from its teacher: the logits, and the last hidden states of all tokens.

The soft targets are Hinton's (arXiv 1503.02531, section 2). The hidden states are matched by their squared error
over the teacher's variance, through a learnt projection where the student is narrower (TinyBERT, arXiv 1909.10351,
section 3.1), which begins as what fits best before any training. A ready-made student, which was not made of its
teacher, learns from the logits alone.

Where tokens are answered for, the embeddings stay the teacher's: those of the tokens that occur would move together
with the layers above them, away from those of all other tokens, whose words the student then takes for nothing (names
that are new, wnut17, 2 of MiniLM's 6 layers: span F1 0.325, with the embeddings as they were 0.381, of the teacher's
0.445). What is told of a whole row is better with embeddings that learn (the demo's data at a tenth of the FLOPs:
98.3 % of the teacher's accuracy, without 97.2 %).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from kfp_bonsai.shared.core import parallel
from kfp_bonsai.shared.kinds.kind import SPAN, TOKEN, Kind
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.models.heads import writes
from kfp_bonsai.shared.training import (
    answer_batches,
    dropout,
    losses,
    scaling,
    soft_answers,
    sparing,
    trainer,
    transfer,
)
from kfp_bonsai.shared.training.attempts import Attempt

PROJECTION = "distillation_projection"
FITTED_ROWS = 16  # at a time, of what a projection is fitted to
FITTED_TOKENS = 32  # for each number of a state
OF_TOKENS = (TOKEN, SPAN)  # heads that answer for tokens


def objective(kind: Kind, temperature: float, hidden_weight: float, label_weight: float) -> trainer.Objective:
    """Return the loss of a student on a batch of a transfer set, or a part's share of it.

    Args:
        kind: what logits say.
        temperature: softens both distributions; 1 leaves them as they are.
        hidden_weight: weight of the hidden states' error against that of the logits (1).
        label_weight: weight of the loss on true labels, where a row has one.
    """

    def loss(model: Any, batch: dict[str, torch.Tensor], whole: dict[str, torch.Tensor]) -> torch.Tensor:
        plain = getattr(model, "module", model)
        found = answer_batches.run(model, batch, output_hidden_states=True)
        logits = found.logits.float()
        if kind.writes:
            total = soft_answers.divergence(logits, batch["teacher_logits"], temperature)
        else:
            total = losses.of_teacher(kind, logits, batch["teacher_logits"], batch["attention_mask"], temperature)
        if batch is not whole:
            total = total * (_answers(kind, batch) / _answers(kind, whole))
        if hidden_weight and "teacher_hidden" in batch:
            student = states_of(found)[-1].flatten(0, 1)[batch["hidden_at"]]
            projection = getattr(plain, PROJECTION, None)
            if projection is not None:
                student = projection(student)
            teacher, all_of_it = batch["teacher_hidden"].float(), whole["teacher_hidden"].float()
            total = total + hidden_weight * _hidden_error(student.float(), teacher, all_of_it)
        if label_weight:
            labels, mask = batch["labels"], batch["attention_mask"]
            part = label_weight if batch is whole else label_weight * sparing.share(labels, whole["labels"])
            total = total + part * losses.of_labels(kind, logits, labels, mask, plain.config)
        return total

    return loss


def states_of(found: Any) -> Any:
    """Return the hidden states of the tokens that a model was given: its encoder's, where it has one."""
    return getattr(found, "encoder_hidden_states", None) or found.hidden_states


def states_width(model: Any) -> int:
    """Return the width of a model's last hidden states, which some models project to another than their layers'."""
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    more = {answer_batches.READ: token} if writes(model) and model.config.is_encoder_decoder else {}
    with torch.no_grad():
        found = model(input_ids=token, attention_mask=torch.ones_like(token), output_hidden_states=True, **more)
    return int(states_of(found)[-1].shape[-1])


def distill_into(
    student: Any,
    data: transfer.TransferSet,
    recipe: trainer.Recipe,
    attempt: Attempt,
    pad_id: int,
    *,
    temperature: float,
    hidden_weight: float,
    label_weight: float,
    callbacks: Sequence[Any] = (),
    carried: Any = None,
) -> float:
    """Train a student in place against its teacher's outputs, without dropout; return the rate, see `trainer.train`.

    Args:
        student: the model.
        data: the transfer set, with the student's inputs.
        recipe: how long and how fast.
        attempt: what keeps checkpoints.
        pad_id: the tokenizer's padding token.
        temperature: as `objective` has it, and the weights too.
        hidden_weight: of the hidden states' error.
        label_weight: of the loss on true labels.
        callbacks: more of transformers' callbacks.
        carried: what is learnt beside the student.
    """
    dropout.without_dropout(student)
    kind = KINDS[data.record["task"]["kind"]]
    if hidden_weight and data.hidden is not None:
        width, own = data.hidden.shape[1], states_width(student)
        if own != width:
            found = fitted_projection(student, own, data, lambda items: _collate(kind, items, pad_id))
            setattr(student, PROJECTION, found)
    if kind.head in OF_TOKENS:
        student.get_input_embeddings().requires_grad_(False)
    scale = scaling.scale_of(data.record)
    if scale:
        scaling.to_learnt(student, scale)
    rate = trainer.train(
        student,
        data,
        recipe,
        attempt,
        objective=objective(kind, temperature, hidden_weight, label_weight),
        collate=lambda items: _collate(kind, items, pad_id),
        pad_id=pad_id,
        callbacks=callbacks,
        carried=carried,
    )
    if scale:
        scaling.to_labels(student, scale)
    if hasattr(student, PROJECTION):
        delattr(student, PROJECTION)
    return rate


def fitted_projection(student: Any, width: int, data: transfer.TransferSet, collate: Callable[..., Any]) -> nn.Linear:
    """Return the projection that brings a student's hidden states nearest to the teacher's, by least squares.

    One that begins at random would first pull the student away from the states that it kept of its teacher.

    Args:
        student: the model, before it is trained.
        width: of its last hidden states.
        data: the transfer set, of which a spread sample is taken.
        collate: makes a batch of items.
    """
    student.to(trainer.device()).eval()

    def states(items: Sequence[Any]) -> Sequence[torch.Tensor]:
        batch = {name: value.to(student.device) for name, value in collate(items).items()}
        with torch.no_grad():
            found = states_of(answer_batches.run(student, batch, output_hidden_states=True))[-1].flatten(0, 1)
        return found[batch["hidden_at"]].double().cpu().split([len(item["positions"]) for item in items])

    known, wanted, tokens = torch.zeros(()), torch.zeros(()), 0
    for rows in torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).split(FITTED_ROWS):
        items = [data[int(row)] for row in rows]
        own = nn.functional.pad(torch.cat(sparing.in_halves(states, items)), (0, 1), value=1.0)
        teacher = torch.cat([torch.tensor(item["teacher_hidden"], dtype=torch.double) for item in items])
        known, wanted, tokens = known + own.T @ own, wanted + own.T @ teacher, tokens + len(own)
        if tokens >= FITTED_TOKENS * width:
            break
    slack = 1e-4 * known.diagonal().mean() * torch.eye(width + 1, dtype=torch.double)
    solution = torch.linalg.solve(known + slack, wanted).T.float()
    projection = nn.Linear(width, solution.shape[0])
    with torch.no_grad():
        projection.weight.copy_(solution[:, :-1])
        projection.bias.copy_(solution[:, -1])
    return projection.to(student.device)


def _collate(kind: Kind, items: Sequence[Any], pad_id: int) -> dict[str, torch.Tensor]:
    if not kind.writes:
        return transfer.collate(items, pad_id)
    batch = soft_answers.collate(items, pad_id)
    return {**batch, **transfer.hidden_of(items, batch["input_ids"].shape[1])}


def _answers(kind: Kind, batch: dict[str, torch.Tensor]) -> int | torch.Tensor:
    """Return how many answers of the teacher are in a batch, over which their divergence is the mean."""
    return batch["attention_mask"].sum() if kind.head == TOKEN else len(batch["teacher_logits"])


def _hidden_error(student: torch.Tensor, teacher: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Return the squared error of the states of all tokens (tokens, width) over the teacher's variance in the batch."""
    tokens = torch.tensor(len(whole), device=whole.device)
    centre = parallel.total(whole.sum(0)) / parallel.total(tokens)
    return parallel.share((student - teacher).square().sum(), (whole - centre).square().sum())
