"""A checkpoint as an fp32 ONNX file: any batch, any length, the logits as its output, and proven equal to torch.

The model is traced with eager attention: its plain MatMul-Softmax-MatMul is what OpenVINO and onnxruntime fuse.
Widths are taken as they are, layer by layer, so free shapes export like any other. Of its last layer a classifier
computes only the token that it reads, whatever its shape: of two layers the others are two fifths of the work.
Where every token attends to every other, the mask is made here, in three nodes instead of the eleven of transformers':
of one short text on a small model, what a node costs beside its work is most of the time.
"""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data.encoding import encode
from kfp_bonsai.shared.inference.runtimes import ONNXRUNTIME, onnx_predictor
from kfp_bonsai.shared.models.configuration import family_of, inputs_of
from kfp_bonsai.shared.models.heads import is_of_tokens

OPSET = 17
TOLERANCE = 1e-3
PROBES = ((1, 1), (2, 7), (3, 20), (8, 60))  # rows x words of the batches that must agree


def export(folder: Path, file: Path) -> float:
    """Write a checkpoint's ONNX file and check it against torch on random batches of several sizes.

    Args:
        folder: a model folder written by a stage.
        file: the ONNX file to write.

    Returns:
        The largest difference between the logits of torch and of the file, as onnxruntime runs it.

    Raises:
        BonsaiError: the model does not load or does not export, or the file gives other logits than torch.
    """
    import torch

    from kfp_bonsai.shared.models import one_token
    from kfp_bonsai.shared.saved import checkpoint

    model, tokenizer = checkpoint.load(folder)
    model.set_attn_implementation("eager")
    names = list(inputs_of(model.config))
    batches = [encode(folder, *_words(tokenizer, *probe, seed)) for seed, probe in enumerate(PROBES)]
    expected = [_asked(model, names, batch) for batch in batches]
    one_token.leave_out(model)
    inputs = tuple(torch.from_numpy(batches[2][name]) for name in names)
    of_tokens = {0: "rows", 1: "tokens"}
    axes = dict.fromkeys(names, of_tokens) | {"logits": of_tokens if is_of_tokens(model) else {0: "rows"}}
    try:
        with quiet(), torch.inference_mode():
            torch.onnx.export(
                _logits_of(model, names),
                inputs,
                str(file),
                input_names=names,
                output_names=["logits"],
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,  # the torch.export route takes 5 times as long for a graph that runs no faster
            )
    except Exception as error:
        raise BonsaiError(
            f"{folder} (model_type '{model.config.model_type}') does not export to ONNX: {error}: "
            "use the checkpoint as it is, or report this with its config.json"
        ) from error
    _name_shared_weights_once(file)
    return _largest_difference(model.config.model_type, file, batches, expected)


def _name_shared_weights_once(file: Path) -> None:
    """Let all matrix products of one weight read it under its name: torch gives it others, which NNCF cannot follow."""
    import onnx

    model = onnx.load(file, load_external_data=False)
    weights = {one.name for one in model.graph.initializer}
    copies = [node for node in model.graph.node if node.op_type == "Identity" and node.input[0] in weights]
    names = {node.output[0]: node.input[0] for node in copies}
    for node in copies:
        model.graph.node.remove(node)
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    if copies:
        onnx.save(model, file)


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the warnings, log lines and progress bars of exporters and quantizers; errors still come through."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _logits_of(model: Any, names: list[str]) -> Any:
    import torch

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *arrays: Any) -> Any:
            named = dict(zip(names, arrays, strict=True))
            named["attention_mask"] = _mask(model.config, named["attention_mask"])
            return self.model(**named, return_dict=True).logits

    return Logits().eval()


def _mask(config: Any, there: Any) -> Any:
    """Return the attention mask as a model is to take it, made here where no token is hidden from earlier ones.

    Args:
        config: the model's configuration.
        there: 1 where there is a token, shape (rows, tokens).
    """
    import torch

    both_sides = getattr(config, "use_bidirectional_attention", False)  # Gemma 3, whose own mask cannot be traced
    if not (both_sides or family_of(config).full_attention):
        return there
    padding = padding_mask(there)
    if not both_sides:
        return padding
    places = torch.arange(there.shape[1], device=there.device)
    far = ((places[:, None] - places).abs() >= config.sliding_window).float() * torch.finfo(torch.float32).min
    return {
        "full_attention": padding.expand(-1, 1, there.shape[1], -1),
        "sliding_attention": torch.minimum(padding, far),
    }


def padding_mask(there: Any) -> Any:
    """Return what is added to attention's scores so that padding counts for nothing: (rows, 1, 1, tokens)."""
    import torch

    return (1.0 - there[:, None, None, :].float()) * torch.finfo(torch.float32).min


def _words(tokenizer: Any, rows: int, words: int, seed: int) -> tuple[list[str], list[str] | None]:
    """Return texts (or pairs, for one size) of random tokens, each row a little shorter than the one before."""
    random = np.random.default_rng(seed)
    ordinary = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))

    def text(count: int) -> str:
        return tokenizer.decode(random.choice(ordinary, max(count, 1)).tolist())

    texts = [text(words - row * words // rows) for row in range(rows)]
    return texts, [text(5) for _ in texts] if rows == 2 else None


def _asked(model: Any, names: list[str], batch: dict[str, np.ndarray]) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return model(**{name: torch.from_numpy(batch[name]) for name in names}).logits.float().numpy()


def _largest_difference(
    model_type: str, file: Path, batches: list[dict[str, np.ndarray]], expected: list[np.ndarray]
) -> float:
    predictor = onnx_predictor(file, ONNXRUNTIME)
    worst = 0.0
    for batch, wanted in zip(batches, expected, strict=True):
        found = predictor.predict(batch)
        scale = max(1.0, float(np.abs(wanted).max()))
        difference = float(np.abs(found - wanted).max()) / scale if found.shape == wanted.shape else float("inf")
        if not difference <= TOLERANCE:
            raise BonsaiError(
                f"the ONNX export of a '{model_type}' model differs from torch by {difference:.2g} "
                f"(allowed: {TOLERANCE:g}) at {batch['input_ids'].shape[0]} rows x {batch['input_ids'].shape[1]} "
                "tokens: use the checkpoint as it is, or report this with its config.json"
            )
        worst = max(worst, difference)
    return worst
