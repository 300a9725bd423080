"""How much memory each stage takes for ten times the rows: what its README says of a row and a token, and some slack.

    python -m pytest -s tests/trust/memory.py [-k prepare-data]

Rows are long, and cut to a few tokens: loaded as they are, they would take nine times what a stage may take more for
them. There are so many that buffers are full with the fewer of them too: prepare-data takes 39 MB for 1,600 rows, 220
for 16,000, and 253 for 120,000, which are a gigabyte. `make test-memory` runs it, `make test-trust` does not; it
was not run as a whole with so many. Of stages that read rows, check-drift and promote are not in it.
"""

import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from trust.limited import CONTEXT

from kfp_bonsai.shared.data.tasks import Task, schema

ROWS = (16_000, 160_000)
WORDS, TOKENS = 1_500, 8  # of a row, some 8,000 letters; and what a model is given of it
SLACK = 32 << 20  # bytes: what allocators keep, more or less, of the same batches
SIZE = re.compile(r"(VmRSS|VmHWM):\s+(\d+) kB")


class Bound(NamedTuple):
    """What a stage may take for each row and each token more, in bytes, and what it does."""

    row: int
    token: int
    do: Callable[[Path, Path], Any]


def rows_of(count: int, seed: int) -> pa.Table:
    """Return long rows of two classes."""
    chance, found = random.Random(seed), []
    for _ in range(count):
        label = chance.randrange(2)
        words = chance.choices(tiny.PLAIN, k=20) * (WORDS // 20)
        words[chance.randrange(TOKENS - 3)] = chance.choice((tiny.BAD, tiny.GOOD)[label])
        found.append({"text": " ".join(words), "label": label})
    return pa.Table.from_pylist(found)


def split(path: Path, count: int, seed: int) -> None:
    """Write a split, a thousand rows at a time."""
    task = Task("made", "classification", ("text",), ("bad", "good"), "accuracy", "made", path.stem, count, str(seed))
    columns = schema(task)
    with pq.ParquetWriter(path, columns, compression="none") as sink:
        for first in range(0, count, 1000):
            sink.write_table(rows_of(min(1000, count - first), seed + first).select(columns.names).cast(columns))


@pytest.fixture(scope="session")
def worlds(tmp_path_factory) -> list[Path]:
    """A folder of few rows and one of ten times as many, with what each stage is given."""
    from kfp_bonsai.fine_tune.train import fine_tune
    from kfp_bonsai.layer_remove.remove import layer_remove
    from kfp_bonsai.matrix_prune.prune import matrix_prune
    from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

    found = []
    for count in ROWS:
        world = tmp_path_factory.mktemp(f"rows{count}")
        split(world / "train.parquet", count, 0)
        split(world / "validation.parquet", 64, 1)
        split(world / "unlabelled.parquet", 64, 2)
        tiny.pretrained(world / "pretrained", layers=2)
        few, train, rest = (world / f"{name}.parquet" for name in ("validation", "train", "unlabelled"))
        fine_tune(str(world / "pretrained"), few, few, world / "baseline", epochs=0.5, max_length=TOKENS)
        teacher_outputs(world / "baseline", train, rest, world / "transfer", augmentations=0, unlabelled_rows=0)
        layer_remove(world / "baseline", few, world / "short", keep="1")
        teacher_outputs(world / "baseline", few, rest, world / "small-set", augmentations=0, unlabelled_rows=0)
        matrix_prune(world / "short", world / "small-set", world / "narrow", flops=0.4, steps=2)
        found.append(world)
    return found


def _prepared(world: Path, out: Path) -> None:
    from kfp_bonsai.prepare_data.prepare import prepare_data

    prepare_data(str(world / "train.parquet"), *(out / f"{name}.parquet" for name in ("a", "b", "c", "d")))


def _tuned(world: Path, out: Path) -> None:
    from kfp_bonsai.fine_tune.train import fine_tune

    given = (str(world / "pretrained"), world / "train.parquet", world / "validation.parquet", out / "model")
    fine_tune(*given, epochs=0.05, max_length=TOKENS)


def _shorter(world: Path, out: Path) -> None:
    from kfp_bonsai.layer_remove.remove import layer_remove

    layer_remove(world / "baseline", world / "train.parquet", out / "model", keep="1")


def _told(world: Path, out: Path) -> None:
    from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

    given = (world / "baseline", world / "train.parquet", world / "unlabelled.parquet", out / "transfer")
    teacher_outputs(*given, augmentations=0, unlabelled_rows=0)


def _pruned(world: Path, out: Path) -> None:
    from kfp_bonsai.matrix_prune.prune import matrix_prune

    matrix_prune(world / "short", world / "transfer", out / "model", flops=0.4, steps=10)


def _distilled(world: Path, out: Path) -> None:
    from kfp_bonsai.distill.distill import distill

    distill(world / "narrow", world / "transfer", world / "validation.parquet", out / "model", epochs=0.05)


def _quantized(world: Path, out: Path) -> None:
    from kfp_bonsai.quantize.quantize import quantize

    quantize(world / "baseline", world / "train.parquet", out / "int8", calibration_rows=16, runtime="onnxruntime")


def _measured(world: Path, out: Path) -> None:
    from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions

    given = (
        world / "baseline",
        [world / "short"],
        world / "validation.parquet",
        world / "train.parquet",
        out / "m.json",
    )
    evaluate_emissions(*given, pairs=2, block_seconds=0.3, precision=0, time_budget=2)


STAGES: Mapping[str, Bound] = {
    "prepare-data": Bound(60, 0, _prepared),
    "fine-tune": Bound(8, 16, _tuned),
    "layer-remove": Bound(0, 16, _shorter),
    "teacher-outputs": Bound(8, 30, _told),
    "matrix-prune": Bound(8, 16, _pruned),
    "distill": Bound(8, 16, _distilled),
    "quantize": Bound(8, 0, _quantized),
    "evaluate-emissions": Bound(48, 24, _measured),
}


def peak(stage: str, world: Path, out: Path) -> int:
    """Return how much more memory a process that has imported everything takes at the most, while it does a stage."""
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_do, args=(theirs, stage, world, out))
    process.start()
    theirs.close()
    found = ours.recv()
    process.join()
    return found


def _do(answer: Any, stage: str, world: Path, out: Path) -> None:
    out.mkdir()
    Path("/proc/self/clear_refs").write_text("5")  # the most so far is forgotten
    before = _sizes()["VmRSS"]
    STAGES[stage].do(world, out)
    answer.send(_sizes()["VmHWM"] - before)


def _sizes() -> dict[str, int]:
    return {name: 1024 * int(size) for name, size in SIZE.findall(Path("/proc/self/status").read_text())}


@pytest.mark.parametrize("stage", STAGES)
def test_ten_times_the_rows(stage, worlds, tmp_path, record_property):
    """A data set that does not fit into memory ends the stage in the night, or its README names another bound."""
    few, many = (peak(stage, world, tmp_path / str(at)) for at, world in enumerate(worlds))
    more = ROWS[1] - ROWS[0]
    allowed = more * (STAGES[stage].row + TOKENS * STAGES[stage].token) + SLACK
    loaded = sum((-1, 1)[at] * (world / "train.parquet").stat().st_size for at, world in enumerate(worlds))
    print(f"{stage}: {few / 1e6:.1f} and {many / 1e6:.1f} MB, of {loaded / 1e6:.0f} MB more rows", flush=True)
    assert loaded > 9 * allowed, "the rows are too small to tell"
    assert many - few <= allowed, f"{(many - few) / more:.0f} bytes a row, of {loaded / more:.0f} that it has"
