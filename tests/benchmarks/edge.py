"""Milliseconds of a batch on this CPU: our quantized folders beside torch and the CPU runtimes called directly.

    python tests/benchmarks/edge.py MODEL... --calibration train.parquet [--test test.parquet] [--json edge.json]

For each model folder (a checkpoint) and each rows x tokens: torch in float32 and bfloat16, onnxruntime on the
fp32, dynamic int8 and QDQ (NNCF) files, OpenVINO on the QDQ file, and what `bonsai quantize` made, run by
`load_predictor`. They take turns, each in a process of its own; the table shows medians. `--clock cpu` counts the
CPU seconds of one thread instead, which a busy machine hardly disturbs. A second table says where the time of real rows
goes: tokenizer, matrix products, softmax and the rest.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import edge_parts
import numpy as np
from arguments import json_file, write_json

from kfp_bonsai.quantize.quantize import quantize
from kfp_bonsai.shared.core.threads import threads as cores
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.data.encoding import encode
from kfp_bonsai.shared.inference.onnx_export import export, quiet
from kfp_bonsai.shared.inference.runtimes import load_predictor, runtime_of
from kfp_bonsai.shared.saved import checkpoint, records
from kfp_bonsai.shared.saved.weights import ONNX_FILE

SHAPES = ((1, 32), (1, 128), (32, 32), (32, 128))
REPEATS, WHERE_SECONDS = 9, 2.0  # of telling where time goes: other work then interrupts all parts alike
SETTLE = 0.05  # seconds each runtime runs before it is timed, as the threads of the one before spin on for some 10 ms
OURS, TORCH = "bonsai quantize", "torch fp32"
TIME_GOAL, SIZE_GOAL, KEPT_GOAL = 0.27, 0.26, 0.995
Batch = dict[str, np.ndarray]
Run = Callable[[Batch], np.ndarray]
Load = Callable[["Files", int], Run]


@dataclass(frozen=True)
class Files:
    """A checkpoint, and what was made of it.

    Attributes:
        folder: the checkpoint.
        ours: what `bonsai quantize` made.
        fp32, dynamic, qdq: its ONNX file as it is, with onnxruntime's dynamic int8, with NNCF's.
        inputs: names of the arrays that it takes.
    """

    folder: Path
    ours: Path
    fp32: Path
    dynamic: Path
    qdq: Path
    inputs: tuple[str, ...]


def quantized_by_others(folder: Path, ours: Path, work: Path, calibration: Sequence[dict]) -> Files:
    """Make the files that the libraries make when they are called as their own documentation does."""
    import nncf
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    fp32, dynamic, qdq = (work / f"{name}.onnx" for name in ("fp32", "dynamic", "qdq"))
    export(folder, fp32)
    names = tuple(one.name for one in onnx.load(fp32).graph.input)
    data = [{name: batch[name] for name in names} for batch in calibration]
    with quiet():
        quantize_dynamic(fp32, dynamic, per_channel=True, weight_type=QuantType.QInt8)
        transformer = nncf.ModelType.TRANSFORMER
        quantized = nncf.quantize(onnx.load(fp32), nncf.Dataset(data), model_type=transformer, subset_size=len(data))
        onnx.save(quantized, qdq)
    return Files(folder, ours, fp32, dynamic, qdq, names)


def by_torch(bf16: bool) -> Load:
    """Return how torch runs the checkpoint, in float32 or by autocast to bfloat16."""

    def load(files: Files, threads: int) -> Run:
        import torch

        torch.set_num_threads(threads)
        model = checkpoint.load(files.folder)[0]

        def run(batch: Batch) -> np.ndarray:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                return model(**{name: torch.from_numpy(batch[name]) for name in files.inputs}).logits.float().numpy()

        return run

    return load


def by_onnxruntime(kind: str) -> Load:
    """Return how onnxruntime runs one of the files."""

    def load(files: Files, threads: int) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(getattr(files, kind), options)
        return lambda batch: session.run(None, {name: batch[name] for name in files.inputs})[0]

    return load


def by_openvino(files: Files, threads: int) -> Run:
    """Return how OpenVINO runs NNCF's file."""
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.compile_model(files.qdq, "CPU", settings)
    return lambda batch: compiled({name: batch[name] for name in files.inputs})[0].copy()


