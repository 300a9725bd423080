"""What is said of the accuracy, from the answers of both models."""

from types import SimpleNamespace

import numpy as np
import pytest

from kfp_bonsai.evaluate_emissions.accuracy import accuracy_row
from kfp_bonsai.evaluate_emissions.common import Scored


@pytest.mark.parametrize(("rows", "least", "most"), [(20, 0.5, 0.9), (2000, 0.99, 0.999)])
def test_models_that_agree_on_few_rows_are_not_sure_to_agree_on_all(rows, least, most):
    """Else 20 rows prove that 98 % are kept: a bootstrap cannot draw what no row shows."""
    right = np.arange(rows) % 2
    scored = Scored(np.eye(2)[right], right)
    task = SimpleNamespace(kind="classification", metric="accuracy", labels=("no", "yes"))
    common = SimpleNamespace(task=task, right=right, baseline_scored=scored, seed=0)
    low, high = accuracy_row(common, scored, is_baseline=False)["relative_accuracy_ci"]
    assert least < low < most and high == 1
    assert accuracy_row(common, scored, is_baseline=True)["relative_accuracy_ci"] == [1, 1]
