"""What training costs: our fine-tune and distill stages against transformers' Trainer as it comes, in one run.

    python tests/benchmarks/training.py [--rows 4000] [--repetitions 3] [--json FILE]
    python tests/benchmarks/training.py --data IMDB/train.parquet --max-length 256 --rows 2000 [--json FILE]

Both sides train the same models on the same rows for as many steps of as many rows at the same rate. "As it comes" is
Trainer with its default settings (random batches, float32, trained embeddings, dropout), and for distillation a teacher
that answers in every step, which is how tutorials do it. The accuracies on the test rows must be alike for a ratio to
mean anything, so they stand beside it. The teacher's outputs are charged to the first student in full, and told apart,
since all further levels use them too. The sides take turns, each in a process of its own, whose energy it is, by
codecarbon's formula.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from arguments import json_file, write_json
from torch.nn import functional
from trained import accuracy
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

from kfp_bonsai.distill.distill import distill
from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.prepare_data.prepare import prepare_data
from kfp_bonsai.shared.core import documents
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.saved import checkpoint, records
from kfp_bonsai.shared.saved.pretrained import find_model
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

BATCH, FINE_TUNE_RATE, DISTILL_RATE, TEMPERATURE, HIDDEN_WEIGHT = 32, 1e-4, 3e-4, 2.0, 10.0
GOALS = {"fine-tune": 3.0, "distill, 1/3 layers": 5.0}
Found = dict[str, dict[str, list[dict[str, float]]]]
OURS, THEIRS, OUTPUTS = "ours", "Trainer as it comes", "of which the teacher's outputs"


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="embedded:movie-reviews", help="labelled rows (embedded:movie-reviews)")
    parser.add_argument("--max-length", type=int, default=128, help="tokens at which texts are cut (128)")
    parser.add_argument("--test-rows", type=int, default=2000, help="rows that the accuracies are of (2000)")
    parser.add_argument("--rows", type=int, default=4000, help="training rows (4000)")
    parser.add_argument("--epochs", type=float, default=1, help="passes of fine-tuning (1)")
    parser.add_argument("--distill-epochs", type=float, default=3, help="passes of distillation (3)")
    parser.add_argument("--repetitions", type=int, default=3, help="how often, each with its own seed (3)")
    parser.add_argument("--json", type=json_file, help="file to write the figures to")
    given = parser.parse_args()
    found: Found = {name: {} for name in GOALS}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(given.repetitions):
            print(f"repetition {seed + 1}/{given.repetitions}", flush=True)
            once(Path(scratch) / str(seed), given, seed, found)
    print(table(found))
    asked = {name: value for name, value in vars(given).items() if name != "json"}
    write_json(given.json, {"versions": records.versions(), "arguments": asked, "found": found})


def once(work: Path, given: argparse.Namespace, seed: int, found: Found) -> None:
    """Train everything once on both sides, and note what it took."""
    data = {name: work / f"{name}.parquet" for name in ("train", "validation", "test", "unlabelled")}
    rows = {"test_rows": given.test_rows, "validation_rows": 500, "max_rows": given.rows}
    prepare_data(given.data, *data.values(), seed=seed, **rows)

    def note(stage: str, side: str, to: Path, run: Callable[[], Any]) -> None:
        reading = apart(run)
        right = accuracy(to, data["test"]) if checkpoint_in(to) else float("nan")
        one = {"seconds": reading.seconds, "joules": reading.cpu_joules + reading.gpu_joules, "accuracy": right}
        found[stage].setdefault(side, []).append(one)
        print(f"{stage}, {side}: {json.dumps(one)}", flush=True)

    base, plain = work / "base", work / "plain"
    tune = {"epochs": given.epochs, "learning_rate": FINE_TUNE_RATE, "batch_size": BATCH, "seed": seed}
    tune["max_length"] = given.max_length
    sides: list[tuple[str, Path, Callable[[], Any]]] = [
        (
            OURS,
            base,
            partial(fine_tune, "embedded:minilm", data["train"], data["validation"], base, **tune),
        ),
        (THEIRS, plain, partial(tuned_by_trainer, data, plain, given.max_length, given.epochs, seed)),
    ]
    for side, to, run in sides[:: -1 if seed % 2 else 1]:
        note("fine-tune", side, to, run)
    short, own = work / "short", work / "outputs"
    layer_remove(base, data["validation"], short, keep="1/3")
    student, theirs = work / "student", work / "theirs"
    name = "distill, 1/3 layers"

    def ours() -> None:
        note(
            name,
            OUTPUTS,
            own,
            partial(teacher_outputs, base, data["train"], data["unlabelled"], own, augmentations=0, seed=seed),
        )
        note(
            name,
            OURS,
            student,
            partial(
                distill,
                short,
                own,
                data["validation"],
                student,
                epochs=given.distill_epochs,
                learning_rate=DISTILL_RATE,
                batch_size=BATCH,
                seed=seed,
            ),
        )
        for key in ("seconds", "joules"):
            found[name][OURS][-1][key] += found[name][OUTPUTS][-1][key]

    def as_it_comes() -> None:
        note(
            name,
            THEIRS,
            theirs,
            partial(
                distilled_by_trainer, base, short, data["train"], theirs, given.max_length, given.distill_epochs, seed
            ),
        )

    for run in (ours, as_it_comes)[:: -1 if seed % 2 else 1]:
        run()


def apart(run: Callable[[], Any]) -> energy.Reading:
    """Return what a run costs in a process of its own, as our training changes how its process keeps memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(metered, run).result()


