"""How much accuracy each level keeps: our recipe over seeds, the goals, and the same FLOPs spent in simpler ways.

    python tests/benchmarks/quality.py --work runs/quality [--seeds 0 1 2] [--json quality.json]      # hours on 2 cores
    python tests/benchmarks/quality.py --data embedded:amazon-reviews --test-rows 1000 --work runs/small ...
    python tests/benchmarks/quality.py --data reviews.csv --unlabelled more.csv --work runs/mine ...

Every seed has its own split of the data (2,000 test rows, never seen, not as unlabelled text either), and its own
baseline: three learning rates, up to four epochs, embeddings frozen or trained, the best of them by validation. Its
levels are made by the stages as they are. FLOPs are of every matrix product that is computed, at the test rows' mean
length, on both sides alike. A free shape leaves out the tokens of its last layer that nobody reads, and a stock
baseline computes them; for the level "both sides" the baseline leaves them out too, which loses it nothing. "training"
is what making a level took after the baseline, with as many threads as torch had, its part of the teacher's outputs not
included. The score is the task's metric, of classes the accuracy; beside it stands how far a model's classes diverge
from the baseline's (KL, in nats a test row), which tells models apart that are right as often.

Beside each level, in as many steps as its distillation: its shape from random weights, distilled (what the teacher's
weights are worth); its cut weights, trained on the labels alone (what distillation is worth; where matrices were
pruned, that cut was already guided by the teacher); for one level Torch-Pruning at its FLOPs, the best of two rates.
What is trained on labels alone keeps its best epoch by validation. --ablations takes one ingredient out at a time,
and trains once more with another seed, which is what chance is worth.
Folders that are there already are not made again, nor are figures that --json holds; what was made with other arguments
is refused, and a level's figures of other settings are made anew. So it can be done bit by bit: a seed or a level now,
what stands beside it another day, on another machine (of a seed's baselines, only the best one is trained again there).
"""

import argparse
import inspect
import json
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

from arguments import json_file, same_arguments, write_json
from beside import by_torch_pruning, random_like
from trained import accuracy, figures, made, mean_length

from kfp_bonsai.distill.distill import distill, suggested_batch, suggested_rate
from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.pipelines.local.inputs import fingerprint
from kfp_bonsai.prepare_data.prepare import prepare_data
from kfp_bonsai.quantize.quantize import quantize
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.data.embedded_texts import DATASETS
from kfp_bonsai.shared.data.floor import floor
from kfp_bonsai.shared.models import flops, one_token, surgery
from kfp_bonsai.shared.saved import checkpoint, records
from kfp_bonsai.shared.training import trainer, transfer
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

RATES = (5e-5, 1e-4, 2e-4)
BATCH = 64
FEW_ROWS, FEW_ROWS_GOAL, THIRD, SMALL = 5000, 0.96, 0.34, 0.10
ANY_SHAPE_GOAL, ANY_SHAPE_STRETCH = 0.99, 1.0  # of the best level that takes a third of the FLOPs at most
Options = dict[str, Any]


@dataclass(frozen=True)
class Level:
    """A level, and what we want of it.

    Attributes:
        label: its name.
        most_flops: the most FLOPs it may take, relative to the baseline.
        goal: relative accuracy wanted, as a mean over seeds; nothing for a shape that is tried for the best of any.
        stretch: relative accuracy hoped for.
        keep: layers, as for layer-remove.
        prune: options of matrix-prune; nothing for no pruning.
        train: options of distill.
        both_sides: relative to a baseline that leaves out what nobody reads.
        torch_pruning: whether Torch-Pruning is tried at its FLOPs.
    """

    label: str
    most_flops: float
    goal: float | None
    stretch: float | None
    keep: str
    prune: Options
    train: Options
    both_sides: bool = False
    torch_pruning: bool = False


