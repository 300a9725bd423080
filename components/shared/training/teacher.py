"""Whether a student, a teacher's outputs and what is wanted of them fit, asked before any training."""

import math
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError


def check_teacher(
    model: Path, record: dict[str, Any], teacher_outputs: Path, teacher: dict[str, Any], **numbers: float
) -> None:
    """Check that a model can learn from a teacher's outputs, at a temperature above 0 and weights not below 0.

    Args:
        model: the student's folder.
        record: its record.
        teacher_outputs: the transfer set's folder.
        teacher: its record.
        numbers: the objective's temperature and weights, by the names of their flags.

    Raises:
        BonsaiError: the folder holds no teacher's outputs, or those of another task or baseline, or a number is out of
            range.
    """
    if "hidden_positions" not in teacher:
        raise BonsaiError(f"{teacher_outputs} holds no teacher outputs: make them with `bonsai teacher-outputs`")
    if record["task"]["labels"] != teacher["task"]["labels"]:
        raise BonsaiError(f"{model} and {teacher_outputs} have different labels: both must come from one baseline")
    mine, theirs = record["lineage"][0], teacher["lineage"][0]
    if mine["stage"] == theirs["stage"] == "fine-tune" and mine["sha256"] != theirs["sha256"]:
        raise BonsaiError(f"{model} and {teacher_outputs} come from different baselines: both must come from one")
    for name, value in numbers.items():
        least = "above 0" if name == "temperature" else "of 0 or more"
        if not 0 <= value < math.inf or (name == "temperature" and value == 0):
            raise BonsaiError(f"--{name.replace('_', '-')} is {value}: give a number {least}")
