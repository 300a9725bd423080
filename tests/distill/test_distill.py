"""Distillation: the student comes nearer to its teacher, whatever its width."""

import json
import shutil

import numpy as np
import pytest
import torch

from kfp_bonsai.distill.distill import distill, suggested_batch, suggested_epochs, suggested_rate
from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions
from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.saved.checkpoint import load
from kfp_bonsai.shared.saved.records import read_record
from kfp_bonsai.shared.training import distillation, trainer, transfer
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs


def outputs(folder, split):
    model, tokenizer = load(folder)
    return trainer.predict(model, rows.read_rows(split, tokenizer, 64), tokenizer.pad_token_id)


@pytest.mark.parametrize("shape", ["layers", "free", "stock"])
def test_a_student_comes_nearer_to_its_teacher(made, tmp_path, shape):
    """Else distillation trains nothing, or another objective; stock students need their projection."""
    layer_remove(made.baseline, made.validation, tmp_path / "short", keep="1", scheme="bottom")
    start = tmp_path / "short"
    if shape != "layers":
        start = tmp_path / "pruned"
        matrix_prune(tmp_path / "short", made.transfer, start, shape=shape, heads=2, ffn=32, steps=10)
    recipe = {"epochs": 10, "learning_rate": 3e-3, "batch_size": 32, "label_weight": 0}
    result = distill(start, made.transfer, made.validation, tmp_path / "out", **recipe)
    teacher = outputs(made.baseline, made.test)
    before, after = (np.abs(outputs(folder, made.test) - teacher).mean() for folder in (start, tmp_path / "out"))
    assert after < 0.7 * before
    assert result["accuracy"] > 0.85
    assert read_record(tmp_path / "out")["lineage"][-1]["stage"] == "distill"
    assert not hasattr(load(tmp_path / "out")[0], distillation.PROJECTION)


def test_a_projection_begins_as_the_nearest_one(made, tmp_path):
    """A narrower student is first pulled away from what it kept of its teacher: of the demo, KL 0.150, not 0.141."""
    layer_remove(made.baseline, made.validation, tmp_path / "short", keep="1", scheme="bottom")
    matrix_prune(tmp_path / "short", made.transfer, tmp_path / "cut", shape="stock", heads=2, ffn=32, steps=4)
    student, tokenizer = load(tmp_path / "cut")
    data = transfer.open_set(made.transfer)
    width = student.config.hidden_size
    assert width < data.hidden.shape[1]
    batch = transfer.collate([data[index] for index in range(len(data))], tokenizer.pad_token_id)

    def error(projection):
        setattr(student, distillation.PROJECTION, projection)
        with torch.no_grad():
            of_both, of_logits = (
                distillation.objective(KINDS["classification"], 2.0, weight, 0.0)(student, batch, batch)
                for weight in (1.0, 0.0)
            )
        return float(of_both - of_logits)

    found = distillation.fitted_projection(
        student, width, data, lambda items: transfer.collate(items, tokenizer.pad_token_id)
    )
    best = error(found)
    assert best < 0.8 * error(torch.nn.Linear(width, data.hidden.shape[1]))
    for change in (0.02, -0.02):
        other = torch.nn.Linear(width, data.hidden.shape[1])
        other.load_state_dict({name: value + change for name, value in found.state_dict().items()})
        assert best < error(other)


def test_the_loss_is_zero_for_the_teacher_itself(made):
    """Else a perfect student would still be pulled away from its teacher."""
    teacher, tokenizer = load(made.baseline)
    data = transfer.open_set(made.transfer)
    batch = transfer.collate([data[index] for index in range(40)], tokenizer.pad_token_id)
    with torch.no_grad():
        found = distillation.objective(KINDS["classification"], 2.0, 1.0, 0.0)(teacher, batch, batch)
    assert found < 1e-3  # hidden states are kept in float16, and made in bfloat16 where that is faster


def test_the_hidden_states_line_up_with_their_tokens(made):
    """Else a student learns another token's states: padding and sampling must not shift them."""
    teacher, tokenizer = load(made.baseline)
    data = transfer.open_set(made.transfer)
    items = [data[index] for index in (0, 7, 30)]
    batch = transfer.collate(items, tokenizer.pad_token_id)
    for item in items:
        inputs = {name: torch.tensor(item[name][None].astype(np.int64)) for name in item if name.endswith("_ids")}
        with torch.no_grad():
            alone = teacher(**inputs, output_hidden_states=True).hidden_states[-1][0]
        np.testing.assert_allclose(item["teacher_hidden"], alone[item["positions"]].numpy(), atol=0.05)
    assert len(batch["hidden_at"]) == sum(len(item["positions"]) for item in items)


