"""The contract that every family must pass: surgery is exact, and what it gives back loads."""

import copy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import models
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    Gemma3Config,
)

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.models import flops, free_models, one_token, shapes, surgery
from kfp_bonsai.shared.models.configuration import check_settings, family_name, family_of, is_free
from kfp_bonsai.shared.models.families import FAMILIES
from kfp_bonsai.shared.models.free_models import task_class
from kfp_bonsai.shared.saved.pretrained import find_model, load, read
from kfp_bonsai.shared.training.dropout import without_dropout

made_once = cache(models.made)  # for the many examples of a test, as a cut leaves a model as it is
every_model = pytest.mark.parametrize("name", models.NAMES)
every_tied_model = pytest.mark.parametrize("name", models.TIED)
GENERATING = {"gpt2": AutoModelForCausalLM, "opt": AutoModelForCausalLM, "llama": AutoModelForCausalLM}
GENERATING |= {"qwen3": AutoModelForCausalLM, "t5": AutoModelForSeq2SeqLM, "gated t5": AutoModelForSeq2SeqLM}
GENERATING |= {"gpt_neox": AutoModelForCausalLM, "gemma3_text near and far": AutoModelForCausalLM}


def batch(rows: int = 3, length: int = 9) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"input_ids": torch.randint(5, 90, (rows, length)), "attention_mask": torch.ones(rows, length).long()}


def logits(model: torch.nn.Module, inputs: dict | None = None) -> torch.Tensor:
    with torch.no_grad():
        return model(**(inputs or batch())).logits


def ragged(model: Any) -> list[dict[str, torch.Tensor]]:
    """Random units of each layer, other numbers in each: first, last and all among them."""
    torch.manual_seed(2)
    shape, kept = shapes.shape_of(model), []
    for index, layer in enumerate(shape.layers):
        counts = {"heads": [1, 2, 9][index % 3], "cross_heads": [2, 1, 9][index % 3], "ffn": [20, 99, 7][index % 3]}
        units = {unit: count for unit, count in shape.units(layer).items() if count}
        kept.append({unit: torch.randperm(n)[: min(n, counts[unit])].sort().values for unit, n in units.items()})
    return kept


def alike(model: Any) -> list[dict[str, torch.Tensor]]:
    """Fewer neurons, and the same heads, in every layer."""
    shape = shapes.shape_of(model)
    return [{"ffn": torch.arange(1, 41, 2)} for _ in shape.layers]


