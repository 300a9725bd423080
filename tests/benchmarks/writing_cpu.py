"""What a written token costs on this CPU: torch beside onnxruntime's and OpenVINO's graphs with keys and values kept.

    python tests/benchmarks/writing_cpu.py --texts test.parquet [--layers 6] [--only NAME,...] [--json writing_cpu.json]

Of `embedded:smollm2`, whole or its first layers: prompts of 60 tokens of real text, 1 and 8 rows, answers of one forced
length. All take turns in one process on one thread, and CPU time counts, which neighbours hardly change. A token's time
is that of 12 (and of 32) without the first, which holds the reading of the prompt. `next` is the share of torch's own
tokens that are the likeliest here too, after the same tokens before them.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from arguments import json_file, write_json
from edge import processor

from kfp_bonsai.quantize.decoders import _round_weights
from kfp_bonsai.shared.inference import decoding
from kfp_bonsai.shared.inference.decoder_export import _stepping, export
from kfp_bonsai.shared.inference.onnx_export import OPSET, quiet
from kfp_bonsai.shared.saved import pretrained, records

ROWS, READ, LENGTHS, ROUNDS, TOLD = (1, 8), 60, (12, 32), 3, 16
TORCH, OURS = "torch fp32", "openvino int8"
GOAL = 0.5
Write = Callable[[np.ndarray, int], np.ndarray]  # prompts of equal length and a number of tokens, to the tokens
Forced = Callable[[np.ndarray, np.ndarray], int]  # prompts and tokens, to how many are the likeliest


def by_torch(model: Any) -> Write:
    """Return how transformers writes."""

    def write(ids: np.ndarray, tokens: int) -> np.ndarray:
        given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.ones(ids.shape, dtype=torch.long)}
        length = {"min_new_tokens": tokens, "max_new_tokens": tokens, "pad_token_id": 0}
        with torch.inference_mode():
            return model.generate(**given, **length, do_sample=False).numpy()[:, ids.shape[1] :]

    return write


class Session:
    """An ONNX graph that is given keys and values with every token, and gives them back longer."""

    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.value = onnxruntime.OrtValue.ortvalue_from_numpy
        self.past = [one for one in self.session.get_inputs() if one.name.startswith("past")]
        self.kept: list[Any] = []
        self.mask = np.zeros((0, 0), np.int64)

    def read(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Read prompts."""
        self.kept = [self.value(np.zeros((len(ids), one.shape[1], 0, one.shape[3]), np.float32)) for one in self.past]
        self.mask = mask
        return self._logits(ids, np.arange(ids.shape[1])[None].repeat(len(ids), axis=0))

    def go_on(self, tokens: np.ndarray) -> np.ndarray:
        """Read one token more of each row."""
        places = self.mask.sum(axis=1, keepdims=True)
        self.mask = np.concatenate([self.mask, np.ones_like(places)], axis=1)
        return self._logits(tokens[:, None], places)

    def _logits(self, ids: np.ndarray, places: np.ndarray) -> np.ndarray:
        given = {"input_ids": ids, "attention_mask": self.mask, "position_ids": places}
        feed = {name: self.value(np.ascontiguousarray(array)) for name, array in given.items()}
        names = [one.name for one in self.past]
        logits, *self.kept = self.session.run_with_ort_values(None, feed | dict(zip(names, self.kept, strict=True)))
        return logits.numpy()[:, -1]


def writing(decoder: Any) -> tuple[Write, Forced]:
    """Return how a graph writes, and how many of given tokens it would."""

    def write(ids: np.ndarray, tokens: int) -> np.ndarray:
        return np.array(decoding.greedy(decoder, ids, np.ones_like(ids), -1, tokens)[0])

    return write, lambda ids, answers: decoding.followed(decoder, ids, np.ones_like(ids), list(answers))


def onnx_file(model: Any, file: Path) -> None:
    """Export the module that `decoder_export` traces to ONNX."""
    with torch.inference_mode():
        kept = model(torch.zeros(2, 5, dtype=torch.long), use_cache=True).past_key_values.layers
    past = [one for layer in kept for one in (layer.keys, layer.values)]
    steps = _stepping(model)

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = steps

        def forward(self, ids: Any, mask: Any, places: Any, *past: Any) -> Any:
            return self.steps(ids, mask, places, past)

    names = [f"{layer}.{kind}" for layer in range(len(kept)) for kind in ("key", "value")]
    asked = ["input_ids", "attention_mask", "position_ids", *(f"past.{name}" for name in names)]
    told = ["logits", *(f"present.{name}" for name in names)]
    axes = {name: {0: "rows", 1: "tokens"} for name in asked[:3]} | {"attention_mask": {0: "rows", 1: "all"}}
    axes |= {name: {0: "rows", 2: "past" if name in asked else "all"} for name in (*asked[3:], *told[1:])}
    ids, mask = torch.ones(2, 3, dtype=torch.long), torch.ones(2, 8, dtype=torch.long)
    given = (ids, mask, torch.arange(5, 8).repeat(2, 1), *past)
    with quiet(), torch.inference_mode():
        torch.onnx.export(
            Flat().eval(),
            given,
            str(file),
            input_names=asked,
            output_names=told,
            dynamic_axes={**axes, "logits": {0: "rows"}},
            opset_version=OPSET,
            dynamo=False,
        )


