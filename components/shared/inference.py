"""Run a model folder: torch for ordinary checkpoints, OpenVINO or onnxruntime for quantized ones.

Quantized folders need neither torch nor transformers, and nothing here imports them for those: the runtime
named in `bonsai.json`, numpy and tokenizers are enough.

    predictor = load_predictor(folder)
    logits = predictor.predict(encode(folder, ["a fine film", "a dull one"]))
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared import processor
from kfp_bonsai.shared.errors import BonsaiError
from kfp_bonsai.shared.files import sha256
from kfp_bonsai.shared.progress import say

TORCH, OPENVINO, ONNXRUNTIME = "torch", "openvino", "onnxruntime"
FIELDS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}  # of an encoding
MOST_THREADS = 8192
ONNX_FILE, RECORD_FILE = "model.onnx", "bonsai.json"

Batch = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Predictor:
    """A model that is loaded and ready.

    Attributes:
        runtime: "torch", "openvino" or "onnxruntime".
        inputs: the arrays the model takes; others in a batch are ignored, a missing one counts as zeros.
        run: gives the logits for exactly these inputs.
    """

    runtime: str
    inputs: tuple[str, ...]
    run: Callable[[dict[str, np.ndarray]], np.ndarray]

    def predict(self, batch: Batch) -> np.ndarray:
        """Return the logits of a padded batch as float32, (rows, labels).

        Args:
            batch: `input_ids`, `attention_mask` and, where the model has them, `token_type_ids`, (rows, tokens).
        """
        ids = batch["input_ids"]
        return self.run({name: batch[name] if name in batch else np.zeros_like(ids) for name in self.inputs})


def load_predictor(folder: Path, device: str = "cpu", *, threads: int = 0) -> Predictor:
    """Load a model folder with the runtime it was made for; it runs one batch at a time.

    Args:
        folder: a checkpoint, or what `bonsai quantize` wrote.
        device: "cpu" or "cuda"; quantized models run on the CPU alone.
        threads: threads that work on one batch; 0 takes OMP_NUM_THREADS, or else the runtime's own choice.

    Raises:
        BonsaiError: no model there, an unknown runtime or one that is not installed, or a GPU asked for int8.
    """
    folder = Path(folder)
    threads = threads or stated_threads()
    if not (folder / ONNX_FILE).is_file():
        return _torch(folder, device, threads)
    if device != "cpu":
        raise BonsaiError(f"{folder} is quantized for CPUs and does not run on '{device}': use --device cpu")
    runtime = runtime_of(folder)
    record = _json(folder / RECORD_FILE)
    check_files(folder, record)
    quantization = record.get("quantization")
    if isinstance(quantization, Mapping) and (doubt := processor.doubt(quantization)):
        _say_once(f"note: {folder}: {doubt}")
    return onnx_predictor(folder / ONNX_FILE, runtime, threads=threads)


def weights_sha256(folder: Path) -> str:
    """Return the hash of a model folder's weights file(s)."""
    return sha256(sorted(Path(folder).glob("*.safetensors")) or sorted(Path(folder).glob("model.onnx*")))


def tokenizer_sha256(folder: Path) -> str:
    """Return the hash of a model folder's tokenizer.json."""
    return sha256(Path(folder).glob("tokenizer.json"))


def check_files(folder: Path, record: Mapping[str, Any]) -> None:
    """Check that a folder's weights and tokenizer are those that its record speaks of, as far as it does.

    Raises:
        BonsaiError: they are others, or damaged.
    """
    for what, key, digest in (("weights", "sha256", weights_sha256), ("tokens", "tokenizer_sha256", tokenizer_sha256)):
        if record.get(key) is not None and record[key] != digest(folder):
            raise BonsaiError(
                f"the {what} in {folder} are not those that its {RECORD_FILE} speaks of: they were changed or damaged: "
                "copy the folder again, or make the model again"
            )


@cache
def _say_once(text: str) -> None:
    say(text)


def stated_threads() -> int:
    """Return the threads that OMP_NUM_THREADS states, of "4,2" the first; 0 if it states none that can be."""
    stated = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(stated) if stated.isdecimal() and int(stated) <= MOST_THREADS else 0


def runtime_of(folder: Path) -> str:
    """Return the runtime a model folder was made for.

    Raises:
        BonsaiError: a quantized folder does not name a runtime that we know.
    """
    if not (folder / ONNX_FILE).is_file():
        return TORCH
    runtime = _json(folder / RECORD_FILE).get("runtime", "")
    if runtime not in _ONNX_RUNTIMES:
        raise BonsaiError(
            f"{folder / RECORD_FILE}: runtime '{runtime}' is not one of {', '.join(_ONNX_RUNTIMES)}: "
            "make the folder with `bonsai quantize`"
        )
    return runtime


def onnx_predictor(file: Path, runtime: str, *, threads: int = 0) -> Predictor:
    """Load one ONNX file with the runtime asked for, see `load_predictor`."""
    try:
        return _ONNX_RUNTIMES[runtime](file, threads)
    except ImportError as error:
        raise BonsaiError(
            f"{file} needs {runtime}, which is not installed: pip install {runtime}, or 'kfp-bonsai[cpu]' for all of it"
        ) from error
    except Exception as error:  # each runtime has an exception of its own
        raise BonsaiError(f"{file} is not a whole ONNX file that {runtime} reads: quantize again ({error})") from error


