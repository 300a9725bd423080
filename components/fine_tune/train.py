"""Fine-tune a pretrained model on a task: the baseline that every compressed model is measured against."""

import hashlib
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

from kfp_bonsai import __version__
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import CHECKPOINTS, new_folder, place_of
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.kinds.kind import ANY, NUMBER, ONE
from kfp_bonsai.shared.kinds.kinds import kind_of
from kfp_bonsai.shared.models import pretrained
from kfp_bonsai.shared.models.checkpoint import rehearse, save
from kfp_bonsai.shared.models.records import extend_record
from kfp_bonsai.shared.models.weights import weights_sha256

SCRATCH = "BONSAI_SCRATCH"  # a folder for checkpoints that outlives a pipeline's attempts
RUN = "BONSAI_RUN"  # the id of the pipeline's run: its attempts share it, and no other run has it
SAMPLE = 200  # rows on which the tokenizer is tried as it will be saved
ODD_TEXTS = (
    "",
    " ",
    "[CLS] [SEP] [MASK] <s> </s> <|endoftext|>",
    "Éa ﬁ 中文 한국 ☃ 👩‍🔬 e\u0301 \u200b\u00a0x",
    "A  b\n\tC.d",
)
PROBLEMS = {ONE: "single_label_classification", ANY: "multi_label_classification", NUMBER: "regression"}
FEWEST_TOKENS = 3  # a word between the tokens for beginning and end


def fine_tune(
    model: str,
    train: Path,
    validation: Path,
    output: Path,
    *,
    epochs: float = 3,
    learning_rate: float = 1e-4,
    batch_size: int = 32,
    max_length: int = 0,
    freeze_embeddings: bool = False,
    seed: int = 0,
) -> dict:
    """Fine-tune a pretrained model on a task; the result is the baseline, 100 % of accuracy and emission.

    The epoch that scores best on the validation split is kept. An interrupted run with the same arguments
    goes on from its last epoch, and its cost is that of all attempts up to their last epochs.

    Args:
        model: Model folder, hub name, or "embedded:minilm".
        train: Training split (Parquet, from prepare-data).
        validation: Validation split.
        output: Folder to write the baseline to.
        epochs: Passes over the training split.
        learning_rate: AdamW's highest learning rate.
        batch_size: Rows a step.
        max_length: Tokens at which rows are cut; 0 for the longest training row (at most 512).
        freeze_embeddings: Leave the embeddings as they are (faster; often harmless).
        seed: Seed of the new classifier, the order of rows and dropout.

    Returns:
        The validation score under the metric's name, parameters, seconds and joules.

    Raises:
        BonsaiError: the model or the data cannot be used, or the loss became NaN.

    Example:
        bonsai fine-tune --model embedded:minilm --train data/train.parquet --validation data/validation.parquet --output baseline
    """  # noqa: E501
    task, held_out_task = tasks.read_task(train), tasks.read_task(validation)
    _check(task, held_out_task, train, validation, epochs, learning_rate, batch_size)
    source = pretrained.read(model, weights=True)
    arguments = {
        "model": model,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "max_length": max_length,
        "freeze_embeddings": freeze_embeddings,
        "seed": seed,
    }
    start = weights_sha256(source.folder)
    scratch = _checkpoints(output, [task.sha256, held_out_task.sha256, task.metric, task.labels, start, arguments])

    from transformers import set_seed

    from kfp_bonsai.fine_tune import attempts
    from kfp_bonsai.shared.core.progress import say
    from kfp_bonsai.shared.data import rows
    from kfp_bonsai.shared.energy import energy
    from kfp_bonsai.shared.kinds import kinds
    from kfp_bonsai.shared.metrics.advice import lines
    from kfp_bonsai.shared.models import tokens
    from kfp_bonsai.shared.models.families import family_name, positions_of
    from kfp_bonsai.shared.training import regression, trainer

    with new_folder(output) as folder:
        earlier = attempts.spent(scratch)
        with energy.track() as meter:
            set_seed(seed)
            network, tokenizer, new_head = _pretrained(source, task)
            say("fine-tune  compression levels for this family and number of rows, by earlier measurements:")
            for line in lines(family_name(network.config.model_type), task.rows):
                say(f"fine-tune    {line}")
            positions = positions_of(network.config)
            rehearse(network, tokenizer, _sample(train, task), min(positions, rows.LONGEST))
            if max_length and not FEWEST_TOKENS <= max_length <= positions:
                raise BonsaiError(
                    f"--max-length {max_length}: give {FEWEST_TOKENS} to {positions}, which {model} takes, or 0"
                )
            cut_at = max_length or rows.longest(train, tokenizer, tokens.most_tokens(tokenizer, positions))
            train_rows = rows.read_rows(train, tokenizer, cut_at)
            validation_rows = rows.read_rows(validation, tokenizer, cut_at)
            for parameter in network.get_input_embeddings().parameters():
                parameter.requires_grad = not freeze_embeddings
            scale, learnt, held_out = None, train_rows, validation_rows
            if kind_of(task).is_number:
                scale = regression.scale_for(train_rows.labels, network)
                learnt = replace(train_rows, labels=scale.of(train_rows.labels))
                scaled = scale.of(validation_rows.labels)
                held_out = replace(validation_rows, labels=scaled, right=scaled)
                if not new_head:
                    regression.to_learnt(network, scale)
            try:
                trainer.train(
                    network,
                    learnt,
                    trainer.Recipe("fine-tune", epochs, learning_rate, batch_size, seed=seed),
                    scratch,
                    validation=held_out,
                    task=task,
                    pad_id=tokenizer.pad_token_id,
                    callbacks=[attempts.Spending(scratch, meter, earlier)],
                )
            except BonsaiError:  # what is lost is not worth resuming
                shutil.rmtree(scratch, ignore_errors=True)
                raise
            if scale:
                regression.to_labels(network, scale)
            logits = trainer.predict(network, validation_rows, tokenizer.pad_token_id)
            score = kinds.score(task, logits, validation_rows.right, validation_rows.windows)
        reading = attempts.total(earlier, meter.reading)
        record = extend_record(
            None,
            stage="fine-tune",
            arguments={**arguments, "model": str(Path(model).resolve()) if Path(model).is_dir() else model},
            reading=reading,
            task=task.__dict__,
            level="baseline",
            max_length=cut_at,
            validation={task.metric: score},
            seed=seed,
            **({"label_scale": scale.as_dict()} if scale else {}),
        )
        save(network, tokenizer, folder, record)
    shutil.rmtree(scratch, ignore_errors=True)
    return {
        task.metric: score,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "seconds": reading.seconds,
        "joules": reading.joules,
    }


