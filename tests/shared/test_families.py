"""The contract that every family must pass: surgery is exact, and what it gives back loads."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, AutoModelForSequenceClassification

from kfp_bonsai.shared import flops, shapes
from kfp_bonsai.shared.errors import BonsaiError
from kfp_bonsai.shared.families import FAMILIES, family_name

SMALL = {"layers": 3, "heads": 4, "hidden": 48, "ffn": 64}
ODD = {"bert": {"heads": 3}, "electra": {"embedding": 32}}  # settings real checkpoints have, per family


def made(family: str, **widths: int) -> torch.nn.Module:
    """A random float64 model with every weight away from its initial value, so that no bias or norm hides a mistake."""
    names = FAMILIES[family].config
    values = {**SMALL, **ODD.get(family, {}), **widths}
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](
        vocab_size=90,
        max_position_embeddings=40,
        **{names[key]: value for key, value in values.items() if key in names},
    )
    model = AutoModelForSequenceClassification.from_config(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def batch(rows: int = 3, length: int = 9) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"input_ids": torch.randint(5, 90, (rows, length)), "attention_mask": torch.ones(rows, length).long()}


def logits(model: torch.nn.Module, inputs: dict | None = None) -> torch.Tensor:
    with torch.no_grad():
        return model(**(inputs or batch())).logits


def cut(model: torch.nn.Module, widths: list[tuple[int, int]]) -> list[shapes.Kept]:
    """Cut each layer to random heads and neurons of the given numbers; say which stayed."""
    torch.manual_seed(2)
    now = shapes.shape_of(model).layers
    kept = [
        shapes.Kept(torch.randperm(one.heads)[:heads].sort().values, torch.randperm(one.ffn)[:ffn].sort().values)
        for one, (heads, ffn) in zip(now, widths, strict=True)
    ]
    for layer, stays in zip(shapes.layers_of(model), kept, strict=True):
        shapes.cut_layer(model, layer, stays)
    return kept


def zeroed(model: torch.nn.Module, kept: list[shapes.Kept]) -> torch.Tensor:
    """Logits of the whole model with what would be cut set to zero where it is read."""
    width = shapes.shape_of(model).head_dim
    hooks = []
    for layer, stays in zip(shapes.layers_of(model), kept, strict=True):
        for axis, ids, size in (("heads", stays.heads, width), ("ffn", stays.ffn, 1)):
            module = shapes.module_reading(model, layer, axis)
            mask = torch.zeros(shapes._weight_axes(module)[1] // size, dtype=torch.float64)
            mask[ids] = 1
            mask = mask.repeat_interleave(size)
            hooks.append(module.register_forward_pre_hook(lambda _, inputs, mask=mask: (inputs[0] * mask,)))
    found = logits(model)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_model_computes_what_the_zeroed_one_does(family):
    """Else pruning removes other weights than it scored, as the paper's cut of GPT-2 did."""
    model, widths = made(family), [(1, 20), (2, 64), (3, 7)]
    kept = cut(model, widths)
    torch.testing.assert_close(logits(shapes.rebuild(model)), zeroed(made(family), kept), rtol=0, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_removed_layers_are_as_if_skipped(family):
    """Else layer removal renumbers or reloads something wrongly."""
    model, whole = made(family), made(family)
    shapes.keep_layers(model, [0, 2])
    skipped = shapes.layers_of(whole)[1]
    skipped.register_forward_hook(lambda _, inputs, output: _like(output, inputs[0]))
    torch.testing.assert_close(logits(shapes.rebuild(model)), logits(whole), rtol=0, atol=1e-9)


def _like(output, states):
    return (states, *output[1:]) if isinstance(output, tuple) else states


@pytest.mark.parametrize("family", FAMILIES)
def test_a_narrower_model_is_stock_and_keeps_the_features_asked_for(family):
    """Else hidden pruning misses a matrix of the residual stream, or the shape does not load in plain transformers."""
    model = made(family, heads=4)
    kept = torch.arange(0, 48, 2)
    cut(model, [(2, 32)] * 3)
    shapes.cut_hidden(model, kept)
    smaller = shapes.rebuild(model)
    assert type(smaller).__module__.startswith("transformers.")
    assert shapes.shape_of(smaller) == shapes.Shape(24, 12, (shapes.LayerShape(2, 32),) * 3)
    torch.testing.assert_close(logits(smaller), logits(model), rtol=0, atol=1e-9)
    layer = shapes.layers_of(smaller)[1]
    was = shapes.module_reading(made(family, heads=4), shapes.layers_of(made(family, heads=4))[1], "ffn")
    assert torch.isin(shapes.module_reading(smaller, layer, "ffn").weight, was.weight[kept]).all()


@pytest.mark.parametrize("free", [False, True], ids=["stock", "free"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_loads_elsewhere_with_the_same_logits(family, free, tmp_path):
    """Else the checkpoint needs our code (stock), or a weight is lost or made anew on loading."""
    model = made(family)
    shapes.keep_layers(model, [0, 2])
    cut(model, [(1, 20), (2, 31)] if free else [(shapes.shape_of(model).layers[0].heads, 20)] * 2)
    smaller = shapes.rebuild(model)
    smaller.save_pretrained(tmp_path / "model")
    torch.save({"inputs": batch(), "logits": logits(smaller)}, tmp_path / "expected.pt")
    code = f"""
import sys, torch
{"import kfp_bonsai" if free else ""}
from transformers import AutoModelForSequenceClassification as Auto
model, found = Auto.from_pretrained({str(tmp_path / "model")!r}, output_loading_info=True, dtype=torch.float64)
assert not any(found.values()), found
expected = torch.load({str(tmp_path / "expected.pt")!r})
torch.testing.assert_close(model.eval()(**expected["inputs"]).logits, expected["logits"], rtol=0, atol=1e-12)
assert {free} == ("kfp_bonsai" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_nothing(family):
    """Else rows of one batch disturb each other, and accuracy depends on the batch."""
    model = made(family)
    cut(model, [(1, 20), (2, 64), (3, 7)])
    smaller, inputs = shapes.rebuild(model), batch(2, 9)
    inputs["attention_mask"][1, 5:] = 0
    inputs["input_ids"][1, 5:] = smaller.config.pad_token_id
    alone = {name: value[1:, :5] for name, value in inputs.items()}
    torch.testing.assert_close(logits(smaller, inputs)[1:], logits(smaller, alone), rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_counted_flops_are_what_torch_counts(family):
    """Else the FLOPs that budgets and reports rest on are wrong."""
    from torch.utils.flop_counter import FlopCounterMode

    model = made(family)
    cut(model, [(1, 20), (2, 64), (3, 7)])
    smaller = shapes.rebuild(model)
    smaller.set_attn_implementation("eager")
    for length in (5, 17):
        with FlopCounterMode(display=False) as counter:
            logits(smaller, batch(1, length))
        assert flops.count(smaller).at(length) == counter.get_total_flops()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_remaining_parameter_still_learns(family):
    """Else surgery left a weight outside the graph, or frozen.

    Keys have biases that cannot learn: they shift all scores of one softmax alike.
    """
    model = made(family)
    cut(model, [(1, 20), (2, 64), (3, 7)])
    smaller = shapes.rebuild(model).train()
    optimizer = torch.optim.SGD(smaller.parameters(), lr=1.0)
    before = {name: value.detach().clone() for name, value in smaller.named_parameters()}
    torch.nn.functional.cross_entropy(smaller(**batch(8, 12)).logits, torch.tensor([0, 1] * 4)).backward()
    optimizer.step()
    same = [name for name, value in smaller.named_parameters() if torch.equal(value, before[name])]
    assert [name for name in same if not name.endswith(("key.bias", "k_lin.bias"))] == []


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_any_legal_shape_survives_a_rebuild(family, data):
    """Else some combination of widths builds another model than was cut."""
    model = made(family)
    now = shapes.shape_of(model)
    widths = [
        (data.draw(st.integers(1, one.heads), label="heads"), data.draw(st.integers(1, one.ffn), label="ffn"))
        for one in now.layers
    ]
    cut(model, widths)
    again = shapes.rebuild(model)
    expected = replace(now, layers=tuple(shapes.LayerShape(*pair) for pair in widths))
    assert shapes.shape_of(again) == expected
    assert (expected.kind == "free") == shapes.is_free(again.config)
    torch.testing.assert_close(logits(again), logits(model), rtol=0, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_bare_body_of_a_free_shape_loads_too(family, tmp_path):
    """Else AutoModel cannot take a compressed model for another head."""
    model = made(family)
    cut(model, [(1, 20), (2, 64), (3, 7)])
    shapes.rebuild(model).save_pretrained(tmp_path)
    body, found = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"] or all("pooler" in key for key in found["missing_keys"])
    assert AutoConfig.from_pretrained(tmp_path).layer_shapes == [[1, 20], [2, 64], [3, 7]]
    assert body.config.model_type == f"bonsai-{family}"


def test_an_unknown_family_is_refused_with_the_known_ones():
    """Else a user with a new architecture gets a KeyError."""
    with pytest.raises(BonsaiError, match="known: bert, roberta, electra, distilbert"):
        family_name("mamba")
