"""Chances that a model's logits give."""

import numpy as np


def of_one(logits: np.ndarray) -> np.ndarray:
    """Return the chance of each entry of the last axis, of which one is right."""
    logits = logits.astype(np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def of_any(logits: np.ndarray) -> np.ndarray:
    """Return the chance of each entry by itself, as any may be right."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))
