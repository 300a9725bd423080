"""`bonsai run`: the compress pipeline on one's own machine."""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kfp_bonsai.fine_tune.train import SCRATCH
from kfp_bonsai.pipelines.levels import parse_levels
from kfp_bonsai.pipelines.local.collect import collect, every, result_table
from kfp_bonsai.pipelines.local.folder import LOG, run_folder
from kfp_bonsai.pipelines.local.inputs import check_inputs, fingerprint
from kfp_bonsai.pipelines.values import check_model
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.faults import Fault
from kfp_bonsai.shared.core.progress import say


def run(
    model: str,
    data: str,
    output: Path,
    *,
    test_data: str = "",
    validation_data: str = "",
    unlabelled_data: str = "",
    name: str = "",
    text_column: str = "",
    text_pair_column: str = "",
    label_column: str = "",
    kind: str = "auto",
    metric: str = "",
    positive_class: str = "",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    test_rows: int = 0,
    validation_rows: int = 0,
    max_rows: int = 0,
    drop_empty: bool = False,
    split_by: str = "random",
    level: Sequence[str] = (),
    min_accuracy: float = 0,
    max_emission: float = 0,
    edge: bool = False,
    epochs: float = 3,
    learning_rate: float = 1e-4,
    batch_size: int = 32,
    max_length: int = 0,
    freeze_embeddings: bool = False,
    distill_epochs: float = 0,
    augmentations: int = -1,
    unlabelled_rows: int = -1,
    prune_steps: int = 200,
    device: str = "auto",
    pairs: int = 10,
    block_seconds: float = 2,
    precision: float = 0.02,
    time_budget: float = 0,
    country: str = "",
    intensity: float = 0,
    traffic: int = 0,
    embodied: float = 0,
    wait: bool = True,
    license: str = "",
    upload: str = "",
    register: str = "",
    seed: int = 0,
    overwrite: bool = False,
) -> dict:
    """Compress a language model on this machine, measure what it then emits, and write the report.

    Fine-tunes the model on the data, makes it smaller at each level, distills what was lost back into it, measures
    accuracy and emission relative to the fine-tuned model, and chooses the level that meets the target. An
    interrupted run goes on where it was when it is started again in the same way.

    Args:
        model: Model folder, hub name (google-bert/bert-base-uncased), or embedded:minilm.
        data: Parquet, CSV, TSV or JSON lines (file, folder or glob), gs://bucket/path, a Hugging Face data set name,
            or embedded:movie-reviews (amazon-reviews, tweets, news).
        output: Folder for the report, the numbers and the models.
        test_data: Test rows, as for --data; else the data's own test split, else drawn from it.
        validation_data: Validation rows; else the data's own, else drawn from it.
        unlabelled_data: Texts without labels to distill with, as for --data, separated by commas; for film reviews
            there is embedded:film-sentences.
        name: What the task is called in the report; by default the data's name.
        text_column: Column of texts; found by its name if not given.
        text_pair_column: Column of second texts, for tasks on pairs.
        label_column: Column of labels; found by its name if not given.
        kind: classification, regression or auto.
        metric: accuracy, f1, matthews_correlation, pearson or spearman; by default accuracy or pearson.
        positive_class: Of two classes the one that f1 is of; by default the data's second, else that by alphabet.
        validation_fraction: Share of the rows to validate on, where none are given.
        test_fraction: Share of the rows to test on, where none are given.
        test_rows: Rows to draw for the test instead of a share.
        validation_rows: Rows to draw for validation instead of a share.
        max_rows: Train on at most so many rows; 0 takes all.
        drop_empty: Leave out rows without text or label instead of refusing them.
        split_by: random draws splits anew for every data set; hash goes by each row's text, so that a row stays in its
            split when the data set grows. Use it for a model that `bonsai retrain` is to renew.
        level: A compression level, LABEL:layers=1/3,flops=0.1,shape=free,epochs=6; can be repeated. layers: fraction,
            count or indices that stay; flops: share of the baseline's FLOPs; shape: free (keeps more) or stock
            (loads without this package); epochs and rate: of distillation, and its highest learning rate (0 chooses
            either by the size). By default the three of the white paper: "2/3 layers", "1/3 layers", "1/3 layers +
            matrix pruning" (flops=0.1).
        min_accuracy: Choose the smallest emission that keeps this share of the baseline's accuracy, such as 0.98;
            0.95 if no target is given.
        max_emission: Choose the best accuracy with at most this share of the baseline's emission, such as 0.2.
        edge: Make an int8 model for CPUs of every level too, and measure them on a CPU: those figures are then held
            against the target.
        epochs: Epochs of fine-tuning.
        learning_rate: Highest learning rate of fine-tuning.
        batch_size: Rows a step of fine-tuning.
        max_length: Tokens at which texts are cut; 0 for the longest training text (at most 512).
        freeze_embeddings: Leave the embeddings as they are while fine-tuning.
        distill_epochs: Epochs of distillation, where a level does not state them; 0 chooses them by the size.
        augmentations: Changed copies of each training text to distill with; -1 chooses by how many texts there are.
        unlabelled_rows: Texts without labels to use; -1 for all.
        prune_steps: Training steps during which matrices are pruned.
        device: Where emission is measured: cpu, cuda, or auto, which takes a GPU if there is one. Training takes one
            anyway.
        pairs: Rounds of measuring all models at the least.
        block_seconds: Seconds that each model runs in a round, at the least.
        precision: Stop measuring once every emission ratio's 95 % interval is within plus or minus this fraction, and
            the control's within twice that of 1 (at most 0.1); 0 for `pairs` rounds.
        time_budget: Seconds for all rounds; 0 for twice `pairs` at the most.
        country: Code of three letters or English name of the country whose electricity is assumed, such as DEU, for
            grams of CO2.
        intensity: Grams of CO2 per kWh instead of a country's.
        traffic: Inferences a day, for what is saved in a year; 0 for not stated.
        embodied: Grams of CO2 that an hour's use of the hardware stands for by its making; 0 leaves it out.
        wait: Before measuring, wait while another measurement runs on this machine; --no-wait ends the run instead.
        license: License of the model for its card, such as apache-2.0.
        upload: Where to publish the chosen model, gs://bucket/prefix or a folder; its version is added.
        register: Registry to tell of what was published: mlflow+URI, or the URL of Kubeflow Model Registry; its
            password or token goes in the environment, such as in MLFLOW_TRACKING_TOKEN.
        seed: Seed of everything that is drawn.
        overwrite: Start over, whatever is in the output folder of an earlier run.

    Returns:
        Where the report is, and what was chosen.

    Raises:
        BonsaiError: something given cannot be used, the output folder is taken, or a stage failed.

    Example:
        bonsai run --model embedded:minilm --data embedded:movie-reviews --output runs/demo --edge
        bonsai run --model ./my-bert --data reviews.csv --label-column stars --min-accuracy 0.98 --output runs/mine
            --level "half:layers=1/2" --level "tiny:layers=1/3,flops=0.05,epochs=10"
    """
    arguments = {key: value for key, value in locals().items() if key not in ("output", "level", "overwrite")}
    if find_spec("kfp") is None:
        raise BonsaiError("KFP is not installed, whose local runner runs the stages: pip install 'kfp-bonsai[kfp]'")
    levels = parse_levels(level, distill_epochs)
    check_model(model, levels, max_length)
    check_inputs(arguments)
    del arguments["distill_epochs"]
    arguments["levels"] = levels
    files = fingerprint(model, data, test_data, validation_data, *unlabelled_data.split(","))

    def pipeline() -> Any:
        from kfp_bonsai.pipelines.compress import compress_pipeline

        return compress_pipeline(parallel_levels=1, edge=edge)

    tasks = 7 + 3 * len(levels) + (3 + len(levels) if edge else 0)
    headlines = Headlines(tasks, [each["label"] for each in levels])
    run_here(pipeline, arguments, files, Path(output), overwrite, headlines)
    return {"report": str(Path(output) / "report.html")}


