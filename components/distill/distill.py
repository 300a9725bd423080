"""Let a compressed model learn what its teacher does."""

import math
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError, check_choice
from kfp_bonsai.shared.core.files import new_folder
from kfp_bonsai.shared.core.ranges import ZERO_OR_MORE, check_ranges
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.saved.checkpoint import load, save
from kfp_bonsai.shared.saved.kept_tokens import TASK, VOCABULARIES
from kfp_bonsai.shared.saved.records import extend_record, read_record, task_of
from kfp_bonsai.shared.training.teacher import check_teacher

FEWEST_STEPS, MOST_PASSES = 1000, 6  # of a student's training, where nothing else is asked for
USUAL_RATE = 1e-4  # of fine-tuning
RANGES = {"epochs": ZERO_OR_MORE, "learning_rate": ZERO_OR_MORE, "batch_size": ZERO_OR_MORE}  # 0 chooses


def distill(
    model: Path,
    teacher_outputs: Path,
    validation: Path,
    output: Path,
    *,
    epochs: float = 0,
    learning_rate: float = 0,
    batch_size: int = 0,
    temperature: float = 2,
    hidden_weight: float = 10,
    label_weight: float = 0.3,
    vocabulary: str = "whole",
    seed: int = 0,
) -> dict:
    """Train a compressed model on its teacher's logits and hidden states.

    Args:
        model: The compressed model to train (from layer-remove or matrix-prune).
        teacher_outputs: The transfer set from teacher-outputs.
        validation: Validation split, to score the result on.
        output: Folder to write the trained model to.
        epochs: Passes over the transfer set; 0 takes 2 for models below a fifth of the baseline's FLOPs, else 1.5, or
            as many as make 1,000 steps, at most 6.
        learning_rate: AdamW's highest rate; 0 chooses it by the model's FLOPs (1e-4 at 2/3, 5e-4 at 1/3 and below, of
            models that write at 1/2), or higher where the baseline's was.
        batch_size: Rows a step; 0 chooses 64 for models below a fifth of the baseline's FLOPs, else 32, and 16 for
            models that write.
        temperature: Softens both models' logits.
        hidden_weight: Weight of the hidden states' error; the logits weigh 1.
        label_weight: Weight of the loss on the true labels.
        vocabulary: Tokens that the model has in the end: whole, or task (of a model that writes with a BPE
            tokenizer that has a token for each byte: those of the transfer set and the validation split, and bytes for
            all other text).
        seed: Seed of the order of rows.

    Returns:
        The validation score under the metric's name, its ratio to the teacher's, seconds and joules.

    Raises:
        BonsaiError: the inputs do not fit each other, or the loss became NaN.

    Example:
        bonsai distill --model pruned --teacher-outputs transfer --validation data/validation.parquet --output small
    """
    record, teacher = read_record(model), read_record(teacher_outputs)
    weights = {"temperature": temperature, "hidden_weight": hidden_weight, "label_weight": label_weight}
    check_teacher(model, record, teacher_outputs, teacher, **weights)
    check_ranges(RANGES, locals())
    check_choice("--vocabulary", vocabulary, VOCABULARIES)
    task = tasks.read_task(validation)
    tasks.check_unseen(task, validation)
    if task.split == "unlabelled" or not task.is_of_one_data_set_with(task_of(record)):
        raise BonsaiError(f"{validation} is not of the data set that {model} was trained on: give its validation split")

    from kfp_bonsai.distill.fewer_tokens import check_fewer, fewer_tokens
    from kfp_bonsai.shared.data import rows
    from kfp_bonsai.shared.energy import energy
    from kfp_bonsai.shared.kinds import kinds
    from kfp_bonsai.shared.training import (
        attempts,
        distillation,
        soft_answers,
        students,
        thresholds,
        trainer,
        transfer,
        writing,
    )

    if kinds.kind_of(task).writes:
        soft_answers.check_temperature(temperature)
    given = [record["sha256"], record.get("level"), transfer.sha256_of(teacher_outputs), task.sha256, task.metric]
    asked = [epochs, learning_rate, batch_size, weights, seed]
    with attempts.attempt("distill", output, [given, asked]) as attempt, new_folder(output) as folder:
        with energy.track() as meter:
            attempt.meter = meter
            student, tokenizer = load(model)
            if vocabulary == TASK:
                check_fewer(kinds.kind_of(task), tokenizer)
            rate = learning_rate or suggested_rate(record, teacher)
            rows_a_step = batch_size or suggested_batch(record, teacher)
            data = students.open_for(teacher_outputs, model, student.config, tokenizer, record)
            passes = epochs or suggested_epochs(record, teacher, len(data))
            rate = distillation.distill_into(
                student,
                data,
                trainer.Recipe("distill", passes, rate, rows_a_step, seed=seed),
                attempt,
                tokenizer.pad_token_id,
                **weights,
            )
            fewer = {}
            if vocabulary == TASK:
                tokenizer, fewer = fewer_tokens(student, tokenizer, data, validation, record["max_length"])
        held_out = rows.read_rows(validation, tokenizer, record["max_length"])
        found: Any
        more: dict[str, float] = {}
        if kinds.kind_of(task).writes:
            found, more = writing.answers_of(student, held_out, tokenizer)
        else:
            found = trainer.predict(student, held_out, tokenizer.pad_token_id)
            found = thresholds.settle(student, task, found, held_out, tokenizer.pad_token_id)
        score = kinds.score(task, found, held_out.right, held_out.windows)
        arguments = {
            "epochs": passes,
            "learning_rate": rate,
            "batch_size": rows_a_step,
            **weights,
            **({"vocabulary": vocabulary} if fewer else {}),
            "seed": seed,
        }
        cost = attempt.total(meter.reading)
        taught = {**record, **fewer, "lineage": [*record["lineage"], teacher["lineage"][-1]]}
        made = extend_record(
            taught, stage="distill", arguments=arguments, reading=cost, validation={task.metric: score, **more}
        )
        save(student, tokenizer, folder, made)
    best = teacher["validation"].get(task.metric, 0)
    return {
        task.metric: score,
        f"relative_{task.metric}": score / best if best else 0.0,
        **more,
        "seconds": cost.seconds,
        "joules": cost.joules,
    }


