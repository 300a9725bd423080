"""A training that was ended and goes on ends with the weights of one that was not, bit by bit."""

import errno
import json
import os
import signal
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TrainerState

from kfp_bonsai.distill.distill import distill
from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.shared.core import stopping
from kfp_bonsai.shared.core.errors import BonsaiError, PassingError
from kfp_bonsai.shared.saved.records import read_record
from kfp_bonsai.shared.training import attempts, checkpoints, resumable, trainer

TUNING = {"epochs": 2.5, "learning_rate": 1e-3, "batch_size": 32, "seed": 1}  # 25 steps, with dropout
PRUNING = {"flops": 0.4, "steps": 14, "learning_rate": 1e-3, "seed": 1}
TOLD = {"done": False, "best_score": None, "random": [], "rate": 1e-3, "at_once": 8, "bf16": False, "spent": None}
DISTILLING = {"epochs": 1.3, "learning_rate": 1e-3, "batch_size": 64, "seed": 1}  # 15 steps of 11 an epoch


class Killed(BaseException):
    """What no code catches, as SIGKILL."""


@pytest.fixture(scope="module")
def short(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("short") / "short"
    layer_remove(made.baseline, made.validation, folder, keep="2")
    return folder


@pytest.fixture(scope="module")
def narrow(made, short, tmp_path_factory):
    folder = tmp_path_factory.mktemp("narrow") / "narrow"
    matrix_prune(short, made.transfer, folder, heads=2, ffn=32, shape="stock", steps=2)
    return folder


@pytest.fixture(scope="module")
def stages(made, short, narrow):
    """What trains: (output) -> its result."""
    return {
        "fine-tune": lambda to: fine_tune(str(made.pretrained), made.train, made.validation, to, **TUNING),
        "matrix-prune": lambda to: matrix_prune(short, made.transfer, to, **PRUNING),
        "matrix-prune, stock": lambda to: matrix_prune(short, made.transfer, to, shape="stock", **PRUNING),
        "distill": lambda to: distill(narrow, made.transfer, made.validation, to, **DISTILLING),
    }


@pytest.fixture(scope="module")
def whole(stages, tmp_path_factory):
    """The weights that each stage ends with if nobody disturbs it."""
    found = {}

    def of(stage):
        if stage not in found:
            folder = tmp_path_factory.mktemp("whole") / "model"
            stages[stage](folder)
            found[stage] = load_file(folder / "model.safetensors")
        return found[stage]

    return of


@pytest.fixture
def end_at(monkeypatch):
    """Let the next training be ended in a step: by SIGTERM, or as by SIGKILL."""
    step = trainer._Trainer.training_step

    def set_up(number, way):
        done = {"steps": 0}

        def ending(self, *args, **options):
            done["steps"] += 1
            if done["steps"] == number:
                if way == "KILL":
                    raise Killed
                stopping._on_signal(signal.SIGTERM, None)  # the signal itself has ended a whole run of tests
            return step(self, *args, **options)

        monkeypatch.setattr(trainer._Trainer, "training_step", ending)
        monkeypatch.setattr(stopping, "_asked", None)

    monkeypatch.setattr(stopping, "_asked", None)
    handler = signal.getsignal(signal.SIGTERM)
    yield set_up
    signal.signal(signal.SIGTERM, handler)


def same(found, wanted):
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("stage", ["fine-tune", "matrix-prune", "matrix-prune, stock", "distill"])
def test_a_stage_that_is_ended_again_and_again_ends_the_same(stages, whole, tmp_path, monkeypatch, end_at, stage):
    """Rows in another order, other dropout, masks or scores that are lost, or a cold AdamW."""
    monkeypatch.setenv(attempts.SECONDS, "0")
    output = tmp_path / "model"
    for number, way in ((3, "TERM"), (4, "KILL"), (1, "TERM"), (4, "KILL")):
        end_at(number, way)
        with pytest.raises((Killed, SystemExit)) as ended:
            stages[stage](output)
        assert way == "KILL" or ended.value.code == 143
        assert [path.name[:7] for path in tmp_path.iterdir()] == [".model."], "half an output was left"
        (kept,) = tmp_path.iterdir()
        assert 1 <= len([*kept.glob("checkpoint-*")]) <= 2, "checkpoints fill the disk"
    end_at(0, "TERM")
    stages[stage](output)
    assert same(load_file(output / "model.safetensors"), whole(stage))
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "checkpoints were left"


def test_an_epochs_last_step_is_scored_whoever_ends_there(stages, whole, tmp_path, monkeypatch, end_at):
    """The best epoch was the one that an interrupted run never scored."""
    monkeypatch.setenv(attempts.SECONDS, "0")
    for number, way in ((10, "TERM"), (10, "KILL"), (1, "TERM"), (5, "TERM")):
        end_at(number, way)
        with pytest.raises((Killed, SystemExit)):
            stages["fine-tune"](tmp_path / "model")
    end_at(0, "TERM")
    stages["fine-tune"](tmp_path / "model")
    assert same(load_file(tmp_path / "model" / "model.safetensors"), whole("fine-tune"))


def test_a_kill_loses_at_most_one_interval(stages, tmp_path, monkeypatch, end_at, capsys):
    """A checkpoint an epoch: hours, where an epoch takes hours."""
    monkeypatch.setenv(attempts.SECONDS, "0")
    end_at(8, "KILL")
    with pytest.raises(Killed):
        stages["matrix-prune"](tmp_path / "model")
    (kept,) = tmp_path.iterdir()
    assert {path.name for path in kept.glob("checkpoint-*")} == {"checkpoint-7", "checkpoint-0"}


@pytest.mark.parametrize("stage", ["fine-tune", "matrix-prune, stock", "distill"])
def test_two_runs_with_one_seed_are_equal(stages, whole, tmp_path, stage):
    """A difference between levels that is chance; the projection of narrower students was drawn without a seed."""
    torch.manual_seed(12345)
    stages[stage](tmp_path / "model")
    assert same(load_file(tmp_path / "model" / "model.safetensors"), whole(stage))


def test_a_full_disk_while_a_checkpoint_is_written_costs_no_run(stages, whole, tmp_path, monkeypatch, capsys):
    """A night's training ends with an error, though its result has room; or half a checkpoint is taken for a whole."""
    monkeypatch.setenv(attempts.SECONDS, "0")
    written = checkpoints.save_file

    def full(tensors, file):
        written({name: one[:1] for name, one in tensors.items() if one.ndim}, file)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    stages["distill"](tmp_path / "model")
    assert "cannot be kept" in capsys.readouterr().out
    assert same(load_file(tmp_path / "model" / "model.safetensors"), whole("distill"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("damage", ["cut off", "flipped", "no told", "deep", "half", "rate", "step", "spent"])
def test_a_damaged_checkpoint_is_not_gone_on_from(stages, whole, tmp_path, monkeypatch, end_at, damage, capsys):
    """Another model than was asked for, or a traceback each time the same command is started."""
    monkeypatch.setenv(attempts.SECONDS, "0")
    end_at(6, "KILL")
    with pytest.raises(Killed):
        stages["distill"](tmp_path / "model")
    (newest,) = tmp_path.glob(".model*/checkpoint-5")
    tensors = newest / checkpoints.TENSORS
    if damage == "cut off":
        os.truncate(tensors, 1000)
    elif damage == "flipped":
        content = bytearray(tensors.read_bytes())
        content[-100] ^= 1
        tensors.write_bytes(content)
    elif damage in ("no told", "deep"):
        (newest / checkpoints.TOLD).write_text("{" if damage == "no told" else '{"a":' + "[" * 100_000)
    elif damage != "half":
        file = newest / (checkpoints.STATE if damage == "step" else checkpoints.TOLD)
        other = {"rate": {"rate": 9e-4}, "step": {"global_step": 4}, "spent": {"spent": None}}[damage]
        file.write_text(json.dumps(json.loads(file.read_text()) | other))
    else:
        (newest.parent / checkpoints.HALF).mkdir()
        (newest.parent / checkpoints.HALF / checkpoints.TENSORS).write_bytes(b"half")
    end_at(0, "KILL")
    stages["distill"](tmp_path / "model")
    assert ("is damaged" in capsys.readouterr().out) == (damage != "half")
    assert same(load_file(tmp_path / "model" / "model.safetensors"), whole("distill"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_checkpoints_of_other_arguments_or_data_are_not_used(
    made, narrow, tmp_path, monkeypatch, end_at, capsys, stages, whole
):
    """A model of two recipes."""
    end_at(6, "TERM")
    with pytest.raises(SystemExit):
        distill(narrow, made.transfer, made.validation, tmp_path / "model", **{**DISTILLING, "temperature": 1})
    end_at(0, "TERM")
    stages["distill"](tmp_path / "model")
    said = capsys.readouterr().out
    assert "had other arguments, data or weights: begins anew" in said and "resuming" not in said
    assert same(load_file(tmp_path / "model" / "model.safetensors"), whole("distill"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "what nobody will use was left"


def test_no_checkpoint_is_unpickled(stages, tmp_path, monkeypatch, end_at):
    """Whoever may write where checkpoints are runs code in the next attempt."""
    end_at(6, "TERM")
    with pytest.raises(SystemExit):
        stages["distill"](tmp_path / "model")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was loaded"))
    end_at(0, "TERM")
    stages["distill"](tmp_path / "model")


@pytest.fixture
def lost_at(monkeypatch):
    """Let the loss be lost in a step, as often as is said."""
    step = trainer._Trainer.compute_loss
    seen = []

    def set_up(number, times):
        left = {"times": times}

        def losing(self, *args, **options):
            loss = step(self, *args, **options)
            seen.append((self.state.global_step, self._get_learning_rate()))
            if isinstance(loss, torch.Tensor) and self.state.global_step == number and left["times"]:
                left["times"] -= 1
                return loss * float("nan")
            return loss

        monkeypatch.setattr(trainer._Trainer, "compute_loss", losing)

    return set_up, seen


@pytest.mark.parametrize(("step", "back_to"), [(4, 0), (13, 10)])
def test_a_lost_loss_goes_back_once_and_on_at_a_lower_rate(stages, tmp_path, capsys, lost_at, step, back_to):
    """A night ends in an error that a lower rate would have spared; or in a model of NaNs."""
    set_up, seen = lost_at
    set_up(step, 1)
    stages["fine-tune"](tmp_path / "model")
    assert f"goes back to step {back_to}, and on at a learning rate of 0.00025 instead of 0.001" in (
        capsys.readouterr().out
    )
    assert read_record(tmp_path / "model")["lineage"][0]["arguments"]["learning_rate"] == (0.00025)
    first, again = ([rate for at, rate in seen if at == back_to + 2][number] for number in (0, -1))
    assert again == pytest.approx(first / 4)


@pytest.mark.parametrize("stage", ["fine-tune", "matrix-prune", "distill"])
def test_a_loss_that_is_lost_twice_is_told(stages, tmp_path, lost_at, stage):
    """A model of NaNs, or a training that goes back for ever."""
    set_up, _ = lost_at
    set_up(3, 2)
    with pytest.raises(BonsaiError, match=r"became nan .*at a learning rate of 0\.001 and 0\.00025: use a lower"):
        stages[stage](tmp_path / "model")
    assert not [*tmp_path.iterdir()], "checkpoints of a lost model were left"


def test_weights_that_are_lost_in_the_last_step_are_told(stages, tmp_path, monkeypatch):
    """A student of NaNs, as only every tenth loss is looked at."""
    set_up = trainer._Trainer._get_learning_rate

    def spoil(self):
        if self.state.global_step == 14:
            with torch.no_grad():
                next(iter(self.model.parameters())).fill_(float("inf"))
        return set_up(self)

    monkeypatch.setattr(trainer._Trainer, "_get_learning_rate", spoil)
    with pytest.raises(BonsaiError, match="weights are no numbers any more after step 15"):
        stages["distill"](tmp_path / "model")


def test_a_lowered_rate_stays_low_after_an_end(stages, tmp_path, end_at, lost_at, capsys):
    """A run that went back, was ended, and goes on at the rate that lost it."""
    set_up, _ = lost_at
    set_up(4, 1)
    end_at(16, "TERM")
    with pytest.raises(SystemExit):
        stages["matrix-prune"](tmp_path / "model")
    (told,) = (json.loads(path.read_text()) for path in tmp_path.glob(".model*/checkpoint-6/told.json"))
    assert told["rate"] == 0.00025
    end_at(0, "TERM")
    stages["matrix-prune"](tmp_path / "model")
    assert read_record(tmp_path / "model")["lineage"][-1]["arguments"]["learning_rate"] == 0.00025


@pytest.mark.parametrize(("rows", "size"), [(1000, 32), (64, 32), (10, 32), (33, 32), (1, 1)])
def test_batches_are_of_like_length_and_come_in_any_order(rows, size):
    """If not, the lengths that a step sees would drift from long to short, or batches would be padded for nothing."""
    lengths = np.random.default_rng(0).integers(3, 128, rows).tolist()
    sampler = resumable.ByLength(size, lengths, seed=3)

    def batches(epoch):
        sampler.epoch = epoch
        order = list(sampler)
        return [order[start : start + size] for start in range(0, rows, size)]

    first, again, other = batches(0), batches(0), batches(1)

    assert sorted(row for batch in first for row in batch) == list(range(rows))
    assert first == again
    assert max(lengths) in [lengths[row] for row in first[0]]
    if rows == 1000:
        assert first != other
        longest = [max(lengths[row] for row in batch) for batch in first[1:-1]]
        assert sum(before >= after for before, after in pairwise(longest)) < 0.75 * len(longest)
        padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in first)
        assert padded < 1.15 * sum(lengths)
        assert len(resumable.ByLength(size, lengths, seed=4)) == rows
        assert list(resumable.ByLength(size, lengths, seed=4)) != [row for batch in first for row in batch]


def test_a_checkpoint_holds_tied_weights_once(tmp_path):
    """Tied embeddings that safetensors refuses, so that a model that writes keeps no checkpoint."""
    folder = tiny.pretrained(tmp_path / "model", family="gpt2", writes=True)
    model, again = (AutoModelForCausalLM.from_pretrained(folder) for _ in range(2))
    assert model.lm_head.weight is model.transformer.wte.weight
    checkpoints.write(tmp_path, TrainerState(global_step=2), resumable._weights(model), TOLD, firm=True)
    for weight in again.parameters():
        weight.data.zero_()
    resumable._copy(checkpoints.newest(tmp_path).tensors, resumable._weights(again))
    assert same(again.state_dict(), model.state_dict())


@pytest.mark.parametrize("damage", [{"rate": "fast"}, {"rate": None}, {"spent": {"seconds": 1}}, {"random": 3}])
def test_a_checkpoint_that_lacks_what_is_needed_is_told_whoever_hashed_it(tmp_path, capsys, damage):
    """A traceback each time the same command is started."""
    for step, told in ((1, TOLD), (2, TOLD | damage)):
        checkpoints.write(tmp_path, TrainerState(global_step=step), {"weight": torch.ones(2)}, told, firm=step == 1)
    assert checkpoints.newest(tmp_path).step == 1
    assert "checkpoint-2 is damaged" in capsys.readouterr().out


def test_a_checkpoint_whose_storage_does_not_answer_is_not_thrown_away(tmp_path, monkeypatch):
    """A day's training would begin anew because a network's volume was away for a moment."""
    checkpoints.write(tmp_path, TrainerState(global_step=1), {"weight": torch.ones(2)}, TOLD, firm=True)

    def away(self, *_, **__):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched, pytest.raises(PassingError, match="cannot be read now"):
        patched.setattr(Path, "open", away)
        checkpoints.newest(tmp_path)
    assert checkpoints.newest(tmp_path).step == 1


@pytest.mark.parametrize("name", [checkpoints.HASH, checkpoints.TOLD, checkpoints.STATE, checkpoints.TENSORS])
def test_a_pipe_in_a_checkpoint_is_not_waited_for(tmp_path, name):
    """An attempt that never begins."""
    checkpoints.write(tmp_path, TrainerState(global_step=1), {"weight": torch.ones(2)}, TOLD, firm=True)
    (tmp_path / "checkpoint-1" / name).unlink()
    os.mkfifo(tmp_path / "checkpoint-1" / name)
    assert checkpoints.newest(tmp_path, firm=True) is None or name == checkpoints.TOLD
    assert checkpoints.newest(tmp_path) is None


@pytest.mark.parametrize("damage", ['{"found": "[1, 3]"', '"sha256"', "[1, 2]", "\0", ""])
def test_what_an_attempt_found_is_found_again_where_it_is_damaged(tmp_path, capsys, damage):
    """A level is pruned by other prices than were timed, or a student learns answers that no teacher gave."""
    attempt = attempts.Attempt(tmp_path)
    assert attempt.once("answers", lambda: [1, 2]) == attempt.once("answers", lambda: pytest.fail("again")) == [1, 2]
    file = tmp_path / "answers.json"
    whole = file.read_text()
    file.write_text(whole.replace('{"found": "[1, 2]"', damage) if damage.startswith("{") else damage)
    assert attempt.once("answers", lambda: [5]) == [5]
    assert "answers.json is damaged" in capsys.readouterr().out
    assert attempt.once("answers", lambda: pytest.fail("again")) == [5]


@pytest.mark.parametrize("stated", ["soon", "-1", "nan", "inf"])
def test_seconds_between_checkpoints_that_are_none_are_refused_at_once(tmp_path, monkeypatch, stated):
    """A fault without a hint, once an hour of training is to be kept; or no checkpoint, ever."""
    monkeypatch.setenv(attempts.SECONDS, stated)
    with pytest.raises(BonsaiError, match=f"BONSAI_CHECKPOINT_SECONDS is '{stated}': give seconds"):
        attempts.Attempt(tmp_path)
    monkeypatch.setenv(attempts.SECONDS, " ")
    assert not attempts.Attempt(tmp_path).is_due()