def run_here(
    pipeline: Callable[[], Any],
    arguments: Mapping[str, Any],
    files: Mapping[str, Any],
    output: Path,
    overwrite: bool,
    headline: Callable[[str], str],
) -> Path:
    """Run a pipeline in a run's folder, collect what users want, and show the results if there are any.

    Args:
        pipeline: makes the pipeline function.
        arguments: the pipeline's arguments.
        files: what tells the local files that it reads from others.
        output: the run's folder.
        overwrite: start over, whatever is there of an earlier run.
        headline: gives the headline of the task of this name.

    Returns:
        The folder with the tasks' own folders.
    """
    with run_folder(output, {**arguments, "files": files}, overwrite) as work:
        from kfp_bonsai.pipelines.local.runner import run_locally

        command = (
            " ".join(["bonsai", *map(shlex.quote, sys.argv[1:])]) if sys.argv[1:2] in (["run"], ["retrain"]) else ""
        )
        os.environ[SCRATCH] = str((work / "checkpoints").resolve())
        try:
            run_locally(pipeline(), {**arguments, "command": command}, work, output / LOG, headline)
        except (BonsaiError, Fault):
            if every(work, "report*/html"):  # packaging failed, which takes nothing from what was measured
                collect(work, output)
                say(f"\nThe report is there all the same: {output / 'report.html'}")
            raise
        finally:
            del os.environ[SCRATCH]
        collect(work, output)
    for transfer in every(work, "teacher-outputs*/teacher_outputs"):  # large, and easily made again
        shutil.rmtree(transfer)
    if (output / "results.json").is_file():
        results = json.loads((output / "results.json").read_text(encoding="utf-8"))
        for line in ("", *result_table(results), ""):
            say(line)
    return work


class Headlines:
    """The headline of each task: its place among all tasks, its name, and its level in the loop over levels."""

    def __init__(self, total: int, labels: Sequence[str] = ()) -> None:
        self.total, self.labels = total, labels
        self.seen: list[str] = []

    def __call__(self, task: str) -> str:
        """Return the headline of the next task, which has this name (KFP numbers those of one component)."""
        task = re.sub(r"-\d+$", "", task)
        count = self.seen.count(task)
        self.seen.append(task)
        in_loop = task in ("layer-remove", "matrix-prune", "distill", "quantize")
        note = f" · {self.labels[count]}" if in_loop and count < len(self.labels) else ""
        return f"[{len(self.seen)}/{self.total}] {task}{note}"
