"""Numbers to predict, learnt as numbers about 0.

A network begins with answers near 0, and its rates are made for errors of about 1: of labels from 0 to 100 it would
learn nothing. So it is trained on labels less their mean, over their standard deviation, and both then go into the
last matrix: what is saved answers in the labels' own unit.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from kfp_bonsai.shared.families import family_of
from kfp_bonsai.shared.shapes import module_at


@dataclass(frozen=True)
class Scale:
    """What is taken off the labels, and what they are then divided by."""

    centre: float
    spread: float

    def of(self, labels: np.ndarray) -> np.ndarray:
        """Return labels as they are learnt."""
        return (labels - self.centre) / self.spread

    def as_dict(self) -> dict[str, float]:
        """Return it as a record holds it."""
        return asdict(self)


def scale_for(labels: np.ndarray, model: Any) -> Scale:
    """Return the scale of training labels; a last matrix without a bias, as of decoders, cannot hold a mean."""
    centre = float(labels.mean()) if _last(model).bias is not None else 0.0
    return Scale(centre, float(labels.std()) or 1.0)


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
    last = _last(model)
    with torch.no_grad():
        last.weight.mul_(times)
        if last.bias is not None:
            last.bias.mul_(times).add_(plus)


def _last(model: Any) -> Any:
    """Return the matrix whose rows are the answers."""
    paths = (path for path, axes in family_of(model.config).head.items() if axes[0] is None)
    return next(module for module in (module_at(model, path) for path in paths) if module is not None)
