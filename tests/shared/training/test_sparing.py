"""Where memory does not suffice for a batch, a training goes on with less of it at once, and learns the same."""

import json
import shutil
import sys
from functools import partial

import numpy as np
import pytest
import tiny
import torch
from kinds_made import MADE, WRITERS, splits
from safetensors.torch import load_file

from kfp_bonsai.distill.distill import distill
from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import CHECKPOINTS
from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.saved.checkpoint import load
from kfp_bonsai.shared.saved.records import read_record
from kfp_bonsai.shared.training import distillation, prior, sparing, trainer, transfer
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

ENOUGH = {  # as the libraries say it
    "onednn": RuntimeError("could not create a primitive"),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory"),
    "cuda": torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "python": MemoryError(),
}
DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")


@pytest.fixture
def room(monkeypatch):
    """Let a model's forward pass have memory for so many rows."""
    forward, seen = torch.nn.Module.__call__, []

    def set_up(most, error=ENOUGH["cpu"]):
        def limited(self, *args, **named):
            ids = named.get("input_ids")
            if ids is not None and hasattr(self, "config"):
                if len(ids) > most:
                    raise error
                seen.append(len(ids))
            return forward(self, *args, **named)

        monkeypatch.setattr(torch.nn.Module, "__call__", limited)
        return seen

    monkeypatch.setattr(trainer, "bf16_is_faster", lambda: False)
    return set_up


@pytest.fixture(scope="module")
def steady(made, tmp_path_factory):
    """The pretrained model without dropout, whose numbers are drawn batch by batch; and a stock student."""
    folder = tmp_path_factory.mktemp("steady")
    model = shutil.copytree(made.pretrained, folder / "model")
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | dict.fromkeys(DROPOUTS, 0.0)))
    layer_remove(made.baseline, made.validation, folder / "short", keep="2")
    matrix_prune(folder / "short", made.transfer, folder / "narrow", heads=2, ffn=32, shape="stock", steps=2)
    return folder


@pytest.fixture(scope="module")
def stages(made, steady):
    tuning = {"epochs": 1, "learning_rate": 1e-3, "batch_size": 32, "seed": 1}
    return {
        "fine-tune": lambda to: fine_tune(str(steady / "model"), made.train, made.validation, to, **tuning),
        "matrix-prune": lambda to: matrix_prune(steady / "short", made.transfer, to, flops=0.4, steps=12),
        "distill": lambda to: distill(steady / "narrow", made.transfer, made.validation, to, **tuning),
    }


def apart(one, other):
    """Return how far weights or gradients are apart, by their size."""
    assert one.keys() == other.keys()
    norms = [
        torch.cat([value.flatten() for value in each]).norm()
        for each in ([one[name] - other[name] for name in one], other.values())
    ]
    return float(norms[0] / norms[1])


@pytest.mark.parametrize("how", ENOUGH)
@pytest.mark.parametrize("stage", ["fine-tune", "matrix-prune", "distill"])
def test_a_stage_goes_on_with_less_at_once_and_learns_the_same(stages, tmp_path, room, capsys, stage, how):
    """A night's training ends in an error; or it learns each part of a batch as if it were a whole one."""
    if how != "cpu" and stage != "distill":
        pytest.skip("one stage is enough for how it is said")
    stages[stage](tmp_path / "whole")
    seen = room(9, ENOUGH[how])
    stages[stage](tmp_path / "parts")
    said = capsys.readouterr().out
    assert "memory does not suffice for 32 rows at once: goes on with 16" in said and "goes on with 8" in said
    assert max(seen) <= 9
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert apart(parts, whole) < 1e-4
    ours, theirs = (read_record(tmp_path / name) for name in ("parts", "whole"))
    assert ours["shape"] == theirs["shape"] and ours["validation"] == theirs["validation"]


@pytest.mark.parametrize("stage", ["fine-tune", "matrix-prune", "distill"])
def test_a_cpu_works_on_long_rows_in_parts_and_learns_the_same(stages, tmp_path, monkeypatch, room, stage):
    """MiniLM and 32 rows of 512 tokens: 12 GB where 5 do, in half as much time again; or other gradients."""
    stages[stage](tmp_path / "whole")
    monkeypatch.setattr(trainer, "TOKENS_AT_ONCE", 60)
    monkeypatch.setattr(trainer, "predict", partial(trainer.predict, batch_size=4))
    seen = room(32)
    stages[stage](tmp_path / "parts")
    assert set(seen) & {4, 5, 6, 7, 8}
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert apart(parts, whole) < 1e-4


