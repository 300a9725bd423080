"""Splits of texts with answers, and small models that were fine-tuned to write them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import tiny
from kinds_made import rows_of, task_of

from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.shared.data.tasks import schema

TEMPLATE = (
    "{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}{% if add_generation_prompt %}is{% endif %}"
)


def split(path, columns, setting="", metric="exact_text"):
    """Write a split of texts and answers, named by its file."""
    task = task_of("generation", path.stem, len(columns["text"]))
    task = type(task)(**{**vars(task), "setting": setting, "metric": metric})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({one: columns[one] for one in schema(task).names}).cast(schema(task)), path)
    return path


def tuned(folder, family, count=96, chat=False, **options):
    """Fine-tune a random model briefly; return its folder, what was told, and the validation split."""
    made = {
        name: rows_of("generation", size, seed)
        for seed, (name, size) in enumerate({"train": count, "validation": 24}.items())
    }
    if chat:
        for columns in made.values():
            columns["text"] = [json.dumps([{"role": "user", "content": text}]) for text in columns["text"]]
    paths = {name: split(folder / f"{name}.parquet", columns, "chat" * chat) for name, columns in made.items()}
    model = tiny.pretrained(folder / "model", layers=2, family=family, writes=True)
    if chat:
        own = tiny.tokenizer(family)
        own.chat_template = TEMPLATE
        own.save_pretrained(model)
    options = {"epochs": 1, "learning_rate": 5e-3, "batch_size": 16, **options}
    told = fine_tune(str(model), paths["train"], paths["validation"], folder / "base", **options)
    return folder / "base", told, paths["validation"]
