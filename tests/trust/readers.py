"""What reads each kind of input, without the training that stages do after it."""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trust.world import Target, fetched, packed, reported, selected

ROWS = 40
TEXTS = [["a good film , 0", "the plot is awful"]]
STUDY = """title: Reviews
models:
  - bert
  - {model: gpt2, name: Second, batch-size: 8}
data:
  - reviews.csv
  - {data: more.csv, label-column: stars, group: Ours}
levels: ["2/3 layers:layers=2/3", "1/3 layers:layers=1/3"]
seeds: [0, 1, 2]
options: {epochs: 2, country: DEU, learning-rate: 1e-4}
"""
SETTINGS = """images: registry.example/team/bonsai
edge: true
cpu: 8
memory: 16Gi
gpu-node: {pool: gpu}
gpu-taint: [gpu=true]
"""
EVIDENCE = {
    **dict.fromkeys(("family", "model", "level", "source"), "bert"),
    "rows": 900,
    "flops_ratio": 0.3,
    "relative_accuracy": 0.9,
}
COSTS = {"seconds": {"heads": 0.1, "ffn": 0.1}, "baseline": 1.0, "error": 0.1, "device": "cpu"}
CELL = {
    **dict.fromkeys(("model", "model_name", "data", "data_name", "group"), "bert"),
    **{
        "name": "a",
        "seed": 0,
        "flags": ["--epochs=1"],
        "rows": 9,
        "state": "done",
        "error": "",
        "results": "a/results.json",
    },
    **{"seconds": 1.0, "joules": 2.0},
}
MADE_STUDY = {
    **dict.fromkeys(("title", "started", "finished", "command"), "2026-11-29T08:00:00+00:00"),
    "format": 1,
    "cells": [CELL],
}

KEPT = {
    **{"done": False, "best_score": None, "rate": 1e-3, "at_once": 8, "bf16": False},
    "spent": {
        **dict.fromkeys(("seconds", "joules", "cpu_joules", "gpu_joules", "ram_joules"), 1.0),
        **{"label": "estimated", "source": "a table"},
    },
}


