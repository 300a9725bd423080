"""How much of its score each kind of task keeps, with MiniLM on real data, at 2/3, 1/3 and 12 % of the FLOPs.

    python tests/benchmarks/kinds.py --data DATA --work runs/kinds [--only tags] [--json kinds.json]

DATA holds the folders conll2003, wnut17, xquad-en and debian/{tags,sections,synopsis}, in the columns that `datasets`
gives. Questions are split by paragraph; a ranking is made of Debian's descriptions: the query is a package's one-line
synopsis, the documents its own description and 19 of the same section. Models are made by the stages as they are, and
scored on the test rows by each task's metric; the floor is what next to nothing reaches (see a kind's `floor`). FLOPs
are of every matrix product at the mean length of the test rows, windows included. Of large tasks so many rows are
labelled as two cores train in an hour, and other training rows are text without labels. Folders that are there are not
made again, nor are figures that --json holds: so it can be done bit by bit, a task or a level at a time. Levels with a
goal come first. With --emission, those that are there are measured side by side with their baseline, on a machine that
does nothing else.
"""

import argparse
import json
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from arguments import add_tasks, found_before, write_json
from trained import folder_of, made, mean_length, score

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
BATCH, OTHERS, SEED = 64, 19, 0


@dataclass(frozen=True)
class Level:
    """A level: layers that stay, the share of the FLOPs that matrices are pruned to (0: not), passes over the text."""

    label: str
    keep: str
    flops: float
    epochs: float


LEVELS = (
    Level("2/3 layers", "2/3", 0.0, 1.0),
    Level("1/2 layers", "1/2", 0.0, 1.5),
    Level("1/3 layers", "1/3", 0.0, 2.0),
    Level("1/2 layers + matrices to 12 %", "1/2", 0.12, 3.0),
)
DEEPER = (
    *LEVELS[:2],
    Level("1/2 layers + matrices to 1/3", "1/2", 1 / 3, 2.0),
    LEVELS[3],
    LEVELS[2],
    Level("2/3 layers + matrices to 1/3, 4 passes", "2/3", 1 / 3, 4.0),
    Level("2/3 layers + matrices to 12 %, 6 passes", "2/3", 0.12, 6.0),
)
OF_QUESTIONS = (
    LEVELS[0],
    Level("2/3 layers + matrices to 45 %", "2/3", 0.45, 6.0),
)


@dataclass(frozen=True)
class Given:
    """Real data of a kind, and what is wanted of the levels, as shares of the baseline's score.

    Attributes:
        files: gives the files of the splits, from the folder of the data and one to write to.
        options: of prepare-data.
        epochs: of fine-tuning the baseline.
        goals: the share of its score that each level is to keep.
        rows: so many training rows are labelled, and as many others are text without labels; 0 takes all as labelled.
        augmentations: changed copies of each row, as in teacher-outputs.
        unlabelled: more text without labels, as prepare-data takes it.
        levels: what is made.
    """

    files: Callable[[Path, Path], dict[str, str]]
    options: dict[str, Any]
    epochs: float
    goals: tuple[float | None, ...]
    rows: int = 0
    augmentations: int = -1
    unlabelled: str = ""
    levels: tuple[Level, ...] = LEVELS


OF_NAMES = (0.995, None, 0.985, 0.97, None, 0.985, 0.97)
NAMES = {"augmentations": 1, "unlabelled": "embedded:tweets,embedded:news", "levels": DEEPER}


def _as_it_is(folder: str) -> Callable[[Path, Path], dict[str, str]]:
    def files(data: Path, _work: Path) -> dict[str, str]:
        return {name: str(data / folder / f"{name}.parquet") for name in ("train", "validation", "test")}

    return files