def metered(run: Callable[[], Any]) -> energy.Reading:
    """Return what a run costs in this process, which has imported all that both sides need."""
    with energy.track() as meter:
        run()
    return meter.reading


def checkpoint_in(folder: Path) -> bool:
    """Return whether a folder holds a model."""
    return (folder / "config.json").is_file()


def tuned_by_trainer(data: dict[str, Path], to: Path, max_length: int, epochs: float, seed: int) -> None:
    """Fine-tune MiniLM by Trainer."""
    set_seed(seed)
    source = find_model("embedded:minilm")
    network = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2)
    tokenizer = AutoTokenizer.from_pretrained(source)
    by_trainer(Trainer, network, tokenizer, data["train"], to, max_length, epochs, FINE_TUNE_RATE, seed)


def distilled_by_trainer(
    base: Path, short: Path, train: Path, to: Path, max_length: int, epochs: float, seed: int
) -> None:
    """Distill by Trainer with a loss that asks the teacher in every step."""
    teacher, tokenizer = checkpoint.load(base)
    student, _ = checkpoint.load(short)
    teacher.eval()

    class Distiller(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            found = model(**inputs, output_hidden_states=True)
            with torch.no_grad():
                right = teacher(**inputs, output_hidden_states=True)
            soft = [functional.log_softmax(one.logits / TEMPERATURE, dim=1) for one in (found, right)]
            loss = functional.kl_div(*soft, log_target=True, reduction="batchmean") * TEMPERATURE**2
            real = inputs["attention_mask"].bool()
            ours, theirs = found.hidden_states[-1][real], right.hidden_states[-1][real]
            loss = loss + HIDDEN_WEIGHT * functional.mse_loss(ours, theirs) / (theirs - theirs.mean(0)).square().mean()
            return (loss, found) if return_outputs else loss

    by_trainer(Distiller, student, tokenizer, train, to, max_length, epochs, DISTILL_RATE, seed)


def by_trainer(
    kind: type[Trainer],
    network: Any,
    tokenizer: Any,
    train: Path,
    to: Path,
    max_length: int,
    epochs: float,
    rate: float,
    seed: int,
) -> None:
    """Train by Trainer with its default settings, and keep the model with a record that our readers know."""
    columns = tasks.read_columns(train)
    encoded = tokenizer(columns["text"], truncation=True, max_length=max_length)
    rows = [
        {"input_ids": ids, "attention_mask": mask, "labels": label}
        for ids, mask, label in zip(encoded["input_ids"], encoded["attention_mask"], columns["label"], strict=True)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            scratch,
            per_device_train_batch_size=BATCH,
            num_train_epochs=epochs,
            learning_rate=rate,
            seed=seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        kind(network, arguments, DataCollatorWithPadding(tokenizer), rows).train()
    network.save_pretrained(to)
    tokenizer.save_pretrained(to)
    (to / documents.RECORD).write_text(json.dumps({"lineage": [], "max_length": max_length}))


def table(found: Found) -> str:
    """Return the means as lines, with the ratio of each repetition's pair."""
    lines = [f"{'stage':22} {'side':32} {'seconds':>8} {'joules':>8} {'accuracy':>9}"]
    for stage, sides in found.items():
        for side, each in sides.items():
            seconds, joules, right = (
                statistics.mean(one[key] for one in each) for key in ("seconds", "joules", "accuracy")
            )
            shown = f"{right:9.4f}" if right == right else ""
            lines.append(f"{stage:22} {side:32} {seconds:8.1f} {joules:8.1f} {shown}")
        ratios = [b["joules"] / a["joules"] for a, b in zip(sides[OURS], sides[THEIRS], strict=True)]
        met = "met" if statistics.mean(ratios) >= GOALS[stage] else "missed"
        lines.append(
            f"{stage:22} {statistics.mean(ratios):.2f} times less energy ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"goal {GOALS[stage]}: {met}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
