"""What a student learns from its teacher: the logits, and the last hidden states of all tokens.

The soft targets are Hinton's (arXiv 1503.02531, section 2). The hidden states are matched by their squared error
over the teacher's variance, through a learnt projection where the student is narrower (TinyBERT,
arXiv 1909.10351, section 3.1).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from kfp_bonsai.shared.core import parallel
from kfp_bonsai.shared.models.families import family_of
from kfp_bonsai.shared.training import regression, trainer, transfer

PROJECTION = "distillation_projection"


def objective(
    temperature: float, hidden_weight: float, label_weight: float
) -> Callable[[Any, dict[str, torch.Tensor]], torch.Tensor]:
    """Return the loss of a student on a batch of a transfer set.

    Args:
        temperature: softens both distributions; 1 leaves them as they are.
        hidden_weight: weight of the hidden states' error against that of the logits (1).
        label_weight: weight of the loss on true labels, where a row has one.
    """

    def loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        inputs = {name: value for name, value in batch.items() if name.endswith("_ids") or name == "attention_mask"}
        plain = getattr(model, "module", model)
        found = model(**inputs, output_hidden_states=True)
        logits = found.logits.float()
        total = _output_loss(logits, batch["teacher_logits"], temperature)
        if hidden_weight:
            student = found.hidden_states[-1].flatten(0, 1)[batch["hidden_at"]]
            projection = getattr(plain, PROJECTION, None)
            if projection is not None:
                student = projection(student)
            total = total + hidden_weight * _hidden_error(student.float(), batch["teacher_hidden"].float())
        if label_weight:
            total = total + label_weight * _label_loss(logits, batch["labels"], plain.config)
        return total

    return loss


def states_width(model: Any) -> int:
    """Return the width of a model's last hidden states, which some models project to another than their layers'."""
    token = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    with torch.no_grad():
        found = model(input_ids=token, attention_mask=torch.ones_like(token), output_hidden_states=True)
    return int(found.hidden_states[-1].shape[-1])


def without_dropout(model: Any) -> None:
    """Let a model train without dropout: that of modules, and the rates that attention and layers keep as numbers."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout", "attention_dropout", "layerdrop"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def distill_into(
    student: Any,
    data: transfer.TransferSet,
    recipe: trainer.Recipe,
    scratch: Path,
    pad_id: int,
    *,
    temperature: float,
    hidden_weight: float,
    label_weight: float,
    callbacks: Sequence[Any] = (),
) -> None:
    """Train a student in place against its teacher's outputs, without dropout."""
    without_dropout(student)
    width, own = data.hidden.shape[1], states_width(student)
    if hidden_weight and own != width:
        setattr(student, PROJECTION, nn.Linear(own, width))
    scale = regression.scale_of(data.record)
    if scale:
        regression.to_learnt(student, scale)
    trainer.train(
        student,
        data,
        recipe,
        scratch,
        objective=objective(temperature, hidden_weight, label_weight),
        collate=lambda items: transfer.collate(items, pad_id),
        pad_id=pad_id,
        callbacks=callbacks,
    )
    if scale:
        regression.to_labels(student, scale)
    if hasattr(student, PROJECTION):
        delattr(student, PROJECTION)


def _hidden_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the squared error of the states of all tokens (tokens, width) over the teacher's variance."""
    tokens = torch.tensor(len(teacher), device=teacher.device)
    centre = parallel.total(teacher.sum(0)) / parallel.total(tokens)
    return parallel.share((student - teacher).square().sum(), (teacher - centre).square().sum())


def _output_loss(logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    if logits.shape[1] == 1:
        return functional.mse_loss(logits, teacher)
    student_log = functional.log_softmax(logits / temperature, dim=1)
    teacher_log = functional.log_softmax(teacher / temperature, dim=1)
    return functional.kl_div(student_log, teacher_log, log_target=True, reduction="batchmean") * temperature**2


def _label_loss(logits: torch.Tensor, labels: torch.Tensor, config: Any) -> torch.Tensor:
    """Return the mean loss of the rows that have a label, 0 if none has; nothing here waits for a GPU."""
    known = labels != transfer.NO_LABEL
    if logits.shape[1] == 1:
        total = ((logits[:, 0] - labels.float()) * known).square().sum()
    elif family_of(config).answers_in_text:  # its scores are log-probabilities among all texts, and shall stay so
        total = functional.nll_loss(logits, labels.long(), ignore_index=transfer.NO_LABEL, reduction="sum")
    else:
        total = functional.cross_entropy(logits, labels.long(), ignore_index=transfer.NO_LABEL, reduction="sum")
    return parallel.share(total, known.sum())
