"""Greedy answers of the OpenVINO graphs of a model that writes: numpy and openvino are all that it takes.

A prompt is read whole, and then each token beside the keys and values of those before it, which the graph keeps. Where
an encoder reads the prompt, it has a graph of its own, which runs once.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.saved.weights import ENCODER_FILE

# What is computed and kept is in float32: bfloat16, and keys and values of 8 bits, take as long and answer otherwise.
# Where weights are rounded, so is what they are multiplied with, if the processor sums 8-bit products: row by row.
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}

PROMPT = ("input_ids", "attention_mask")
SAID, ORDER = "decoder_input_ids", "beam_idx"  # behind an encoder: a token of each row; of any: whose row goes on where


@dataclass
class Decoder:
    """A decoder that is loaded, and what it has read: one batch at a time.

    Attributes:
        request: OpenVINO's.
        mask: 1 where a token has been read, shape (rows, tokens).
    """

    request: Any
    mask: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))

    def read(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Read prompts that are padded before them; return the logits of the next token, (rows, vocabulary).

        They lie where the next call writes its own.
        """
        self.request.reset_state()
        self.mask = np.asarray(mask, np.int64)
        return self._logits(ids, np.maximum(self.mask.cumsum(axis=1) - 1, 0))

    def go_on(self, tokens: np.ndarray) -> np.ndarray:
        """Read one token more of each row; return the logits of the one after it."""
        places = self.mask.sum(axis=1, keepdims=True)
        self.mask = np.concatenate([self.mask, np.ones_like(places)], axis=1)
        return self._logits(tokens[:, None], places)

    def _logits(self, ids: np.ndarray, places: np.ndarray) -> np.ndarray:
        given = {"input_ids": ids, "attention_mask": self.mask, "position_ids": places, ORDER: np.arange(len(ids))}
        return _run(self.request, given)[:, -1]


@dataclass(frozen=True)
class EncoderDecoder:
    """An encoder that reads and a decoder that writes, loaded, and what they have read: one batch at a time.

    Attributes:
        encoder: OpenVINO's request, whose outputs are inputs of the decoder's.
        request: the decoder's.
    """

    encoder: Any
    request: Any

    def read(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Read prompts, padded before or after them; return as `Decoder.read` does the logits of the first token."""
        _run(self.encoder, {"input_ids": ids, "attention_mask": mask})
        self.request.reset_state()
        for port in self.encoder.model_outputs:
            self.request.set_tensor(port.any_name, self.encoder.get_tensor(port))
        return _run(self.request, {ORDER: np.arange(len(ids))})[:, -1]

    def go_on(self, tokens: np.ndarray) -> np.ndarray:
        """Read one token more of each row; return the logits of the one after it."""
        return _run(self.request, {SAID: tokens[:, None], ORDER: np.arange(len(tokens))})[:, -1]


Loaded = Decoder | EncoderDecoder


def _run(request: Any, given: Mapping[str, np.ndarray]) -> np.ndarray:
    """Run a graph on arrays of integers; return its first output."""
    import openvino

    arrays = {
        name: np.ascontiguousarray(array, np.int32 if name == ORDER else np.int64) for name, array in given.items()
    }
    for name, array in arrays.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    request.infer(share_outputs=True)
    return request.get_output_tensor(0).data


def load_decoder(file: Path, threads: int = 0) -> Loaded:
    """Load what `decoder_export` wrote; threads work on one batch, 0 leaves it to OpenVINO.

    Raises:
        BonsaiError: OpenVINO is not installed, or does not read the file.
    """
    encoder = file.with_name(ENCODER_FILE)
    if encoder.is_file():
        return EncoderDecoder(_request(encoder, threads, PROMPT), _request(file, threads, (SAID, ORDER)))
    return Decoder(_request(file, threads, (*PROMPT, "position_ids", ORDER)))


def _request(file: Path, threads: int, inputs: Sequence[str]) -> Any:
    """Load one graph that takes these inputs, see `load_decoder`."""
    try:
        import openvino

        config = {"PERFORMANCE_HINT": "LATENCY", **EXACT, **({"INFERENCE_NUM_THREADS": threads} if threads else {})}
        core = openvino.Core()
        request = core.compile_model(core.read_model(file), "CPU", config).create_infer_request()
        for name in inputs:
            request.get_tensor(name)
    except ImportError as error:
        raise BonsaiError(
            f"{file} needs openvino, which is not installed: pip install openvino, or 'kfp-bonsai[cpu]' for all of it"
        ) from error
    except Exception as error:  # OpenVINO raises RuntimeError for all there is
        raise BonsaiError(f"{file} is not a whole graph that openvino reads: quantize again ({error})") from error
    return request


def greedy(
    decoder: Loaded, ids: np.ndarray, mask: np.ndarray, end: int, most: int, forced: bool = False
) -> tuple[list[list[int]], float, float]:
    """Write the likeliest tokens, of each row up to the model's end, which is among them, or so many.

    Args:
        decoder: what writes.
        ids: prompts, padded before them, or for an encoder on either side.
        mask: 1 where they have tokens.
        end: the token that ends an answer.
        most: the most tokens of an answer.
        forced: whether all answers are to have so many, none of them the end.

    Returns:
        Each row's tokens, and the seconds to the first token of all, and to the last.
    """
    started, first = time.perf_counter(), 0.0
    said = np.empty((len(ids), 0), np.int64)
    going = np.ones(len(ids), bool)
    for step in range(most):
        logits = decoder.go_on(said[:, -1]) if step else decoder.read(ids, mask)
        if forced:
            logits[:, end] = -np.inf
        said = np.concatenate([said, logits.argmax(axis=1)[:, None]], axis=1)
        first = first or time.perf_counter() - started
        going &= said[:, -1] != end
        if not going.any():
            break
    rows = said.tolist()
    return [row[: row.index(end) + 1] if end in row else row for row in rows], first, time.perf_counter() - started


def log_likelihoods(decoder: Loaded, ids: np.ndarray, mask: np.ndarray, answers: Sequence[np.ndarray]) -> np.ndarray:
    """Return the summed log-likelihood of each prompt's given answer, and its number of tokens: (rows, 2)."""
    total = np.zeros(len(ids))
    for logits, right, there in _followed(decoder, ids, mask, answers):
        most = logits.max(axis=1)
        every = most + np.log(np.exp(logits - most[:, None]).sum(axis=1))
        total += np.where(there, logits[np.arange(len(ids)), right] - every, 0)
    return np.stack([total, [len(one) for one in answers]], axis=1)


def followed(decoder: Loaded, ids: np.ndarray, mask: np.ndarray, answers: Sequence[np.ndarray]) -> int:
    """Return how many tokens of given answers are the likeliest after what is before them."""
    steps = _followed(decoder, ids, mask, answers)
    return sum(int(((logits.argmax(axis=1) == right) & there).sum()) for logits, right, there in steps)


def _followed(
    decoder: Loaded, ids: np.ndarray, mask: np.ndarray, answers: Sequence[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Read given answers token by token: the logits of each token, the token, and which rows have one there."""
    longest = max(map(len, answers))
    block = np.array([[*one, *[one[-1]] * (longest - len(one))] for one in answers], np.int64)
    lengths = np.array([len(one) for one in answers])
    for step in range(longest):
        logits = decoder.go_on(block[:, step - 1]) if step else decoder.read(ids, mask)
        yield logits, block[:, step], step < lengths
