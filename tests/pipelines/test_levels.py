"""Levels as users write them."""

import pytest
import tiny
from transformers import BertConfig, GPT2Config, ModernBertConfig, T5Config

from kfp_bonsai.pipelines.levels import (
    check_fit,
    check_layers,
    check_shares,
    compressed,
    parse_levels,
    usual_levels,
    with_fewer_layers,
)
from kfp_bonsai.pipelines.values import check_model, check_taught
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.kinds.kind import WRITTEN
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.models.free_models import free_config
from kfp_bonsai.shared.models.shapes import LayerShape


def test_without_levels_there_are_the_three_of_the_white_paper():
    """A study that does not show what the paper shows."""
    levels = parse_levels((), epochs=4)
    assert [(level["label"], level["layers"], level["flops"]) for level in levels] == [
        ("2/3 layers", "2/3", 1.0),
        ("1/3 layers", "1/3", 1.0),
        ("1/3 layers + matrix pruning", "1/3", 0.1),
    ]
    assert {level["epochs"] for level in levels} == {4}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_where_tokens_are_answered_for_more_layers_stay(kind):
    """Names at a third of the FLOPs with two of six layers: 84 % of the F1 where four narrow ones keep 96."""
    levels = parse_levels(usual_levels(kind))
    deeper = {level["layers"] for level in levels} == {"2/3"}
    assert deeper == (kind in ("tokens", "questions")) and len(levels) == 3
    assert [level["epochs"] for level in levels] == ([0, 4, 6] if deeper else [0, 0, 0])
    assert {level["epochs"] for level in parse_levels(usual_levels(kind, 2), 2)} == {2}


def test_a_usual_level_that_is_pruned_may_have_fewer_layers():
    """A model of three layers is left without the level that emits least."""
    whole, third, pruned = usual_levels("classification")
    assert with_fewer_layers(whole) == [whole] and with_fewer_layers(third) == [third]
    assert with_fewer_layers(pruned) == [pruned, "1/3 layers + matrix pruning:layers=1/3,flops=0.1"]
    assert [level["layers"] for level in parse_levels(with_fewer_layers(usual_levels("tokens")[2]))] == [
        *("2/3", "1/2", "1/3")
    ]


def test_a_level_says_all_that_can_be_said():
    """A setting that is read and forgotten."""
    (level,) = parse_levels(["small: layers=0,2,5, flops=0.1, shape=stock, epochs=6, rate=3e-4"])
    own = {"label": "small", "layers": "0,2,5", "flops": 0.1, "shape": "stock", "epochs": 6.0, "rate": 3e-4}
    assert level == {**own, "model": "", "fingerprint": "", "emission": 1.0, "vocabulary": "whole"}
    (level,) = parse_levels(["small:layers=1/3, emission=0.1, vocabulary=task"])
    assert level["vocabulary"] == "task"
    assert (level["flops"], level["emission"]) == (1.0, 0.1)


def test_a_level_without_a_label_is_called_by_its_settings():
    """A report with an empty name."""
    assert parse_levels(["layers=1/2"])[0]["label"] == "layers=1/2"


