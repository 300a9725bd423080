"""What the rows of all models in a measurement are made from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kfp_bonsai.evaluate_emissions.protocol import Rounds, Subject
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.energy import carbon
from kfp_bonsai.shared.kinds.kind import Logits


@dataclass(frozen=True)
class Scored:
    """A model's answers on the test rows.

    Attributes:
        logits: shape (rows, labels), or for each window (tokens, labels); of a model that writes, its texts.
        predicted: what they predict, one prediction a row.
        tokens: of a model that writes, how many each answer has, with the model's own end.
        ended: which answers the model ended by itself.
        likelihoods: the right answers' summed log-likelihoods, and their tokens, (rows, 2).
    """

    logits: Logits
    predicted: Any
    tokens: np.ndarray | None = None
    ended: np.ndarray | None = None
    likelihoods: np.ndarray | None = None


@dataclass(frozen=True)
class OfLength:
    """How models that write were measured: all at one length, and each at its own.

    Attributes:
        tokens: which all answers were made to have, the mean of the baseline's own.
        own: all models' readings where each wrote to its own end, in the order of the others.
        rounds: those readings' rounds.
    """

    tokens: int
    own: Sequence[Subject]
    rounds: Rounds


@dataclass(frozen=True)
class Common:
    """What all models' rows are made from.

    Attributes:
        task: the test split's task.
        right: the right answers, as the metrics take them.
        mean_length: tokens an input.
        inputs_a_row: how many inputs a row is.
        batch_size: rows a batch.
        baseline: the baseline's readings.
        baseline_record: its record.
        baseline_scored: its answers.
        rounds: the rounds, with the control.
        idle_watts: what the sources read while nothing runs.
        intensity: grams of CO2 a kWh, or nothing.
        traffic: inferences a day, 0 for not stated.
        embodied: grams of CO2 for an hour's use of the hardware, by its making; 0 for not stated.
        seed: seed of the bootstraps.
        written: how models that write were measured.
    """

    task: tasks.Task
    right: Any
    mean_length: float
    inputs_a_row: float
    batch_size: int
    baseline: Subject
    baseline_record: dict[str, Any]
    baseline_scored: Scored
    rounds: Rounds
    idle_watts: float
    intensity: carbon.Intensity | None
    traffic: int
    embodied: float
    seed: int
    written: OfLength | None = None
