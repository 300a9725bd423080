"""How much accuracy each level keeps: our recipe over seeds, the goals, and the same shapes made in simpler ways.

    python tests/benchmarks/quality.py --work runs/quality [--seeds 3] [--json quality.json]      # hours on 2 cores

Every seed has its own split of the movie reviews (2,000 test rows, never seen, not as unlabelled text either), and its
own baseline: three learning rates, up to four epochs, embeddings frozen or trained, the best of them by validation. Its
levels are made by the stages as they are. FLOPs count every matrix product at the test rows' mean length, on both sides
alike; nothing is left out on either side. "training" is what making a level took after the baseline, the teacher's
outputs included.

Beside them, at the same widths and in as many steps: the same shape from random weights, distilled (what the teacher's
weights are worth), and the level's cut weights, trained on the labels alone (what distillation is worth).
"""

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from trained import accuracy, figures, made
from transformers import set_seed

from kfp_bonsai.distill.distill import distill, suggested_batch, suggested_rate
from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.prepare_data.prepare import prepare_data
from kfp_bonsai.quantize.quantize import quantize
from kfp_bonsai.shared import checkpoint, inference, metrics, tasks, transfer
from kfp_bonsai.shared.floor import floor
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

RATES = (5e-5, 1e-4, 2e-4)
OTHER_DOMAINS = "embedded:amazon-reviews,embedded:tweets,embedded:news"
BATCH = 64


@dataclass(frozen=True)
class Level:
    """A level, and what we want of it.

    Attributes:
        label: its name.
        most_flops: the most FLOPs it may take, relative to the baseline.
        goal: relative accuracy wanted, as a mean over seeds.
        stretch: relative accuracy hoped for.
        keep: layers, as for layer-remove.
        prune: options of matrix-prune; nothing for no pruning.
        train: options of distill.
        int8: whether it is quantized as well, for CPUs.
    """

    label: str
    most_flops: float
    goal: float
    stretch: float
    keep: str
    prune: dict[str, Any]
    train: dict[str, Any]
    int8: bool = False


LEVELS = (
    Level("2/3 layers", 0.67, 1.0, 1.005, "2/3", {}, {"epochs": 1}),
    Level("1/3 layers", 0.34, 0.98, 0.99, "1/3", {}, {"epochs": 3, "learning_rate": 5e-4}),
    Level("3 thinner layers, free", 0.34, 0.99, 1.0, "1/2", {"flops": 0.335}, {"epochs": 3, "learning_rate": 5e-4}),
    Level(
        "1/3 layers + matrix pruning, free",
        0.10,
        0.98,
        0.995,
        "1/3",
        {"flops": 0.0995},
        {"epochs": 6, "learning_rate": 1e-3},
        int8=True,
    ),
    Level(
        "1/3 layers + matrix pruning, stock",
        0.10,
        0.97,
        0.98,
        "1/3",
        {"flops": 0.0995, "shape": "stock"},
        {"epochs": 6, "learning_rate": 1e-3},
        int8=True,
    ),
)
INT8_GOAL, INT8_STRETCH = 0.995, 1.0


def main() -> None:
    """Run what is asked for; folders that are there already are not made again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/quality"), help="folder for the models; resumed from")
    parser.add_argument("--data", default="embedded:movie-reviews", help="labelled rows (embedded:movie-reviews)")
    parser.add_argument("--test-rows", type=int, default=2000, help="rows of the test split (2000)")
    parser.add_argument("--max-rows", type=int, default=0, help="training rows at most; 0 for all")
    parser.add_argument("--seeds", type=int, default=3, help="splits and seeds (3)")
    parser.add_argument("--baseline-epochs", type=float, default=4, help="epochs of each baseline tried (4)")
    parser.add_argument("--levels", nargs="*", default=[one.label for one in LEVELS], help="labels; all of them")
    parser.add_argument("--shorter", type=float, default=1, help="multiply every level's epochs, to try it out (1)")
    parser.add_argument("--no-beside", action="store_true", help="leave out the simpler ways")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    given = parser.parse_args()
    unknown = set(given.levels) - {one.label for one in LEVELS}
    if unknown:
        parser.error(f"no level '{unknown.pop()}' (known: {', '.join(one.label for one in LEVELS)})")
    found: dict[str, Any] = {"versions": checkpoint.versions(), "seeds": []}
    for seed in range(given.seeds):
        found["seeds"].append(of_seed(seed, given))
        print(f"seed {seed}: {json.dumps(found['seeds'][-1])}", flush=True)
        if given.json:
            given.json.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found["seeds"]))


def of_seed(seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """Make a split, its baseline and its levels; return everybody's figures."""
    work = given.work / f"seed-{seed}"
    work.mkdir(parents=True, exist_ok=True)
    data = {name: work / "data" / f"{name}.parquet" for name in ("train", "validation", "test", "unlabelled")}
    rows = {"test_rows": given.test_rows, "validation_rows": 500, "max_rows": given.max_rows}
    made(
        work / "data",
        lambda _: prepare_data(given.data, *data.values(), unlabelled_data=OTHER_DOMAINS, seed=seed, **rows),
    )
    base = best_baseline(work, data, given.baseline_epochs, seed)
    own = made(work / "outputs", lambda to: teacher_outputs(base, data["train"], data["unlabelled"], to, seed=seed))
    found: dict[str, Any] = {
        "rows": tasks.read_task(data["train"]).rows,
        "baseline": accuracy(base, data["test"]),
        "floor": floor(data["train"], data["test"]),
        "made_from": checkpoint.read_record(base)["lineage"][-1]["arguments"],
        "levels": {},
    }
    for level in LEVELS:
        if level.label in given.levels:
            found["levels"][level.label] = of_level(level, work, data, base, own, seed, given)
    return found