@pytest.mark.parametrize(
    ("text", "label", "model"),
    [
        ("BERT-tiny:model=embedded:bert-tiny", "BERT-tiny", "embedded:bert-tiny"),
        ("model=embedded:bert-tiny", "bert-tiny", "embedded:bert-tiny"),
        ("epochs=3, model = huawei-noah/TinyBERT_General_4L_312D", "TinyBERT_General_4L_312D", ""),
        ("a=b:model=/models/one,two,rate=1e-3", "a=b", "/models/one,two"),
        ("model=./here/", "here", "./here/"),
        ("two: model=embedded:minilm-l3,epochs=2", "two", "embedded:minilm-l3"),
    ],
)
def test_a_level_may_name_a_ready_made_model(text, label, model):
    """A colon in embedded:bert-tiny that is taken for the label's, or a path that is taken apart."""
    (level,) = parse_levels([text], epochs=4)
    assert level["label"] == label and (level["model"] == model or not model)
    assert level["layers"] == "1.0" and level["flops"] == 1 and level["epochs"] in (2, 3, 4)
    assert compressed([level]) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:model=embedded:bert-tiny,flops=0.5", "is taken as it is, so leave flops out"),
        ("a:layers=1/2,model=x/y,shape=stock", "so leave layers, shape out"),
        ("a:model=", "names no model"),
        ("a:model=it's", "names no model"),
        ("a:model=x/y,model=x/z", "twice"),
        ("model=x/baseline", "taken"),
        ("a:modell=x/y", "did you mean 'model'"),
        ("a:model=x/y,epochs=-2", "such as 3, or 0"),
    ],
)
def test_what_a_ready_made_model_cannot_be_asked_for(text, said):
    """A rival that is cut down without a word, or not at all, where the user asked for half of it."""
    with pytest.raises(BonsaiError, match=rf"^--level .*{said}"):
        parse_levels([text])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:layers=7", "6 layers"),
        ("a:layers=3/2", "at most 1"),
        ("a:layers=0,9", "from 0 to 5"),
        ("a:layers=0", "at least one layer must stay"),  # of no model yet, which has no "1000000 layers"
        ("a:layers=2,1", "must rise, from 0 on"),
        ("a:flops=0", "above 0"),
        ("a:flops=1.5", "at most 1"),
        ("a:flops=lots", "not a number"),
        ("a:flop=0.1", "did you mean 'flops'"),
        ("a:emission=0", "emission=0 must be above 0"),
        ("a:emission=-0.1", "above 0"),
        ("a:emission=10", "at most 1"),
        ("a:emission=nan", "above 0"),
        ("a:emission=10 %", "not a number"),
        ("a:emissions=0.1", "did you mean 'emission'"),
        ("a:flops=0.1,emission=0.1", "give one of them"),
        ("a:emission=0.1,emission=0.2", "twice"),
        ("a:shape=round", "free or stock"),
        ("a:epochs=-1", "such as 3, or 0"),
        ("a:epochs=nan", "such as 3, or 0"),
        ("a:epochs=inf", "such as 3, or 0"),
        ("a:rate=-1", "learning rate"),
        ("a:flops=0.1,flops=0.2", "twice"),
        ("", "this label is taken or empty"),
        ("baseline:layers=1/2", "taken"),
        ("it's:layers=1/2", "quotes"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(text, said):
    """An hour of training before a typing error shows."""
    with pytest.raises(BonsaiError, match=r"^--level") as refused:
        for level in parse_levels([text]):
            check_layers(level, [6])
    assert said in str(refused.value)


def test_two_levels_of_one_name_are_refused():
    """A table in which nobody knows which row is which."""
    with pytest.raises(BonsaiError, match="label of its own"):
        parse_levels(["a:layers=1/2", "a:layers=1/3"])


BASE = BertConfig()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:flops=0.01", "flops=0.01 is less than one head and 32 neurons in each of its 12 layers"),
        ("a:layers=0,11,flops=0.5", "flops=0.5 is more than its 2 of 12 layers cost"),
        ("a:layers=1/3,flops=0.4", "flops=0.4 is more than its 4 of 12 layers cost"),
        ("a:shape=stock,flops=0.0001", "is less than one head"),
        ("a:emission=0.01", "emission=0.01 is less than one head and 32 neurons in each of its 12 layers"),
        ("a:layers=1/3,emission=0.6", "emission=0.6 is more than its 4 of 12 layers cost"),
    ],
)
def test_flops_out_of_reach_are_refused_at_the_start(text, said):
    """A refusal by matrix-prune, hours of training later."""
    with pytest.raises(BonsaiError, match=said):
        check_shares(parse_levels([text]), BASE)


@pytest.mark.parametrize(
    "text",
    ["", "a:layers=1/3,flops=0.1", "a:layers=1/3,emission=0.4", "a:flops=0.05", "a:layers=1/3,flops=0.3,shape=stock"],
)
def test_flops_within_reach_are_not_refused(text):
    """A bound that forbids what works."""
    check_shares(parse_levels([text] if text else []), BASE)