@dataclass(frozen=True)
class Change:
    """What an ablation changes of a level: options of its stages, and whether every token is computed."""

    layers: Options = field(default_factory=dict)
    outputs: Options = field(default_factory=dict)
    prune: Options = field(default_factory=dict)
    train: Options = field(default_factory=dict)
    every_token: bool = False

    def of_shape(self) -> bool:
        """Return whether it changes the shape that is trained, too."""
        return bool(self.layers or self.outputs or self.prune or self.every_token)


SHORT, LONG = {"epochs": 1.0, "learning_rate": 5e-4}, {"epochs": 1.5, "learning_rate": 5e-4}
LEVELS = (
    Level("2/3 layers", 0.67, 1.0, 1.005, "2/3", {}, {"epochs": 0.7, "learning_rate": 2e-4}),
    Level("1/3 layers", THIRD, 0.98, 0.99, "1/3", {}, SHORT),
    Level("3 layers, free", THIRD, None, None, "1/2", {"flops": 0.335}, {**SHORT, "epochs": 0.65}),
    Level("1/3 layers + matrix pruning, free", SMALL, 0.98, 0.995, "1/3", {"flops": 0.0995}, LONG),
    Level(
        "1/3 layers + matrix pruning, stock",
        SMALL,
        0.97,
        0.98,
        "1/3",
        {"flops": 0.0995, "shape": "stock"},
        LONG,
        torch_pruning=True,
    ),
    Level("3 layers, free, both sides", SMALL, 0.985, 1.0, "1/2", {"flops": 0.0995}, LONG, both_sides=True),
    Level("3 layers to a tenth, free", SMALL, 0.985, 1.0, "1/2", {"flops": 0.0995}, LONG),
    Level("4 layers to a tenth, free", SMALL, 0.985, 1.0, "2/3", {"flops": 0.0995}, LONG),
    Level("4 layers to a tenth, stock", SMALL, 0.985, 1.0, "2/3", {"flops": 0.0995, "shape": "stock"}, LONG),
)
ABLATED = LEVELS[3]
ABLATIONS = {
    "nothing, another seed of training": Change(train={"seed": 100}),
    "layers spread evenly": Change(layers={"scheme": "even"}),
    "the lowest layers": Change(layers={"scheme": "bottom"}),
    "no hidden states": Change(prune={"hidden_weight": 0.0}, train={"hidden_weight": 0.0}),
    "hidden states a third": Change(prune={"hidden_weight": 3.0}, train={"hidden_weight": 3.0}),
    "no labels": Change(train={"label_weight": 0.0}),
    "no unlabelled text": Change(outputs={"unlabelled_rows": 0}),
    "no changed copies": Change(outputs={"augmentations": 0}),
    "one changed copy": Change(outputs={"augmentations": 1}),
    "cut at once": Change(prune={"steps": 20}),
    "temperature 1": Change(train={"temperature": 1.0}),
    "twice the rate": Change(train={"learning_rate": 1e-3}),
    "every token computed": Change(every_token=True),
}
INT8_GOAL, INT8_STRETCH = 0.995, 1.0


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/quality"), help="folder for the models; resumed from")
    parser.add_argument("--data", default="embedded:movie-reviews", help="labelled rows (embedded:movie-reviews)")
    parser.add_argument(
        "--unlabelled",
        default=None,
        help="text without labels, as for --unlabelled-data, '' for none (all other embedded data sets)",
    )
    parser.add_argument("--test-rows", type=int, default=2000, help="rows of the test split (2000)")
    parser.add_argument("--validation-rows", type=int, default=500, help="rows of the validation split (500)")
    parser.add_argument("--max-rows", type=int, default=0, help="training rows at most; 0 for all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds, each with its split (0 1 2)")
    parser.add_argument("--baseline-epochs", type=float, default=4, help="epochs of each baseline tried (4)")
    parser.add_argument("--levels", nargs="+", default=[one.label for one in LEVELS], help="labels; all of them")
    parser.add_argument("--shorter", type=float, default=1, help="multiply every level's epochs, to try it out (1)")
    parser.add_argument("--no-beside", action="store_true", help="leave out the simpler ways")
    parser.add_argument(
        "--ablations",
        nargs="*",
        metavar="INGREDIENT",
        help=f"take out one ingredient of '{ABLATED.label}' at a time; all of them: {', '.join(ABLATIONS)}",
    )
    parser.add_argument("--json", type=json_file, help="file to write the figures to")
    given = parser.parse_args()
    given.ablations = [] if given.ablations is None else given.ablations or list(ABLATIONS)
    known = {one.label for one in LEVELS} | set(ABLATIONS)
    for name in {*given.levels, *given.ablations} - known:
        parser.error(f"no level or ingredient '{name}' (known: {', '.join(sorted(known))})")
    pruned = any(one.torch_pruning and one.label in given.levels for one in LEVELS)
    if pruned and not given.no_beside and find_spec("torch_pruning") is None:
        parser.error("Torch-Pruning is not installed: `make install`, or leave the simpler ways out with --no-beside")
    kept = earlier(given)

    def note() -> None:
        write_json(given.json, {"versions": records.versions(), "arguments": asked(given), "seeds": kept})

    try:
        for seed in given.seeds:
            of_seed(seed, given, kept.setdefault(str(seed), {"levels": {}, "ablations": {}}), note)
    except BonsaiError as error:
        raise SystemExit(f"error: {error}") from error
    print(table([kept[str(seed)] for seed in given.seeds]))