def zeroed(model: Any, kept: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Logits of the whole model with what would be cut set to zero where it is read."""
    shape = shapes.shape_of(model)
    hooks = []
    for (stack, layer), now, stays in zip(shapes.layers_of(model), shape.layers, kept, strict=True):
        for unit, ids in stays.items():
            mask = torch.zeros(shape.units(now)[unit], dtype=torch.float64)
            mask[ids] = 1
            mask = mask.repeat_interleave(shapes.unit_width(unit, shape)[unit])
            module = shapes.reader(stack, layer, unit)
            hooks.append(module.register_forward_pre_hook(lambda _, inputs, mask=mask: (inputs[0] * mask,)))
    found = logits(model)
    for hook in hooks:
        hook.remove()
    return found


@every_model
def test_a_cut_model_computes_what_the_zeroed_one_does(name):
    """Else pruning removes other weights than it scored, as the paper's cut of GPT-2 did."""
    model = models.made(name)
    kept = ragged(model)
    smaller = surgery.cut(model, kept)
    assert is_free(smaller.config)
    torch.testing.assert_close(logits(smaller), zeroed(model, kept), rtol=0, atol=1e-9)


@every_model
def test_a_cut_of_equal_widths_is_stock_and_as_exact(name):
    """Else what plain transformers could load needs our types, or computes something else there."""
    model = models.made(name)
    smaller = surgery.cut(model, alike(model))
    assert not is_free(smaller.config)
    torch.testing.assert_close(logits(smaller), zeroed(model, alike(model)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.heads_divide_hidden])
def test_heads_that_do_not_divide_the_hidden_width_make_a_free_shape(name, monkeypatch):
    """Else what was pruned for hours cannot be put together: transformers refuses such a configuration."""
    odd = {"hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 4}
    monkeypatch.setitem(models.ODD, "wider", (name, odd))
    model = models.made("wider")
    kept = [{"heads": torch.arange(3)} for _ in shapes.shape_of(model).layers]
    smaller = surgery.cut(model, kept)
    assert is_free(smaller.config) and shapes.shape_of(smaller).layers[0].heads == 6
    torch.testing.assert_close(logits(smaller), zeroed(model, kept), rtol=0, atol=1e-9)
    assert not is_free(surgery.cut(model, [{"heads": torch.arange(2)} for _ in kept]).config)


@every_model
def test_removed_layers_are_as_if_skipped(name):
    """Else layer removal renumbers or reloads something wrongly."""
    model = models.made(name)
    stacks = [len(layers) for _, layers in shapes.stacks_of(model)]
    shorter = surgery.keep_layers(model, [[0, count - 1] for count in stacks])
    for _, layers in shapes.stacks_of(model):
        for layer in list(layers)[1:-1]:
            layer.register_forward_hook(lambda _, inputs, output: _like(output, inputs))
    torch.testing.assert_close(logits(shorter), logits(model), rtol=0, atol=1e-9)


def _like(output: Any, inputs: Any) -> Any:
    if not isinstance(output, tuple):
        return inputs[0]
    if len(output) == 3:  # T5 hands the biases on: the skipped layer's are those it was given
        return inputs[0], inputs[2], inputs[5]
    return (inputs[0], *output[1:])


@every_model
def test_the_first_layer_can_go_or_is_refused(name):
    """Else what only the first layer has (T5's biases, ModernBERT's missing norm) is lost in silence."""
    model = models.made(name)
    stacks = [len(layers) for _, layers in shapes.stacks_of(model)]
    if family_of(model.config).stacks[0].first_stays:
        with pytest.raises(BonsaiError, match=r"layer 0 .* keep it"):
            surgery.keep_layers(model, [[1, 2]])
        return
    shorter = surgery.keep_layers(model, [range(1, count) for count in stacks])
    for _, layers in shapes.stacks_of(model):
        first = layers[0]
        attention = getattr(getattr(first, "layer", [None])[0], "SelfAttention", None)
        if attention is None:
            first.register_forward_hook(lambda _, inputs, output: _like(output, inputs))
        else:  # it still makes the biases that all use
            first.register_forward_hook(lambda _, inputs, output: (inputs[0], *output[1:]))
    torch.testing.assert_close(logits(shorter), logits(model), rtol=0, atol=1e-9)


@every_tied_model
def test_hidden_features_go_everywhere_at_once(name):
    """Else hidden pruning misses a matrix of the residual stream, or the shape does not load in plain transformers."""
    model = models.made(name)
    shape = shapes.shape_of(model)
    assert shape.tied
    heads, kept = shape.layers[0].heads - 1, torch.arange(shape.head_dim, shape.hidden)
    smaller = surgery.cut(model, [{"heads": torch.arange(heads)}] * len(shape.layers), kept)
    assert type(smaller).__module__.startswith("transformers.")
    assert shapes.shape_of(smaller).hidden == len(kept) == heads * shape.head_dim
    for (stack, small), (_, large) in zip(shapes.layers_of(smaller), shapes.layers_of(model), strict=True):
        mine, whole = shapes.reader(stack, small, "ffn").weight, shapes.reader(stack, large, "ffn").weight
        assert torch.isin(mine, whole).all()
        assert mine.numel() == whole.numel() * heads // shape.layers[0].heads
    logits(smaller)


def test_saved_models_load_elsewhere_with_the_same_logits(tmp_path):
    """Else the checkpoint needs our code (stock), or a weight is lost or made anew on loading."""
    for name in models.NAMES:
        model = models.made(name)
        model = surgery.keep_layers(model, [[0, len(layers) - 1] for _, layers in shapes.stacks_of(model)])
        writes = family_of(model.config).answers_in_text
        inputs = {**batch(), **({"decoder_input_ids": torch.tensor([[0, 7]] * 3)} if writes else {})}
        auto = "AutoModelForSeq2SeqLM" if writes else "AutoModelForSequenceClassification"
        tied = writes and model.lm_head.weight is model.get_input_embeddings().weight
        for shape, kept in (("stock", alike(model)), ("free", ragged(model))):
            smaller, folder = surgery.cut(model, kept), tmp_path / shape / name
            smaller.save_pretrained(folder)
            torch.save((auto, inputs, logits(smaller, inputs), tied), folder / "expected.pt")
    code = f"""
import sys, torch, transformers
from pathlib import Path
root = Path({str(tmp_path)!r})
stock, free = (sorted((root / shape).iterdir()) for shape in ("stock", "free"))
assert len(stock) == len(free) == {len(models.NAMES)}
for folder in [*stock, *free]:
    assert folder not in stock or "kfp_bonsai" not in sys.modules
    if folder in free:
        import kfp_bonsai
    auto, inputs, expected, tied = torch.load(folder / "expected.pt")
    Auto = getattr(transformers, auto)
    model, found = Auto.from_pretrained(folder, output_loading_info=True, dtype=torch.float64)
    assert not any(found.values()), (folder, found)
    torch.testing.assert_close(model.eval()(**inputs).logits, expected, rtol=0, atol=1e-12, msg=str(folder))
    if hasattr(model, "lm_head"):
        assert tied == (model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@every_model
def test_padding_changes_nothing(name):
    """Else rows of one batch disturb each other, and accuracy depends on the batch."""
    model = models.made(name)
    smaller, inputs = surgery.cut(model, ragged(model)), batch(2, 9)
    inputs["attention_mask"][1, 5:] = 0
    inputs["input_ids"][1, 5:] = smaller.config.pad_token_id
    alone = {key: value[1:, :5] for key, value in inputs.items()}
    torch.testing.assert_close(logits(smaller, inputs)[1:], logits(smaller, alone), rtol=0, atol=1e-6)


@every_model
def test_counted_flops_are_what_torch_counts(name):
    """Else the FLOPs that budgets and reports rest on are wrong."""
    from torch.utils.flop_counter import FlopCounterMode

    model = models.made(name)
    smaller = surgery.cut(model, ragged(model))
    smaller.set_attn_implementation("eager")
    for length in (5, 17):
        with FlopCounterMode(display=False) as counter:
            logits(smaller, batch(1, length))
        assert flops.count(smaller).at(length) == counter.get_total_flops()


@pytest.mark.parametrize("free", [False, True], ids=["stock", "free"])
@pytest.mark.parametrize("name", GENERATING)
def test_counted_flops_of_writing_are_what_torch_counts(name, free):
    """Else a level's share of the FLOPs a written token is wrong: of keys and values that are kept, or of the head."""
    from torch.utils.flop_counter import FlopCounterMode

    model = models.made(name, head=GENERATING[name]).float()
    model.config.label_tokens = None
    smaller = surgery.cut(model, ragged(model) if free else alike(model)).eval()
    smaller.set_attn_implementation("eager")
    for length, written in ((5, 1), (5, 2), (9, 7)):
        options = {"max_new_tokens": written, "min_new_tokens": written, "do_sample": False, "use_cache": True}
        with FlopCounterMode(display=False) as counter:
            smaller.generate(**batch(1, length), **options)
        counted, computed = flops.count(smaller).at(length, written), counter.get_total_flops()
        windowed = getattr(
            smaller.config, "sliding_window", None
        )  # of which all keys are counted, as if they were kept
        assert counted == computed or (windowed and computed <= counted < 1.02 * computed)


@every_model
def test_tokens_that_nobody_reads_are_not_computed_and_change_nothing(name):
    """Else a free shape pays for them, or gives other logits without them, or wrong states to whoever asks."""
    model = models.made(name)
    free = surgery.cut(model, [{} for _ in shapes.shape_of(model).layers], free=True)
    pad = model.config.pad_token_id
    for padded in (slice(0, 0), slice(5, None), slice(None, 4)):  # none, right and left
        inputs = batch(3, 9)
        inputs["attention_mask"][1, padded] = 0
        inputs["input_ids"][1, padded] = pad
        torch.testing.assert_close(logits(free, inputs), logits(model, inputs), rtol=0, atol=1e-9)
        with torch.no_grad():
            states = [one(**inputs, output_hidden_states=True).hidden_states[-1] for one in (free, model)]
        torch.testing.assert_close(*states, rtol=0, atol=1e-9)
    for one in (free, model):
        one.set_attn_implementation("eager")
    with torch.no_grad():
        seen = [getattr(one(**batch(), output_attentions=True), "attentions", None) for one in (free, model)]
    if seen[1]:
        torch.testing.assert_close(seen[0][-1], seen[1][-1], rtol=0, atol=1e-9)
    assert one_token.leaves_out(free) == (not family_of(model.config).answers_in_text)
    assert (flops.count(free).at(9) < flops.count(model).at(9)) == one_token.leaves_out(free)


@every_model
def test_the_last_layer_asks_attention_for_one_query(name, monkeypatch):
    """Else a free shape takes the time of all queries, and in torch's kernel more, as they are a view of one."""
    asked = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def recorded(query, *others, **options):
        asked.append(query.shape[2])
        return attend(query, *others, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", recorded)
    model = models.made(name)
    free = surgery.cut(model, [{} for _ in shapes.shape_of(model).layers], free=True)
    for each in (free, copy.deepcopy(free)):
        asked.clear()
        logits(each, batch(2, 9))
        if one_token.leaves_out(free) and one_token.attentions(shapes.layers_of(free)[-1][1]):
            *others, last = asked
            assert others == [9] * (len(shapes.layers_of(free)) - 1)
            assert last in (1, shapes.shape_of(free).group)  # transformers lays heads that share keys side by side
        else:
            assert {*asked} <= {9} or family_of(model.config).answers_in_text
    asked.clear()
    free.train()(**batch(2, 9))
    assert {*asked} <= {9} or family_of(model.config).answers_in_text


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_threads_share_a_free_shape(name):
    """Else a server that answers two requests at once gives one of them the other's token, or fails."""
    model = models.made(name)
    free = surgery.cut(model, [{} for _ in shapes.shape_of(model).layers], free=True)
    inputs = [batch(2, length) for length in (3, 30, 7, 21)] * 10
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: logits(free, one), inputs))
    for one, own in zip(found, inputs, strict=True):
        torch.testing.assert_close(one, logits(model, own), rtol=0, atol=1e-9)


def test_a_call_that_broke_off_leaves_nothing_behind():
    """Else training after Ctrl-C in a prediction learns from one token only."""
    model = models.made("bert")
    free = surgery.cut(model, [{} for _ in shapes.shape_of(model).layers], free=True)
    hook = free.bert.pooler.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        logits(free)
    hook.remove()
    states = free(**batch(), output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(states, model(**batch(), output_hidden_states=True).hidden_states[-1])


@every_model
def test_a_unit_saves_what_it_is_said_to_cost(name):
    """Else budgets are missed: the widths that pruning chooses rest on these costs."""
    model = models.made(name)
    model = surgery.cut(model, [{} for _ in shapes.shape_of(model).layers], free=True)
    shape, costs = shapes.shape_of(model), flops.units(model, one_token=one_token.leaves_out(model))
    whole = flops.count(model).at(11)
    for index, layer in enumerate(shape.layers):
        for unit, count in shape.units(layer).items():
            if count < 2:
                continue
            kept: list[dict] = [{} for _ in shape.layers]
            kept[index] = {unit: torch.arange(count - 1)}
            saved = whole - flops.count(surgery.cut(model, kept)).at(11)
            assert saved == costs[index][unit].at(11)


@every_model
def test_every_remaining_parameter_still_learns(name):
    """Else surgery left a weight outside the graph, or frozen.

    Keys have biases that cannot learn: they shift all scores of one softmax alike.
    """
    model = models.made(name)
    smaller = surgery.cut(model, ragged(model)).train()
    optimizer = torch.optim.SGD(smaller.parameters(), lr=1.0)
    before = {key: value.detach().clone() for key, value in smaller.named_parameters()}
    smaller(**batch(8, 12), labels=torch.tensor([0, 1] * 4)).loss.backward()
    optimizer.step()
    same = [key for key, value in smaller.named_parameters() if torch.equal(value, before[key])]
    idle = ("key.bias", "k_lin.bias", "k_proj.bias", "key_proj.bias")
    assert [key for key in same if not key.endswith(idle)] == []


@every_model
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_any_legal_shape_is_given(name, data):
    """Else some combination of widths builds another model than was asked for."""
    model = made_once(name)
    shape = shapes.shape_of(model)
    kept = []
    for layer in shape.layers:
        units = {unit: count for unit, count in shape.units(layer).items() if count}
        kept.append({unit: torch.arange(data.draw(st.integers(1, n), label=unit)) for unit, n in units.items()})
    smaller = surgery.cut(model, kept)
    found = shapes.shape_of(smaller)
    for layer, stays in zip(found.layers, kept, strict=True):
        assert {unit: n for unit, n in found.units(layer).items() if n} == {
            unit: len(ids) for unit, ids in stays.items()
        }
    assert logits(smaller).isfinite().all()


@cache
def ragged_config(name: str) -> Any:
    """The configuration of a family's model with other widths in each layer."""
    model = made_once(name)
    return surgery.cut(model, ragged(model)).config


@every_model
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_illegal_shape_is_refused_with_the_legal_ones(name, data):
    """Else a wrong index or an empty layer builds a model that fails later, or computes nonsense."""
    model = made_once(name)
    shape = shapes.shape_of(model)
    number = data.draw(st.integers(0, len(shape.layers) - 1))
    there = {unit: count for unit, count in shape.units(shape.layers[number]).items() if count}
    unit = data.draw(st.sampled_from(sorted(there)))
    most = there[unit]
    wrong = data.draw(st.sampled_from([[], [most], [-1, 0], [0, 0], [1, 0], [0, most + 3]]))
    kept: list[dict] = [{} for _ in shape.layers]
    kept[number] = {unit: torch.tensor(wrong, dtype=torch.long)}
    with pytest.raises(BonsaiError, match=rf"{unit}.* of layer {number}: give rising numbers from 0 to {most - 1}"):
        surgery.cut(model, kept)
    kept[number] = {"tails": torch.tensor([0])}
    with pytest.raises(BonsaiError, match=rf"layer {number} has no 'tails': it has heads"):
        surgery.cut(model, kept)
    stacks = [len(layers) for _, layers in shapes.stacks_of(model)]
    with pytest.raises(BonsaiError, match=f"from 0 to {stacks[0] - 1}"):
        surgery.keep_layers(model, [[0, stacks[0]], *[[0]] * (len(stacks) - 1)])
    config = copy.deepcopy(ragged_config(name))
    config.layer_shapes[number][0] = (most if unit == "heads" else 4) * 100
    with pytest.raises(BonsaiError, match=rf"layer {number} has \d+00 heads; it can have"):
        task_class(config)(config)


@every_tied_model
def test_a_narrower_stream_needs_a_stock_shape(name):
    """Else a model is made that neither plain transformers nor the free types can hold."""
    model = models.made(name)
    shape = shapes.shape_of(model)
    assert shape.tied
    with pytest.raises(BonsaiError, match="needs the same heads and neurons"):
        surgery.cut(model, [{"heads": torch.arange(2)}] * len(shape.layers), torch.arange(shape.head_dim * 2 + 1))


@every_model
def test_the_bare_body_of_a_free_shape_loads_too(name, tmp_path):
    """Else AutoModel cannot take a compressed model for another head."""
    model = models.made(name)
    smaller = surgery.cut(model, ragged(model))
    smaller.save_pretrained(tmp_path)
    body, found = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not found["missing_keys"] or all("pooler" in key for key in found["missing_keys"])
    assert [one[:2] for one in AutoConfig.from_pretrained(tmp_path).layer_shapes] == [
        [one.heads, one.ffn] for one in shapes.shape_of(smaller).layers
    ]
    assert body.config.model_type == f"bonsai-{model.config.model_type}"


@pytest.mark.parametrize("free", [False, True], ids=["stock", "free"])
@pytest.mark.parametrize("name", GENERATING)
def test_a_cut_language_model_still_generates(name, free, tmp_path):
    """Else compressing costs a causal or a sequence-to-sequence model its ability to write, with or without a cache."""
    model = models.made(name, head=GENERATING[name]).float()
    smaller = surgery.cut(model, ragged(model) if free else alike(model))
    smaller.save_pretrained(tmp_path)
    loaded, found = GENERATING[name].from_pretrained(tmp_path, output_loading_info=True)
    assert not any(found.values())
    assert is_free(loaded.config) == free
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    written = [loaded.eval().generate(**batch(2, 5), use_cache=cache, **options) for cache in (True, False)]
    torch.testing.assert_close(*written)
    torch.testing.assert_close(written[0], smaller.eval().generate(**batch(2, 5), **options))


@every_model
def test_a_student_trains_without_dropout(name):
    """Else a student chases answers that its teacher gave without noise; some families keep their rates as numbers."""
    config = models.made(name).config
    for option, value in config.to_dict().items():
        if "drop" in option and isinstance(value, float):
            setattr(config, option, 0.3)
    model, inputs = task_class(config)(config).double().train(), batch()
    assert (logits(model, inputs) - logits(model, inputs)).abs().max() > 1e-6
    without_dropout(model)
    torch.testing.assert_close(logits(model, inputs), logits(model, inputs), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["t5", "gated t5", "mpnet"])
def test_layers_with_different_heads_keep_their_own_biases(name):
    """Else layers that share one table of biases read other heads' after pruning."""
    model = models.made(name)
    kept: list[dict] = [{} for _ in shapes.shape_of(model).layers]
    for index in (0, 1, 2):
        kept[index] = {"heads": torch.tensor([index, 3])}
    smaller = surgery.cut(model, kept)
    assert is_free(smaller.config)
    torch.testing.assert_close(logits(smaller), zeroed(model, kept), rtol=0, atol=1e-9)


def test_layers_with_the_same_heads_share_their_biases_still():
    """Else MPNet's stock shapes, which are narrower throughout, have the biases of heads that are gone."""
    model = models.made("mpnet")
    heads, hidden = torch.tensor([1, 3]), torch.arange(0, 48, 2)
    smaller = surgery.cut(model, [{"heads": heads}] * 3, hidden)
    tables = [one.mpnet.encoder.relative_attention_bias.weight for one in (smaller, model)]
    assert not is_free(smaller.config) and torch.equal(tables[0], tables[1][:, heads])


def test_a_free_shape_can_be_cut_again():
    """Else layers that have tables of biases of their own lose them when pruned twice, or when layers go."""
    model = models.made("mpnet")
    once = surgery.cut(model, [{"heads": torch.tensor([at, 3])} for at in (0, 1, 2)])
    twice = surgery.keep_layers(surgery.cut(once, [{"heads": torch.tensor([1])}] * 3), [[1, 2]])
    kept = [{"heads": torch.tensor([3])}] * 2
    shorter = surgery.keep_layers(model, [[1, 2]])
    torch.testing.assert_close(logits(twice), zeroed(shorter, kept), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.fixed])
def test_settings_that_surgery_rests_on_are_held_to(name):
    """Else a model is cut that computes something else afterwards, such as a DeBERTa that convolves its embeddings."""
    for setting in FAMILIES[name].fixed:
        config = models.made(name).config
        check_settings(config)
        object.__setattr__(config, setting, 3)
        with pytest.raises(BonsaiError, match=rf"sets {setting} to 3, .* or cannot be cut exactly"):
            check_settings(config)


def test_an_unknown_family_is_refused_with_the_known_ones():
    """Else a user with a new architecture gets a KeyError."""
    with pytest.raises(BonsaiError, match="known: bert, roberta, electra, distilbert"):
        family_name("mamba")


def test_a_family_that_cannot_be_cut_is_refused_with_the_reason(tmp_path):
    """Else a user waits for a family that never comes, and an ALBERT of shared layers is cut as if each had its own."""
    (tmp_path / "config.json").write_text('{"model_type": "albert"}')
    with pytest.raises(BonsaiError, match=r"'albert' is not supported: its layers are one set of weights"):
        find_model(str(tmp_path))


def test_the_text_model_of_one_that_reads_images_is_taken(tmp_path):
    """Else a Gemma 3 of 4 billion and more is refused, or with words that lead nowhere."""
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = models.made("gemma3_text").config.to_dict()
    config = Gemma3Config(text_config=text, vision_config={**vision, "image_size": 28, "patch_size": 14})
    AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path / "both")
    with pytest.raises(BonsaiError, match=r"'gemma3' is not supported: it reads images too: .*language_model"):
        find_model(str(tmp_path / "both"))
    AutoModel.from_pretrained(tmp_path / "both").language_model.save_pretrained(tmp_path / "text")
    tiny.tokenizer("gemma3_text").save_pretrained(tmp_path / "text")
    found = read(tmp_path / "text")
    assert family_of(found.config) is FAMILIES["gemma3_text"]
    assert load(found.folder, found.config).new == ("score.weight",)


def test_every_family_is_tried():
    """Else a family is added that this contract never sees."""
    assert {models.made(name).config.model_type for name in models.NAMES} == set(FAMILIES)


def test_pipelines_find_free_shapes_among_their_models():
    """Transformers' pipelines would say that the model is not supported, and then answer."""
    free_models.register()  # as AutoConfig does when it is first asked
    known = {one.__name__ for one in AutoModelForSequenceClassification._model_mapping.values()}
    for name in FAMILIES:
        model = surgery.cut(models.made(name), ragged(models.made(name)))
        writes = family_of(model.config).answers_in_text
        assert writes or type(model).__name__ in known, name
