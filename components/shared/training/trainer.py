"""Training for every stage that trains: transformers' Trainer with our objective, batches and progress."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import nested_concat

from kfp_bonsai.shared.core import parallel, ranks, stopping
from kfp_bonsai.shared.core.errors import BonsaiError, in_words
from kfp_bonsai.shared.core.heap import give_freed_memory_back, keep_freed_memory
from kfp_bonsai.shared.core.progress import Ticker, say
from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.data.batches import by_length
from kfp_bonsai.shared.kinds import kinds
from kfp_bonsai.shared.kinds.kind import Logits
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.training import answer_batches, checkpoints, dropout, sparing, writing
from kfp_bonsai.shared.training.attempts import Attempt, Lost
from kfp_bonsai.shared.training.resumable import Carried, Diverged, Resumable, random_state, set_random_state
from kfp_bonsai.shared.training.scaling import Scale
from kfp_bonsai.shared.training.vocabulary import only_used

Objective = Callable[[Any, dict[str, torch.Tensor], dict[str, torch.Tensor]], torch.Tensor]
PRODUCTS = 6  # that are timed, of which the fastest counts
BF16_GAIN = 1.2  # times as fast, as weights and inputs are converted for it
LOWER = 0.25  # of the rate at which the loss was lost
TOKENS_AT_ONCE = 4096  # tokens of a batch that a CPU works on together
FUSED_FROM = 512  # tokens a row from which torch's fused attention is faster in training, too


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train.

    Attributes:
        stage: the name shown with the progress.
        epochs: passes over the rows; may be a fraction.
        learning_rate: AdamW's highest rate, reached after `warmup`, then falling to zero along a line.
        batch_size: rows a step, over all processes.
        warmup: fraction of the steps until the highest rate.
        weight_decay: AdamW's.
        seed: of the order of rows and of dropout.
    """

    stage: str
    epochs: float
    learning_rate: float
    batch_size: int
    warmup: float = 0.1
    weight_decay: float = 0.01
    seed: int = 0


def device() -> str:
    """Return where to compute: "cuda" if there is a GPU, else "cpu".

    Raises:
        BonsaiError: a GPU was given to this task (parallel.NEEDS_GPU), and torch does not see it.
    """
    if torch.cuda.is_available():
        return "cuda"
    if os.environ.get(parallel.NEEDS_GPU):
        raise BonsaiError(
            "this task was given a GPU that torch does not see: its node's driver may be too old for the image's CUDA "
            "13 (NVIDIA's R580 and later are not), or its device plugin is missing"
        )
    return "cpu"


