"""Ready-made models as levels, looked at before anything is trained."""

import pytest
import tiny
from rivals import WORDS, ready
from transformers import AutoConfig, AutoModelForSequenceClassification

from kfp_bonsai.pipelines.levels import parse_levels
from kfp_bonsai.pipelines.values import check_model, check_taught, kind_of_rows
from kfp_bonsai.shared.core.errors import BonsaiError


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A baseline, and ready-made models: small, large, with other tokens, ones that answer in text, one refused."""
    folder = tmp_path_factory.mktemp("models")
    tiny.pretrained(folder / "base")
    tiny.pretrained(folder / "large", 9)
    tiny.pretrained(folder / "t5", family="t5")
    tiny.pretrained(folder / "opt", family="opt", writes=True)
    ready(folder / "small")
    ready(folder / "other", WORDS[::-1])
    (folder / "xlnet").mkdir()
    (folder / "xlnet" / "config.json").write_text('{"model_type": "xlnet"}')
    return folder


def rival(folder):
    """Return a level of this model."""
    return parse_levels([f"it:model={folder}"])


def test_a_ready_made_model_may_have_fewer_layers_than_a_level_asks_for(models):
    """The rival's one layer held against layers=2 of the level beside it, or the level's against the rival."""
    check_model(str(models / "base"), [*parse_levels(["two:layers=2,flops=0.5"]), *rival(models / "small")], 0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "no model folder at"),
        ("xlnet", "model_type 'xlnet' is not supported"),
        ("../x/../y/z", "no model folder"),
    ],
)
def test_one_that_cannot_be_had_is_refused_at_once(models, name, said):
    """A night of training before a slip in a rival's name shows; or a message about --model, which is right."""
    with pytest.raises(BonsaiError, match=rf"^--level 'it': .*{said}"):
        check_model(str(models / "base"), rival(models / name), 0)


def test_what_is_odd_about_one_is_said(models, capsys):
    """A rival that is larger than what it is to save, or that reads half of each text, and nobody is told."""
    check_model(str(models / "base"), rival(models / "large"), 0)
    assert "computes 3.0 times what the baseline does" in capsys.readouterr().out
    short = AutoConfig.from_pretrained(models / "small", max_position_embeddings=32)
    AutoModelForSequenceClassification.from_config(short).save_pretrained(models / "short")
    tiny.tokenizer().save_pretrained(models / "short")
    check_model(str(models / "base"), rival(models / "short"), 48)
    assert "short has 32 positions" in capsys.readouterr().out
    check_model(str(models / "base"), rival(models / "small"), 48)
    assert "note:" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("tokens", "other", "another tokenizer than the baseline"),
        ("questions", "other", "cannot be taught yet"),
        ("tokens", "t5", "answers in text"),
        ("ranking", "t5", "answers in text"),
        ("tokens", "small", ""),
        ("ranking", "other", ""),
        ("multi-label", "other", ""),
        ("", "t5", ""),
    ],
)
def test_what_cannot_be_taught_is_refused_before_training(models, kind, name, said):
    """Hours for a baseline whose tags a rival with other tokens cannot learn."""
    if not said:
        check_taught(str(models / "base"), rival(models / name), 0, kind)
        return
    with pytest.raises(BonsaiError, match=rf"^--level 'it': .*{said}"):
        check_taught(str(models / "base"), rival(models / name), 0, kind)


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("base", "generation", "no bert model writes texts"),
        ("t5", "tokens", "answers in text"),
        ("t5", "generation", ""),
        ("opt", "generation", "no eos_token, with which answers end"),
        ("base", "tokens", ""),
    ],
)
def test_a_model_that_cannot_answer_is_refused_before_training(models, name, kind, said):
    """Rows prepared, or even a baseline trained and its levels too, for what a later stage refuses."""
    if not said:
        check_taught(str(models / name), [], 0, kind)
        return
    with pytest.raises(BonsaiError, match=said):
        check_taught(str(models / name), [], 0, kind)


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        ('{"tokens": ["In", "Oslo"], "ner_tags": ["O", "B-LOC"]}', "tokens"),
        ('{"text": "a good film", "label": "good"}', ""),
        ('{"text": "a good film", "label": ["fun", "good"]}', "multi-label"),
        ('{"query": "films", "document": "a good film", "relevance": 2}', "ranking"),
    ],
)
def test_a_glance_tells_the_kind(tmp_path, rows, kind):
    """Tags that are taken for classes until the baseline is trained."""
    (tmp_path / "rows.jsonl").write_text(rows + "\n" + rows + "\n")
    columns = dict.fromkeys(("text_column", "text_pair_column", "label_column"), "")
    assert kind_of_rows({"data": str(tmp_path / "rows.jsonl"), "kind": "auto", "levels": [], **columns}) == kind
