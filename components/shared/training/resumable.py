"""transformers' Trainer, made to go on exactly where it was ended: its own checkpoints, of all that a step depends on.

A training that was ended and goes on takes the same rows in the same order, with the same dropout, as one that was not,
so that both end with the same weights, bit by bit. Checkpoints are written by the clock, at each epoch's end, and when
the process is asked to end; nothing in the training depends on when.
"""

import random
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from transformers import Trainer, TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from kfp_bonsai.shared.core import parallel, ranks, stopping
from kfp_bonsai.shared.training import checkpoints
from kfp_bonsai.shared.training.attempts import Attempt

MODEL, BEST, OPTIMIZER, RANDOM = "model.", "best.", "optimizer.", "random."


class Diverged(Exception):
    """The loss, the gradients or the weights are no numbers any more."""


class Carried(Protocol):
    """What is learnt beside the model, such as masks."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return its tensors by name."""

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take them over."""

    def zero_grad(self) -> None:
        """Forget the gradients of a step that is done again."""


class ByLength(LengthGroupedSampler):
    """Rows of like length in one batch, batches in any order, both by the seed and the number of the epoch alone.

    transformers' order goes from long to short within each of its groups, so the lengths that a step sees would drift;
    its first batch, with the longest row, stays the first, so that memory that does not suffice is found out at once.
    """

    epoch = 0

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths)
        self.seed = seed

    def __iter__(self) -> Iterator[int]:
        drawn = np.random.SeedSequence((self.seed, self.epoch)).generate_state(1, np.uint64)
        self.generator = torch.Generator().manual_seed(int(drawn[0]))
        rows, size = list(super().__iter__()), self.batch_size
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        full = max(1, len(rows) // size)  # what is not full stays the last, or all after it would be cut elsewhere
        shuffled = torch.randperm(full - 1, generator=self.generator) + 1
        return (row for at in (0, *shuffled.tolist(), *range(full, len(batches))) for row in batches[at])


class Resumable(Trainer):
    """A Trainer that keeps checkpoints and goes on from them."""

    attempt: Attempt
    carried: Carried | None = None
    found: checkpoints.Checkpoint | None = None  # what this training goes on from
    best: dict[str, torch.Tensor] | None = None  # the weights of the epoch that scored best
    best_score = -np.inf
    scored_by = ""
    sampler: ByLength
    firm = False  # whether what is kept next is rolled back to

    def go(self) -> None:
        """Train, from the start or from what was found, and end with the weights of the best epoch, if epochs score."""
        self.add_callback(_Keeping(self))
        if self.found and self.found.told.get("done"):
            self._load_from_checkpoint("")
            model: Any = self.model
            model.to(self.args.device)
        else:
            self.train(resume_from_checkpoint=str(self.found.folder) if self.found else None)
        if self.best is not None:
            _copy(self.best, _weights(self.model))

    def noted(self) -> dict[str, Any]:
        """Return what else is to be known to go on, as JSON."""
        return {}

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        score = metrics[f"eval_{self.scored_by}"]
        if score > self.best_score:
            self.best_score = score
            self.best = {name: one.detach().cpu().clone() for name, one in _weights(self.model).items()}
        return False

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint; all processes come here together, and the first one writes."""
        weights = _weights(self.model)
        done = self.firm and self.state.global_step >= self.state.max_steps
        if not torch.isfinite(self._tr_loss) or not all(one.isfinite().all() for one in weights.values()):
            raise Diverged(f"weights are no numbers any more after step {self.state.global_step}")
        tensors = {f"{MODEL}{name}": one for name, one in weights.items()}
        if self.best is not None:
            tensors |= {f"{BEST}{name}": one for name, one in self.best.items()}
        if self.carried is not None:
            tensors |= self.carried.state_dict()
        randoms = parallel.gathered(random_state())
        if not done:
            optimizer: Any = self.optimizer
            for index, state in optimizer.state_dict()["state"].items():
                tensors |= {f"{OPTIMIZER}{index}.{name}": value for name, value in state.items()}
            for rank, (states, _) in enumerate(randoms):
                tensors |= {f"{RANDOM}{rank}.{name}": state for name, state in states.items()}
        told = {
            "done": done,
            "best_score": self.best_score if self.best is not None else None,
            "random": [plain for _, plain in randoms],
            "spent": self.attempt.spent(),
            **self.noted(),
        }
        if ranks.is_first():
            self.attempt.keep(lambda: checkpoints.write(self.attempt.folder, self.state, tensors, told, self.firm))
        self.firm = False

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        assert self.found is not None
        tensors, told = self.found.tensors, self.found.told
        _copy(_under(MODEL, tensors), _weights(self.model))
        if told["best_score"] is not None:
            self.best, self.best_score = _under(BEST, tensors), told["best_score"]
        if self.carried is not None:
            self.carried.load_state_dict(tensors)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Take AdamW's numbers over; the rate follows from the number of steps, and may be another one than was."""
        if self.found is None:
            return
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in _under(OPTIMIZER, self.found.tensors).items():
            index, _, what = name.partition(".")
            state.setdefault(int(index), {})[what] = value
        optimizer: Any = self.optimizer
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        schedule: Any = self.lr_scheduler
        step = self.state.global_step
        schedule.last_epoch, schedule._step_count = step, step + 1
        schedule._last_lr = [
            rate * part(step) for rate, part in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
        ]
        for group, rate in zip(optimizer.param_groups, schedule._last_lr, strict=True):
            group["lr"] = rate

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self.found is None:
            return
        rank = max(0, self.args.process_index)
        if rank < len(self.found.told["random"]):
            set_random_state(_under(f"{RANDOM}{rank}.", self.found.tensors), self.found.told["random"][rank])

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        dataset: Any = train_dataset if train_dataset is not None else self.train_dataset
        size = self.args.train_batch_size * self.args.world_size  # of a step: each process takes its part of its rows
        self.sampler = ByLength(size, dataset.lengths, self.args.seed)
        return self.sampler


