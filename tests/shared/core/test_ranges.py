"""What numbers options take."""

import math

import pytest

from kfp_bonsai.distill import distill
from kfp_bonsai.fine_tune import train
from kfp_bonsai.matrix_prune import prune
from kfp_bonsai.pipelines.values import RANGES, check_values
from kfp_bonsai.select_model import select
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.ranges import check_ranges
from kfp_bonsai.shared.core.signatures import options_of
from kfp_bonsai.teacher_outputs import outputs

STAGES = [
    (train, train.fine_tune),
    (outputs, outputs.teacher_outputs),
    (prune, prune.matrix_prune),
    (distill, distill.distill),
    (select, select.select_model),
]


@pytest.mark.parametrize(("module", "stage"), STAGES, ids=lambda one: one.__name__)
def test_a_range_is_of_an_option_and_holds_its_default(module, stage):
    """A stage that refuses what it takes by itself, or a range that no option has any more."""
    defaults = {name: one.default for name, one in options_of(stage).items()}
    assert module.RANGES.keys() <= defaults.keys()
    check_ranges(module.RANGES, defaults)


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("value", [-2, math.nan, math.inf])
def test_what_a_stage_refuses_is_refused_before_the_first(name, value):
    """Hours of training, and then a refusal by its last stage; or a number that compares with nothing."""
    with pytest.raises(BonsaiError, match=rf"^--{name.replace('_', '-')} is {value}: give"):
        check_ranges(RANGES, {name: value})
    with pytest.raises(BonsaiError, match=f"--{name.replace('_', '-')}"):
        check_values({name: float(value)})


def test_a_percentage_is_told_as_the_fraction_that_was_meant():
    """A user who looks for what is wrong with 98."""
    with pytest.raises(BonsaiError, match=r"--min-accuracy is 98: give a fraction .*\(0\.98 for 98 %\)"):
        check_ranges(select.RANGES, {"min_accuracy": 98})
    check_ranges(select.RANGES, {"min_accuracy": 0.98, "epochs": -1})
