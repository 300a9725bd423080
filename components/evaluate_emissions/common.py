"""What the rows of all models in a measurement are made from."""

from dataclasses import dataclass
from typing import Any

from kfp_bonsai.evaluate_emissions.protocol import Rounds, Subject
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.energy import carbon
from kfp_bonsai.shared.kinds.kind import Logits


@dataclass(frozen=True)
class Scored:
    """A model's answers on the test rows.

    Attributes:
        logits: shape (rows, labels), or for each window (tokens, labels).
        predicted: what they predict, one prediction a row.
    """

    logits: Logits
    predicted: Any


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
