"""Layer removal: what is kept, and what is refused."""

import pytest

from kfp_bonsai.layer_remove.choice import by_place
from kfp_bonsai.layer_remove.layer_schemes import LIKELIHOOD, SCHEMES
from kfp_bonsai.layer_remove.remove import layer_remove, layers_asked, stacks_asked
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.models.shapes import layers_of
from kfp_bonsai.shared.saved.checkpoint import load
from kfp_bonsai.shared.saved.records import read_record

OF_ANY_KIND = tuple(one for one in SCHEMES if one != LIKELIHOOD)


@pytest.mark.parametrize(
    ("keep", "total", "expected"),
    [("1/3", 6, 2), ("2/3", 6, 4), ("1/3", 2, 1), ("0.5", 12, 6), ("4", 6, 4), ("1.0", 6, 6), ("0,2,5", 6, [0, 2, 5])],
)
def test_what_is_asked_for(keep, total, expected):
    """Else a fraction, a count or indices keep other layers than the user named."""
    assert layers_asked(keep, total) == expected


@pytest.mark.parametrize("keep", ["0", "7", "0/3", "4/3", "-1/3", "1.5", "half", "", "1/0", "2,1", "0,0", "0,6"])
def test_what_cannot_be_kept_is_refused(keep):
    """Else a mistake ends in an IndexError, or in another model than asked for."""
    with pytest.raises(BonsaiError, match="--keep"):
        layers_asked(keep, 6)


@pytest.mark.parametrize(
    ("keep", "writes", "expected"),
    [
        *((keep, False, [count, count]) for keep, count in (("2/3", 4), ("1/2", 3), ("1/3", 2), ("4", 4))),
        *(("6+2", writes, [6, 2]) for writes in (False, True)),
        ("1/2+1/3", True, [3, 2]),
        ("0,2+1,5", True, [[0, 2], [1, 5]]),
        *(("4", True, [4, 4]), ("1.0", True, [6, 6]), ("5/6", True, [6, 4]), ("2/3", True, [6, 2])),
        *(("1/2", True, [4, 2]), ("1/3", True, [2, 2]), ("1/4", True, [2, 1]), ("0.01", True, [1, 1])),
    ],
)
def test_a_decoders_layers_go_before_its_encoders(keep, writes, expected):
    """A model that writes keeps what each written token costs, or one that classifies is cut otherwise than it was."""
    assert stacks_asked(keep, [6, 6], writes) == expected


def test_a_fraction_of_two_stacks_is_one_of_all_layers():
    """A level that is called a half and is none, or an order that does not serve the next level."""
    for encoder, decoder in ((6, 6), (12, 12), (8, 4), (2, 6), (1, 1)):
        for number in range(1, 25):
            kept = stacks_asked(f"{number}/24", [encoder, decoder], True)
            total = round(number * (encoder + decoder) / 24)
            assert sum(kept) == max(2, total) and 1 <= kept[0] <= encoder and 1 <= kept[1] <= decoder


@pytest.mark.parametrize(
    ("keep", "stacks", "why"),
    [
        ("6+2", [6], "one stack"),
        ("1+2+3", [6, 6], "2 stacks"),
        ("0,1+2", [6, 6], "of none"),
        ("2+3", [6, 6], "cannot write"),
        ("2+7", [6, 6], "keep 7"),
    ],
)
def test_layers_of_stacks_that_are_not_there_are_refused(keep, stacks, why):
    """A pair that a model of one stack takes for something else, or a traceback."""
    with pytest.raises(BonsaiError, match=why):
        stacks_asked(keep, stacks, True)


@pytest.mark.parametrize("scheme", OF_ANY_KIND)
def test_a_scheme_chooses_as_many_as_asked(scheme):
    """Else rounding takes a layer twice, and the model is shorter than its level says."""
    for total in range(1, 26):
        for count in range(1, total + 1):
            chosen = by_place(scheme, count, total, range(total))
            assert len(chosen) == count and chosen == sorted(set(chosen)) and 0 <= chosen[0] <= chosen[-1] < total


