"""The learning itself: a pretrained body gets a head for the task, learns the rows, and answers the validation rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import set_seed

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.data import rows, tasks
from kfp_bonsai.shared.data.prompts import NO_LIMIT
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.kinds import kinds
from kfp_bonsai.shared.kinds.kind import Kind
from kfp_bonsai.shared.metrics.advice import Situation, lines
from kfp_bonsai.shared.models import tokens
from kfp_bonsai.shared.models.configuration import family_name, positions_of
from kfp_bonsai.shared.saved import pretrained
from kfp_bonsai.shared.saved.checkpoint import rehearse
from kfp_bonsai.shared.saved.fitted import fit
from kfp_bonsai.shared.training import answer_batches, attempts, prior, scaling, thresholds, trainer, writing

SAMPLE = 200  # rows on which the tokenizer is tried as it will be saved


@dataclass(frozen=True)
class Learnt:
    """A model that has learnt.

    Attributes:
        network: the model.
        tokenizer: its tokenizer.
        max_length: tokens at which rows are cut.
        score: the metric on the validation rows.
        scale: what the labels were learnt at; None for classes.
        more: what else is known of the answers to the validation rows.
        usual: of a model that writes, the mean tokens of its training texts and answers.
        rate: the highest learning rate that it was trained at.
        reading: what it cost, earlier attempts included.
    """

    network: Any
    tokenizer: Any
    max_length: int
    score: float
    scale: scaling.Scale | None
    more: dict[str, float]
    usual: dict[str, float]
    rate: float
    reading: energy.Reading


def learn(
    source: pretrained.Pretrained,
    task: tasks.Task,
    train: Path,
    validation: Path,
    attempt: attempts.Attempt,
    *,
    model: str,
    epochs: float,
    learning_rate: float,
    batch_size: int,
    max_length: int,
    freeze_embeddings: bool,
    seed: int,
) -> Learnt:
    """Fine-tune a pretrained model, and go on where an earlier attempt left checkpoints.

    Args:
        source: the pretrained model.
        task: the training split's task.
        train: the training split.
        validation: the validation split.
        attempt: what keeps checkpoints.
        model: what the user called the model.
        epochs: as `fine_tune` has it, and the others too.
        learning_rate: the highest.
        batch_size: rows a step.
        max_length: tokens at which rows are cut, or 0.
        freeze_embeddings: whether the embeddings stay.
        seed: of all that is random.

    Raises:
        BonsaiError: model and data do not fit each other, or the loss became NaN.
    """
    with energy.track() as meter:
        attempt.meter = meter
        set_seed(seed)
        network, tokenizer, new_head = fit(source, task, "fine-tune")
        attempts.check_room(attempt.folder, network, epochs, freeze_embeddings)
        say("fine-tune  what to expect of levels here, by earlier measurements (`bonsai advise` says more):")
        family = family_name(network.config.model_type)
        for line in lines(Situation(family, task.rows, network.num_parameters(), task.kind)):
            say(f"fine-tune    {line}")
        positions = positions_of(network.config)
        rehearse(network, tokenizer, _sample(train, task), min(positions, rows.LONGEST))
        if max_length and not tokens.FEWEST_TOKENS <= max_length <= positions:
            raise BonsaiError(
                f"--max-length {max_length}: give {tokens.FEWEST_TOKENS} to {positions}, which {model} takes, or 0"
            )
        kind = kinds.kind_of(task)
        if kind.writes:
            cut_at, train_rows, validation_rows = to_write(network, tokenizer, train, validation, max_length)
        else:
            cut_at = max_length or rows.longest(train, tokenizer, tokens.most_tokens(tokenizer, positions))
            train_rows = rows.read_rows(train, tokenizer, cut_at)
            validation_rows = rows.read_rows(validation, tokenizer, cut_at)
        if train_rows.cut:
            say(
                f"fine-tune  {train_rows.cut:,} of {len(train_rows):,} training rows are longer than {cut_at} tokens "
                "and cut there, as all others will be (--max-length)"
            )
        for parameter in network.get_input_embeddings().parameters():
            parameter.requires_grad = not freeze_embeddings
        scale = _settle_scale(task, network, train_rows, new_head)
        if new_head:
            prior.begin(network, kind, train_rows, tokenizer.pad_token_id)
        rate = trainer.train(
            network,
            _scaled(train_rows, scale),
            trainer.Recipe("fine-tune", epochs, learning_rate, batch_size, seed=seed),
            attempt,
            validation=_scaled(validation_rows, scale),
            task=task,
            pad_id=tokenizer.pad_token_id,
            scale=scale,
            **_written(network, tokenizer.pad_token_id) if kind.writes else {},
        )
        if scale:
            scaling.to_labels(network, scale)
        found: Any
        more: dict[str, float] = {}
        if kind.writes:
            found, more = writing.answers_of(network, validation_rows, tokenizer)
        else:
            found = trainer.predict(network, validation_rows, tokenizer.pad_token_id)
            found = thresholds.settle(network, task, found, validation_rows, tokenizer.pad_token_id)
        told = kinds.predict(task, found, validation_rows.windows)
        score = kinds.score_of(task, told, validation_rows.right)
        _warn_of_one_answer(kind, [*told])
    usual = writing.usual(train_rows) if kind.writes else {}
    return Learnt(network, tokenizer, cut_at, score, scale, more, usual, rate, attempt.total(meter.reading))


def _written(network: Any, pad_id: int) -> dict[str, Any]:
    """Return how what is written is learnt."""
    collate = partial(writing.collate, pad_id=pad_id, start=answer_batches.start_of(network))
    return {"collate": collate, "objective": writing.objective}


def _warn_of_one_answer(kind: Kind, told: Sequence[Any]) -> None:
    """Tell of a model that answers all rows alike, which may score well by answering what is commonest."""
    if len(told) > 1 and kind.all_alike(told):
        say(
            f"fine-tune  WARNING: it gives all {len(told):,} validation rows one answer, as a model does that learnt "
            "nothing; what keeps its score keeps nothing: fine-tune longer (--epochs), at another --learning-rate, or "
            "with more rows"
        )


def to_write(
    network: Any, tokenizer: Any, train: Path, validation: Path, max_length: int
) -> tuple[int, rows.Rows, rows.Rows]:
    """Read prompts and answers, and settle how the model writes; return where prompts are cut, and both splits."""
    known = rows.read_rows(train, tokenizer, max_length or NO_LIMIT)
    held_out = rows.read_rows(validation, tokenizer, max_length or NO_LIMIT)
    positions = positions_of(network.config)
    most = NO_LIMIT if positions >= NO_LIMIT else tokens.most_tokens(tokenizer, positions)
    cut_at = writing.check_room(known, held_out, (train, validation), max_length, most)
    writing.settle(network, tokenizer, max(map(len, (*known.labels, *held_out.labels))))
    return cut_at, known, held_out


def _settle_scale(task: tasks.Task, network: Any, train_rows: rows.Rows, new_head: bool) -> scaling.Scale | None:
    """Return the scale at which numbers are learnt, at which a head that is not new answers from here on."""
    if not kinds.kind_of(task).is_number:
        return None
    scale = scaling.scale_for(train_rows.labels, network)
    if not new_head:
        scaling.to_learnt(network, scale)
    return scale


def _scaled(given: rows.Rows, scale: scaling.Scale | None) -> rows.Rows:
    """Return rows with their numbers as they are learnt."""
    if not scale:
        return given
    return replace(given, labels=scale.of(given.labels))


def _sample(train: Path, task: tasks.Task) -> list[list[str]]:
    """Return some training texts, or pairs of them, and odd ones, on which ways to split texts may differ."""
    some = next(tasks.batches(train, SAMPLE))
    return [[*some[column], *tokens.ODD_TEXTS, " ".join(some[column])] for column in task.columns]
