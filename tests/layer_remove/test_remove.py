"""Layer removal: what is kept, and what is refused."""

import pytest

from kfp_bonsai.layer_remove.remove import SCHEMES, layer_remove, layers_asked
from kfp_bonsai.shared.checkpoint import load, read_record
from kfp_bonsai.shared.errors import BonsaiError
from kfp_bonsai.shared.shapes import layers_of


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


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_chosen_layers_are_the_models_own(made, tmp_path, scheme):
    """Else a removed layer's weights live on, or the kept ones are changed."""
    result = layer_remove(made.baseline, made.validation, tmp_path / "out", keep="2/3", scheme=scheme, level="two")
    whole, short = load(made.baseline)[0], load(tmp_path / "out")[0]
    kept = [int(index) for index in result["layers"].split(",")]
    assert len(kept) == 2 == len(layers_of(short))
    for index, layer in zip(kept, layers_of(short), strict=True):
        for mine, theirs in zip(layer.parameters(), layers_of(whole)[index].parameters(), strict=True):
            assert mine.equal(theirs)
    record = read_record(tmp_path / "out")
    assert record["level"] == "two"
    assert [entry["stage"] for entry in record["lineage"]] == ["fine-tune", "layer-remove"]
    assert record["parent"]["sha256"] == read_record(made.baseline)["sha256"]


def test_an_unknown_scheme_is_refused(made, tmp_path):
    """Else a typing mistake falls back to some default."""
    with pytest.raises(BonsaiError, match="did you mean 'importance'"):
        layer_remove(made.baseline, made.validation, tmp_path / "out", scheme="importence")