def make_more(world: Path) -> None:
    """Make one small input of every kind that is read, beside those of the stages."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import tiny
    import torch
    from kinds_made import MADE, WRITERS, rows_of
    from transformers import AutoModelForSequenceClassification, TrainerState

    from kfp_bonsai.shared.training import checkpoints

    few = world / "few"
    few.mkdir()
    rows = [{"text": text, "label": ("bad", "good")[one]} for text, one in tiny.texts(ROWS, 3)]
    tiny.reviews(few / "reviews.csv", ROWS, 3, ("bad", "good"))
    (few / "reviews.tsv").write_text((few / "reviews.csv").read_text().replace(",", "\t"))
    (few / "reviews.json").write_text(json.dumps(rows))
    (few / "reviews.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), few / "reviews.parquet")
    tagged = [[f"{word}\t{'B-GOOD' if word in tiny.GOOD else 'O'}" for word in row["text"].split()] for row in rows]
    (few / "words.conll").write_text("\n\n".join("\n".join(lines) for lines in tagged) + "\n")
    asked = [{"id": str(at), "question": "which ?", "answers": [_answer(row["text"])]} for at, row in enumerate(rows)]
    told = [{"context": row["text"], "qas": [one]} for row, one in zip(rows, asked, strict=True)]
    (few / "squad.json").write_text(json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": told}]}))
    for kind, made in (MADE | WRITERS).items():
        columns = rows_of(kind, ROWS, 1)
        written = [made.written(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
        (few / f"{kind}.jsonl").write_text("\n".join(map(json.dumps, written)))
    rated = [{"text": row["text"], "label": round(len(row["text"]) / 7, 3)} for row in rows]
    (few / "regression.jsonl").write_text("\n".join(map(json.dumps, rated)))
    whole = AutoModelForSequenceClassification.from_pretrained(world / "bert")
    shutil.copytree(world / "bert", few / "sharded", ignore=shutil.ignore_patterns("*.safetensors"))
    whole.save_pretrained(few / "sharded", max_shard_size="20KB")
    _make_writer(few)
    (few / "study.yaml").write_text(STUDY)
    (few / "settings.yaml").write_text(SETTINGS)
    (few / "evidence.json").write_text(json.dumps({"format": 1, "evidence": [EVIDENCE]}))
    (few / "costs.json").write_text(json.dumps({"costs": COSTS}))
    (few / "study" / "a").mkdir(parents=True)
    shutil.copy(world / "results.json", few / "study" / "a" / "results.json")
    (few / "study" / "study.json").write_text(json.dumps(MADE_STUDY))
    for step, firm in ((5, True), (7, False)):
        told = KEPT | {"random": [[[step], [0]]]}
        weight = {"weight": torch.full((4, 4), float(step))}
        checkpoints.write(few / "kept", TrainerState(global_step=step, max_steps=10), weight, told, firm)


def _make_writer(few: Path) -> None:
    """Make a model that answers conversations, and its int8 form."""
    import writers_made

    from kfp_bonsai.quantize.quantize import quantize

    base, _, _ = writers_made.tuned(few / "writes", "llama", chat=True)
    (base / "generation_config.json").write_text(json.dumps({"max_new_tokens": 6, "eos_token_id": 2}))
    quantize(base, few / "writes" / "train.parquet", few / "writes" / "int8", calibration_rows=8)


def _answer(text: str) -> dict[str, Any]:
    return {"text": text.split()[0], "answer_start": 0}


def _prepared(data: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.prepare_data.prepare import prepare_data

    where = (out / f"{name}.parquet" for name in ("train", "validation", "test", "unlabelled"))
    return prepare_data(str(data), *where)


def _pretrained(folder: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.shared.saved import checkpoint, pretrained

    found = pretrained.read(folder)
    loaded = pretrained.load(folder, found.config)
    checkpoint.rehearse(loaded.network, found.tokenizer, TEXTS, 32)
    return None


def _stages_own(folder: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.shared.inference.runtimes import load_predictor

    return _answers(load_predictor(folder), folder)


def _stated_anew(folder: Path, world: Path, out: Path) -> Any:
    """As one who means ill would: the record speaks of the files as they are."""
    from kfp_bonsai.shared.core.documents import read_object
    from kfp_bonsai.shared.saved.weights import tokenizer_sha256, weights_sha256

    copy = out / "copy"
    _copy(folder, copy)
    if (copy / "bonsai.json").is_file():
        record = read_object(copy / "bonsai.json")
        hashes = {"sha256": weights_sha256(copy), "tokenizer_sha256": tokenizer_sha256(copy)}
        (copy / "bonsai.json").write_text(json.dumps(record | hashes))
    _stages_own(copy, world, out)
    return None


def _answers(predictor: Any, folder: Path) -> Any:
    from kfp_bonsai.shared.data.encoding import encode

    return predictor.predict(encode(folder, *TEXTS)).round(3).tolist()


def _writes(folder: Path, world: Path, out: Path) -> Any:
    """Answer a conversation as the server does."""
    from kfp_bonsai.serve import served

    asked = json.dumps([{"role": "user", "content": "the plot is"}])
    return served.load(folder).tell([asked], 4)


def _asked(data: Path, world: Path, out: Path) -> Any:
    """Prepare rows to be answered in writing."""
    from kfp_bonsai.prepare_data.prepare import prepare_data

    where = (out / f"{name}.parquet" for name in ("train", "validation", "test", "unlabelled"))
    return prepare_data(str(data), *where, kind="generation")


def _split(path: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.shared.data import tasks

    columns = tasks.read_columns(path)
    return [columns["text"], list(map(int, columns["label"]))]


def _transfer(folder: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.shared.training import transfer

    found = transfer.open_set(folder)
    batch = transfer.collate([found[0], found[len(found) - 1]], 0)
    return {name: one.double().sum().item() for name, one in batch.items()}


def _packed_model(model: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.package_model.package import package_model

    package_model(model, world / "results.json", out / "package")
    return None


def _compared(results: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.report.compare import compare

    compare([results, world / "results.json"], output=out / "compared")
    return None


def _study(folder: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.report.study import study_page

    study_page(folder, output=out / "page")
    return None


def _planned(file: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.pipelines.cells import cells_of
    from kfp_bonsai.pipelines.local.study_run import ASKED, DEFAULTS
    from kfp_bonsai.pipelines.study_file import read_study

    cells_of(read_study(str(file), ASKED), DEFAULTS)
    return None


def _settings(file: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.pipelines.cluster.compile import compile_pipeline

    compile_pipeline(output=str(out / "p.yaml"), settings=str(file))
    return None


def _advised(file: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.advise import advise

    return advise("bert", rows=900, evidence=[str(file)]) and None


def _priced(file: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.shared.inference.cost_table import read_costs

    read_costs(file)
    return None


def _resumed(folder: Path, world: Path, out: Path) -> Any:
    """Go on from a checkpoint as it was written, or know that there is none; damaged ones are removed."""
    from kfp_bonsai.shared.energy.reading import Reading
    from kfp_bonsai.shared.training import checkpoints

    copy = out / "kept"
    _copy(folder, copy)
    for firm in (False, True):
        found = checkpoints.newest(copy, firm)
        if found is not None:
            told = KEPT | {"random": [[[found.step], [0]]], "firm": found.step == 5}
            assert found.told == told and (found.tensors["weight"] == found.step).all(), found
            Reading(**found.told["spent"])
            state = json.loads((found.folder / checkpoints.STATE).read_text())
            assert state["global_step"] == found.step and state["max_steps"] == 10, state
    return None


ENDS = ("csv", "tsv", "json", "jsonl", "parquet")
KINDS = ("multi-label", "ranking", "tokens", "questions", "regression")
BESIDE = {"chat template": "chat_template.jinja", "generation config": "generation_config.json"}
READERS: Mapping[str, Target] = {
    **{f"data {end}": Target(f"few/reviews.{end}", _prepared, False) for end in ENDS},
    **{f"data {kind}": Target(f"few/{kind}.jsonl", _prepared, False) for kind in KINDS},
    "data generation": Target("few/generation.jsonl", _asked, False),
    "data conll": Target("few/words.conll", _prepared, False),
    "data squad": Target("few/squad.json", _prepared, False),
    "data saved": Target("data/saved", _prepared, False),
    **{f"model {family}": Target(family, _pretrained, False) for family in ("bert", "gpt2", "t5", "llama")},
    "model sharded": Target("few/sharded", _pretrained, False),
    **{
        f"model {name}": Target(
            f"bert/{name}.json", lambda file, world, out: _beside(file, world / "bert", out, _pretrained), False
        )
        for name in ("config", "tokenizer")
    },
    "model that writes": Target("few/writes/base", _writes, False),
    "int8 that writes": Target("few/writes/int8", _writes, False),
    **{
        f"{name} of {form}": Target(
            f"few/writes/{form}/{file}",
            lambda given, world, out, form=form: _beside(given, world / "few" / "writes" / form, out, _writes),
            False,
        )
        for name, file in BESIDE.items()
        for form in ("base", "int8")
    },
    "baseline": Target("baseline", _stages_own, True),
    "free shape": Target("small", _stages_own, True),
    "free shape, hashes stated anew": Target("small", _stated_anew, False),
    "free shape, packed": Target("chosen", _packed_model, False),
    "int8": Target("int8", _stages_own, True),
    "int8, hashes stated anew": Target("int8", _stated_anew, False),
    "split": Target("train.parquet", _split, True),
    "transfer set": Target("transfer", _transfer, True),
    "measurement": Target("measurement.json", selected, False),
    "selection": Target("selection.json", reported, False),
    "results": Target("results.json", packed, False),
    "results compared": Target("results.json", _compared, False),
    "study": Target("few/study", _study, False),
    "evidence": Target("few/evidence.json", _advised, False),
    "costs": Target("few/costs.json", _priced, False),
    "study.yaml": Target("few/study.yaml", _planned, False),
    "settings.yaml": Target("few/settings.yaml", _settings, False),
    "champion": Target("champion", fetched, True),
    "checkpoint": Target("few/kept", _resumed, False),
}


def _beside(file: Path, folder: Path, out: Path, read: Callable[[Path, Path, Path], Any]) -> Any:
    """Read a model with one file of another's."""
    copy = out / "model"
    _copy(folder, copy)
    (copy / file.name).write_bytes(file.read_bytes())
    return read(copy, folder, out)


def _copy(folder: Path, to: Path) -> None:
    """Copy a folder with its links and pipes as they are."""
    subprocess.run(["cp", "-a", folder, to], check=True)