def best_baseline(work: Path, data: dict[str, Path], epochs: float, seed: int) -> Path:
    """Fine-tune at three rates, then the best of them with frozen embeddings; return the best by validation."""

    def tuned(rate: float, frozen: bool) -> Path:
        return made(
            work / f"base-{rate:g}{'-frozen' if frozen else ''}",
            lambda to: fine_tune(
                "embedded:minilm",
                data["train"],
                data["validation"],
                to,
                epochs=epochs,
                learning_rate=rate,
                freeze_embeddings=frozen,
                seed=seed,
            ),
        )

    def validated(model: Path) -> float:
        return float(checkpoint.read_record(model)["validation"]["accuracy"])

    rates = {rate: tuned(rate, False) for rate in RATES}
    best = max(RATES, key=lambda rate: validated(rates[rate]))
    return max(rates[best], tuned(best, True), key=validated)


def of_level(
    level: Level, work: Path, data: dict[str, Path], base: Path, own: Path, seed: int, given: argparse.Namespace
) -> dict[str, Any]:
    """Make a level by the stages, and its shape in the simpler ways; return their figures."""
    room = work / level.label.replace("/", "-").replace(" ", "_").replace(",", "")
    room.mkdir(exist_ok=True)
    epochs = level.train["epochs"] * given.shorter
    train = {**level.train, "epochs": epochs, "seed": seed}
    short = made(room / "short", lambda to: layer_remove(base, data["validation"], to, keep=level.keep))
    cut = short
    if level.prune:
        cut = made(room / "cut", lambda to: matrix_prune(short, own, to, seed=seed, **level.prune))
    small = made(room / "small", lambda to: distill(cut, own, data["validation"], to, **train))
    stages = checkpoint.read_record(small)["lineage"][len(checkpoint.read_record(base)["lineage"]) :]
    found = {**figures(small, base, data["test"]), "training_seconds": sum(one["seconds"] for one in stages)}
    if level.int8:
        int8 = made(room / "int8", lambda to: quantize(small, data["train"], to, seed=seed))
        found["int8"] = quantized_accuracy(int8, data["test"]) / found["accuracy"]
    if not given.no_beside:
        record, teacher = checkpoint.read_record(cut), checkpoint.read_record(own)
        fresh = made(room / "random.cut", lambda to: random_like(cut, to, seed))
        random = made(room / "random", lambda to: distill(fresh, own, data["validation"], to, **train))
        passes = epochs * len(transfer.open_set(own)) / tasks.read_task(data["train"]).rows
        plain = made(
            room / "plain",
            lambda to: fine_tune(
                str(cut),
                data["train"],
                data["validation"],
                to,
                epochs=passes,
                batch_size=suggested_batch(record, teacher),
                learning_rate=suggested_rate(record, teacher),
                seed=seed,
            ),
        )
        for name, model in (("random", random), ("plain", plain)):
            found[name] = figures(model, base, data["test"])["relative_accuracy"]
    return found


def random_like(model: Path, to: Path, seed: int) -> None:
    """Write a model of the same shape with random weights."""
    set_seed(seed)
    network, tokenizer = checkpoint.load(model)
    to.mkdir()
    checkpoint.save(type(network)(network.config), tokenizer, to, checkpoint.read_record(model))


def quantized_accuracy(model: Path, test: Path) -> float:
    """Return the accuracy of a quantized model on the test rows."""
    predictor = inference.load_predictor(model)
    columns = tasks.read_columns(test)
    logits = [
        predictor.predict(inference.encode(model, columns["text"][start : start + BATCH]))
        for start in range(0, len(columns["text"]), BATCH)
    ]
    return metrics.score("accuracy", np.concatenate(logits), np.array(columns["label"]))


def table(seeds: list[dict[str, Any]]) -> str:
    """Return the means over seeds with their spread, beside the goals."""

    def told(values: list[float]) -> str:
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return f"{100 * statistics.mean(values):.1f} ± {100 * spread:.1f}"

    lines = [
        f"\n{len(seeds)} seeds, {seeds[0]['rows']} training rows; baseline's accuracy "
        f"{told([one['baseline'] for one in seeds])} %, bag of words relative to it "
        f"{told([one['floor'] / one['baseline'] for one in seeds])} %",
        f"{'level, relative accuracy in %':36} {'FLOPs':>6} {'mean':>12} {'goal':>6} {'stretch':>7}  {'random':>12} "
        f"{'labels only':>12} {'training':>8}",
    ]
    for level in LEVELS:
        each = [one["levels"][level.label] for one in seeds if level.label in one["levels"]]
        if not each:
            continue
        mean = statistics.mean(one["relative_accuracy"] for one in each)
        share = max(one["flops_ratio"] for one in each)
        met = "" if mean >= level.goal and share <= level.most_flops else "  missed"
        beside = [told([one[name] for one in each]) if name in each[0] else "" for name in ("random", "plain")]
        minutes = statistics.mean(one["training_seconds"] for one in each) / 60
        lines.append(
            f"{level.label:36} {100 * share:6.1f} {told([one['relative_accuracy'] for one in each]):>12} "
            f"{100 * level.goal:6.1f} {100 * level.stretch:7.1f}  {beside[0]:>12} {beside[1]:>12} {minutes:6.1f} m{met}"
        )
        if "int8" in each[0]:
            kept = [one["int8"] for one in each]
            met = "" if statistics.mean(kept) >= INT8_GOAL else "  missed"
            lines.append(
                f"  int8, of its own accuracy {'':16} {told(kept):>12} {100 * INT8_GOAL:6.1f} {100 * INT8_STRETCH:7.1f}"
                f"{met:>40}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