def test_the_default_spreads_over_the_lower_half_and_keeps_the_last():
    """Else two of six layers are the first and the last, which kept 1 to 2.5 points less of the demo task."""
    chosen = [by_place("lower-last", count, 6, ()) for count in range(1, 6)]
    assert chosen == [[5], [1, 5], [0, 2, 5], [0, 1, 2, 5], [0, 1, 2, 3, 5]]
    assert by_place("lower-last", 4, 12, ()) == [1, 3, 5, 11]


@pytest.mark.parametrize("scheme", OF_ANY_KIND)
def test_the_chosen_layers_are_the_models_own(made, tmp_path, scheme):
    """Else a removed layer's weights live on, or the kept ones are changed."""
    result = layer_remove(made.baseline, made.validation, tmp_path / "out", keep="2/3", scheme=scheme, level="two")
    whole, short = load(made.baseline)[0], load(tmp_path / "out")[0]
    kept = [int(index) for index in result["layers"].split(",")]
    assert len(kept) == 2 == len(layers_of(short))
    for index, (_, layer) in zip(kept, layers_of(short), strict=True):
        for mine, theirs in zip(layer.parameters(), layers_of(whole)[index][1].parameters(), strict=True):
            assert mine.equal(theirs)
    record = read_record(tmp_path / "out")
    assert record["level"] == "two"
    assert [entry["stage"] for entry in record["lineage"]] == ["fine-tune", "layer-remove"]
    assert record["parent"]["sha256"] == read_record(made.baseline)["sha256"]


def test_an_unknown_scheme_is_refused(made, tmp_path):
    """Else a typing mistake falls back to some default."""
    with pytest.raises(BonsaiError, match="did you mean 'importance'"):
        layer_remove(made.baseline, made.validation, tmp_path / "out", scheme="importence")


@pytest.mark.parametrize("keep", ["1", "2/3"])
def test_a_family_keeps_the_layer_it_needs(made, tmp_path, keep):
    """Else ModernBERT, whose first layer has no norm of its own, cannot be cut to one layer by default."""
    import tiny

    from kfp_bonsai.fine_tune.train import fine_tune

    model = tiny.pretrained(tmp_path / "pretrained", family="modernbert")
    fine_tune(str(model), made.train, made.validation, tmp_path / "base", epochs=0.1)
    for scheme in OF_ANY_KIND:
        found = layer_remove(tmp_path / "base", made.validation, tmp_path / scheme, keep=keep, scheme=scheme)
        assert found["layers"].startswith("0")
    with pytest.raises(BonsaiError, match="layer 0"):
        layer_remove(tmp_path / "base", made.validation, tmp_path / "out", keep="1,2")


def test_both_stacks_of_an_encoder_decoder_are_cut(made, tmp_path):
    """Else a third of T5's layers leaves its decoder whole, or importance takes one stack's layers for the other's."""
    import tiny

    from kfp_bonsai.fine_tune.train import fine_tune

    model = tiny.pretrained(tmp_path / "pretrained", family="t5")
    fine_tune(str(model), made.train, made.validation, tmp_path / "base", epochs=0.1)
    assert layer_remove(tmp_path / "base", made.validation, tmp_path / "a", keep="2/3")["layers"] == "0,2; 0,2"
    found = layer_remove(tmp_path / "base", made.validation, tmp_path / "b", keep="2", scheme="importance")
    assert [len(part.split(",")) for part in found["layers"].split("; ")] == [2, 2]
    assert layer_remove(tmp_path / "base", made.validation, tmp_path / "c", keep="3+1")["layers"] == "0,1,2; 2"


def test_data_that_is_not_there_is_refused_whatever_the_scheme(made, tmp_path):
    """Else a wrong path shows only with the one scheme that reads it."""
    with pytest.raises(BonsaiError, match="nowhere"):
        layer_remove(made.baseline, tmp_path / "nowhere.parquet", tmp_path / "out", keep="1")


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_a_damaged_record_is_refused_by_name(made, tmp_path, text):
    """Else every stage after a full disk ends in a traceback."""
    import shutil

    shutil.copytree(made.baseline, tmp_path / "base")
    (tmp_path / "base" / "bonsai.json").write_text(text)
    with pytest.raises(BonsaiError, match=r"bonsai\.json"):
        layer_remove(tmp_path / "base", made.validation, tmp_path / "out", keep="1")