RUNTIMES: dict[str, Load] = {
    TORCH: by_torch(bf16=False),
    "torch bf16": by_torch(bf16=True),
    "onnxruntime fp32": by_onnxruntime("fp32"),
    "onnxruntime int8 dynamic": by_onnxruntime("dynamic"),
    "onnxruntime int8 QDQ": by_onnxruntime("qdq"),
    "openvino int8 QDQ": by_openvino,
    OURS: lambda files, threads: load_predictor(files.ours, threads=threads).predict,
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Own = ProcessPoolExecutor  # of one process, which has loaded one runtime


def processes(files: Files, threads: int) -> dict[str, Own]:
    """Return a process for each runtime: in one, a library's pinned and spinning threads slow down the others."""
    context = get_context("spawn")
    return {name: Own(1, context, start, (name, files, threads)) for name in RUNTIMES}


def start(name: str, files: Files, threads: int) -> None:
    """Load a runtime in this process."""
    global _run, _profiled
    _run = RUNTIMES[name](files, threads)
    file = {"fp32": files.fp32, "dynamic": files.dynamic, "QDQ": files.qdq}.get(name.split()[-1])
    runtime = runtime_of(files.ours) if name == OURS else name.split()[0]
    _profiled = runtime, _run if runtime == "torch" else file or files.ours / ONNX_FILE, threads


def parts(batch: Batch) -> dict[str, float]:
    """Return the CPU milliseconds of a batch in this process's runtime, by part."""
    whole = milliseconds(batch, REPEATS, "cpu")
    repeats = max(REPEATS, round(1000 * WHERE_SECONDS / whole))
    return {name: whole * share for name, share in edge_parts.shares(*_profiled, batch, repeats).items()}


def where(runs: dict[str, Own], folder: Path, texts: Sequence[Sequence[str]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return where each runtime spends a row and a batch of rows of middle length, by part."""
    order, found = sorted(range(len(texts[0])), key=lambda row: sum(len(side[row]) for side in texts)), {}
    for rows in (1, 32):
        middle = order[(len(order) - rows) // 2 :][:rows]
        sides = [[side[row] for row in middle] for side in texts]
        batch = encode(folder, *sides)
        tokens = edge_parts.tokenizing(lambda sides=sides: encode(folder, *sides), REPEATS)
        own = {name: {edge_parts.TOKENIZER: tokens} | run.submit(parts, batch).result() for name, run in runs.items()}
        found[f"{rows}x{batch['input_ids'].shape[1]}"] = own
    return found


def predict(batch: Batch) -> np.ndarray:
    """Run this process's runtime."""
    return _run(batch)


def milliseconds(batch: Batch, repeats: int, clock: str) -> float:
    """Return what a batch takes this process's runtime."""
    began = time.perf_counter()
    while time.perf_counter() < began + SETTLE:
        _run(batch)
    started = CLOCKS[clock]()
    for _ in range(repeats):
        _run(batch)
    return (CLOCKS[clock]() - started) / repeats * 1000


def timed(runs: dict[str, Own], clock: str, rounds: int, vocabulary: int) -> dict[str, dict]:
    """Return median milliseconds, {name: {"1x32": 3.1, ...}}."""
    random = np.random.default_rng(0)
    found: dict[str, dict[str, float]] = {name: {} for name in runs}
    for rows, length in SHAPES:
        ids = random.integers(0, vocabulary, (rows, length))
        batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        taken: dict[str, list[float]] = {name: [] for name in runs}
        repeats = max(1, 1024 // (rows * length))
        for number in range(rounds + 2):
            for name, run in runs.items():
                took = run.submit(milliseconds, batch, repeats, clock).result()
                if number > 1:  # two rounds warm up
                    taken[name].append(took)
        for name, values in taken.items():
            found[name][f"{rows}x{length}"] = float(np.median(values))
    return found


def accuracy(runs: dict[str, Own], folder: Path, test: Path) -> dict[str, float]:
    """Return the share of test rows each gets right."""
    task, columns = tasks.read_task(test), tasks.read_columns(test)
    texts = list(zip(*(columns[name] for name in task.columns), strict=True))
    order = sorted(range(len(texts)), key=lambda row: sum(map(len, texts[row])))
    right = dict.fromkeys(runs, 0)
    for at in range(0, len(order), 32):
        rows = order[at : at + 32]
        batch = encode(folder, *(list(side) for side in zip(*(texts[row] for row in rows), strict=True)))
        labels = np.array([columns["label"][row] for row in rows])
        for name, run in runs.items():
            right[name] += int((run.submit(predict, batch).result().argmax(axis=1) == labels).sum())
    return {name: count / len(texts) for name, count in right.items()}


def table(result: dict[str, Any]) -> str:
    """Return one model's table: milliseconds with their ratio to torch fp32, and accuracy where it was measured."""
    columns = [f"{rows}x{length}" for rows, length in SHAPES]
    lines = [f"\n{result['model']}: level {result['level']}, {result['parameters']:,} parameters"]
    lines.append(f"{'rows x tokens':26}" + "".join(f"{column:>16}" for column in columns) + f"{'accuracy':>10}")
    for name, times in result["milliseconds"].items():
        cells = (f"{times[one]:8.1f} ({times[one] / result['milliseconds'][TORCH][one]:.2f})" for one in columns)
        right = result["accuracy"].get(name)
        lines.append(f"{name:26}" + "".join(f"{cell:>16}" for cell in cells) + (f"{right:10.4f}" if right else ""))
    best = {one: min(times[one] for name, times in result["milliseconds"].items() if name != OURS) for one in columns}
    ours = result["milliseconds"][OURS]
    lines.append(f"ours / best of the others:  {', '.join(f'{one} {ours[one] / best[one]:.2f}' for one in columns)}")
    worst = max(ours[one] / result["milliseconds"][TORCH][one] for one in columns)
    lines.append(
        f"ours / torch fp32, at worst: {worst:.3f} (goal {TIME_GOAL}: {'met' if worst <= TIME_GOAL else 'MISSED'})"
    )
    lines.append(f"ours: {result['quantize']}")
    size = result["quantize"]["size_ratio"]
    lines.append(f"file: {size:.3f} of the weights (goal {SIZE_GOAL}: {'met' if size <= SIZE_GOAL else 'MISSED'})")
    if result["accuracy"]:
        kept = result["accuracy"][OURS] / result["accuracy"][TORCH]
        lines.append(f"accuracy kept: {kept:.4f} (goal {KEPT_GOAL}: {'met' if kept >= KEPT_GOAL else 'MISSED'})")
    return "\n".join(lines)


def main() -> None:
    """Measure the models given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="checkpoint folders")
    parser.add_argument("--calibration", required=True, type=Path, help="Parquet training split")
    parser.add_argument("--test", type=Path, help="Parquet test split, for accuracy")
    parser.add_argument("--runtime", default="auto", help="what quantize is asked for")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu: CPU time, with one thread")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=json_file, help="write all figures here")
    given = parser.parse_args()
    threads = 1 if given.clock == "cpu" else given.threads
    versions = records.versions()
    machine = {"processor": processor(), "threads": threads, "clock": given.clock, "versions": versions}
    results: dict[str, Any] = {"machine": machine, "models": []}
    print(f"{machine['processor']}, {threads} thread(s), {given.clock} time; medians of {given.rounds} rounds")
    texts = tasks.read_columns(given.calibration)
    sides = [texts[name][:320] for name in tasks.read_task(given.calibration).columns]
    for folder in given.models:
        with tempfile.TemporaryDirectory() as scratch:
            work = Path(scratch)
            made = quantize(folder, given.calibration, work / "int8", runtime=given.runtime)
            batches = [encode(folder, *(side[at : at + 8] for side in sides)) for at in range(0, len(sides[0]), 8)]
            runs = processes(quantized_by_others(folder, work / "int8", work, batches), threads)
            record = records.read_record(folder)
            vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
            results["models"].append(
                {
                    "model": str(folder),
                    "level": record["level"],
                    "parameters": record["parameters"],
                    "milliseconds": timed(runs, given.clock, given.rounds, vocabulary),
                    "accuracy": accuracy(runs, folder, given.test) if given.test else {},
                    "where": where(runs, folder, sides),
                    "quantize": made,
                }
            )
            for run in runs.values():
                run.shutdown()
            print(table(results["models"][-1]), flush=True)
            for shape, own in results["models"][-1]["where"].items():
                print(edge_parts.table(*map(int, shape.split("x")), own), flush=True)
    write_json(given.json, results)


def processor() -> str:
    """Return the processor's name and the instructions that matter here."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    values = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    found = {key.strip(): value.strip() for key, value in values.items()}
    flags = set(found.get("flags", "").split()) & {"amx_int8", "amx_bf16", "avx512_vnni", "avx512_bf16", "avx_vnni"}
    return f"{found.get('model name', platform.processor())} ({', '.join(sorted(flags)) or 'no VNNI'})"


if __name__ == "__main__":
    main()
