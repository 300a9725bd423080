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

from kfp_bonsai.pipelines.levels import parse_levels
from kfp_bonsai.pipelines.local.collect import collect, every, result_table
from kfp_bonsai.pipelines.local.folder import LOG, WORK, check_free, run_folder
from kfp_bonsai.pipelines.options import COMPRESS, EDGE, LEVELS, PIPELINES
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.faults import Fault
from kfp_bonsai.shared.core.files import SCRATCH
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.core.signatures import takes

ONES_OWN = (LEVELS, "runtime")  # arguments of the pipeline that are given otherwise here, or chosen
ASKED = {name: one for name, one in PIPELINES[COMPRESS].items() if name not in ONES_OWN}


@takes(ASKED)
def run(
    model: str,
    data: str,
    output: Path,
    *,
    level: Sequence[str] = (),
    distill_epochs: float = 0,
    overwrite: bool = False,
    **options: Any,
) -> dict:
    """Compress a language model on this machine, measure what it then emits, and write the report.

    Fine-tunes the model on the data, makes it smaller at each level, distills what was lost back into it, measures
    accuracy and emission relative to the fine-tuned model, and chooses the level that meets the target. An
    interrupted run goes on where it was when it is started again in the same way.

    Args:
        model: Model folder, hub name (google-bert/bert-base-uncased), or embedded:minilm (embedded:mpnet,
            embedded:smollm2), which come from the package index.
        data: Parquet, CSV, TSV or JSON lines (file, folder or glob), gs://, s3://bucket/path, a Hugging Face data set
            name, or embedded:movie-reviews (amazon-reviews, tweets, news).
        output: Folder for the report, the numbers and the models.
        split_by: random draws splits anew for every data set; hash goes by each row's text, so that a row stays in its
            split when the data set grows. Use it for a model that `bonsai retrain` is to renew.
        level: A compression level, LABEL:layers=1/3,flops=0.1,shape=free,epochs=6; can be repeated. layers: fraction,
            count or indices that stay, 6+2 of encoder and decoder (where a T5 writes, a fraction is of all its layers,
            and the decoder's go first); flops: share of the baseline's FLOPs; emission: share of its energy instead, by
            costs timed on the device that is measured on; shape: free (keeps more) or stock
            (loads without this package); epochs and rate: of distillation, and its highest learning rate (0 chooses
            either by the size); vocabulary: task leaves a model that writes the tokens of the task, and bytes for all
            other text (not a T5, whose tokenizer has none). By default "2/3 layers", "1/3 layers" and "1/2 layers +
            matrix pruning" (flops=0.1; a third of the layers, where a model is too small for that); for tagged words
            and questions 2/3 of the layers, and that with flops=0.334 and flops=0.125; for texts to be written 2/3,
            1/2, and 1/2 with flops=0.334.
            LABEL:model=embedded:bert-tiny takes a ready-made model (folder, hub name or embedded:NAME) instead: taught
            by the same baseline and measured beside the levels, as a rival.
        min_accuracy: Choose the smallest emission that keeps this share of the baseline's accuracy, such as 0.98;
            0.95 if no target is given.
        max_emission: Choose the best accuracy with at most this share of the baseline's emission, such as 0.2.
        edge: Make an int8 model for CPUs of every level too, and measure them on a CPU: those figures are then held
            against the target.
        distill_epochs: Epochs of distillation, where a level does not state them; 0 chooses them by the size.
        augmentations: Changed copies of each training text to distill with; -1 chooses by how many texts there are.
        overwrite: Start over, whatever is in the output folder of an earlier run.
        **options: The others are those of its stages (pipelines/options.py).

    Returns:
        Where the report is, and what was chosen.

    Raises:
        BonsaiError: something given cannot be used, the output folder is taken, or a stage failed.

    Example:
        bonsai run --model embedded:minilm --data embedded:movie-reviews --output runs/demo --edge
        bonsai run --model ./my-bert --data reviews.csv --label-column stars --min-accuracy 0.98 --output runs/mine
            --level "half:layers=1/2" --level "tiny:layers=1/3,flops=0.05,epochs=10"
    """
    check_kfp()
    output = Path(output)
    check_free(output, overwrite)

    from kfp_bonsai.pipelines.local.inputs import check_room  # loads torch: what was said before it was said at once

    arguments, files = settled(model, data, level, distill_epochs, options)
    check_run(arguments)
    if not (output / WORK).exists():  # else it goes on with what has its room already
        check_room(output / WORK, model, options["epochs"], options["freeze_embeddings"])
    levels, edge = arguments[LEVELS], options[EDGE]

    def pipeline() -> Any:
        from kfp_bonsai.pipelines.compress import compress_pipeline

        return compress_pipeline(parallel_levels=1, edge=edge)

    tasks = 7 + 3 * len(levels) + (3 + len(levels) if edge else 0)
    headlines = Headlines(tasks, [each["label"] for each in levels])
    run_here(pipeline, arguments, files, output, overwrite, headlines)
    return {"report": str(output / "report.html")}


def check_kfp() -> None:
    """Refuse to run a pipeline where nothing can."""
    if find_spec("kfp") is None:
        raise BonsaiError("KFP is not installed, whose local runner runs the stages: pip install 'kfp-bonsai[kfp]'")


def settled(
    model: str, data: str, level: Sequence[str], distill_epochs: float, options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pipeline's arguments, and what tells the local files that it reads from others.

    Args:
        model: as `run` takes it, and the others too.
        data: the rows.
        level: levels as texts.
        distill_epochs: of the levels that do not state them.
        options: all others.

    Raises:
        BonsaiError: a level cannot be read, or none is given and model or data cannot be had.
    """
    from kfp_bonsai.pipelines.local.inputs import fingerprint
    from kfp_bonsai.pipelines.values import levels_of_kind

    given = {"model": model, "data": data, **options}
    levels = parse_levels(level, distill_epochs) if level else levels_of_kind(given, distill_epochs)
    files = fingerprint(
        *(model, *(each["model"] for each in levels), data, options["test_data"], options["validation_data"]),
        *options["unlabelled_data"].split(","),
    )
    return {**given, LEVELS: levels}, files


def check_run(arguments: Mapping[str, Any]) -> None:
    """Refuse a model, levels and data that a stage would refuse.

    Args:
        arguments: the pipeline's.

    Raises:
        BonsaiError: one cannot be had or used.
    """
    from kfp_bonsai.pipelines.local.inputs import check_inputs
    from kfp_bonsai.pipelines.values import check_model, check_taught, kind_of_rows

    model, levels, max_length = arguments["model"], arguments[LEVELS], arguments["max_length"]
    check_model(model, levels, max_length)
    check_inputs(arguments)
    check_taught(model, levels, max_length, kind_of_rows(arguments))


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