def bf16_is_faster() -> bool:
    """Say whether bfloat16 is faster here than float32: on a GPU that supports it, or a CPU that shows it."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return bool(found.get("amx_bf16") or found.get("avx512_bf16")) and _bf16_gains()


@cache
def _bf16_gains() -> bool:
    """Say whether a CPU with instructions for bfloat16 gains by them, by trying a product as training has them.

    AMX does several times as many; but an Intel Xeon with AVX-512 BF16 alone did 79 GFLOP/s a core, and in float32 130.
    """
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(PRODUCTS):
        for kind in best:
            left, right = torch.ones(832, 384, dtype=kind), torch.ones(384, 1536, dtype=kind)
            started = time.process_time()
            left @ right
            best[kind] = min(best[kind], time.process_time() - started)
    return best[torch.float32] > BF16_GAIN * best[torch.bfloat16]


def train(
    model: Any,
    train_rows: Any,
    recipe: Recipe,
    attempt: Attempt,
    *,
    objective: Objective | None = None,
    collate: Callable[[Sequence[rows.Item]], dict[str, torch.Tensor]] | None = None,
    validation: rows.Rows | None = None,
    task: Task | None = None,
    pad_id: int = 0,
    callbacks: Sequence[TrainerCallback] = (),
    carried: Carried | None = None,
    scale: Scale | None = None,
) -> float:
    """Train a model in place, from where an earlier attempt was ended; return the highest rate that it was trained at.

    Where the loss is lost it goes back once to the last epoch's end, or to the start, and on at a lower rate.

    Args:
        model: the model to train.
        train_rows: a data set of items with "input_ids", that knows its `lengths` and `inputs`.
        recipe: how long and how fast.
        attempt: what keeps checkpoints.
        objective: (model, part of a batch, batch) -> the part's share of the loss, a scalar; None for the model's own
            loss on the labels.
        collate: items -> batch; None pads them.
        validation: rows to choose the best epoch by; None trains to the end.
        task: what is learnt; its metric says which epoch is best, or, of answers that are written, their likelihood.
        pad_id: the tokenizer's padding token.
        callbacks: more of transformers' callbacks.
        carried: what is learnt beside the model.
        scale: at which numbers are learnt: epochs are scored in the labels' unit.

    Raises:
        Lost: the loss became NaN or infinite again.
        BonsaiError: memory does not suffice for a single row.
    """
    if recipe.batch_size % ranks.processes():
        raise BonsaiError(
            f"--batch-size {recipe.batch_size} is shared by {ranks.processes()} processes: give a multiple of that"
        )
    parallel.begin()
    keep_freed_memory()
    inputs = [row for each in (train_rows, validation) if each is not None for row in each.inputs["input_ids"]]
    collate = collate or partial(rows.pad, pad_id=pad_id)
    found = checkpoints.newest(attempt.folder)
    if found:
        say(f"{recipe.stage}  resuming from {found.folder}")
        attempt.resume(found.told["spent"])
    rate = found.told["rate"] if found else recipe.learning_rate
    bf16 = found.told["bf16"] if found else parallel.any_of(bf16_is_faster())  # timed: it may be answered otherwise now
    with (
        stopping.heeded(),
        only_used(model, inputs, pad_id),
        dropout.drawn_by_bytes(),
        _attention_for_training(model, bf16) as attend,
        sparing.watched(attempt.folder, found.step if found else 0, recipe.stage) as (most, note),
    ):
        while True:
            own = replace(recipe, learning_rate=rate)
            trainer = _trainer(model, train_rows, own, attempt, collate, validation, task, bf16)
            trainer.objective, trainer.task, trainer.scale, trainer.attend = objective, task, scale, attend
            trainer.carried, trainer.found = carried, found
            asked = found.told["at_once"] if found else trainer.args.per_device_train_batch_size
            trainer.at_once, trainer.note = min(asked, most), note
            for callback in callbacks:
                trainer.add_callback(callback)
            try:
                trainer.go()
                break
            except Diverged as error:
                if stopping.asked():
                    stopping.stop()
                found = checkpoints.newest(attempt.folder, firm=True)
                if found is None or rate < recipe.learning_rate:
                    rates = " and ".join(f"{one:g}" for one in dict.fromkeys((recipe.learning_rate, rate)))
                    raise Lost(
                        f"{recipe.stage}: the {error}, at a learning rate of {rates}: use a lower --learning-rate"
                    ) from error
                rate = recipe.learning_rate * LOWER
                say(
                    f"{recipe.stage}  WARNING: the {error}: goes back to step {found.step}, and on at a learning "
                    f"rate of {rate:g} instead of {recipe.learning_rate:g}"
                )
    model.eval()
    give_freed_memory_back()
    return rate


def _trainer(
    model: Any,
    train_rows: Any,
    recipe: Recipe,
    attempt: Attempt,
    collate: Callable[[Sequence[rows.Item]], dict[str, torch.Tensor]],
    validation: rows.Rows | None,
    task: Task | None,
    bf16: bool,
) -> "_Trainer":
    writes = bool(task and kinds.kind_of(task).writes)
    metric = writing.LIKELIHOOD if writes else task.metric if task else ""
    arguments = TrainingArguments(
        output_dir=str(attempt.folder),
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        per_device_train_batch_size=recipe.batch_size // ranks.processes(),
        per_device_eval_batch_size=recipe.batch_size if writes else max(64, recipe.batch_size),
        warmup_steps=recipe.warmup,
        weight_decay=recipe.weight_decay,
        optim="adamw_torch_fused",
        bf16=bf16,
        use_cpu=device() == "cpu",
        seed=recipe.seed,
        train_sampling_strategy="group_by_length",
        eval_strategy="no" if validation is None else "epoch",
        save_strategy="no",  # _Keeping says when
        logging_steps=10,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_backend=torch.distributed.get_backend() if ranks.processes() > 1 else None,
        ddp_find_unused_parameters=False,
    )
    if torch.cuda.is_available():
        arguments._n_gpu = 1  # more of them by torchrun, not by nn.DataParallel, which the Trainer would choose
    trainer: _Trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=train_rows,
        eval_dataset=validation,
        data_collator=collate,
        compute_metrics=lambda found: {metric: trainer.score(found)},
        callbacks=[_Progress(recipe, metric)],
    )
    trainer.attempt, trainer.scored_by, trainer.recipe = attempt, metric, recipe
    trainer.remove_callback(_default_printer())
    return trainer


@contextmanager
def _attention_for_training(model: Any, bf16: bool) -> Iterator[Callable[[int], None]]:
    """Yield what sets how a model attends, before a batch of so many tokens a row; put it back in the end.

    On a CPU it attends by plain matrix products where attention is dropped, which torch's fused kernel cannot, and in
    bfloat16 where rows are short, as the backward pass of that kernel is slow there: a step takes a third less time for
    MiniLM at 26 tokens a row, a fifth less at 256 (torch 2.13, AMX). Scores grow by the square of the length, in memory
    too, and elsewhere the fused kernel takes a quarter less at 512. In float32, and in inference, it is as good or
    better at any length.
    """
    before = model.config._attn_implementation
    dropping = dropout.drops(model)
    if torch.cuda.is_available() or before != "sdpa" or not (bf16 or dropping):
        yield lambda width: None
        return

    def attend(width: int) -> None:
        wanted = "eager" if dropping or width < FUSED_FROM else before
        if model.config._attn_implementation != wanted:
            model.set_attn_implementation(wanted)

    try:
        yield attend
    finally:
        model.set_attn_implementation(before)


def predict(model: Any, data: rows.Rows, pad_id: int, batch_size: int = 64) -> Logits:
    """Return the model's logits for all its inputs, batched by length, as float32.

    They are one array of shape (rows, labels), or for each window one of shape (tokens, labels).
    """
    device = next(model.parameters()).device
    logits: dict[int, np.ndarray] = {}

    def answer(chosen: Sequence[int]) -> np.ndarray:
        batch = rows.pad([data[index] for index in chosen], pad_id)
        batch.pop("labels", None)
        return model(**{name: value.to(device) for name, value in batch.items()}).logits.float().cpu().numpy()

    model.eval()
    with torch.inference_mode():
        for chosen in by_length(data.lengths, batch_size):
            logits.update(zip(chosen, sparing.in_halves(answer, chosen), strict=True))
    return _in_order(logits, data)


def _in_order(logits: Mapping[int, np.ndarray], data: rows.Rows) -> Logits:
    """Return the logits of inputs by their number, without those of padding."""
    found = [logits[index] for index in range(len(data))]
    if data.windows is None:
        return np.stack(found)
    return [one[: len(offsets)] for one, offsets in zip(found, data.windows.offsets, strict=True)]


class _Trainer(Resumable):
    """Training with our objective."""

    objective: Objective | None = None
    task: Task | None = None
    scale: Scale | None = None
    attend: Callable[[int], None]
    recipe: Recipe
    at_once: int  # rows that memory suffices for
    note: Callable[[int], None]  # how many are worked on at once
    largest = 0  # tokens that were

    def noted(self) -> dict[str, Any]:
        """Return the rate, which may be a lower one than was asked for."""
        return {"rate": self.recipe.learning_rate, "at_once": self.at_once, "bf16": self.args.bf16}

    def score(self, found: Any) -> float:
        """Return the score of what the Trainer found of the validation rows, which it takes in an order of its own."""
        if not np.isfinite(found.predictions).all():
            raise Diverged("model gives no numbers any more")
        assert self.task is not None
        if kinds.kind_of(self.task).writes:
            return writing.likelihood(found.predictions)
        data: Any = self.eval_dataset
        order: Any = self._get_eval_sampler(data)
        said = self.scale.undone(found.predictions) if self.scale else found.predictions
        logits = _in_order(dict(zip(order, said, strict=True)), data)
        if threshold := kinds.threshold(self.task, logits, data.right):
            logits = logits - np.float32(threshold)
        return kinds.score(self.task, logits, data.right, data.windows)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        self.attend(inputs["input_ids"].shape[1])
        if self.objective is None or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        return self.objective(model, inputs, inputs)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Do a step, in parts where memory does not suffice for the batch: then with half as many rows at once."""
        before = random_state()
        while True:
            rows_of_it, width = inputs["input_ids"].shape
            count = self._rows_at_once(rows_of_it, width)
            if count * width > self.largest and ranks.processes() == 1:  # others would have to halve too
                self.largest = count * width
                self.note(count)
            try:
                if count == rows_of_it:
                    return super().training_step(model, inputs, num_items_in_batch)
                return self._step_in_parts(model, self._prepare_inputs(inputs), count)
            except (RuntimeError, MemoryError) as error:
                if ranks.processes() > 1 or not sparing.ran_out(error):  # others would wait for this one's gradients
                    raise
                said = in_words(error)
            if count == 1:
                raise BonsaiError(
                    f"{self.recipe.stage}: memory does not suffice for a single row of {width} tokens "
                    f"({said}): fine-tune with a smaller --max-length, or take a machine with more memory"
                )
            self.at_once = count // 2
            say(
                f"{self.recipe.stage}  WARNING: memory does not suffice for {count} rows at once: goes on with "
                f"{self.at_once}, whose gradients are added up to those of a step"
            )
            model.zero_grad()
            if self.carried is not None:
                self.carried.zero_grad()
            set_random_state(*before)

    def _rows_at_once(self, rows: int, width: int) -> int:
        """Return how many rows of a batch are worked on together: on a CPU, long ones in parts.

        These take less memory, and less time: a batch of 32 rows of 512 tokens took MiniLM 12.2 GB, in parts of 4,096
        tokens 5.2 GB and two thirds of the CPU time (torch 2.13, one thread).
        """
        most = min(self.at_once, rows)
        if self.args.device.type != "cpu" or ranks.processes() > 1:
            return most
        return min(most, math.ceil(rows / math.ceil(rows * width / TOKENS_AT_ONCE)))

    def _step_in_parts(self, model: Any, batch: dict[str, torch.Tensor], count: int) -> torch.Tensor:
        model.train()
        total = torch.zeros((), device=self.args.device)
        for part in sparing.parts(batch, count):
            with self.compute_loss_context_manager():
                self.attend(part["input_ids"].shape[1])
                if self.objective is not None:
                    loss = self.objective(model, part, batch)
                elif weight := sparing.share(part["labels"], batch["labels"]):
                    loss = weight * super().compute_loss(model, part)
                else:
                    continue
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def prediction_step(self, model: Any, inputs: Any, *options: Any, **named: Any) -> tuple[Any, Any, Any]:
        """Answer a batch, or its halves where memory does not suffice for it."""
        rows_of_it = len(inputs["input_ids"])
        try:
            if answer_batches.PLACES in inputs:
                return self._likelihoods(model, self._prepare_inputs(inputs))
            return super().prediction_step(model, inputs, *options, **named)
        except (RuntimeError, MemoryError) as error:
            if rows_of_it == 1 or not sparing.ran_out(error):
                raise
        first, second = (
            self.prediction_step(model, half, *options, **named)
            for half in sparing.parts(inputs, (rows_of_it + 1) // 2)
        )
        loss = None if first[0] is None else (first[0] + second[0]) / 2
        logits, labels = (
            None if one is None else nested_concat(one, other) for one, other in zip(first[1:], second[1:], strict=True)
        )
        return loss, logits, labels

    def _likelihoods(self, model: Any, batch: dict[str, torch.Tensor]) -> tuple[None, torch.Tensor, torch.Tensor]:
        """Return what answers' likelihoods are reckoned from, and, as the Trainer wants labels, their tokens."""
        with torch.no_grad(), self.compute_loss_context_manager():
            found = writing.log_likelihoods(model, batch)
        return None, found, found[:, 1]


class _Progress(TrainerCallback):
    """A line about every ten seconds, one an evaluation, and a clear end when the loss is lost."""

    def __init__(self, recipe: Recipe, metric: str) -> None:
        self.recipe, self.metric = recipe, metric
        self.ticker: Ticker | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.ticker = Ticker(self.recipe.stage, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is None or self.ticker is None:
            return
        for what, value in (("loss", loss), ("gradient", logs.get("grad_norm", 0.0))):
            if not math.isfinite(float(value)):
                raise Diverged(f"{what} became {value} before step {state.global_step}")
        self.ticker.step(state.global_step, loss=float(loss), epoch=state.epoch)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        score = (metrics or {}).get(f"eval_{self.metric}")
        if score is not None:
            say(f"{self.recipe.stage}  epoch {state.epoch:.2g}  validation {self.metric} {score:.4f}")


def _default_printer() -> type[TrainerCallback]:
    from transformers.trainer_callback import PrinterCallback

    return PrinterCallback
