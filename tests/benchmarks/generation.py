"""What models that write keep of their score, at 2/3, 1/2 and 1/3 of the layers, and what a written token then costs.

    python tests/benchmarks/generation.py --data DATA --work runs/generation [--only synopsis] [--json generation.json]

DATA holds debian/synopsis and debian/en-de, in Parquet. SmolLM2-135M learns to write a package's one-line synopsis from
its description (ROUGE-L); a T5 that begins at random, with a tokenizer made of the training rows, to translate lines
from English to German (chrF: the claim is that it trains, is cut in both stacks, and writes). Levels are made by the
stages as they are, from one baseline and one set of teacher's outputs. Beside them stands what users do today: layers
dropped and nothing more, and the same layers trained on the answers alone, without a teacher, in as many steps. FLOPs
are of one answer, prompt and written tokens at the baseline's mean lengths, with keys and values kept; joules of a
token are of answers of one forced length, joules of an answer of each model's own (evaluate-emissions).

Hours: a SmolLM2 row takes 30 GFLOPs to learn from. Folders that are there are not made again, nor are figures that
--json holds, so it can be done bit by bit; levels with a goal come first.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arguments import add_tasks, found_before, same_arguments, write_json
from trained import folder_of, made, score
from transformers import AutoModelForSeq2SeqLM, T5Config, T5TokenizerFast, set_seed

from kfp_bonsai.distill.distill import distill
from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions
from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.prepare_data.prepare import prepare_data
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.data.floor import floor
from kfp_bonsai.shared.models import flops
from kfp_bonsai.shared.saved import records
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

SPLITS = ("train", "validation", "test", "unlabelled")
SEED, BATCH = 0, 32
TOKENS, WIDTH, HEADS, INNER, LAYERS = 8000, 256, 4, 1024, 6  # of the T5 from scratch
WHOLE, TASK = "whole", "task"


@dataclass(frozen=True)
class Level:
    """A level: layers that stay, the share of the FLOPs that matrices are pruned to (0: not), tokens, passes, goal.

    Rows a step and rate are distill's own where they are 0.
    """

    label: str
    keep: str
    flops: float = 0.0
    vocabulary: str = WHOLE
    epochs: float = 1.0
    goal: float | None = None
    batch: int = 0
    rate: float = 0.0


@dataclass(frozen=True)
class Given:
    """What a model is to write, and how it is trained.

    Attributes:
        folder: of the data's splits.
        options: of prepare-data.
        model: what it starts from, or what makes that from the training split's texts, in a folder.
        epochs, rate: of fine-tuning the baseline.
        rows: training rows taken; 0 for all.
        levels: what is made.
        alone: the level that is trained again without a teacher.
    """

    folder: str
    options: dict[str, Any]
    model: str | Callable[[Path, Path], None]
    epochs: float
    rate: float
    rows: int
    levels: tuple[Level, ...]
    alone: str


OF_A_DECODER = (
    Level("1/2 layers, own tokens", "1/2", 0.0, TASK, 6.0, 0.98, 16, 5e-4),
    Level("1/2 layers + matrices, own tokens, to 1/3", "1/2", 1 / 3, TASK, 8.0, 0.95, 16, 5e-4),
    Level("2/3 layers + matrices, own tokens, to 1/2", "2/3", 0.5, TASK, 6.0, 0.98),
    Level("2/3 layers", "2/3", epochs=4.0),
    Level("2/3 layers, own tokens", "2/3", vocabulary=TASK, epochs=4.0),
    Level("1/2 layers", "1/2", epochs=6.0),
    Level("1/3 layers", "1/3", epochs=8.0),
    Level("1/3 layers, own tokens", "1/3", vocabulary=TASK, epochs=8.0),
    Level("1/2 layers + matrices to 1/3", "1/2", 1 / 3, epochs=8.0),
)
OF_TWO_STACKS = (
    Level("2/3 layers", "2/3", epochs=2.0),
    Level("1/2 layers", "1/2", epochs=2.0),
    Level("1/3 layers", "1/3", epochs=3.0),
    Level("1/2 layers + matrices to 1/3", "1/2", 1 / 3, epochs=3.0),
)


def t5(train: Path, to: Path) -> None:
    """Write a T5 of 6 layers a stack that begins at random, with a tokenizer made of a split's texts and answers."""
    set_seed(SEED)
    columns = tasks.read_columns(train)
    texts = [text for column in columns.values() for text in column]
    tokenizer = T5TokenizerFast(vocab=None, extra_ids=0).train_new_from_iterator(texts, TOKENS)
    widths = {"d_model": WIDTH, "d_kv": WIDTH // HEADS, "num_heads": HEADS, "d_ff": INNER, "num_layers": LAYERS}
    config = T5Config(
        vocab_size=len(tokenizer),
        num_decoder_layers=LAYERS,
        feed_forward_proj="gated-gelu",
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        **widths,
    )
    AutoModelForSeq2SeqLM.from_config(config).save_pretrained(to)
    tokenizer.save_pretrained(to)


GIVEN = {
    "synopsis": Given(
        "debian/synopsis",
        {"kind": "generation", "text_column": "text", "label_column": "answer", "metric": "rouge_l"},
        "embedded:smollm2",
        epochs=2,
        rate=2e-4,
        rows=3000,
        levels=OF_A_DECODER,
        alone="1/2 layers",
    ),
    "en-de": Given(
        "debian/en-de",
        {"kind": "generation", "text_column": "en", "label_column": "de", "metric": "chrf"},
        t5,
        epochs=12,
        rate=1e-3,
        rows=0,
        levels=OF_TWO_STACKS,
        alone="1/2 layers",
    ),
}


@dataclass(frozen=True)
class Room:
    """A task's folder, its splits and the tokens of the longest prompts."""

    given: Given
    work: Path
    splits: dict[str, Path]
    max_length: int


def run(room: Room, kept: dict[str, Any]) -> Iterator[None]:
    """Make one task's models, as far as they are not there, and note their figures after each."""
    given, splits, work = room.given, room.splits, room.work
    base = made(work / "baseline", lambda to: _baseline(room, to))
    transfer = made(
        work / "transfer",
        lambda to: teacher_outputs(base, splits["train"], splits["unlabelled"], to, augmentations=0, batch_size=BATCH),
    )
    if "baseline" not in kept:
        method = floor(splits["train"], splits["test"])
        kept["baseline"] = {"score": score(base, splits["test"]), "floor": method}
        kept["baseline"] |= {f"{name} rows": tasks.read_task(splits[name]).rows for name in SPLITS[:3]}
        yield
    small = {}
    for level in sorted(given.levels, key=lambda one: one.goal is None):
        folder = folder_of(work, level.label)
        small[level.label] = _level(level, base, transfer, splits["validation"], folder)
        if level.label not in kept:
            kept[level.label] = _figures(small[level.label], base, splits["test"], kept) | {"goal": level.goal}
            yield
    for label, model in _as_today(room, base).items() if given.alone in small else ():
        if label not in kept:
            kept[label] = _figures(model(), base, splits["test"], kept) | {"goal": None}
            yield
    if any("joules a token" not in kept[label] for label in small):
        _measure(room, base, small, kept)
        yield


def _baseline(room: Room, to: Path) -> None:
    given, model = room.given, room.given.model
    if callable(model):
        make = model
        model = str(made(room.work / "random", lambda folder: make(room.splits["train"], folder)))
    fine_tune(
        model,
        room.splits["train"],
        room.splits["validation"],
        to,
        epochs=given.epochs,
        learning_rate=given.rate,
        max_length=room.max_length,
    )


def _level(level: Level, base: Path, transfer: Path, validation: Path, to: Path) -> Path:
    cut = made(to / "short", lambda out: layer_remove(base, validation, out, keep=level.keep, level=level.label))
    if level.flops:
        short, pruning = cut, {"flops": level.flops, "vocabulary": level.vocabulary}
        cut = made(to / "cut", lambda out: matrix_prune(short, transfer, out, **pruning))
    asked = {"epochs": level.epochs, "vocabulary": level.vocabulary}
    asked |= {"batch_size": level.batch, "learning_rate": level.rate}
    return made(to / "small", lambda out: distill(cut, transfer, validation, out, **asked))


def _as_today(room: Room, base: Path) -> dict[str, Callable[[], Path]]:
    """Return what users do without these stages: layers dropped, and those trained on the answers alone."""
    level = next(one for one in room.given.levels if one.label == room.given.alone)
    folder = folder_of(room.work, level.label)

    def trained() -> Path:
        record = records.read_record(folder / "small")
        distilled = record["lineage"][-1]["arguments"]
        return made(
            folder / "alone",
            lambda out: fine_tune(
                str(folder / "short"),
                room.splits["train"],
                room.splits["validation"],
                out,
                epochs=level.epochs,
                learning_rate=distilled["learning_rate"],
                batch_size=distilled["batch_size"],
                max_length=room.max_length,
            ),
        )

    return {
        f"{level.label}, nothing trained": lambda: folder / "short",
        f"{level.label}, trained without a teacher": trained,
    }


def _figures(model: Path, base: Path, test: Path, kept: dict[str, Any]) -> dict[str, Any]:
    found = score(model, test)
    share = flops.ratio(records.read_record(model), records.read_record(base), 1)
    return {"score": found, "relative_score": found / kept["baseline"]["score"], "flops_ratio": share}


def _measure(room: Room, base: Path, small: dict[str, Path], kept: dict[str, Any]) -> None:
    """Note joules, tokens and time of all models, measured side by side on a hundred test rows."""
    file = room.work / "measurement.json"
    given = {"device": "cpu", "batch_size": 8, "max_rows": 96, "time_budget": 1200, "seed": SEED}
    evaluate_emissions(base, [*small.values()], room.splits["train"], room.splits["test"], file, **given)
    measurement = json.loads(file.read_text())
    for label, row in zip(("baseline", *small), measurement["models"], strict=True):
        if row["error"]:
            continue
        kept[label] |= {
            "relative_emission": row["relative_emission"],
            "relative_emission_ci": row["relative_emission_ci"],
            "joules a token": row["writing"]["joules_per_token"],
            "writing": row["writing"],
        }
    kept["control"] = measurement["control"]


def prepared(given: Given, data: Path, work: Path, test_rows: int) -> dict[str, Path]:
    """Return the splits."""
    splits = {split: work / f"{split}.parquet" for split in SPLITS}
    if not splits["unlabelled"].exists():
        prepare_data(
            str(data / given.folder / "train.parquet"),
            *splits.values(),
            test_rows=test_rows,
            validation_rows=min(200, test_rows),
            max_rows=given.rows,
            seed=SEED,
            **given.options,
        )
    return splits


def table(found: dict[str, dict[str, Any]]) -> None:
    """Print what was found."""
    for name, rows in found.items():
        base = rows["baseline"]
        print(f"\n{name}: {base['train rows']:,} rows, score {base['score']:.4f}, floor {base['floor']:.4f}")
        for label, row in rows.items():
            if "relative_score" in row:
                goal = f"goal {row['goal']:.0%}" if row["goal"] else ""
                energy = f"emission {row['relative_emission']:.1%}" if "relative_emission" in row else ""
                print(f"  {label:44} {row['relative_score']:7.1%} at {row['flops_ratio']:6.1%}  {energy:16} {goal}")


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_tasks(parser, GIVEN)
    parser.add_argument("--rows", type=int, help="training rows; the task's own number if not given")
    parser.add_argument("--test-rows", type=int, default=500, help="test rows (500)")
    parser.add_argument("--max-length", type=int, default=96, help="tokens at which texts and answers are cut (96)")
    parser.add_argument("--levels", nargs="+", help="labels of the levels that are made and measured; all of them")
    parser.add_argument("--model", help="a model to begin from instead, to try the script with")
    given = parser.parse_args(arguments)
    known = {each.label for name in given.only for each in GIVEN[name].levels}
    if unknown := {*(given.levels or ())} - known:
        parser.error(f"--levels: no {', '.join(sorted(unknown))} among {', '.join(sorted(known))}")
    found = found_before(given.json)
    for name in given.only:
        one = GIVEN[name] if given.rows is None else replace(GIVEN[name], rows=given.rows)
        one = replace(one, model=given.model) if given.model else one
        if given.levels:
            one = replace(one, levels=tuple(each for each in one.levels if each.label in given.levels))
        work = given.work / name
        work.mkdir(parents=True, exist_ok=True)
        own = {"rows": one.rows, "test_rows": given.test_rows, "max_length": given.max_length}
        same_arguments(work / "arguments.json", own)
        splits = prepared(one, given.data, work, given.test_rows)
        for _ in run(Room(one, work, splits, given.max_length), found.setdefault(name, {})):
            write_json(given.json, {"versions": records.versions(), "found": found})
    table(found)
    levels = [row for each in found.values() for row in each.values() if row.get("goal")]
    return int(any(row["relative_score"] < row["goal"] for row in levels))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
