"""Fine-tune a pretrained model on a task: the baseline that every compressed model is measured against."""

from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import new_folder
from kfp_bonsai.shared.core.ranges import ABOVE_ZERO, ONE_OR_MORE, ZERO_OR_MORE, check_ranges
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.saved import pretrained
from kfp_bonsai.shared.saved.checkpoint import save
from kfp_bonsai.shared.saved.records import extend_record
from kfp_bonsai.shared.saved.weights import weights_sha256

RANGES = {"epochs": ABOVE_ZERO, "learning_rate": ABOVE_ZERO, "batch_size": ONE_OR_MORE, "max_length": ZERO_OR_MORE}


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
    goes on from its last checkpoint, and its cost is that of all attempts up to their last checkpoints.

    Args:
        model: Model folder, hub name, or "embedded:minilm" ("embedded:mpnet", "embedded:smollm2").
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
    _check(task, held_out_task, train, validation)
    check_ranges(RANGES, locals())
    source = pretrained.read(model, weights=True)
    arguments: dict[str, Any] = {
        "model": model,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "max_length": max_length,
        "freeze_embeddings": freeze_embeddings,
        "seed": seed,
    }
    start = weights_sha256(source.folder)

    from kfp_bonsai.fine_tune.learn import learn  # which imports torch: what is wrong is said before that
    from kfp_bonsai.shared.training import attempts

    given = [task.sha256, held_out_task.sha256, task.metric, task.labels, start]
    with attempts.attempt("fine-tune", output, [given, arguments]) as attempt, new_folder(output) as folder:
        learnt = learn(source, task, train, validation, attempt, **arguments)
        record = extend_record(
            None,
            stage="fine-tune",
            arguments={
                **arguments,
                "model": str(Path(model).resolve()) if Path(model).is_dir() else model,
                "learning_rate": learnt.rate,
            },
            reading=learnt.reading,
            task=task.__dict__,
            level="baseline",
            max_length=learnt.max_length,
            validation={task.metric: learnt.score, **learnt.more},
            seed=seed,
            **learnt.usual,
            **({"label_scale": learnt.scale.as_dict()} if learnt.scale else {}),
        )
        save(learnt.network, learnt.tokenizer, folder, record)
    return {
        task.metric: learnt.score,
        **learnt.more,
        "parameters": sum(parameter.numel() for parameter in learnt.network.parameters()),
        "seconds": learnt.reading.seconds,
        "joules": learnt.reading.joules,
    }


def _check(
    task: tasks.Task,
    other: tasks.Task,
    train: Path,
    validation: Path,
) -> None:
    if task.rows == 0:
        raise BonsaiError(f"{train} has no rows: prepare the data set again")
    for path, one in ((train, task), (validation, other)):
        if one.split == "unlabelled":
            raise BonsaiError(f"{path} has no labels: give the train and validation splits of prepare-data")
        tasks.check_unseen(one, path)
    if not task.is_of_one_data_set_with(other):
        raise BonsaiError(f"{train} and {validation} are not of one data set: give two splits of one prepare-data run")
