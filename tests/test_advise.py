"""Advice rests on what was measured, and says on what."""

import pytest

from kfp_bonsai.advise import advise
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.metrics.advice import EVIDENCE, LEVELS, Evidence, advice


def measured(family, rows, kept):
    return Evidence(family, "made up", rows, LEVELS[2], 0.1, kept, "this test")


def test_the_nearest_evidence_of_the_family_decides():
    """Else advice for little data rests on figures from much, or one family's from another's."""
    found = [measured("bert", 8000, 0.99), measured("bert", 500, 0.90), measured("gpt2", 500, 0.97)]
    found += [Evidence("bert", "made up", 8000, level, 0.5, 1.0, "this test") for level in LEVELS[:2]]
    assert [one.verdict for one in advice("bert", 9000, found)] == ["sensible", "sensible", "sensible"]
    assert advice("bert", 700, found)[2].verdict == "not advised"
    assert advice("gpt2", 9000, found)[2].verdict == "at a price"
    assert "t5 itself was not measured" in advice("t5", 700, found)[2].why
    assert "with only 100 rows expect less" in advice("bert", 100, found)[2].why


def test_every_level_has_evidence_that_can_be_repeated():
    """Else the advice is an opinion."""
    assert {one.level for one in EVIDENCE} == set(LEVELS)
    assert all(one.source and 0 < one.flops_ratio < 1 and 0.5 < one.relative_accuracy < 1.1 for one in EVIDENCE)


def test_what_was_not_measured_is_not_called_sensible():
    """One verdict for every family and any number of rows, while we saw five points lost with 500."""
    assert {one.verdict for one in advice("bert", 8000)} == {"sensible"}
    assert {one.verdict for one in advice("llama", 8000)} == {"uncertain"}
    assert [one.verdict for one in advice("bert", 500)] == ["uncertain", "at a price", "at a price"]


def test_a_model_folder_a_family_and_nonsense(made):
    """Else the command knows only names, or fails with a traceback on a typo."""
    assert advise(str(made.pretrained), rows=500).keys() == advise("bert", rows=500).keys() == set(LEVELS)
    with pytest.raises(BonsaiError, match=r"no such folder.*or give a family"):
        advise("gpt3", rows=500)
    with pytest.raises(BonsaiError, match="--rows 0"):
        advise("bert", rows=0)