def asked(given: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments that make a figure what it is; those that came later, where they are given."""
    found = {name: getattr(given, name) for name in ("data", "test_rows", "max_rows", "baseline_epochs", "shorter")}
    if given.validation_rows != 500:
        found["validation_rows"] = given.validation_rows
    if given.unlabelled is not None:
        found["unlabelled"] = given.unlabelled
    files = fingerprint(given.data, *(given.unlabelled or "").split(","))
    return found | ({"files": files} if files else {})


def earlier(given: argparse.Namespace) -> dict[str, Any]:
    """Return the figures that earlier runs left in --json, by seed, without those of other settings."""
    if not given.json or not given.json.read_text().strip():
        return {}
    found = json.loads(given.json.read_text())
    if found["arguments"] != asked(given):
        raise SystemExit(f"{given.json} holds figures of other arguments: give another file")
    today = {one.label: settings(one) for one in LEVELS}
    for one in found["seeds"].values():
        one["levels"] = {
            label: own for label, own in one["levels"].items() if label in today and own.get("settings") == today[label]
        }
        if ABLATED.label not in one["levels"]:  # what each ingredient is worth is told against it
            one["ablations"] = {}
    return found["seeds"]


@dataclass(frozen=True)
class Room:
    """Where a seed's models are, and what they are made from."""

    work: Path
    data: dict[str, Path]
    base: Path
    seed: int
    shorter: float

    def outputs(self, **changed: Any) -> Path:
        """Return the teacher's outputs."""
        name = "-".join(["outputs", *(f"{key}-{value}" for key, value in changed.items())])
        data = self.data
        return made(
            self.work / name,
            lambda to: teacher_outputs(
                self.base, data["train"], data["unlabelled"], to, seed=self.seed, batch_size=BATCH, **changed
            ),
        )


def of_seed(seed: int, given: argparse.Namespace, found: dict[str, Any], note: Callable[[], None]) -> None:
    """Make a split, its baseline and its levels, and add everybody's figures to what was found; note each."""
    labels = {*given.levels, *([ABLATED.label] if given.ablations else [])}
    levels = [one for one in LEVELS if one.label in labels and lacks(one, found, not given.no_beside)]
    ablations = {name: ABLATIONS[name] for name in given.ablations if name not in found["ablations"]}
    if not levels and not ablations:
        return
    work = given.work / f"seed-{seed}"
    work.mkdir(parents=True, exist_ok=True)
    same_arguments(work / "arguments.json", asked(given))
    data = {name: work / "data" / f"{name}.parquet" for name in ("train", "validation", "test", "unlabelled")}
    rows = {name: getattr(given, name) for name in ("test_rows", "validation_rows", "max_rows")}
    others = ",".join(f"embedded:{name}" for name in DATASETS if f"embedded:{name}" != given.data)
    more = others if given.unlabelled is None else given.unlabelled
    if not data["unlabelled"].exists():  # which is written last
        prepare_data(given.data, *data.values(), unlabelled_data=more, seed=seed, **rows)
    base = best_baseline(work, data, given.baseline_epochs, seed, found.get("made_from"))
    room = Room(work, data, base, seed, given.shorter)
    found |= {
        "rows": tasks.read_task(data["train"]).rows,
        "baseline": accuracy(base, data["test"]),
        "floor": floor(data["train"], data["test"]),
        "made_from": records.read_record(base)["lineage"][-1]["arguments"],
    }
    for level in levels:
        found["levels"][level.label] = of_level(level, room, not given.no_beside)
        print(f"seed {seed}, {level.label}: {json.dumps(found['levels'][level.label])}", flush=True)
        note()
    for name, change in ablations.items():
        found["ablations"][name] = figures(student(ABLATED, room, name, change), base, data["test"])
        print(f"seed {seed}, {name}: {json.dumps(found['ablations'][name])}", flush=True)
        note()


def lacks(level: Level, found: dict[str, Any], beside: bool) -> bool:
    """Return whether a level's figures are not all there."""
    own = found["levels"].get(level.label)
    return own is None or (beside and not {"random", "plain"} <= set(own))


def settings(level: Level) -> Options:
    """Return what makes a level's figures what they are: its options, and the stages' defaults of the others."""
    return {
        "keep": level.keep,
        "prune": {**defaults(matrix_prune), **level.prune} if level.prune else {},
        "train": {**defaults(distill), **level.train},
        "both_sides": level.both_sides,
    }


def defaults(stage: Callable[..., Any]) -> Options:
    """Return the options of a stage that have a default."""
    options = inspect.signature(stage).parameters.values()
    return {one.name: one.default for one in options if one.default is not one.empty}


def best_baseline(work: Path, data: dict[str, Path], epochs: float, seed: int, known: Options | None) -> Path:
    """Fine-tune at three rates, then the best of them with frozen embeddings; return the best by validation.

    An earlier run that tried them all left the arguments of the best one: then only that one is made.
    """

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
        return float(next(iter(records.read_record(model)["validation"].values())))

    if known:
        return tuned(known["learning_rate"], known["freeze_embeddings"])
    rates = {rate: tuned(rate, False) for rate in RATES}
    best = max(RATES, key=lambda rate: validated(rates[rate]))
    return max(rates[best], tuned(best, True), key=validated)


def folder_of(level: Level, room: Room) -> Path:
    """Return a level's folder; one that was made with other settings is refused."""
    folder = room.work / level.label.replace("/", "-").replace(" ", "_").replace(",", "")
    folder.mkdir(exist_ok=True)
    same_arguments(folder / "settings.json", settings(level))
    return folder


def asked_flops(level: Level, room: Room) -> Options:
    """Return matrix-prune's options, the share of FLOPs as one of the baseline as it is."""
    if not level.both_sides:
        return level.prune
    return {**level.prune, "flops": level.prune["flops"] * flops.ratio(*leaner(room), mean_length_of(room))}


def leaner(room: Room) -> tuple[Options, Options]:
    """Return records of the baseline without what nobody reads, and as it is."""
    network, _ = checkpoint.load(room.base)
    free = surgery.cut(network, [{} for _ in network.base_model.encoder.layer], free=True)
    return {"flops": flops.count(free).as_dict()}, {"flops": flops.count(network).as_dict()}


def mean_length_of(room: Room) -> float:
    """Return the mean tokens of a test row."""
    return mean_length(room.base, room.data["test"])


def student(level: Level, room: Room, name: str = "small", change: Change | None = None) -> Path:
    """Make a level by the stages, with what an ablation changes in as many steps."""
    change = change or Change()
    home, own = folder_of(level, room), room.outputs()
    outputs = room.outputs(**change.outputs)
    epochs = level.train["epochs"] * room.shorter * len(transfer.open_set(own)) / len(transfer.open_set(outputs))
    train = {**level.train, "seed": room.seed, **change.train, "epochs": epochs}
    layers = {"keep": level.keep, "seed": room.seed, **change.layers}
    cut = short = made(
        home / (f"short-{name}" if change.layers else "short"),
        lambda to: layer_remove(room.base, room.data["validation"], to, **layers),
    )
    if level.prune:
        prune = {**asked_flops(level, room), "seed": room.seed, **change.prune}
        without = patch.object(one_token, "can", lambda *_: False) if change.every_token else nullcontext()
        with without:
            cut = made(
                home / f"cut-{name if change.of_shape() else 'small'}",
                lambda to: matrix_prune(short, outputs, to, **prune),
            )
    return made(home / name, lambda to: distill(cut, outputs, room.data["validation"], to, **train))


def of_level(level: Level, room: Room, beside: bool) -> dict[str, Any]:
    """Make a level, and its shape in the simpler ways; return their figures."""
    small, home, test = student(level, room), folder_of(level, room), room.data["test"]
    of_base = len(records.read_record(room.base)["lineage"])
    stages = [one for one in records.read_record(small)["lineage"][of_base:] if one["stage"] != "teacher-outputs"]
    found = {
        "settings": settings(level),
        **figures(small, room.base, test),
        "training_seconds": sum(one["seconds"] for one in stages),
    }
    if level.both_sides:
        found["flops_ratio"] /= flops.ratio(*leaner(room), mean_length_of(room))
    int8 = made(home / "int8", lambda to: quantize(small, room.data["train"], to, seed=room.seed))
    found["int8"] = accuracy(int8, test) / found["accuracy"]
    if beside:
        found |= simpler(level, room)
    return found


def simpler(level: Level, room: Room) -> dict[str, float]:
    """Return the relative accuracies of the simpler ways."""
    home, data, own = folder_of(level, room), room.data, room.outputs()
    cut = home / ("cut-small" if level.prune else "short")
    record, teacher = records.read_record(cut), records.read_record(own)
    epochs = level.train["epochs"] * room.shorter
    passes = epochs * len(transfer.open_set(own)) / tasks.read_task(data["train"]).rows
    recipe = trainer.Recipe(
        "beside", passes, suggested_rate(record, teacher), suggested_batch(record, teacher), seed=room.seed
    )
    fresh = made(home / "random.cut", lambda to: random_like(cut, to, room.seed))
    train = {**level.train, "epochs": epochs, "seed": room.seed}
    models: dict[str, tuple[Path, Callable[[Path], Any]]] = {
        "random": (home / "random", lambda to: distill(fresh, own, data["validation"], to, **train)),
        "plain": (
            home / "plain",
            lambda to: fine_tune(
                str(cut),
                data["train"],
                data["validation"],
                to,
                epochs=passes,
                batch_size=recipe.batch_size,
                learning_rate=recipe.learning_rate,
                seed=room.seed,
            ),
        ),
    }
    found = {name: figures(made(*one), room.base, data["test"])["relative_accuracy"] for name, one in models.items()}
    if level.torch_pruning:
        rates = (max(RATES), recipe.learning_rate)
        theirs = by_torch_pruning(room.base, data, home / "torch_pruning.json", level.prune["flops"], recipe, rates)
        found["torch_pruning"] = theirs["accuracy"] / accuracy(room.base, data["test"])
    return found


def told(values: list[float]) -> str:
    """Return a mean and its spread in percent."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{100 * statistics.mean(values):.1f} ± {100 * spread:.1f}"


def table(seeds: list[dict[str, Any]]) -> str:
    """Return the means over seeds with their spread, beside the goals."""
    few = seeds[0]["rows"] < FEW_ROWS
    lines = [
        f"\n{len(seeds)} seeds, {seeds[0]['rows']} training rows; baseline's accuracy "
        f"{told([one['baseline'] for one in seeds])} %, bag of words relative to it "
        f"{told([one['floor'] / one['baseline'] for one in seeds])} %",
        f"{'level, relative accuracy in %':36} {'FLOPs':>6} {'mean':>12} {'goal':>6} {'stretch':>7} {'':6} {'KL':>6}  "
        f"{'random':>12} {'labels only':>12} {'Torch-Pruning':>13} {'training':>8}",
    ]
    thirds: list[list[float]] = []
    for level in LEVELS:
        each = [one["levels"][level.label] for one in seeds if level.label in one["levels"]]
        if not each:
            continue
        share, kept = max(one["flops_ratio"] for one in each), [one["relative_accuracy"] for one in each]
        if level.most_flops == THIRD and share <= THIRD:
            thirds.append(kept)
        goal = FEW_ROWS_GOAL if few and level.most_flops == SMALL else level.goal
        names = ("random", "plain", "torch_pruning")
        found = [[one[name] for one in each if name in one] for name in names]
        beside = [told(values) if values else "" for values in found]
        minutes = statistics.mean(one["training_seconds"] for one in each) / 60
        lines += [
            f"{level.label:36} {100 * share:6.1f} {beside_goal(kept, goal, level.stretch)} {diverged(each):>6}  "
            f"{beside[0]:>12} {beside[1]:>12} {beside[2]:>13} {minutes:6.1f} m"
            f"{'' if share <= level.most_flops else '  too many FLOPs'}",
            f"{'  int8, of its own accuracy':43} {beside_goal([one['int8'] for one in each], INT8_GOAL, INT8_STRETCH)}",
        ]
    if thirds:
        best = max(thirds, key=statistics.mean)
        lines.append(f"{'best of any shape at a third':43} {beside_goal(best, ANY_SHAPE_GOAL, ANY_SHAPE_STRETCH)}")
    return "\n".join(lines + ablated(seeds))


def diverged(each: list[dict[str, Any]]) -> str:
    """Return the mean divergence, where it was measured."""
    found = [one["divergence"] for one in each if "divergence" in one]
    return f"{statistics.mean(found):.3f}" if found else ""


def beside_goal(values: list[float], goal: float | None, stretch: float | None) -> str:
    """Return a mean and its spread beside what is wanted, and whether it is missed."""
    if goal is None or stretch is None:
        return f"{told(values):>12} {'':6} {'':7} {'':6}"
    missed = "" if statistics.mean(values) >= goal else "missed"
    return f"{told(values):>12} {100 * goal:6.1f} {100 * stretch:7.1f} {missed:6}"


def ablated(seeds: list[dict[str, Any]]) -> list[str]:
    """Return what each ingredient is worth, as lines."""
    lines = []
    for name in ABLATIONS:
        there = [one for one in seeds if name in one["ablations"]]
        if not there:
            continue
        without = [one["ablations"][name] for one in there]
        whole = [one["levels"][ABLATED.label] for one in there]
        kept, all_kept = ([one["relative_accuracy"] for one in each] for each in (without, whole))
        change = f"{100 * (statistics.mean(kept) - statistics.mean(all_kept)):+.1f} points"
        further = f"KL {diverged(without)} instead of {diverged(whole)}" if diverged(whole) else ""
        lines.append(f"{name:36} {told(kept):>19}  {change:>12}  {further}  ({len(there)} seeds)")
    return [f"\n{ABLATED.label}, one ingredient taken out, in as many steps:", *lines] if lines else []


if __name__ == "__main__":
    main()
