"""Where the time of a batch goes in each CPU runtime, by its own counters, in parts that all of them have.

What a runtime fuses counts for the first of it: OpenVINO computes GELU and the rounding of what follows within its
matrix products, and attention with its softmax as one node.
"""

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

REST, TOKENIZER = "Python, and between", "tokenizer"
PARTS = {  # each with what its operators are called by torch, onnxruntime and OpenVINO
    "attention, softmax": r"softmax|attention|^Subgraph",
    "matrix products": r"mm$|MatMul|Gemm|FullyConnected|linear",
    "norms": r"norm|MVN|MulAdd",
    "activations": r"gelu|Erf|tanh|relu|silu",
    "rounding": r"Quantize|Convert|Cast",
    "embeddings": r"Gather|embedding|index",
    "sums, moves": r"",
}
Batch = dict[str, np.ndarray]


def parts(runtime: str, model: Any, threads: int, batch: Batch, repeats: int) -> dict[str, float]:
    """Return the milliseconds of each part of a batch, the least of some repeats for each operator.

    Args:
        runtime: "torch", "onnxruntime" or "openvino".
        model: what runs a batch with torch; a file for the others.
        threads: that work on it.
        batch: the model's inputs.
        repeats: how often it runs.
    """
    found: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    for operator, milliseconds in _OPERATORS[runtime](model, threads, batch, repeats):
        part = next(name for name, words in PARTS.items() if re.search(words, operator, re.IGNORECASE))
        found[part] += milliseconds
    return found


def tokenizing(encode: Callable[[], Any], repeats: int) -> float:
    """Return the CPU milliseconds that a batch's texts take to become tokens."""
    started = time.process_time()
    for _ in range(repeats):
        encode()
    return 1000 * (time.process_time() - started) / repeats


def _of_torch(run: Callable[[Batch], Any], _threads: int, batch: Batch, repeats: int) -> Iterable[tuple[str, float]]:
    import torch

    run(batch)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(repeats):
            run(batch)
    return [
        (each.key.removeprefix("aten::"), each.self_cpu_time_total / 1000 / repeats) for each in profile.key_averages()
    ]


def _of_onnxruntime(file: Path, threads: int, batch: Batch, repeats: int) -> Iterable[tuple[str, float]]:
    import onnxruntime

    with TemporaryDirectory() as scratch:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling, options.profile_file_prefix = True, f"{scratch}/run"
        session = onnxruntime.InferenceSession(file, options)
        own = {one.name: batch[one.name] for one in session.get_inputs()}
        for _ in range(repeats + 1):
            session.run(None, own)
        events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [each for each in events if each["cat"] == "Node" and each["name"].endswith("_kernel_time")]
    return _least((each["name"], each["args"]["op_name"], each["dur"] / 1000) for each in kernels)


def _of_openvino(file: Path, threads: int, batch: Batch, repeats: int) -> Iterable[tuple[str, float]]:
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "PERF_COUNT": True}
    compiled = openvino.compile_model(file, "CPU", settings)
    request, own = compiled.create_infer_request(), {one.get_any_name(): one for one in compiled.inputs}
    seen = []
    for _ in range(repeats + 1):
        request.infer({name: batch[name] for name in own})
        seen += [
            (each.node_name, each.node_type, 1000 * each.real_time.total_seconds())
            for each in request.profiling_info
            if each.status == each.Status.EXECUTED
        ]
    return _least(seen)


def _least(seen: Iterable[tuple[str, str, float]]) -> list[tuple[str, float]]:
    """Return of each node, which ran several times, its operator and the least that it took."""
    least: dict[tuple[str, str], float] = defaultdict(lambda: float("inf"))
    for node, operator, milliseconds in seen:
        least[node, operator] = min(least[node, operator], milliseconds)
    return [(operator, milliseconds) for (_, operator), milliseconds in least.items()]


def table(rows: int, tokens: int, found: dict[str, dict[str, float]]) -> str:
    """Return the parts of each runtime as lines: milliseconds, and their share of a request with its tokenizer."""
    columns = [TOKENIZER, *PARTS, REST]
    lines = ["", f"{f'{rows} rows, {tokens} tokens: ms (%)':26}" + "".join(f"{one:>21}" for one in columns)]
    for name, own in found.items():
        whole = sum(own.values())
        cells = [f"{own[one]:.2f} ({100 * own[one] / whole:.0f})" for one in columns]
        lines.append(f"{name:26}" + "".join(f"{cell:>21}" for cell in cells))
    return "\n".join(lines)


_OPERATORS: dict[str, Callable[..., Iterable[tuple[str, float]]]] = {
    "torch": _of_torch,
    "onnxruntime": _of_onnxruntime,
    "openvino": _of_openvino,
}
