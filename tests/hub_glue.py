"""GLUE as the hub has it, in made rows: a configuration each task, with its columns, splits, classes and test of -1."""

import io
import random

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

TASKS = {  # columns of text, classes (none: numbers)
    "cola": (("sentence",), ("unacceptable", "acceptable")),
    "sst2": (("sentence",), ("negative", "positive")),
    "mrpc": (("sentence1", "sentence2"), ("not_equivalent", "equivalent")),
    "stsb": (("sentence1", "sentence2"), ()),
    "qqp": (("question1", "question2"), ("not_duplicate", "duplicate")),
    "mnli": (("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
    "qnli": (("question", "sentence"), ("entailment", "not_entailment")),
    "rte": (("sentence1", "sentence2"), ("entailment", "not_entailment")),
    "wnli": (("sentence1", "sentence2"), ("not_entailment", "entailment")),
}
ROWS = {"train": 80, "validation": 20, "test": 12}
WORDS = ["the", "a", "film", "plot", "cast", "was", "and", "very", "it", "is", "good", "great", "bad", "poor"]


def splits_of(task: str) -> dict[str, int]:
    """Return the splits of a task, and their rows."""
    if task != "mnli":
        return ROWS
    genres = ("matched", "mismatched")
    return {"train": 80} | {f"{split}_{one}": ROWS[split] for split in ("validation", "test") for one in genres}


def rows_of(task: str, split: str) -> dict[str, list]:
    """Return a split's columns."""
    columns, classes = TASKS[task]
    chance = random.Random(f"{task} {split}")
    rows = range(splits_of(task)[split])
    found: dict[str, list] = {
        name: [" ".join(chance.choices(WORDS, k=8)) + f" {split} {row}" for row in rows] for name in columns
    }
    if split.startswith("test"):
        labels: list = [-1] * len(rows)
    else:
        labels = [row % len(classes) if classes else round(chance.uniform(0, 5), 1) for row in rows]
    return {**found, "label": labels, "idx": [*rows]}


def parquet(task: str, split: str) -> bytes:
    """Return a split's file."""
    texts, classes = TASKS[task]
    types = {name: pa.string() for name in texts} | {
        "label": pa.int64() if classes else pa.float32(),
        "idx": pa.int32(),
    }
    table = pa.table({name: pa.array(values, types[name]) for name, values in rows_of(task, split).items()})
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def files() -> dict[str, bytes]:
    """Return the repository's files, with a card that says configurations, splits and classes."""
    found, configurations, infos = {}, [], []
    for task, (texts, classes) in TASKS.items():
        paths = []
        for split in splits_of(task):
            found[f"{task}/{split}-00000-of-00001.parquet"] = parquet(task, split)
            paths.append({"split": split, "path": f"{task}/{split}-*"})
        names = {str(number): name for number, name in enumerate(classes)}
        label = {"class_label": {"names": names}} if classes else "float32"
        features = [{"name": name, "dtype": "string"} for name in texts]
        features += [{"name": "label", "dtype": label}, {"name": "idx", "dtype": "int32"}]
        splits = [{"name": name, "num_bytes": 1, "num_examples": rows} for name, rows in splits_of(task).items()]
        configurations.append({"config_name": task, "data_files": paths})
        infos.append(
            {"config_name": task, "features": features, "splits": splits, "download_size": 1, "dataset_size": 1}
        )
    card = yaml.safe_dump({"configs": configurations, "dataset_info": infos}, sort_keys=False)
    return found | {"README.md": f"---\n{card}---\n\n# GLUE\n".encode()}
