"""Small data sets of each kind of task, by rules that a small model can learn from the words of tiny.py."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tiny import BAD, GOOD, PLAIN

from kfp_bonsai.shared.data.tasks import schema
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.kinds.task import Task

SIZES = {"train": 320, "validation": 64, "test": 96, "unlabelled": 64}


@dataclass(frozen=True)
class Made:
    """What the tests of all kinds have to know of one: an entry of MADE at this file's end.

    Attributes:
        rows: makes some rows that belong together, mostly one, as a split has them.
        written: such a row as its users write it, from which prepare-data is to find the kind, or to be told it.
        epochs: how long a tiny model learns.
        least: what it then scores on the validation rows, by the kind's first metric.
        labels: names of the labels.
        setting: the task's setting.
        families: models that are taken through all stages.
        together: how many rows belong together.
        asked: whether the kind has to be asked for, as another has rows that look alike.
        rate: at which a tiny model learns, whatever the seed.
        sooner: epochs of families that learn it in fewer.
    """

    rows: Callable[[random.Random], list[dict[str, Any]]]
    written: Callable[[dict[str, Any]], dict[str, Any]]
    epochs: float
    least: float
    labels: tuple[str, ...] = ()
    setting: str = ""
    families: tuple[str, ...] = ("bert",)
    together: int = 1
    asked: bool = False
    rate: float = 3e-3
    sooner: Mapping[str, float] = field(default_factory=dict)


def splits(folder: Path, kind: str) -> dict[str, Path]:
    """Write train, validation, test and unlabelled of a kind, as prepare-data does."""
    folder.mkdir(parents=True, exist_ok=True)
    return {name: _split(folder, kind, name, rows, seed) for seed, (name, rows) in enumerate(SIZES.items())}


def rows_of(kind: str, rows: int, seed: int) -> dict[str, list[Any]]:
    """Return columns of rows of a kind."""
    made, chance = (MADE | WRITERS)[kind], random.Random(seed)
    found = [row for _ in range(rows // made.together) for row in made.rows(chance)]
    return {name: [row[name] for row in found] for name in found[0]}


def task_of(kind: str, split: str = "test", rows: int = 1) -> Task:
    """Return the task of such rows."""
    made = (MADE | WRITERS)[kind]
    row = made.rows(random.Random(0))[0]
    columns = tuple(name for name in row if name != "label")
    metric, digest = KINDS[kind].metrics[0], f"{kind}{split}"
    return Task("made", kind, columns, made.labels, metric, "made", split, rows, digest, made.setting)


def _split(folder: Path, kind: str, name: str, rows: int, seed: int) -> Path:
    columns = rows_of(kind, rows, seed)
    if name == "unlabelled":
        del columns["label"]
    task = task_of(kind, name, len(next(iter(columns.values()))))
    path = folder / f"{name}.parquet"
    pq.write_table(
        pa.table({each.name: pa.array(columns[each.name], each.type) for each in schema(task)}).cast(schema(task)), path
    )
    return path


def _words(chance: random.Random, *marked: str) -> list[str]:
    words = [*chance.choices(PLAIN, k=chance.randint(3, 9)), *marked]
    chance.shuffle(words)
    return words


def _labels(chance: random.Random) -> list[dict[str, Any]]:
    label = [one for one in (0, 1) if chance.random() < 0.5]
    return [{"text": " ".join(_words(chance, *(chance.choice((BAD, GOOD)[one]) for one in label))), "label": label}]


def _tags(chance: random.Random) -> list[dict[str, Any]]:
    """Tag runs of good and of bad words."""
    words, spans = [], []
    for _ in range(chance.randint(1, 3)):
        words += chance.choices(PLAIN, k=chance.randint(1, 4))
        label = chance.randrange(2)
        begin = len(" ".join(words)) + 1
        words += chance.choices((BAD, GOOD)[label], k=chance.choice((1, 1, 1, 2)))
        spans.append({"begin": begin, "end": len(" ".join(words)), "label": label})
    return [{"text": " ".join(words), "label": spans}]


def _swapped(chance: random.Random) -> list[dict[str, Any]]:
    """Write the good and bad words of a text again, each as its opposite."""
    marked = chance.choices([*GOOD, *BAD], k=chance.randint(1, 3))
    text = " ".join([*marked, *chance.choices(PLAIN, k=chance.randint(0, 2))])
    opposite = dict(zip([*GOOD, *BAD], [*BAD, *GOOD], strict=True))
    return [{"text": text, "label": " ".join(opposite[word] for word in marked)}]


def _question(chance: random.Random) -> list[dict[str, Any]]:
    asked = chance.randrange(2)
    both = [chance.choice(BAD), chance.choice(GOOD)]
    text = " ".join(_words(chance, *both))
    begin = f" {text} ".index(f" {both[asked]} ")
    question = " ".join([*chance.choices(PLAIN, k=2), ("bad", "good")[asked]])
    return [{"text_a": question, "text_b": text, "label": [{"text": both[asked], "begin": begin}]}]


def _pair(chance: random.Random) -> list[dict[str, Any]]:
    """Make a query with four documents, of which one or two are good."""
    query = " ".join([*chance.choices(PLAIN, k=4), "good"])
    found = []
    for number in range(4):
        fits = number == 0 or (number == 1 and chance.random() < 0.5)
        words = _words(chance, *chance.choices((BAD, GOOD)[fits], k=2))
        found.append({"text_a": query, "text_b": " ".join(words), "label": float(fits)})
    chance.shuffle(found)
    return found


def _asked(row: dict[str, Any]) -> dict[str, Any]:
    answers = {to: [one[name] for one in row["label"]] for to, name in (("text", "text"), ("answer_start", "begin"))}
    return {"question": row["text_a"], "context": row["text_b"], "answers": answers}


NAMES = ("bad", "good")
MADE = {
    "multi-label": Made(
        _labels,
        lambda row: {"text": row["text"], "labels": [NAMES[one] for one in row["label"]]},
        epochs=12,
        least=0.9,
        labels=NAMES,
        families=("gpt2",),  # whose head has no bias for the labels' frequency and threshold
        rate=2e-3,
    ),
    "tokens": Made(
        _tags,
        lambda row: {
            "text": row["text"],
            "spans": [[one["begin"], one["end"], NAMES[one["label"]]] for one in row["label"]],
        },
        epochs=20,
        least=0.85,
        labels=NAMES,
        setting="words",
        families=("bert", "llama"),
        sooner={"llama": 10},
    ),
    "questions": Made(_question, _asked, epochs=12, least=0.7, rate=5e-3),
    "ranking": Made(
        _pair,
        lambda row: {"query": row["text_a"], "document": row["text_b"], "relevance": row["label"]},
        epochs=3,
        least=0.85,
        together=4,
    ),
}

WRITERS = {  # kinds whose models write; pipelines/test_run_of_writers.py takes them through all stages
    "generation": Made(
        _swapped,
        lambda row: {"prompt": row["text"], "completion": row["label"]},
        epochs=14,
        least=0.6,
        families=("llama", "t5"),
        asked=True,
    ),
}
