"""Numbers to predict, learnt as numbers about 0.

A network begins with answers near 0, and its rates are made for errors of about 1: of labels from 0 to 100 it would
learn nothing. So it is trained on labels less their mean, over their standard deviation, and both then go into the
last matrix: what is saved answers in the labels' own unit.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.models.shapes import last_matrix

FARTHEST = 10  # spreads from 0; a GPT-2 learnt labels at 5 as well as at 0, and nothing at 30


@dataclass(frozen=True)
class Scale:
    """What is taken off the labels, and what they are then divided by."""

    centre: float
    spread: float

    def of(self, labels: np.ndarray) -> np.ndarray:
        """Return labels as they are learnt."""
        return (labels - self.centre) / self.spread

    def undone(self, learnt: np.ndarray) -> np.ndarray:
        """Return what a model that learns answers in the labels' unit."""
        return learnt * np.float32(self.spread) + np.float32(self.centre)

    def as_dict(self) -> dict[str, float]:
        """Return it as a record holds it."""
        return asdict(self)


def scale_for(labels: np.ndarray, model: Any) -> Scale:
    """Return the scale of training labels; a last matrix without a bias, as of decoders, cannot hold a mean.

    Raises:
        BonsaiError: it cannot, and the mean is too far from 0 to be learnt.
    """
    mean, spread = float(labels.mean()), float(labels.std()) or 1.0
    if last_matrix(model).bias is not None:
        return Scale(mean, spread)
    if abs(mean) > FARTHEST * spread:
        raise BonsaiError(
            f"the labels are {mean:.4g} on average and spread by {spread:.4g}, which this model cannot learn, as its "
            f"last matrix has no bias: take {mean:.4g} off them, or use a model that reads both sides, such as BERT"
        )
    return Scale(0.0, spread)


def scale_of(record: dict[str, Any]) -> Scale | None:
    """Return the scale that a model's record says it was trained at; None for classes."""
    found = record.get("label_scale")
    return Scale(**found) if found else None


def to_learnt(model: Any, scale: Scale) -> None:
    """Let a model that answers in the labels' unit answer as it learns."""
    _transform(model, 1 / scale.spread, -scale.centre / scale.spread)


def to_labels(model: Any, scale: Scale) -> None:
    """Let a model that answers as it learns answer in the labels' unit."""
    _transform(model, scale.spread, scale.centre)


def _transform(model: Any, times: float, plus: float) -> None:
    """Let a model give what it gave, times a number, plus another (which is 0 where there is no bias to hold it)."""
    last = last_matrix(model)
    with torch.no_grad():
        last.weight.mul_(times)
        if last.bias is not None:
            last.bias.mul_(times).add_(plus)
