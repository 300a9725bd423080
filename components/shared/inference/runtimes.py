"""Run a model folder: torch for ordinary checkpoints, OpenVINO or onnxruntime for quantized ones.

Quantized folders need neither torch nor transformers, and nothing here imports them for those: the runtime
named in `bonsai.json`, numpy and tokenizers are enough.

    predictor = load_predictor(folder)
    logits = predictor.predict(encode(folder, ["a fine film", "a dull one"]))
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.documents import RECORD
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.core.threads import stated_threads
from kfp_bonsai.shared.inference import processor
from kfp_bonsai.shared.saved.records import read_record
from kfp_bonsai.shared.saved.weights import DECODER_FILE, ONNX_FILE, check_files, is_quantized

TORCH, OPENVINO, ONNXRUNTIME = "torch", "openvino", "onnxruntime"

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
        """Return the logits of a padded batch as float32, (rows, labels) or (rows, tokens, labels).

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
    if not is_quantized(folder):
        return _torch(folder, device, threads)
    if (folder / DECODER_FILE).is_file():
        raise BonsaiError(f"{folder} writes its answers: load it with load_writer")
    if device != "cpu":
        raise BonsaiError(f"{folder} is quantized for CPUs and does not run on '{device}': use --device cpu")
    runtime = runtime_of(folder)
    check_quantized(folder)
    return onnx_predictor(folder / ONNX_FILE, runtime, threads=threads)


def check_quantized(folder: Path) -> dict[str, Any]:
    """Check that a quantized folder holds what its record speaks of, and note what may differ here; return the record.

    Raises:
        BonsaiError: its weights or tokens are others, or its record is damaged.
    """
    record = read_record(folder)
    check_files(folder, record)
    if doubt := processor.doubt(record.get("quantization", {})):
        _say_once(f"note: {folder}: {doubt}")
    return record


@cache
def _say_once(text: str) -> None:
    say(text)


def runtime_of(folder: Path) -> str:
    """Return the runtime a model folder was made for.

    Raises:
        BonsaiError: a quantized folder does not name a runtime that we know.
    """
    if not is_quantized(folder):
        return TORCH
    runtime = read_record(folder).get("runtime", "")
    if runtime not in _ONNX_RUNTIMES:
        raise BonsaiError(
            f"{folder / RECORD}: runtime '{runtime}' is not one of {', '.join(_ONNX_RUNTIMES)}: "
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


def _torch(folder: Path, device: str, threads: int) -> Predictor:
    import torch

    from kfp_bonsai.shared.saved import checkpoint

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BonsaiError(f"--device {device}: torch sees no GPU here: use --device cpu")
    if threads and device == "cpu":
        torch.set_num_threads(threads)
    return torch_predictor(checkpoint.load(folder)[0], device)


def torch_predictor(network: Any, device: str) -> Predictor:
    """Return a model of torch, ready to run on a device."""
    import torch

    from kfp_bonsai.shared.models.configuration import inputs_of

    network = network.to(device).eval()

    def run(batch: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            tensors = {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
            return network(**tensors).logits.float().cpu().numpy()

    return Predictor(TORCH, inputs_of(network.config), run)


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
