"""Kinds of task: what is asked of each, and what none may do."""

from dataclasses import fields

import numpy as np
import pytest

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.kinds import kinds
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.metrics.scores import METRICS

TASK = Task("films", "classification", ("text",), ("bad", "good"), "accuracy", "made", "test", 1, "")


@pytest.mark.parametrize("head", ["row", "tokens"])
def test_broken_outputs_are_an_error(head):
    """Argmax of NaN is class 0, which would look like a result."""
    broken = np.array([[np.nan, 1.0]])
    with pytest.raises(BonsaiError, match="NaN"):
        kinds.score(TASK, broken if head == "row" else [broken], [0])


@pytest.mark.parametrize("name", kinds.KINDS)
def test_a_kinds_metrics_are_known(name):
    """A kind that is prepared, trained, and then cannot be scored."""
    kind = kinds.KINDS[name]
    assert kind.metrics and set(kind.metrics) <= set(METRICS)
    assert {each.name for each in fields(kind)} >= {"targets", "right", "predict"}