def suggested_rate(record: dict, teacher: dict) -> float:
    """Return the learning rate for a student of this size, as measured on the demo task, and of one that writes.

    It is 5e-4 up to a third of the FLOPs, of models that write up to half, and falls by the power that leads to 1e-4 at
    2/3. A baseline that was fine-tuned at a higher rate than the usual one, as small ones are, has students that learn
    at higher rates too, up to its own.
    """
    from kfp_bonsai.shared.models.flops import ratio

    highest_until = 1 / 2 if _writes(record) else 1 / 3
    power = math.log(5) / math.log(2 / 3 / highest_until)
    rate = min(5e-4, 1e-4 * (2 / 3 / ratio(record, teacher, record["max_length"])) ** power)
    tuned: dict[str, Any] = next((one["arguments"] for one in teacher["lineage"] if one["stage"] == "fine-tune"), {})
    own = tuned.get("learning_rate", USUAL_RATE)
    return max(rate, min(own, rate * own / USUAL_RATE))


def suggested_epochs(record: dict, teacher: dict, rows: int) -> float:
    """Return the passes for a student of this size over so many rows of a transfer set.

    Small students need more, which cost less; and few rows are gone through so often that there are steps enough.
    """
    enough = FEWEST_STEPS * suggested_batch(record, teacher) / max(rows, 1)
    return max(2 if _is_small(record, teacher) else 1.5, min(MOST_PASSES, enough))


def suggested_batch(record: dict, teacher: dict) -> int:
    """Return the rows a step for a student of this size: 64 costs small ones nothing, and takes a quarter less time.

    Rows of models that write are long, and each has many tokens to learn from.
    """
    if _writes(record):
        return 16
    return 64 if _is_small(record, teacher) else 32


def _writes(record: dict) -> bool:
    from kfp_bonsai.shared.kinds.kinds import kind_of

    return kind_of(task_of(record)).writes


def _is_small(record: dict, teacher: dict) -> bool:
    from kfp_bonsai.shared.models.flops import ratio

    return ratio(record, teacher, record["max_length"]) < 0.2