def subjects(model: Any, work: Path, only: Sequence[str]) -> dict[str, tuple[Write, Forced | None]]:
    """Return what is compared, the reference first."""
    found: dict[str, tuple[Write, Forced | None]] = {TORCH: (by_torch(model), None)}
    names = [name for name in only if name.startswith("onnxruntime")]
    if names:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        onnx_file(model, work / "fp32.onnx")
        for name in names:
            file = work / f"{name}.onnx"
            with quiet():
                if name.endswith("dynamic"):
                    quantize_dynamic(work / "fp32.onnx", file, per_channel=True, weight_type=QuantType.QInt8)
                elif name.endswith("weights"):
                    made = MatMulNBitsQuantizer(onnx.load(work / "fp32.onnx"), bits=8, block_size=32, accuracy_level=4)
                    made.process()
                    onnx.save(made.model.model, file)
                else:
                    file = work / "fp32.onnx"
            found[name] = writing(Session(file))
            file.unlink() if file.name != "fp32.onnx" else None
    export(model, work / "fp32.xml")
    for name in [name for name in only if name.startswith("openvino")]:
        file, exact = work / "fp32.xml", decoding.EXACT
        if "int" in name:
            file = work / f"{name}.xml"
            _round_weights(work / "fp32.xml", file, 4 if "int4" in name else 8)
        decoding.EXACT = {} if name.endswith("defaults") else exact
        found[name] = writing(decoding.load_decoder(file, threads=1))
        decoding.EXACT = exact
    return found


def cpu_ms(write: Write, ids: np.ndarray, tokens: int) -> float:
    """Return the CPU milliseconds of writing so many tokens."""
    started = time.process_time()
    write(ids, tokens)
    return (time.process_time() - started) * 1000


def measured(found: dict[str, tuple[Write, Forced | None]], prompts: np.ndarray) -> dict[str, dict[str, float]]:
    """Return of each subject what reading and a token take, in milliseconds and of torch's, by pairs of a round."""
    result: dict[str, dict[str, float]] = {name: {} for name in found}
    right = np.concatenate([found[TORCH][0](prompts[at : at + 8], max(LENGTHS)) for at in range(0, TOLD, 8)])
    for name, (_, forced) in found.items():
        if forced:
            hits = sum(forced(prompts[at : at + 8], right[at : at + 8]) for at in range(0, TOLD, 8))
            result[name]["next"] = hits / right.size
    for rows in ROWS:
        taken: dict[str, list[list[float]]] = {name: [] for name in found}
        for number in range(ROUNDS + 1):
            ids = prompts[number * rows : (number + 1) * rows]
            for name, (write, _) in found.items():
                each = [cpu_ms(write, ids, tokens) for tokens in (1, *LENGTHS)]
                if number:  # the first round warms up
                    read, *whole = each
                    tokens = [(one - read) / (length - 1) for one, length in zip(whole, LENGTHS, strict=True)]
                    taken[name].append([read, *tokens])
        for name, values in taken.items():
            table, reference = np.array(values), np.array(taken[TORCH])
            for at, what in enumerate(("read", *(f"token of {length}" for length in LENGTHS))):
                result[name][f"{rows}: {what}, ms"] = float(np.median(table[:, at]))
                result[name][f"{rows}: {what}"] = float(np.median(table[:, at] / reference[:, at]))
    return result


def table(result: dict[str, dict[str, float]]) -> str:
    """Return the figures of all subjects, a line each: of torch's time, and in milliseconds."""
    columns = [name for name in result[TORCH] if not name.endswith("ms")]
    lines = [f"{'rows: what, of torch fp32 (ms)':32}" + "".join(f"{one:>20}" for one in columns) + f"{'next':>8}"]
    for name, row in result.items():
        cells = "".join(f"{row[one]:11.2f} ({row[f'{one}, ms']:6.1f})" for one in columns)
        lines.append(f"{name:32}{cells}" + (f"{row['next']:8.3f}" if "next" in row else ""))
    if OURS in result:
        worst = max(result[OURS][one] for one in columns if "token" in one)
        lines.append(f"{OURS}: a token takes {worst:.2f} of torch's time at worst (goal {GOAL})")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and write."""
    names = (
        "onnxruntime fp32",
        "onnxruntime int8 dynamic",
        "onnxruntime int8 weights",
        "openvino fp32",
        OURS,
        "openvino int8 defaults",
        "openvino int4",
    )
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", required=True, type=Path, help="Parquet file with a column of texts")
    parser.add_argument("--layers", type=int, default=0, help="the model's first layers alone; 0 for all")
    parser.add_argument("--only", default=",".join(names), help="what is compared with torch")
    parser.add_argument("--json", type=json_file, help="write all figures here")
    given = parser.parse_args()
    torch.set_num_threads(1)
    read = pretrained.read("embedded:smollm2")
    model = pretrained.load(read.folder, read.config, "text").network.eval()
    if given.layers:
        model.model.layers = model.model.layers[: given.layers]
        model.config.num_hidden_layers = given.layers
    wanted = max(TOLD, (ROUNDS + 1) * max(ROWS))
    rows = [read.tokenizer(text)["input_ids"][:READ] for text in pq.read_table(given.texts)["text"].to_pylist()[:2000]]
    prompts = np.array([row for row in rows if len(row) == READ][:wanted])
    with tempfile.TemporaryDirectory() as work:
        result = measured(subjects(model, Path(work), given.only.split(",")), prompts)
    machine = {"processor": processor(), "threads": 1, "clock": "cpu", "versions": records.versions()}
    print(f"{machine['processor']}; SmolLM2-135M, {model.config.num_hidden_layers} layers; medians of {ROUNDS} pairs")
    print(table(result))
    write_json(given.json, {"machine": machine, "layers": model.config.num_hidden_layers, "figures": result})


if __name__ == "__main__":
    main()