def _check(
    task: tasks.Task,
    other: tasks.Task,
    train: Path,
    validation: Path,
    epochs: float,
    learning_rate: float,
    batch_size: int,
) -> None:
    if task.rows == 0:
        raise BonsaiError(f"{train} has no rows: prepare the data set again")
    for path, one in ((train, task), (validation, other)):
        if one.split == "unlabelled":
            raise BonsaiError(f"{path} has no labels: give the train and validation splits of prepare-data")
        tasks.check_unseen(one, path)
    if not task.is_of_one_data_set_with(other):
        raise BonsaiError(f"{train} and {validation} are not of one data set: give two splits of one prepare-data run")
    for name, value in (("--epochs", epochs), ("--learning-rate", learning_rate), ("--batch-size", batch_size)):
        if not 0 < value < math.inf:
            raise BonsaiError(f"{name} is {value}: give a number above zero")


def _pretrained(source: pretrained.Pretrained, task: tasks.Task):  # type: ignore[no-untyped-def]
    """Load a pretrained body with a head for the task, its tokenizer, and whether the head, or part of it, is new."""
    from kfp_bonsai.fine_tune import head
    from kfp_bonsai.shared.models import answers, tokens
    from kfp_bonsai.shared.models.families import family_of

    config, tokenizer = source.config, source.tokenizer
    family, before = family_of(config), dict(config.id2label)
    kind = kind_of(task)
    outputs = kind.outputs(task)
    if len(task.columns) == 2:
        tokens.separate(tokenizer, config)
    if family.answers_in_text:
        if not kind.is_one_class:
            raise BonsaiError(
                f"{source.folder} answers in text ({config.model_type}), which cannot be {kind.answer} here: "
                f"use a model with a head of its own for {task.kind}, such as bert"
            )
        config.label_tokens = answers.label_tokens(tokenizer, task.labels)
    else:
        config.num_labels, config.use_cache = len(outputs), False
        config.problem_type = PROBLEMS[kind.says]
    config.id2label = dict(enumerate(outputs))
    config.label2id = {name: index for index, name in enumerate(outputs)}
    loaded = pretrained.load(source.folder, config, kind.head)
    network, new = loaded.network, loaded.new
    if not kind.is_number and not family.answers_in_text:
        head.settle(network, before, outputs, new)
    tokens.make_room(tokenizer, network)
    return network, tokenizer, bool(new)


def _sample(train: Path, task: tasks.Task) -> list[list[str]]:
    """Return some training texts, or pairs of them, and odd ones, on which ways to split texts may differ."""
    some = next(tasks.batches(train, SAMPLE))
    return [[*some[column], *ODD_TEXTS, " ".join(some[column])] for column in task.columns]


def _checkpoints(output: Path, identity: list) -> Path:
    """Return the folder for the checkpoints of exactly this run, so that two runs never mix.

    On a cluster every output has the same name, and all checkpoints are in one place: there the run's id is part of
    the folder's name.
    """
    digest = hashlib.sha256(json.dumps([__version__, *identity]).encode()).hexdigest()[:12]
    name = ".".join(part for part in (Path(os.path.realpath(output)).name, os.environ.get(RUN), digest) if part)
    return Path(os.environ.get(SCRATCH) or place_of(output)) / f".{name}{CHECKPOINTS}"