@pytest.fixture
def killed(monkeypatch):
    """Let the next training be ended in a step as by SIGKILL: what it noted stays."""

    class Killed(BaseException):
        pass

    def killing(self, *args, **named):
        noted.append((self.attempt.folder / sparing.NOTE).read_text())
        raise Killed

    noted = []

    def set_up(run, folder):
        with monkeypatch.context() as patch:
            patch.setattr(trainer._Trainer, "compute_loss", killing)
            with pytest.raises(Killed):
                run()
        (found,) = folder.glob(f".parts*{CHECKPOINTS}")
        (found / sparing.NOTE).write_text(noted[-1])

    return set_up


def test_an_attempt_that_was_killed_for_memory_is_followed_by_one_with_half_at_once(
    stages, tmp_path, capsys, killed, monkeypatch
):
    """A container's limit kills each attempt alike; or another model comes of it."""
    counts = tmp_path / "vmstat"
    monkeypatch.setattr(sparing, "COUNTS", counts)
    monkeypatch.setattr(trainer, "bf16_is_faster", lambda: False)
    counts.write_text("oom_kill 3\n")
    stages["distill"](tmp_path / "whole")
    run = partial(stages["distill"], tmp_path / "parts")
    killed(run, tmp_path)
    counts.write_text("oom_kill 4\n")
    killed(run, tmp_path)
    assert "32 rows at once was killed" in capsys.readouterr().out
    counts.write_text("oom_kill 5\n")
    parts, sizes = sparing.parts, []
    monkeypatch.setattr(sparing, "parts", lambda batch, most: sizes.append(most) or parts(batch, most))
    run()
    assert "16 rows at once was killed" in capsys.readouterr().out
    assert set(sizes) == {8}
    assert apart(*(load_file(tmp_path / name / "model.safetensors") for name in ("parts", "whole"))) < 1e-4


@pytest.mark.parametrize(
    ("killings", "kept", "step", "most"),
    [
        ("oom_kill 4", None, 0, 16),
        ("oom_kill 3", None, 0, sys.maxsize),
        ("oom_kill 4", None, 7, sys.maxsize),
        ("nothing", None, 0, 16),
        ("oom_kill 4", '{"step": 0, "rows": "many", "killings": 1}', 0, sys.maxsize),
        ("oom_kill 4", '{"step": 0, "rows": 1, "killings": 1}', 0, 1),
        ("oom_kill 4", "{", 0, sys.maxsize),
    ],
)
def test_only_what_memory_may_have_ended_before_it_got_on_is_halved(tmp_path, monkeypatch, killings, kept, step, most):
    """A model that is not that of an undisturbed run, bit by bit, though memory sufficed; or a traceback."""
    monkeypatch.setattr(sparing, "COUNTS", tmp_path / "vmstat")
    sparing.COUNTS.write_text("oom_kill 3\n")
    file = tmp_path / sparing.NOTE
    with sparing.watched(tmp_path, 0, "distill") as (_, note):
        note(32)
        noted = file.read_text()
    assert not file.exists(), "what ended in order is taken for killed"
    file.write_text(kept or noted)
    sparing.COUNTS.write_text(f"{killings}\n")
    with sparing.watched(tmp_path, step, "distill") as (found, _):
        assert found == most