def _by_paragraph(data: Path, work: Path) -> dict[str, str]:
    """Split SQuAD's columns so that no paragraph is in two parts: of ten, seven to train on, one and two others."""
    table = pq.read_table(data / "xquad-en" / "validation.parquet")
    paragraphs = sorted(set(table["context"].to_pylist()))
    random.Random(SEED).shuffle(paragraphs)
    part = {text: number * 10 // len(paragraphs) for number, text in enumerate(paragraphs)}
    numbers = np.array([part[text] for text in table["context"].to_pylist()])
    found = {"train": numbers < 7, "validation": numbers == 7, "test": numbers > 7}
    for name, chosen in found.items():
        pq.write_table(table.filter(pa.array(chosen)), work / f"{name}.parquet")
    return {name: str(work / f"{name}.parquet") for name in found}


def _by_section(data: Path, work: Path) -> dict[str, str]:
    """Make rankings, in the splits that there are: to each synopsis its own description and others of its section."""
    for name, most in (("train", 300), ("validation", 100), ("test", 400)):
        lines = pq.read_table(data / "debian" / "synopsis" / f"{name}.parquet").to_pydict()
        known = pq.read_table(data / "debian" / "sections" / f"{name}.parquet").to_pydict()
        section = dict(zip(known["text"], known["label"], strict=True))
        alike: dict[str, list[str]] = defaultdict(list)
        for text in lines["text"]:
            alike[section.get(text, "")].append(text)
        chance, columns = random.Random(SEED), {"query": [], "document": [], "relevance": []}
        asked = list(zip(lines["answer"], lines["text"], strict=True))
        chance.shuffle(asked)
        for query, text in [pair for pair in asked if len(alike[section.get(pair[1], "")]) > OTHERS][:most]:
            others = chance.sample([one for one in alike[section.get(text, "")] if one != text], OTHERS)
            columns["query"] += [query] * (OTHERS + 1)
            columns["document"] += [text, *others]
            columns["relevance"] += [1.0, *[0.0] * OTHERS]
        pq.write_table(pa.table(columns), work / f"{name}.parquet")
    return {name: str(work / f"{name}.parquet") for name in ("train", "validation", "test")}


TASKS = {
    "conll2003": Given(_as_it_is("conll2003"), {"kind": "tokens"}, 4, OF_NAMES, **NAMES),
    "wnut17": Given(_as_it_is("wnut17"), {"kind": "tokens"}, 6, OF_NAMES, **NAMES),
    "tags": Given(_as_it_is("debian/tags"), {"kind": "multi-label"}, 4, (0.99, None, 0.98, 0.97), 4000, 2),
    "sections": Given(_as_it_is("debian/sections"), {"kind": "classification"}, 3, (0.995, None, 0.99, 0.98), 6000, 2),
    "xquad-en": Given(_by_paragraph, {"kind": "questions"}, 8, (None, 0.99), levels=OF_QUESTIONS),
    "synopsis": Given(_by_section, {"kind": "ranking"}, 2, (None, None, 0.99, None), augmentations=2),
}


def run(given: Given, data: Path, work: Path, wanted: bool, kept: dict[str, Any]) -> Iterator[None]:
    """Make one task's models, as far as they are not there, and note their figures.

    Args:
        given: its data and goals.
        data: where the real data are.
        work: the folder of its models.
        wanted: make the levels that have a goal; else those that have none.
        kept: figures by level, which are added to.

    Yields:
        After each figure.
    """
    work.mkdir(parents=True, exist_ok=True)
    splits = {split: work / f"prepared-{split}.parquet" for split in SPLITS}
    if not splits["unlabelled"].exists():
        (work / "made").mkdir(exist_ok=True)
        files = given.files(data, work / "made")
        train, without_labels = _parted(files["train"], given.rows, work / "made")
        prepare_data(
            train,
            *splits.values(),
            validation_data=files["validation"],
            test_data=files["test"],
            unlabelled_data=",".join(filter(None, (without_labels, given.unlabelled))),
            seed=SEED,
            **given.options,
        )
    base = made(
        work / "baseline",
        lambda to: fine_tune("embedded:minilm", splits["train"], splits["validation"], to, epochs=given.epochs),
    )
    transfer = made(work / "transfer", lambda to: _taught(base, splits, given.augmentations, to))
    if "baseline" not in kept:
        found, method = score(base, splits["test"]), floor(splits["train"], splits["test"])
        kept["baseline"] = {"score": found, "floor": method, "rows": tasks.read_task(splits["train"]).rows}
        yield
    for level, goal in zip(given.levels, given.goals, strict=True):
        if level.label in kept or (goal is not None) != wanted:
            continue
        small = _level(level, base, transfer, splits["validation"], folder_of(work, level.label))
        record, above = records.read_record(small), records.read_record(base)
        found = score(small, splits["test"])
        kept[level.label] = {
            "score": found,
            "relative_score": found / kept["baseline"]["score"],
            "flops_ratio": flops.ratio(record, above, mean_length(base, splits["test"])),
            "goal": goal,
        }
        yield


def measure(given: Given, work: Path, kept: dict[str, Any]) -> None:
    """Note the emission of the levels that are there, measured side by side with their baseline on the test rows."""
    file, splits = work / "measurement.json", {split: work / f"prepared-{split}.parquet" for split in SPLITS}
    labels = [level.label for level in given.levels if level.label in kept]
    small = [folder_of(work, label) / "small" for label in labels]
    evaluate_emissions(
        work / "baseline", small, splits["train"], splits["test"], file, device="cpu", time_budget=600, seed=SEED
    )
    measurement = json.loads(file.read_text())
    for label, row in zip(("baseline", *labels), measurement["models"], strict=True):
        if not row["error"]:
            kept[label] |= {name: row[name] for name in ("relative_emission", "relative_emission_ci")}
    kept["control"] = measurement["control"]


def _parted(train: str, rows: int, made: Path) -> tuple[str, str]:
    """Return a file of so many training rows, and one of the texts of as many others; all of them and "" for 0."""
    if not rows:
        return train, ""
    table = pq.read_table(train)
    order = np.random.default_rng(SEED).permutation(len(table))
    pq.write_table(table.take(order[:rows]), made / "labelled.parquet")
    pq.write_table(table.take(order[rows : 2 * rows]).select(["text"]), made / "texts.parquet")
    return str(made / "labelled.parquet"), str(made / "texts.parquet")


def _taught(base: Path, splits: dict[str, Path], augmentations: int, to: Path) -> dict[str, Any]:
    return teacher_outputs(base, splits["train"], splits["unlabelled"], to, augmentations=augmentations)


def _level(level: Level, base: Path, transfer: Path, validation: Path, to: Path) -> Path:
    short = made(to / "short", lambda out: layer_remove(base, validation, out, keep=level.keep))
    if level.flops:
        cut = made(to / "cut", lambda out: matrix_prune(short, transfer, out, flops=level.flops, shape="free"))
    else:
        cut = short
    return made(to / "small", lambda out: distill(cut, transfer, validation, out, epochs=level.epochs))


def table(found: dict[str, dict[str, Any]]) -> None:
    """Print what was found."""
    for name, levels in found.items():
        base = levels["baseline"]
        print(f"\n{name}: {base['rows']:,} rows, score {base['score']:.4f}, floor {base['floor']:.4f}")
        for level in TASKS[name].levels:
            if row := levels.get(level.label):
                goal = f"goal {row['goal']:.1%}" if row["goal"] else ""
                energy = f"emission {row['relative_emission']:.1%}" if "relative_emission" in row else ""
                print(
                    f"  {level.label:24} {row['relative_score']:7.1%} at {row['flops_ratio']:6.1%}  {energy:16} {goal}"
                )


def main(arguments: Sequence[str]) -> int:
    """Run the benchmark; return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_tasks(parser, TASKS)
    parser.add_argument("--emission", action="store_true", help="measure what is there, and make nothing")
    given = parser.parse_args(arguments)
    given.work.mkdir(parents=True, exist_ok=True)
    found = found_before(given.json)
    if given.emission:
        for name in given.only:
            measure(TASKS[name], given.work / name, found[name])
            write_json(given.json, {"versions": records.versions(), "found": found})
    for wanted in () if given.emission else (True, False):
        for name in given.only:
            for _ in run(TASKS[name], given.data, given.work / name, wanted, found.setdefault(name, {})):
                write_json(given.json, {"versions": records.versions(), "found": found})
    table(found)
    levels = [row for each in found.values() for row in each.values() if row.get("goal")]
    return int(any(row["relative_score"] < row["goal"] for row in levels))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