def test_smaller_students_get_higher_rates_and_more_passes(made):
    """Else tiny models learn at a rate and for a time made for large ones."""
    record = read_record(made.baseline)
    record["lineage"] = [{**one, "arguments": {"learning_rate": 1e-4}} for one in record["lineage"]]
    whole = record["flops"]
    tenth = {**record, "flops": {name: value / 10 for name, value in whole.items()}}
    most = {**record, "flops": {name: value * 2 / 3 for name, value in whole.items()}}
    third = {**record, "flops": {name: value / 3 for name, value in whole.items()}}
    rates = [suggested_rate(one, record) for one in (tenth, third, most)]
    assert rates == pytest.approx([5e-4, 5e-4, 1e-4])
    assert [suggested_epochs(one, record, 100_000) for one in (tenth, third)] == [2, 1.5]
    assert (suggested_batch(tenth, record), suggested_batch(third, record)) == (64, 32)


def test_students_of_a_baseline_that_learnt_at_a_high_rate_do_too(made):
    """A small GPT-2 that writes right after 3e-3 would have a half of it that writes nothing right after 2e-4."""
    record = read_record(made.baseline)
    assert record["lineage"][0]["arguments"]["learning_rate"] == 3e-3
    third = {**record, "flops": {name: value / 3 for name, value in record["flops"].items()}}
    assert suggested_rate(third, record) == 3e-3
    record["lineage"][0]["arguments"]["learning_rate"] = 3e-4
    assert suggested_rate(third, record) == pytest.approx(5e-4)
    assert suggested_rate(third, {**record, "lineage": []}) == pytest.approx(5e-4)


def test_few_rows_are_gone_through_more_often(made):
    """Who has 500 rows would get a student of 200 steps, which is far from its teacher still."""
    record = read_record(made.baseline)
    assert suggested_epochs(record, record, 8000) == 4
    assert suggested_epochs(record, record, 32_000) == 1.5
    assert suggested_epochs(record, record, 100) == 6


def test_what_does_not_fit_is_refused(made, tmp_path):
    """Else a wrong folder or number ends in a stack trace."""
    with pytest.raises(BonsaiError, match="holds no teacher outputs"):
        distill(made.baseline, made.baseline, made.validation, tmp_path / "out")
    record = read_record(made.transfer)
    record["lineage"][0]["sha256"] = "f" * 64
    other = shutil.copytree(made.transfer, tmp_path / "other")
    (other / "bonsai.json").write_text(json.dumps(record))
    with pytest.raises(BonsaiError, match="come from different baselines"):
        distill(made.baseline, other, made.validation, tmp_path / "out")
    with pytest.raises(BonsaiError, match="--epochs is -1: give 0"):
        distill(made.baseline, made.transfer, made.validation, tmp_path / "out", epochs=-1)
    with pytest.raises(BonsaiError, match="--epochs is nan"):
        distill(made.baseline, made.transfer, made.validation, tmp_path / "out", epochs=float("nan"))
    with pytest.raises(BonsaiError, match="is not of the data set"):
        distill(made.baseline, made.transfer, made.unlabelled, tmp_path / "out")


def test_the_test_split_is_not_learnt_from(made, tmp_path):
    """Accuracy on rows that were trained on, or chosen by, which a report then calls believable."""
    for stage in (
        lambda: fine_tune(str(made.pretrained), made.test, made.validation, tmp_path / "out"),
        lambda: fine_tune(str(made.pretrained), made.train, made.test, tmp_path / "out"),
        lambda: teacher_outputs(made.baseline, made.test, made.unlabelled, tmp_path / "out"),
        lambda: distill(made.baseline, made.transfer, made.test, tmp_path / "out"),
        lambda: evaluate_emissions(made.baseline, [made.baseline], made.test, made.test, tmp_path / "out"),
    ):
        with pytest.raises(BonsaiError, match="is the test split, which must stay unseen"):
            stage()
    with pytest.raises(BonsaiError, match="is the train split: give the test split"):
        evaluate_emissions(made.baseline, [made.baseline], made.train, made.train, tmp_path / "out")


def test_a_damaged_transfer_set_is_told_as_one(made, tmp_path):
    """A traceback of mmap, after the model was loaded."""
    for name in ("hidden.npy", "rows.parquet"):
        folder = shutil.copytree(made.transfer, tmp_path / name)
        (folder / name).write_bytes((folder / name).read_bytes()[:-400])
        with pytest.raises(BonsaiError, match=r"is damaged .*bonsai teacher-outputs"):
            transfer.open_set(folder)
