"""Matrix pruning: the FLOPs asked for, in both shapes, and early refusals."""

import hashlib
from dataclasses import replace
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForSequenceClassification, LlamaConfig

from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.matrix_prune import budget
from kfp_bonsai.matrix_prune.prices import Prices
from kfp_bonsai.matrix_prune.prune import _mean_lengths, _Pruning, matrix_prune
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.models import one_token
from kfp_bonsai.shared.models.costs import Costs
from kfp_bonsai.shared.models.flops import ratio
from kfp_bonsai.shared.models.shapes import STOCK, LayerShape, Shape, shape_of
from kfp_bonsai.shared.saved.checkpoint import load
from kfp_bonsai.shared.saved.records import read_record
from kfp_bonsai.shared.training.transfer import open_set
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs


@pytest.fixture(scope="module")
def short(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("short") / "short"
    layer_remove(made.baseline, made.validation, folder, keep="2")
    return folder


@pytest.mark.parametrize("shape", ["free", "stock"])
def test_the_flops_asked_for_are_reached(made, short, tmp_path, shape):
    """Else a level costs more than its name says, or the matrices only hold zeros."""
    result = matrix_prune(short, made.transfer, tmp_path / "out", flops=0.4, shape=shape, steps=20)
    assert 0.25 < result["flops_ratio"] <= 0.4
    record = read_record(tmp_path / "out")
    assert record["parameters"] < read_record(short)["parameters"]
    model, _ = load(tmp_path / "out")
    assert model.config.model_type == ("bonsai-bert" if shape == "free" else "bert")
    assert all((parameter.abs().sum() > 0).item() for parameter in model.parameters())


@pytest.mark.parametrize("shape", ["free", "stock"])
def test_the_flops_are_those_of_the_tasks_texts(made, short, tmp_path, shape):
    """Unlabelled text that is longer: a tenth of the FLOPs there is more of them on the rows that are asked about."""
    long = pa.table({"text": [f"{'the film was a very ' * 11}{word}" for word in tiny.GOOD * 100]})
    task = replace(tasks.read_task(made.unlabelled), rows=400)
    pq.write_table(long.cast(tasks.schema(task)), tmp_path / "unlabelled.parquet")
    teacher_outputs(made.baseline, made.train, tmp_path / "unlabelled.parquet", tmp_path / "t", augmentations=0)
    assert _mean_lengths(open_set(tmp_path / "t")) == pytest.approx(_mean_lengths(open_set(made.transfer)))
    matrix_prune(short, tmp_path / "t", tmp_path / "out", flops=0.4, shape=shape, steps=2)
    length, _ = _mean_lengths(open_set(made.transfer))
    assert ratio(read_record(tmp_path / "out"), read_record(made.baseline), length) <= 0.4


def test_tokens_that_nobody_reads_go_first(made, short, tmp_path):
    """Else heads and neurons are cut for a target that costs no accuracy at all."""
    record = read_record(short)
    result = matrix_prune(short, made.transfer, tmp_path / "out", flops=0.6, steps=4)
    assert result["flops_ratio"] < 0.6
    assert read_record(tmp_path / "out")["shape"]["layers"] == record["shape"]["layers"]


PRICES = {  # of the made baseline, which has 3 layers of 4 heads and 64 neurons: 100 together
    **{"model": 10.0, "layer.0": 6.0, "heads.0": 4.0, "ffn.0": 0.125},
    **{"layer.last": 3.0, "heads.last": 2.0, "ffn.last": 0.0625},
}
NARROW = {"model": 5.0, "model.wide": 5 / 32, "layer.0": 6.0, "heads.0.wide": 4 / 32, "ffn.0.wide": 0.125 / 32}


def by_hand(monkeypatch, prices=PRICES):
    """A table as if it had been timed here."""
    monkeypatch.setattr("kfp_bonsai.matrix_prune.prices.table_for", lambda *_: Costs(prices, 100.0, 0.03, "made"))


@pytest.mark.parametrize(("shape", "prices"), [("free", PRICES), ("stock", NARROW)])
@pytest.mark.parametrize("share", [0.33, 0.4, 0.5])
def test_the_emission_asked_for_is_reached_by_the_table(made, short, tmp_path, monkeypatch, shape, prices, share):
    """A level by emission that is pruned by its FLOPs, or whose prediction is not that of the model that was made."""
    by_hand(monkeypatch, prices)
    found = matrix_prune(short, made.transfer, tmp_path / "out", emission=share, shape=shape, steps=4)
    assert share - 0.13 < found["predicted_emission"] <= share
    record = read_record(tmp_path / "out")
    assert record["predicted_emission"] == {"share": found["predicted_emission"], "error": 0.03, "device": "made"}
    network, _ = load(tmp_path / "out")
    table = Costs(prices, 100.0, 0.03, "made")
    assert found["predicted_emission"] == table.share(shape_of(network), one_token.leaves_out(network))
    assert record["lineage"][-1]["arguments"]["emission"] == share


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"emission": 0}, "--emission is 0"),
        ({"emission": 1.2}, "--emission is 1.2"),
        ({"emission": 0.2}, "--emission 0.2: one head and 32 neurons a layer cost 0.310 of the baseline"),
        (
            {"emission": 0.2, "shape": "stock"},
            "--emission 0.2: one head and 32 neurons a layer cost 0.380 of the baseline",
        ),
        ({"emission": 0.9}, "--emission 0.9: the model costs 0.700 of the baseline"),
        ({"emission": 0.5, "device": "gpu"}, "--device"),
    ],
)
def test_an_emission_that_cannot_be_reached_is_refused_with_what_can(
    made, short, tmp_path, monkeypatch, options, message
):
    """A user who asks again and again, each time after minutes of timing."""
    by_hand(monkeypatch)
    with pytest.raises(BonsaiError, match=message):
        matrix_prune(short, made.transfer, tmp_path / "out", **options, steps=4)
    assert not (tmp_path / "out").exists()


