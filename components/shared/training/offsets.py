"""A number that a model adds to its answers: in its last matrix's bias, or along what its features have in common.

The heads of decoders that answer for rows (GPT-2, Llama, OPT, GPT-NeoX) have no bias, and transformers' classes know
none. But the matrix's rows can be moved along a direction in which all rows' features are about 1: the model is one of
transformers' still, and what it answers then is what it is measured by.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from kfp_bonsai.shared.data.rows import Rows
from kfp_bonsai.shared.models.shapes import last_matrix
from kfp_bonsai.shared.training import trainer

ENOUGH = 512  # rows, of which features are computed


def direction(network: Any, rows: Rows, pad_id: int) -> np.ndarray | None:
    """Return the direction in which the features of rows are nearest to 1, shape (features,); None if there is a bias.

    Args:
        network: a model that answers for rows.
        rows: some of its rows, of which as many as are enough are asked, spread over all.
        pad_id: the tokenizer's padding token.
    """
    if last_matrix(network).bias is not None:
        return None

    from sklearn.linear_model import RidgeCV

    chosen = np.unique(np.linspace(0, len(rows) - 1, ENOUGH, dtype=int))
    features = features_of(
        network, replace(rows, inputs={k: [v[i] for i in chosen] for k, v in rows.inputs.items()}, labels=None), pad_id
    )
    penalties = np.mean(features**2) * np.logspace(-4, 2, 7)
    return RidgeCV(penalties, fit_intercept=False).fit(features, np.ones(len(features))).coef_


def features_of(network: Any, rows: Rows, pad_id: int) -> np.ndarray:
    """Return what a model's last matrix is given for each row, shape (rows, features), in float64."""
    with _without(network, last_matrix(network)):
        return np.asarray(trainer.predict(network, rows, pad_id), np.float64)


def add(network: Any, numbers: Any, along: np.ndarray | None) -> None:
    """Add a number to each of a model's answers, or one to all.

    Args:
        network: the model, changed in place.
        numbers: shape (answers,), or a number.
        along: the direction that `direction` returned.
    """
    last = last_matrix(network)
    numbers = torch.as_tensor(numbers, dtype=torch.float64).expand(len(last.weight))
    with torch.no_grad():
        if along is None:
            last.bias.add_(numbers.to(last.bias))
        else:
            last.weight.add_(torch.outer(numbers, torch.from_numpy(along)).to(last.weight))


@contextmanager
def _without(network: Any, matrix: Any) -> Iterator[None]:
    """Let a model give what it would multiply by its last matrix."""
    path = next(name for name, module in network.named_modules() if module is matrix)
    network.set_submodule(path, torch.nn.Identity())
    try:
        yield
    finally:
        network.set_submodule(path, matrix)
