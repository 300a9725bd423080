"""What opens what we hand over: packages of every kind, opened by other libraries where kfp_bonsai is not installed.

`make test-opens` runs it; it installs a few packages, into environments of its own. Float models must give the logits
that ours gives, to 1e-4, and int8 models the same class for 99.5 % of the texts at the least.
"""

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import kinds_made
import numpy as np
import pytest
import tiny
from environments import CannotInstall, ask, environment

from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.package_model.package import package_model
from kfp_bonsai.quantize.quantize import quantize
from kfp_bonsai.shared.data.encoding import encode
from kfp_bonsai.shared.inference.runtimes import load_predictor
from kfp_bonsai.shared.inference.writers import load_writer, prompt_batch
from kfp_bonsai.shared.kinds.kinds import kind_of
from kfp_bonsai.shared.models.configuration import family_of, inputs_of
from kfp_bonsai.shared.models.heads import AUTO, IN_TEXT
from kfp_bonsai.shared.saved.pretrained import read
from kfp_bonsai.shared.saved.records import read_record, task_of
from kfp_bonsai.shared.saved.weights import CODE_FILE
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

sys.path.insert(0, str(Path(__file__).parents[1] / "package_model"))
from made_package import results_of

LENGTH, CLOSE, SAME = 16, 1e-4, 0.995
ROWS, MANY = 24, 400
SHAPES = ("stock", "free")
# A family and a kind each; the shipped code of all other families is that of these, or in tests/shared/models.
KINDS = {
    "classification": ("bert", "gpt2"),
    "regression": ("bert",),
    "multi-label": ("distilbert",),
    "tokens": ("bert", "llama"),
    "questions": ("bert",),
    "ranking": ("bert", "modernbert"),
    "generation": ("llama", "t5"),
}
MODELS = [(kind, family, shape) for kind, families in KINDS.items() for family in families for shape in SHAPES]


@pytest.fixture(scope="session")
def room(tmp_path_factory) -> Path:
    """A folder for all that is made."""
    return tmp_path_factory.mktemp("opens")


@cache
def learnt(room: Path, kind: str, family: str) -> tuple[Path, dict[str, Path]]:
    """Fine-tune a small random model of a kind and a family; return its folder, and the splits."""
    folder = room / f"{kind}-{family}"
    if kind in ("classification", "regression"):
        data = tiny.splits(folder / "data") if kind == "classification" else numbers(folder / "data")
    else:
        data = kinds_made.splits(folder / "data", kind)
    model = tiny.pretrained(folder / "pretrained", family=family, writes=kind == "generation")
    options = {"epochs": 2, "learning_rate": 3e-3, "batch_size": 16, "max_length": LENGTH}
    fine_tune(str(model), data["train"], data["validation"], folder / "base", **options)
    return folder, data


def numbers(folder: Path) -> dict[str, Path]:
    """Write splits of texts with how good they are."""
    import random

    import pyarrow as pa
    import pyarrow.parquet as pq

    from kfp_bonsai.shared.data.tasks import schema
    from kfp_bonsai.shared.kinds.task import Task

    folder.mkdir(parents=True)
    found = {}
    for seed, (name, rows) in enumerate({"train": 320, "validation": 64, "test": 96, "unlabelled": 64}.items()):
        chance, made = random.Random(seed), tiny.texts(rows, seed)
        task = Task("made", "regression", ("text",), (), "pearson", "made", name, rows, f"{name}{seed}")
        columns: dict[str, Any] = {"text": [text for text, _ in made]}
        if name != "unlabelled":
            columns["label"] = [4.0 * label + chance.random() for _, label in made]
        found[name] = folder / f"{name}.parquet"
        pq.write_table(pa.table(columns).cast(schema(task)), found[name])
    return found


@cache
def packed(room: Path, kind: str, family: str, shape: str) -> Path:
    """Prune such a model to a shape, and package it as it is handed over, a free one with its code."""
    folder, data = learnt(room, kind, family)
    transfer, pruned = folder / "transfer", folder / shape
    if not transfer.exists():
        teacher_outputs(folder / "base", data["train"], data["unlabelled"], transfer, augmentations=0)
    matrix_prune(folder / "base", transfer, pruned, flops=0.6, shape=shape, steps=4)
    return package(pruned)


def package(model: Path) -> Path:
    """Package a model with figures that were made up, which no consumer reads."""
    results = results_of(model, model.parent / f"{model.name}-results")
    output = model.parent / f"{model.name}-package"
    package_model(model, results, output, ship_code=True)
    return output