def test_a_single_row_that_does_not_fit_is_told(stages, tmp_path, monkeypatch, room):
    """A training that halves one row for ever, or a traceback of torch."""
    monkeypatch.setattr("kfp_bonsai.fine_tune.learn.rehearse", lambda *_: None)
    room(0)
    with pytest.raises(
        BonsaiError, match=r"fine-tune: memory does not suffice for a single row of \d+ tokens .*--max-"
    ):
        stages["fine-tune"](tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_another_error_is_not_taken_for_it(stages, tmp_path, room):
    """A fault of the code, hidden by trying it again with fewer rows."""
    room(9, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        stages["fine-tune"](tmp_path / "model")


def test_a_teacher_answers_halves_of_a_batch(made, tmp_path, room, capsys):
    """The transfer set is lost with the memory, or rows get another's answers."""
    teacher_outputs(made.baseline, made.train, made.unlabelled, tmp_path / "whole", augmentations=0)
    room(10)
    teacher_outputs(made.baseline, made.train, made.unlabelled, tmp_path / "parts", augmentations=0)
    whole, parts = (transfer.open_set(tmp_path / name) for name in ("whole", "parts"))
    assert np.allclose(whole.logits, parts.logits, atol=1e-4) and np.allclose(whole.hidden, parts.hidden, atol=0.01)
    assert all(map(np.array_equal, whole.inputs["input_ids"], parts.inputs["input_ids"]))


def test_answers_are_in_their_order_whatever_fits(made, room):
    """A score of rows in another order."""
    model, tokenizer = load(made.baseline)
    data = rows.read_rows(made.test, tokenizer, 64)
    whole = trainer.predict(model, data, tokenizer.pad_token_id)
    room(3)
    assert np.allclose(whole, trainer.predict(model, data, tokenizer.pad_token_id), atol=1e-5)


def test_parts_of_a_batch_have_their_own_hidden_states(made):
    """A row that learns its neighbour's states."""
    _, tokenizer = load(made.baseline)
    data = transfer.open_set(made.transfer)
    items = [data[index] for index in range(7)]
    whole = transfer.collate(items, tokenizer.pad_token_id)
    width = whole["input_ids"].shape[1]
    parts = [*sparing.parts(whole, 3)]
    assert [len(part["input_ids"]) for part in parts] == [3, 3, 1]
    for name in whole.keys() - {"hidden_at"}:
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name]), name
    moved = [part["hidden_at"] + 3 * number * width for number, part in enumerate(parts)]
    assert torch.equal(torch.cat(moved), whole["hidden_at"])


@pytest.mark.parametrize("kind", [*MADE, *WRITERS])
def test_every_kind_learns_the_same_in_parts(kind, tmp_path, room, monkeypatch):
    """Tokens of a part count as those of a whole batch, though rows have different numbers of them."""
    monkeypatch.setattr(prior, "begin", lambda *_: None)  # which would find no name at all after so few steps
    if kind in WRITERS:
        pytest.importorskip("rouge_score")
    data = splits(tmp_path / "data", kind)
    family = (MADE | WRITERS)[kind].families[0]
    model = tiny.pretrained(tmp_path / "start", family=family, writes=kind in WRITERS)
    file = model / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {name: 0.0 for name in config if "drop" in name or "pdrop" in name}))
    recipe = {"epochs": 0.2, "learning_rate": 1e-3, "batch_size": 16}
    fine_tune(str(model), data["train"], data["validation"], tmp_path / "whole", **recipe)
    teacher_outputs(tmp_path / "whole", data["train"], data["unlabelled"], tmp_path / "set", augmentations=0)
    whole = taught(tmp_path / "whole", tmp_path / "set", 16)
    assert apart(taught(tmp_path / "whole", tmp_path / "set", 5), whole) < 1e-5
    room(5)
    fine_tune(str(model), data["train"], data["validation"], tmp_path / "parts", **recipe)
    assert apart(*(load_file(tmp_path / name / "model.safetensors") for name in ("parts", "whole"))) < 1e-4


def taught(folder, transfer_set, at_once):
    """Return the gradients of a student on a batch of 16 rows of its teacher's outputs, so many of them at once."""
    model, tokenizer = load(folder)
    data = transfer.open_set(transfer_set)
    kind = KINDS[data.record["task"]["kind"]]
    loss = distillation.objective(kind, 2.0, 10.0, 0.3)
    chosen = [data[index] for index in np.linspace(0, len(data) - 1, 16).astype(int)]
    batch = distillation._collate(kind, chosen, tokenizer.pad_token_id)
    torch.manual_seed(0)
    for weight in model.parameters():  # else a student that is its teacher has next to no gradient
        weight.data += 0.02 * torch.randn_like(weight)
    for part in sparing.parts(batch, at_once):
        loss(model, part if at_once < 16 else batch, batch).backward()
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