def test_a_level_that_nobody_asked_for_is_surely_within_reach():
    """A baseline trained, and then matrix-prune refuses the usual level, as texts are longer than the shortest."""
    config = GPT2Config(vocab_size=500, n_embd=96, n_layer=4, n_head=4, n_positions=128)
    asked = parse_levels(["a:layers=1/2,flops=0.1"])
    check_shares(asked, config, 128, WRITTEN)
    with pytest.raises(BonsaiError, match="less than one head"):
        check_shares(asked, config, 128, WRITTEN, surely=True)
    check_shares(parse_levels(usual_levels("generation")), config, 128, WRITTEN, surely=True)


def test_the_output_matrix_counts_where_it_works():
    """A level refused for a matrix that no classifier has; or one begun that cannot be had with that matrix."""
    config = GPT2Config(vocab_size=50_000, n_embd=96, n_layer=4, n_head=4, architectures=["GPT2LMHeadModel"])
    asked = parse_levels(["a:layers=1/4,flops=0.04,shape=free"])
    check_shares(asked, config, 8)
    with pytest.raises(BonsaiError, match="less than one head"):
        check_shares(asked, config, 8, WRITTEN)


def test_the_bounds_are_of_both_stacks():
    """A bound for T5 that takes its encoder for the whole model."""
    config = T5Config(num_layers=6, num_decoder_layers=3)
    check_shares(parse_levels(["a:layers=1/3,flops=0.1", "b:layers=1/3,flops=0.1,shape=stock"]), config)
    with pytest.raises(BonsaiError, match="more than its 3 of 9 layers"):
        check_shares(parse_levels(["a:layers=1/3,flops=0.6"]), config)
    check_shares(parse_levels(["a:layers=1+2,flops=0.3"]), config)
    with pytest.raises(BonsaiError, match="more than its 3 of 9 layers"):
        check_shares(parse_levels(["a:layers=1+2,flops=0.6"]), config)
    with pytest.raises(BonsaiError, match=r"^--level 'a': layers=4: the model has 3 layers"):
        check_layers(parse_levels(["a:layers=6+4"])[0], [6, 3])
    check_layers(parse_levels(["a:layers=1+2"])[0], [6, 3])
    with pytest.raises(BonsaiError, match=r"^--level 'a': layers=1\+2: a decoder of 2 layers cannot write behind"):
        check_layers(parse_levels(["a:layers=1+2"])[0], [6, 3], writes=True)
    check_shares(parse_levels(usual_levels("generation")), T5Config(), 128, WRITTEN, surely=True)


def test_layers_and_shapes_that_a_model_cannot_have():
    """The baseline and its teacher's outputs, and then layer-remove or matrix-prune refuses."""
    modern = ModernBertConfig(num_hidden_layers=6)
    check_fit(parse_levels(["layers=0,5", "layers=1/3"]), modern)
    with pytest.raises(BonsaiError, match=r"layer 0 of a modernbert model .* layers=0,5"):
        check_fit(parse_levels(["layers=2,5"]), modern)
    free = free_config(BertConfig(num_hidden_layers=2), [LayerShape(heads=2, ffn=64)] * 2)
    with pytest.raises(BonsaiError, match="a model of free shape cannot become stock"):
        check_fit(parse_levels(["layers=1/2,shape=stock"]), free)
    check_fit(parse_levels(["layers=1/2", "layers=1/2,flops=0.1"]), free)


def test_what_a_writer_cannot_have_is_refused_before_training(tmp_path):
    """Hours of training for a level that its last stage refuses."""
    levels = parse_levels(["small:layers=1/2,vocabulary=task"])
    model = tiny.pretrained(tmp_path / "model", family="llama", writes=True)
    with pytest.raises(BonsaiError, match=r"'small'.*WordLevel.*does not fall back to bytes"):
        check_model(str(model), levels, 0)
    for kind in ("", "ranking"):
        with pytest.raises(BonsaiError, match=r"'small'.*vocabulary=task is for models that write"):
            check_taught(str(model), levels, 0, kind)
    check_taught(str(model), levels, 0, "generation")
    check_taught(str(model), parse_levels(["half:layers=2/3,emission=0.5"]), 0, "generation")
    with pytest.raises(BonsaiError, match="vocabulary=small: write whole or task"):
        parse_levels(["a:vocabulary=small"])
    with pytest.raises(BonsaiError, match="leave vocabulary out"):
        parse_levels(["a:model=embedded:bert-tiny,vocabulary=task"])
