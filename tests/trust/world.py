"""What is mutated: one of every kind of input, made once, and the stages that read each of them."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROWS = 240
FAMILIES = ("bert", "gpt2", "t5", "llama")
MEASURING = {"pairs": 2, "block_seconds": 1.0, "precision": 0}


@dataclass(frozen=True)
class Target:
    """One input, and what reads it.

    Attributes:
        path: where it lies in the world.
        use: (mutated copy, world, scratch folder) -> what came of it, JSON.
        exact: what came of it must be what comes of the whole input: every fault is either harmless or found.
    """

    path: str
    use: Callable[[Path, Path, Path], Any]
    exact: bool


def make(world: Path) -> None:
    """Make one input of every kind."""
    import datasets
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet
    import tiny

    from kfp_bonsai.distill.distill import distill
    from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions
    from kfp_bonsai.fine_tune.train import fine_tune
    from kfp_bonsai.layer_remove.remove import layer_remove
    from kfp_bonsai.matrix_prune.prune import matrix_prune
    from kfp_bonsai.package_model.package import package_model
    from kfp_bonsai.prepare_data.prepare import prepare_data
    from kfp_bonsai.promote.promote import promote
    from kfp_bonsai.quantize.quantize import quantize
    from kfp_bonsai.report.report import report
    from kfp_bonsai.select_model.select import select_model
    from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

    data = world / "data"
    data.mkdir(parents=True)
    rows = [
        {"text": f"{text}, {at}", "label": ("bad", "good")[label]}
        for at, (text, label) in enumerate(tiny.texts(ROWS, 0))
    ]
    table = pa.Table.from_pylist(rows)
    pyarrow.csv.write_csv(table, data / "reviews.csv")
    pyarrow.csv.write_csv(table, data / "reviews.tsv", pyarrow.csv.WriteOptions(delimiter="\t"))
    pyarrow.parquet.write_table(table, data / "reviews.parquet")
    (data / "reviews.json").write_text(json.dumps(rows))
    (data / "reviews.jsonl").write_text("\n".join(map(json.dumps, rows)))
    datasets.Dataset(table).save_to_disk(data / "saved")
    for family in FAMILIES:
        tiny.pretrained(world / family, layers=2, family=family)
    splits = {name: world / f"{name}.parquet" for name in ("train", "validation", "test", "unlabelled")}
    prepare_data(str(data / "reviews.csv"), *splits.values())
    fine_tune(
        str(world / "bert"), splits["train"], splits["validation"], world / "baseline", epochs=3, learning_rate=3e-3
    )
    teacher_outputs(world / "baseline", splits["train"], splits["unlabelled"], world / "transfer", augmentations=0)
    layer_remove(world / "baseline", splits["validation"], world / "shorter", keep="1")
    matrix_prune(world / "shorter", world / "transfer", world / "pruned", flops=0.4, steps=5)
    distill(world / "pruned", world / "transfer", splits["validation"], world / "small", epochs=1)
    quantize(world / "small", splits["train"], world / "int8", calibration_rows=16)
    measured = world / "measurement.json"
    evaluate_emissions(world / "baseline", [world / "small"], splits["train"], splits["test"], measured, **MEASURING)
    select_model(measured, [world / "small"], world / "chosen", world / "selection.json")
    report(
        measured,
        world / "selection.json",
        *(world / f"report.{end}" for end in ("html", "md")),
        world / "results.json",
        world / "figures",
    )
    package_model(world / "chosen", world / "results.json", world / "package")
    promote(world / "package", str(world / "champion"), world / "decision.json", first=True)


def _prepared(data: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.prepare_data.prepare import prepare_data

    return prepare_data(str(data), *(out / f"{name}.parquet" for name in ("train", "validation", "test", "unlabelled")))


def _tuned(model: Path, world: Path, out: Path, **splits: Path) -> Any:
    """Fine-tune, after the checks of `bonsai run`: what the one refuses the other must refuse."""
    from kfp_bonsai.fine_tune.train import fine_tune
    from kfp_bonsai.shared.saved.weights import weights_sha256

    train, validation = (splits.get(name, world / f"{name}.parquet") for name in ("train", "validation"))
    fine_tune(str(model), train, validation, out / "model", epochs=0.2, learning_rate=1e-4)
    return weights_sha256(out / "model")


def _pretrained(model: Path, world: Path, out: Path) -> Any:
    return _tuned(model, world, out)


def _train(split: Path, world: Path, out: Path) -> Any:
    return _tuned(world / "bert", world, out, train=split)


def _test(split: Path, world: Path, out: Path) -> Any:
    return _measured(world / "small", world, out, split)


def _measured(model: Path, world: Path, out: Path, test: Path | None = None) -> Any:
    from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions

    where = out / "measurement.json"
    evaluate_emissions(
        world / "baseline", [model], world / "train.parquet", test or world / "test.parquet", where, **MEASURING
    )
    found = json.loads(where.read_text())["models"][1]
    return found["accuracy"] if not found["error"] else None


def _int8(model: Path, world: Path, out: Path) -> Any:
    """Measure, and answer as the edge server does."""
    from kfp_bonsai.shared.data.encoding import encode
    from kfp_bonsai.shared.inference.runtimes import load_predictor

    logits = load_predictor(model).predict(encode(model, ["a good film", "a dull plot"]))
    return [_measured(model, world, out), logits.round(3).tolist()]


def _shorter(model: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.layer_remove.remove import layer_remove
    from kfp_bonsai.shared.saved.weights import weights_sha256

    layer_remove(model, world / "validation.parquet", out / "model", keep="1")
    return weights_sha256(out / "model")


def _quantized(model: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.quantize.quantize import quantize

    return quantize(model, world / "train.parquet", out / "int8", calibration_rows=16, runtime="onnxruntime")[
        "agreement"
    ]


def _distilled(transfer: Path, world: Path, out: Path) -> Any:
    from kfp_bonsai.distill.distill import distill
    from kfp_bonsai.shared.saved.weights import weights_sha256

    distill(world / "pruned", transfer, world / "validation.parquet", out / "model", epochs=0.5)
    return weights_sha256(out / "model")


def selected(measurement: Path, world: Path, out: Path) -> Any:
    """Choose by a measurement, and report what was chosen."""
    from kfp_bonsai.select_model.select import select_model

    chosen = select_model(measurement, [world / "small"], out / "model", out / "selection.json")
    reported(out / "selection.json", world, out, measurement)
    return [chosen["index"], chosen["meets_target"]]


def reported(selection: Path, world: Path, out: Path, measurement: Path | None = None) -> Any:
    """Report what was chosen."""
    from kfp_bonsai.report.report import report

    where = [out / name for name in ("report.html", "report.md", "results.json", "figures")]
    report(measurement or world / "measurement.json", selection, *where)
    return None


def packed(results: Path, world: Path, out: Path) -> Any:
    """Package the chosen model by the results."""
    from kfp_bonsai.package_model.package import package_model

    package_model(world / "chosen", results, out / "package")
    return None


def fetched(champion: Path, world: Path, out: Path) -> Any:
    """Fetch the champion; return what its weights are."""
    from kfp_bonsai.fetch_champion.fetch import fetch_champion
    from kfp_bonsai.shared.saved.weights import weights_sha256

    fetch_champion(str(champion), out / "model", out / "champion.json")
    return weights_sha256(out / "model")


TARGETS: Mapping[str, Target] = {
    **{
        f"data {end}": Target(f"data/reviews.{end}", _prepared, False)
        for end in ("csv", "tsv", "json", "jsonl", "parquet")
    },
    "data saved": Target("data/saved", _prepared, False),
    **{f"model {family}": Target(family, _pretrained, False) for family in FAMILIES},
    "split train": Target("train.parquet", _train, True),
    "split test": Target("test.parquet", _test, True),
    "baseline in layer-remove": Target("baseline", _shorter, True),
    "small in quantize": Target("small", _quantized, True),
    "int8": Target("int8", _int8, True),
    "transfer set": Target("transfer", _distilled, True),
    "measurement": Target("measurement.json", selected, True),
    "selection": Target("selection.json", reported, False),
    "results": Target("results.json", packed, False),
    "champion": Target("champion", fetched, True),
}


def copied(target: Target, world: Path, scratch: Path) -> Path:
    """Copy a target, so that it can be mutated."""
    where = scratch / "input" / Path(target.path).name
    where.parent.mkdir(parents=True)
    source = world / target.path
    shutil.copytree(source, where) if source.is_dir() else shutil.copyfile(source, where)
    return where


def digest(path: Path) -> str:
    """Return the hash of a file, or of all files of a folder."""
    found = hashlib.sha256()
    for file in sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]:
        found.update(str(file.relative_to(path.parent)).encode() + b"\0" + file.read_bytes())
    return found.hexdigest()