def test_stated_widths_are_given(made, short, tmp_path):
    """Else --heads and --ffn are only hints."""
    result = matrix_prune(short, made.transfer, tmp_path / "out", shape="stock", heads=2, ffn=32, steps=4)
    assert (result["hidden"], result["heads"], result["ffn"]) == (16, "2,2", "32,32")


@pytest.fixture(scope="module")
def electra(tmp_path_factory):
    """An ELECTRA of hidden width 32, whose embeddings are 16 wide, and its transfer set."""
    folder = tmp_path_factory.mktemp("electra")
    data = tiny.splits(folder / "data")
    config = AutoConfig.from_pretrained(tiny.pretrained(folder / "model", family="electra"))
    config.embedding_size = 16
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder / "model")
    base, transfer = folder / "base", folder / "transfer"
    fine_tune(str(folder / "model"), data["train"], data["validation"], base, epochs=2, learning_rate=3e-3)
    teacher_outputs(base, data["train"], data["unlabelled"], transfer, augmentations=0)
    return base, transfer


@pytest.mark.parametrize("share", [0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
def test_stock_shapes_are_never_as_wide_as_projected_embeddings(electra, tmp_path, share):
    """Transformers then builds no projection, and what was pruned cannot be put together: after all steps."""
    base, transfer = electra
    matrix_prune(base, transfer, tmp_path / "out", flops=share, shape="stock", steps=2)
    assert read_record(tmp_path / "out")["shape"]["hidden"] in (8, 24, 32)
    load(tmp_path / "out")


def test_a_stated_width_that_cannot_be_is_refused_early(electra, tmp_path):
    """The same, asked for."""
    base, transfer = electra
    with pytest.raises(BonsaiError, match=r"--heads 2.*hidden width would be 16"):
        matrix_prune(base, transfer, tmp_path / "out", heads=2, shape="stock", steps=2)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.8, 0.9])
