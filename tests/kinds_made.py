"""Small data sets of each kind of task, by rules that a small model can learn from the words of tiny.py."""

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tiny import BAD, GOOD, PLAIN

from kfp_bonsai.shared.data.tasks import schema
from kfp_bonsai.shared.kinds.task import Task

SIZES = {"train": 320, "validation": 64, "test": 96, "unlabelled": 64}


def splits(folder: Path, kind: str) -> dict[str, Path]:
    """Write train, validation, test and unlabelled of a kind, as prepare-data does."""
    folder.mkdir(parents=True, exist_ok=True)
    return {name: _split(folder, kind, name, rows, seed) for seed, (name, rows) in enumerate(SIZES.items())}


def rows_of(kind: str, rows: int, seed: int) -> dict[str, list[Any]]:
    """Return columns of rows of a kind."""
    made = {"multi-label": _labels, "tokens": _tags, "questions": _question, "ranking": _pair}[kind]
    chance = random.Random(seed)
    found = [made(chance) for _ in range(rows // 4 if kind == "ranking" else rows)]
    found = [row for each in found for row in (each if kind == "ranking" else [each])]
    return {name: [row[name] for row in found] for name in found[0]}


def task_of(kind: str, split: str = "test", rows: int = 1) -> Task:
    """Return the task of such rows."""
    columns = ("text_a", "text_b") if kind in ("questions", "ranking") else ("text",)
    labels = ("bad", "good") if kind in ("multi-label", "tokens") else ()
    metric = {"multi-label": "micro_f1", "tokens": "span_f1", "questions": "answer_f1", "ranking": "ndcg@10"}[kind]
    setting = {"tokens": "words"}.get(kind, "")
    return Task("made", kind, columns, labels, metric, "made", split, rows, f"{kind}{split}", setting)


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


def _labels(chance: random.Random) -> dict[str, Any]:
    label = [one for one in (0, 1) if chance.random() < 0.5]
    return {"text": " ".join(_words(chance, *(chance.choice((BAD, GOOD)[one]) for one in label))), "label": label}


def _tags(chance: random.Random) -> dict[str, Any]:
    """Tag runs of good and of bad words."""
    words, spans = [], []
    for _ in range(chance.randint(1, 3)):
        words += chance.choices(PLAIN, k=chance.randint(1, 4))
        label = chance.randrange(2)
        begin = len(" ".join(words)) + 1
        words += chance.choices((BAD, GOOD)[label], k=chance.choice((1, 1, 1, 2)))
        spans.append({"begin": begin, "end": len(" ".join(words)), "label": label})
    return {"text": " ".join(words), "label": spans}


def _question(chance: random.Random) -> dict[str, Any]:
    asked = chance.randrange(2)
    both = [chance.choice(BAD), chance.choice(GOOD)]
    text = " ".join(_words(chance, *both))
    begin = f" {text} ".index(f" {both[asked]} ")
    return {
        "text_a": " ".join([*chance.choices(PLAIN, k=2), ("bad", "good")[asked]]),
        "text_b": text,
        "label": [{"text": both[asked], "begin": begin}],
    }


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