def columns_of(kind: str, rows: int, family: str = "bert") -> list[list[str]]:
    """Return texts, or first and second texts, of a kind; some longer than is read."""
    if kind in ("classification", "regression"):
        found = [[text for text, _ in tiny.texts(rows, 9)]]
    else:
        made = kinds_made.rows_of(kind, rows, 9)
        found = [made[name] for name in ("text_a", "text_b") if name in made] or [made["text"]]
    if kind != "generation":
        found[-1][-1] = " ".join([found[-1][-1]] * 9)
    return found


def question(package: Path, columns: list[list[str]], **more: Any) -> dict[str, Any]:
    """Return what a consumer is asked of a package."""
    config, record = read(package).config, read_record(package)
    task, in_text = task_of(record), family_of(config).answers_in_text
    kind = kind_of(task)
    return {
        "auto": IN_TEXT if in_text else AUTO[kind.head],
        "trust": (package / CODE_FILE).exists(),
        "columns": columns,
        "length": record["max_length"],
        "side": "left" if kind.writes and not in_text else "right",
        "inputs": inputs_of(config),
        "pad": record.get("pad_token_id") or 0,
        "writes": kind.writes,
        **more,
    }


def close(found: dict[str, Any], expected: np.ndarray) -> bool:
    """Say whether logits are ours, of all tokens that are read."""
    logits = np.array(found["logits"])
    mask = np.array(found["mask"], bool)
    if logits.ndim == 3:
        return bool(np.allclose(logits[mask], expected[mask], atol=CLOSE, rtol=0))
    return logits.shape == expected.shape and bool(np.allclose(logits, expected, atol=CLOSE, rtol=0))


@pytest.mark.parametrize(("kind", "family", "shape"), MODELS)
def test_transformers_gives_our_logits(room, tmp_path, kind, family, shape):
    """A package that plain transformers does not load, or of which it answers otherwise."""
    folder = packed(room, kind, family, shape)
    assert (folder / CODE_FILE).exists() == (shape == "free")
    columns = columns_of(kind, ROWS)
    found = ask(environment(room / "plain"), "auto_model", folder, question(folder, columns), tmp_path)
    assert found["type"].startswith("transformers_modules." if shape == "free" else "transformers.models.")
    if kind == "generation":
        writer = load_writer(folder)
        batch = prompt_batch(folder, columns[0], task_of(read_record(folder)))
        assert found["texts"] == writer.texts(writer.write(batch))
    else:
        assert close(found, load_predictor(folder).predict(encode(folder, *columns)))


PIPELINES = {
    "classification": "text-classification",
    "regression": "text-classification",
    "multi-label": "text-classification",
    "ranking": "text-classification",
    "tokens": "token-classification",
    "questions": "question-answering",
    "generation": "text-generation",
}


@pytest.mark.parametrize(("kind", "family", "shape"), [one for one in MODELS if one[1] != "t5"])
def test_its_pipeline_gives_our_answers(room, tmp_path, kind, family, shape):
    """The first thing that people try, and it knows no such model, or names other classes."""
    if kind == "questions":
        pytest.skip("transformers 5 has no pipeline that answers questions")
    folder = packed(room, kind, family, shape)
    columns = [column[:6] for column in columns_of(kind, ROWS)]
    given = question(folder, columns, task=PIPELINES[kind])
    found = ask(environment(room / "plain"), "pipelines", folder, given, tmp_path)
    if kind == "generation":
        writer = load_writer(folder)
        batch = prompt_batch(folder, columns[0], task_of(read_record(folder)))
        told = [one[0]["generated_text"].strip() for one in found]
        assert told == [one.strip() for one in writer.texts(writer.write(batch))]
        return
    logits, names = load_predictor(folder).predict(encode(folder, *columns)), read(folder).config.id2label
    if kind == "tokens":
        best = [[names[at] for at in row.argmax(-1)] for row in logits]
        mask = encode(folder, *columns)["attention_mask"]
        for answer, tags, here in zip(found, best, mask, strict=True):
            wanted = [tag for tag, one in zip(tags, here, strict=True) if one]
            assert [one["entity"] for one in answer] == [tag for tag in wanted if tag != "O"] or sum(here) == LENGTH
        return
    for answer, row in zip(found, logits, strict=True):
        scores = {one["label"]: one["score"] for one in answer}
        assert np.allclose([scores[names[at]] for at in range(len(row))], row, atol=CLOSE)