class _Keeping(TrainerCallback):
    """Says when a checkpoint is written, and ends the process after it, if it was asked to end.

    None is written at an epoch's last step: the epoch is scored after that, and what goes on from there would not be.
    """

    def __init__(self, trainer: Resumable) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.trainer.found is None:
            self.trainer.firm = True
            self.trainer._save_checkpoint(None, None)
            self._end()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.sampler.epoch = int(state.epoch or 0)

    def on_step_end(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any) -> None:
        if control.should_training_stop or state.global_step % len(train_dataloader) == 0:
            return
        wanted = stopping.asked() or (ranks.is_first() and self.trainer.attempt.is_due())
        control.should_save = parallel.any_of(wanted)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_save = self.trainer.firm = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._end()

    def _end(self) -> None:
        if parallel.any_of(stopping.asked()):
            stopping.stop()


def _weights(model: Any) -> dict[str, torch.Tensor]:
    """Return a model's weights, each once, and what else of it is saved."""
    kept = {id(one) for one in model.state_dict(keep_vars=True).values()}
    buffers = {name: one for name, one in model.named_buffers() if id(one) in kept}
    return {**dict(model.named_parameters()), **buffers}


def _copy(tensors: Mapping[str, torch.Tensor], to: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, one in to.items():
            one.copy_(tensors[name])


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}


def random_state() -> tuple[dict[str, torch.Tensor], list[Any]]:
    """Return where this process's random numbers stand: torch's as tensors, Python's and numpy's as JSON."""
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    drawn: Any = np.random.get_state()
    name, keys, *rest = drawn
    version, state, gauss = random.getstate()
    return tensors, [[version, list(state), gauss], [name, keys.tolist(), *rest]]


def set_random_state(tensors: Mapping[str, torch.Tensor], plain: list[Any]) -> None:
    """Let random numbers go on from where they stood."""
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    (version, state, gauss), (name, keys, *rest) = plain
    random.setstate((version, tuple(state), gauss))
    np.random.set_state((name, np.array(keys, np.uint32), *rest))