def encode(
    folder: Path, texts: Sequence[str], pairs: Sequence[str] | None = None, max_length: int = 0
) -> dict[str, np.ndarray]:
    """Turn texts into a padded batch with the folder's tokenizer.json alone, as AutoTokenizer would.

    Args:
        folder: a model folder.
        texts: the rows' texts, or first texts.
        pairs: the rows' second texts, for tasks on pairs.
        max_length: the most tokens a row keeps; 0 takes the length the model was trained with.
    """
    folder = Path(folder)
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise BonsaiError(f"{file} is missing: the folder needs a fast tokenizer (save_pretrained of AutoTokenizer)")
    tokenizer = _tokenizer(file, file.stat().st_mtime_ns, max_length or _max_length(folder))
    rows = encode_rows(tokenizer, texts, *([] if pairs is None else [pairs]))
    width = max((max(1, len(row.ids)) for row in rows), default=0)
    found = {
        name: np.array([getattr(row, field) or [0] * width for row in rows], dtype=np.int64).reshape(len(rows), width)
        for name, field in FIELDS.items()
    }
    empty = ~found["attention_mask"].any(axis=1)  # a text of no tokens is one padding token, as in training
    found["attention_mask"][empty, :1] = 1
    found["input_ids"][empty] = tokenizer.padding["pad_id"]
    return found


def encode_rows(tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Any]:
    """Encode texts or pairs with a tokenizer of the tokenizers library, as it is set: all tokens come from here.

    Raises:
        BonsaiError: the tokenizer cannot encode them.
    """
    rows = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
    try:
        return tokenizer.encode_batch_fast(rows)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # the library's Rust's
            raise
        raise BonsaiError(f"the tokenizer cannot split texts into tokens ({error}): save the model's again") from error


def _torch(folder: Path, device: str, threads: int) -> Predictor:
    import torch

    from kfp_bonsai.shared import checkpoint
    from kfp_bonsai.shared.families import inputs_of

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BonsaiError(f"--device {device}: torch sees no GPU here: use --device cpu")
    if threads and device == "cpu":
        torch.set_num_threads(threads)
    model = checkpoint.load(folder)[0].to(device).eval()

    def run(batch: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
            return model(**tensors).logits.float().cpu().numpy()

    return Predictor(TORCH, inputs_of(model.config), run)


def _openvino(file: Path, threads: int) -> Predictor:
    import openvino

    core = openvino.Core()
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    compiled = core.compile_model(core.read_model(file), "CPU", config)
    inputs = tuple(one.get_any_name() for one in compiled.inputs)
    request = compiled.create_infer_request()

    def run(batch: dict[str, np.ndarray]) -> np.ndarray:
        arrays = [np.ascontiguousarray(batch[name], np.int64) for name in inputs]  # they live until it has run
        for place, array in enumerate(arrays):  # `infer(batch)` takes 0.05 ms more, a tenth of a short text
            request.set_input_tensor(place, openvino.Tensor(array, shared_memory=True))
        request.infer(share_outputs=True)
        return request.get_output_tensor(0).data.copy()

    return Predictor(OPENVINO, inputs, run)


def _onnxruntime(file: Path, threads: int) -> Predictor:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it would send traces of every session to its makers
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # By default threads spin for 10 ms after a batch: of one row, that costs eight times the CPU time for 0.6 ms less
    # latency, and it is taken from whoever runs next, a model measured beside this one included.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    inputs = tuple(one.name for one in session.get_inputs())
    return Predictor(ONNXRUNTIME, inputs, lambda batch: session.run(None, batch)[0])


_ONNX_RUNTIMES: dict[str, Callable[[Path, int], Predictor]] = {OPENVINO: _openvino, ONNXRUNTIME: _onnxruntime}


@lru_cache(maxsize=8)
def _tokenizer(file: Path, changed: int, max_length: int) -> Any:
    from tokenizers import Tokenizer

    settings = _json(file.with_name("tokenizer_config.json"))
    pad = settings.get("pad_token") or _json(file.with_name("special_tokens_map.json")).get("pad_token") or "[PAD]"
    pad = pad.get("content") if isinstance(pad, dict) else pad
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # which is all that the library says of its kind
        raise BonsaiError(f"{file} holds no tokenizer ({error}): save the model's there again") from error
    pad_id = tokenizer.token_to_id(pad) if isinstance(pad, str) else None
    if pad_id is None:
        raise BonsaiError(f"{file}: the padding token '{pad}' is not in the vocabulary: set pad_token and save again")
    sides = [settings.get(name, "right") for name in ("padding_side", "truncation_side")]
    if not all(side in ("left", "right") for side in sides):
        raise BonsaiError(f"{file.with_name('tokenizer_config.json')}: a side is neither left nor right: save it again")
    tokenizer.enable_padding(direction=sides[0], pad_id=pad_id, pad_token=pad)
    tokenizer.enable_truncation(max_length, direction=sides[1])
    tokenizer.encode_special_tokens = settings.get("split_special_tokens") is True
    return tokenizer


def _max_length(folder: Path) -> int:
    stated = _json(folder / RECORD_FILE).get("max_length") or 128
    if not isinstance(stated, int):
        raise BonsaiError(
            f"{folder / RECORD_FILE}: max_length is {stated!r}, no number of tokens: make the model again"
        )
    return stated


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise BonsaiError(f"{file} is not JSON, or is cut off ({error}): copy the folder again") from error
    if not isinstance(found, dict):
        raise BonsaiError(f"{file} holds no JSON object: copy the folder again")
    return found