def test_stock_shapes_have_heads_that_divide_the_hidden_width_where_they_must(share):
    """Transformers refuses a Llama of width 64 with 6 heads: after all steps."""
    shape = Shape(64, 8, (LayerShape(8, 64),) * 2, group=2, tied=False, divided=True)
    costs = {"heads.0": 64.0, "heads.1": 64.0, "ffn.0": 1.0, "ffn.1": 1.0}
    prices = Prices("--flops", 640, 640, share * 640, lambda *_: costs, lambda *_: 0.0)
    found = budget.uniform(shape, prices)
    assert found.kind == STOCK and 64 % found.layers[0].heads == 0
    asked = SimpleNamespace(shape=shape, network=SimpleNamespace(config=LlamaConfig()))
    with pytest.raises(BonsaiError, match="--heads 6: a stock llama model has heads whose number divides"):
        _Pruning._stated(asked, 6, 32, "stock")
    assert _Pruning._stated(asked, 6, 32, "free").layers[0].heads == 6


def test_a_level_without_pruning_passes_through_unchanged(made, short, tmp_path):
    """Else the paper's layer-only levels are changed by the stage that they skip."""
    matrix_prune(short, made.transfer, tmp_path / "out", flops=1.0)
    assert digest(tmp_path / "out" / "model.safetensors") == digest(short / "model.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flops": 0.0}, "--flops is 0"),
        ({"flops": 1.5}, "--flops is 1.5"),
        ({"flops": 0.9}, "costs 0.6"),
        ({"flops": 0.9, "shape": "stock"}, "costs 0.6"),
        ({"flops": 0.01}, "ask for"),
        ({"shape": "fre"}, "did you mean 'free'"),
        ({"heads": 9}, "at most 4 and 64"),
        ({"steps": 0}, "--steps"),
        ({"temperature": 0}, "--temperature is 0: give a number above 0"),
        ({"hidden_weight": float("nan")}, "--hidden-weight is nan: give a number of 0 or more"),
        ({"learning_rate": -1}, "--learning-rate"),
        ({"batch_size": 0}, "--batch-size"),
    ],
)
def test_what_cannot_be_reached_is_refused_early(made, short, tmp_path, options, message):
    """Else the user waits for training before hearing that the target is impossible."""
    with pytest.raises(BonsaiError, match=message):
        matrix_prune(short, made.transfer, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_no_teacher_outputs_is_refused(made, short, tmp_path):
    """Else a data split given by mistake ends in a KeyError."""
    with pytest.raises(BonsaiError, match="bonsai"):
        matrix_prune(short, made.train, tmp_path / "out")


@settings(max_examples=50, deadline=None)
@given(share=st.floats(0.05, 1.0), seed=st.integers(0, 99), length=st.floats(1, 200))
def test_an_allotment_never_exceeds_its_budget_nor_leaves_room_for_a_head(share, seed, length):
    """Else the free shape is larger than its budget, or wastes it."""
    torch.manual_seed(seed)
    scores = {f"{kind}.{index}": torch.rand(size) for index in (0, 1) for kind, size in (("heads", 12), ("ffn", 384))}
    costs = {name: 2.0 * (4 * 96 * 8 + 2 * 8 * length) if name.startswith("heads") else 2.0 * 2 * 96 for name in scores}
    whole = sum(costs[name] * len(values) for name, values in scores.items())
    target = budget.least(costs) + share * (whole - budget.least(costs))
    kept = budget.allot(scores, costs, target)
    heads = sum(len(ids) for name, ids in kept.items() if name.startswith("heads"))
    spent = sum(costs[name] * len(ids) for name, ids in kept.items())
    assert spent <= target * (1 + 1e-9)
    assert heads == 24 or spent + costs["heads.0"] > target * (1 - 1e-9)
    for name, ids in kept.items():
        left = scores[name].clone()
        left[ids] = -1
        assert scores[name][ids].min() >= left.max(), "a unit worth less was kept before one worth more"


def test_units_that_a_table_finds_free_are_kept():
    """A table that was timed on a busy machine ended the pruning with a division by zero."""
    scores = {"heads.0": torch.tensor([3.0, 1.0, 2.0]), "ffn.0": torch.rand(64)}
    kept = budget.allot(scores, {"heads.0": 0.0, "ffn.0": 1.0}, 32.0)
    assert kept["heads.0"].tolist() == [0, 1, 2] and len(kept["ffn.0"]) == 32


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
