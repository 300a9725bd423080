"""Where the time of a batch goes in each CPU runtime, by its own counters, in parts that all of them have.

What a runtime fuses counts for the first of it: OpenVINO computes GELU and the rounding of what follows within its
matrix products, and attention with its softmax as one node.
"""

import json
import re
import time
from collections.abc import Callable
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
Counted = tuple[list[tuple[str, float]], float]  # milliseconds of each operator, and of a call


def shares(runtime: str, model: Any, threads: int, batch: Batch, repeats: int) -> dict[str, float]:
    """Return the share that each part has of the time of a call, by the clock: together they are 1.

    Other work on the machine interrupts all parts alike, the longer the more often, so that shares stay as they are.

    Args:
        runtime: "torch", "onnxruntime" or "openvino".
        model: what runs a batch with torch; a file for the others.
        threads: that work on it.
        batch: the model's inputs.
        repeats: how often it runs.
    """
    operators, whole = _OPERATORS[runtime](model, threads, batch, repeats)
    found: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    for operator, milliseconds in operators:
        part = next(name for name, words in PARTS.items() if re.search(words, operator, re.IGNORECASE))
        found[part] += milliseconds
    found[REST] = max(0.0, whole - sum(found.values()))
    return {name: value / sum(found.values()) for name, value in found.items()}


def tokenizing(encode: Callable[[], Any], repeats: int) -> float:
    """Return the CPU milliseconds that a batch's texts take to become tokens."""
    started = time.process_time()
    for _ in range(repeats):
        encode()
    return 1000 * (time.process_time() - started) / repeats


def _of_torch(run: Callable[[Batch], Any], _threads: int, batch: Batch, repeats: int) -> Counted:
    import torch

    run(batch)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        whole = _called(lambda: run(batch), repeats)
    seen = profile.key_averages()
    return [(each.key.removeprefix("aten::"), each.self_cpu_time_total / 1000 / repeats) for each in seen], whole


def _of_onnxruntime(file: Path, threads: int, batch: Batch, repeats: int) -> Counted:
    import onnxruntime

    with TemporaryDirectory() as scratch:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_profiling, options.profile_file_prefix = True, f"{scratch}/run"
        session = onnxruntime.InferenceSession(file, options)
        own = {one.name: batch[one.name] for one in session.get_inputs()}
        whole = _called(lambda: session.run(None, own), repeats)
        events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [each for each in events if each["cat"] == "Node" and each["name"].endswith("_kernel_time")]
    return [(each["args"]["op_name"], each["dur"] / 1000 / repeats) for each in kernels], whole


def _of_openvino(file: Path, threads: int, batch: Batch, repeats: int) -> Counted:
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "PERF_COUNT": True}
    compiled = openvino.compile_model(file, "CPU", settings)
    request, own = compiled.create_infer_request(), {one.get_any_name(): one for one in compiled.inputs}
    whole = _called(lambda: request.infer({name: batch[name] for name in own}), repeats)
    seen = [each for each in request.profiling_info if each.status == each.Status.EXECUTED]  # means of all calls
    return [(each.node_type, 1000 * each.real_time.total_seconds()) for each in seen], whole


def _called(call: Callable[[], Any], repeats: int) -> float:
    """Return the milliseconds of a call, the mean of all."""
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return 1000 * (time.perf_counter() - started) / repeats


def table(rows: int, tokens: int, found: dict[str, dict[str, float]]) -> str:
    """Return the parts of each runtime as lines: milliseconds, and their share of a request with its tokenizer."""
    columns = [TOKENIZER, *PARTS, REST]
    lines = ["", f"{f'{rows} rows, {tokens} tokens: ms (%)':26}" + "".join(f"{one:>21}" for one in columns)]
    for name, own in found.items():
        whole = sum(own.values())
        cells = [f"{own[one]:.2f} ({100 * own[one] / whole:.0f})" for one in columns]
        lines.append(f"{name:26}" + "".join(f"{cell:>21}" for cell in cells))
    return "\n".join(lines)


_OPERATORS: dict[str, Callable[..., Counted]] = {
    "torch": _of_torch,
    "onnxruntime": _of_onnxruntime,
    "openvino": _of_openvino,
}
