"""What a champion's record says of its making, read from where nobody guards it."""

import json

import pytest

from kfp_bonsai.fetch_champion.fetch import recipe
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.saved import champion as champions

WHOLE = [
    {"stage": "fine-tune", "arguments": {"model": "bert"}},
    {"stage": "layer-remove", "arguments": {"keep": "1/2"}},
    {"stage": "distill", "arguments": {"epochs": 1, "learning_rate": 1e-4}},
]


def test_a_recipe_is_what_the_stages_were_called_with():
    """A retraining at another level than the champion's."""
    assert recipe({"stage": "distill", "lineage": WHOLE}, "there")["layers"] == "1/2"


@pytest.mark.parametrize(
    "damaged",
    [
        [*WHOLE[:2], {"stage": "distill", "arguments": {"epochs": "often", "learning_rate": 1e-4}}],
        [*WHOLE[:2], {"stage": "distill"}],
        [WHOLE[0], {"stage": "layer-remove", "arguments": {}}, WHOLE[2]],
    ],
)
def test_a_recipe_with_holes_is_refused(damaged):
    """A traceback at three in the morning, from a file that somebody edited."""
    with pytest.raises(BonsaiError, match="does not say with what its stages were called"):
        recipe({"stage": "distill", "lineage": damaged}, "there")


@pytest.mark.parametrize("damaged", [["a", 1], {"stage": 1, "arguments": {}}, {"stage": "distill", "arguments": []}])
def test_a_record_of_other_types_is_refused(tmp_path, damaged):
    """Lists and numbers where a stage's arguments should be, in a location that others write to."""
    package = tmp_path / "versions" / "one"
    package.mkdir(parents=True)
    (package / "bonsai.json").write_text(json.dumps({"stage": "distill", "lineage": [*WHOLE, damaged]}))
    with pytest.raises(BonsaiError, match="which no stage writes"):
        champions.read_champion_record(str(tmp_path), {"version": "one"})


def test_a_champion_that_was_ready_made_is_taken_again():
    """A retraining that leaves layers of the baseline out, where the champion was another model."""
    taken = {"stage": "layer-remove", "arguments": {"keep": "1.0", "student": "embedded:bert-tiny"}}
    found = recipe({"stage": "distill", "lineage": [WHOLE[0], taken, WHOLE[2]]}, "there")
    assert (found["student"], found["layers"]) == ("embedded:bert-tiny", "1.0")
    assert recipe({"stage": "distill", "lineage": WHOLE}, "there")["student"] == ""