def with_packages(room: Path, *packages: str) -> Path:
    """Return an environment, or skip with why there is none."""
    try:
        return environment(room / packages[0], *packages)
    except CannotInstall as why:
        pytest.skip(f"{packages[0]} cannot be installed beside this transformers: {why}")


@pytest.mark.parametrize("family", KINDS["ranking"])
@pytest.mark.parametrize("shape", SHAPES)
def test_sentence_transformers_ranks_as_we_do(room, tmp_path, family, shape):
    """A re-ranker that people put in the place of another, and whose scores are others."""
    folder, columns = packed(room, "ranking", family, shape), columns_of("ranking", ROWS)
    python = with_packages(room, "sentence-transformers")
    found = ask(python, "cross_encoder", folder, question(folder, columns), tmp_path)
    assert np.allclose(found["scores"], load_predictor(folder).predict(encode(folder, *columns))[:, 0], atol=CLOSE)


@cache
def quantized(room: Path, kind: str, runtime: str) -> Path:
    """Quantize such a model for a runtime."""
    base, data = learnt(room, kind, KINDS[kind][0])
    quantize(base / "base", data["train"], base / runtime, runtime=runtime, calibration_rows=32)
    return base / runtime


def same_classes(found: dict[str, Any], expected: np.ndarray) -> float:
    """Return the share of rows, or of tokens that are read, with the same class."""
    logits, mask = np.array(found["logits"]), np.array(found["mask"], bool)
    equal = logits.argmax(-1) == expected.argmax(-1)
    return float(equal[mask].mean() if logits.ndim == 3 else equal.mean())


@pytest.mark.parametrize("kind", ["classification", "tokens"])
@pytest.mark.parametrize("made_for", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_runtimes_open_the_int8_file(room, tmp_path, kind, made_for, runtime):
    """An int8 file that runs with our code only, or in another runtime names other classes."""
    folder, columns = quantized(room, kind, made_for), columns_of(kind, MANY)
    record = read_record(folder)
    given = {
        **{"columns": columns, "length": record["max_length"], "pad": record["pad_token_id"]},
        "runtime": runtime,
    }
    found = ask(environment(room / "plain"), "onnx_file", folder, given, tmp_path)
    parts = [
        load_predictor(folder).predict(encode(folder, *[column[at : at + 32] for column in columns]))
        for at in range(0, MANY, 32)
    ]
    if kind == "tokens":
        width = max(part.shape[1] for part in parts)
        parts = [np.pad(part, ((0, 0), (0, width - part.shape[1]), (0, 0))) for part in parts]
    assert same_classes(found, np.concatenate(parts)) >= SAME


@pytest.mark.parametrize("kind", ["ranking", "multi-label", "regression"])
def test_onnxruntime_gives_our_outputs_of_other_int8_files(room, tmp_path, kind):
    """A pair that is read as one text, or labels and numbers that our code alone reads off the file."""
    folder, columns = quantized(room, kind, "onnxruntime"), columns_of(kind, ROWS)
    record = read_record(folder)
    given = {"columns": columns, "length": record["max_length"], "pad": record["pad_token_id"]}
    found = ask(environment(room / "plain"), "onnx_file", folder, {**given, "runtime": "onnxruntime"}, tmp_path)
    assert close(found, load_predictor(folder).predict(encode(folder, *columns)))


def test_optimum_opens_the_int8_file(room, tmp_path):
    """A folder that those who serve ONNX files with transformers' tokenizers cannot use."""
    folder, columns = quantized(room, "classification", "onnxruntime"), columns_of("classification", MANY)
    python = with_packages(room, "optimum-onnx")
    given = {"columns": columns, "length": LENGTH, "inputs": ("input_ids", "attention_mask", "token_type_ids")}
    found = ask(python, "optimum_onnx", folder, given, tmp_path)
    assert same_classes(found, load_predictor(folder).predict(encode(folder, *columns))) >= SAME


def test_code_that_is_not_trusted_is_not_run(room, tmp_path):
    """A free shape that loads as something else where its code may not run."""
    folder = packed(room, "classification", "bert", "free")
    code = f"from transformers import AutoModelForSequenceClassification as A; A.from_pretrained({str(folder)!r})"
    command = [environment(room / "plain"), "-I", "-c", code]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert said.returncode and "trust_remote_code=True" in said.stderr
