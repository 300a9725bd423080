"""A model that writes as OpenVINO graphs that keep keys and values: any shape, batch and length, proven equal to torch.

Of a decoder, one graph reads a prompt and goes on from it token by token: what it has read stays inside, as a state. Of
an encoder-decoder, one graph reads the prompt, and gives the keys and values of it that the decoder's layers look at;
the other one writes beside them. Widths are taken as they are, layer by layer, so free shapes export like any other.
It is traced with torch's own attention, which OpenVINO joins with the keys and values that it keeps: with plain
products a token takes half as long again.

A decoder's inputs and outputs have the names that OpenVINO GenAI looks for, so that it runs the file too.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.inference.decoding import ORDER, PROMPT, SAID, load_decoder
from kfp_bonsai.shared.inference.onnx_export import TOLERANCE, padding_mask, quiet
from kfp_bonsai.shared.models.configuration import head_dim, positions_of
from kfp_bonsai.shared.saved.weights import ENCODER_FILE

READ = (2, 5, 3)  # rows, tokens read before, and tokens beside them, that the graph is traced with
PROBES = ((1, 1), (3, 7), (2, 20))  # rows x tokens of the prompts that must agree, or as many as there is room for,
AFTER = 2  # and so must two tokens after them
KINDS = ("key", "value")
ANY = (-1, -1)  # rows and tokens


def export(model: Any, file: Path) -> float:
    """Write the graph of a model that writes, and check it against torch on random prompts of several sizes.

    Args:
        model: a decoder, or an encoder-decoder, that writes, in float32 and evaluation mode.
        file: the XML file to write; its weights go into a .bin file beside it, and so does an encoder's graph.

    Returns:
        The largest difference between the logits of torch and of the file.

    Raises:
        BonsaiError: the model does not export, or the file gives other logits than torch.
    """
    import openvino
    import torch

    from kfp_bonsai.shared.training.answer_batches import start_of

    model.set_attn_implementation("sdpa")
    start = start_of(model)
    try:
        with quiet():
            with torch.inference_mode():
                graphs = [_graph(model)] if start is None else _two_graphs(model, start)
            for one, graph in zip((file, file.with_name(ENCODER_FILE)), graphs, strict=False):
                openvino.save_model(graph, one, compress_to_fp16=False)
    except Exception as error:
        raise BonsaiError(
            f"a '{model.config.model_type}' model does not export to OpenVINO: {error}: use the checkpoint as it is, "
            "or report this with its config.json"
        ) from error
    return _largest_difference(model, start, file)


def _graph(model: Any) -> Any:
    """Return a decoder as a graph of OpenVINO whose keys and values are states."""
    import openvino
    import torch

    rows, before, beside = READ
    past = _random_past(model(torch.zeros(1, 1, dtype=torch.long), use_cache=True).past_key_values)
    ids = torch.ones(rows, beside, dtype=torch.long)
    mask = torch.ones(rows, before + beside, dtype=torch.long)
    places = torch.arange(before, before + beside).repeat(rows, 1)
    graph = openvino.convert_model(_stepping(model), example_input=(ids, mask, places, past))
    return _keeping(graph, dict.fromkeys((*PROMPT, "position_ids"), ANY), past)


def _two_graphs(model: Any, start: int) -> list[Any]:
    """Return a decoder's graph, whose own keys and values are states, and that of the encoder that it reads.

    What the encoder's gives is what the decoder's takes, by the same names: the token to begin with, where the prompt
    has none, and the prompt's keys and values for each layer.
    """
    import openvino
    import torch

    rows, before, _ = READ
    ids, mask = (torch.ones(rows, before, dtype=torch.long) for _ in range(2))
    reading = _reading(model, start)
    first, hidden, *read = reading(ids, mask)
    kept = model(input_ids=ids, decoder_input_ids=first, use_cache=True).past_key_values.self_attention_cache
    past = _random_past(kept)
    encoder = openvino.convert_model(reading, example_input=(ids, mask))
    decoder = openvino.convert_model(_beside(model), example_input=(first, hidden, tuple(read), past))
    shared: dict[str, tuple[int, ...]] = {SAID: (-1, 1), "encoder_attention_mask": (-1, 1, 1, -1)}
    shared |= {f"encoder.{name}": shape for name, shape in _shapes(read).items()}
    _name(encoder.inputs, dict.fromkeys(PROMPT, ANY))
    _name(encoder.outputs, shared)
    encoder.validate_nodes_and_infer_types()
    return [_keeping(decoder, shared, past), encoder]


def _random_past(kept: Any) -> tuple[Any, ...]:
    """Return random keys and values as wide as a cache's, layer by layer."""
    import torch

    rows, before, _ = READ
    return tuple(torch.randn(rows, one.shape[1], before, one.shape[3]) for one in _tensors(kept))


def _tensors(kept: Any) -> list[Any]:
    return [one for layer in kept.layers for one in (layer.keys, layer.values)]


def _shapes(kept: Sequence[Any]) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of keys and values, in any number of rows and tokens."""
    names = [f"{layer}.{kind}" for layer in range(len(kept) // 2) for kind in KINDS]
    return {name: (-1, one.shape[1], -1, one.shape[3]) for name, one in zip(names, kept, strict=True)}


def _name(ports: Sequence[Any], shapes: Mapping[str, Sequence[int]]) -> None:
    """Give inputs their names and shapes, and outputs their names."""
    import openvino

    for port, (name, shape) in zip(ports, shapes.items(), strict=True):
        port.get_tensor().set_names({name})
        if port.get_node().get_type_name() == "Parameter":
            port.get_node().set_partial_shape(openvino.PartialShape(list(shape)))


def _keeping(graph: Any, asked: Mapping[str, Sequence[int]], past: Sequence[Any]) -> Any:
    """Let a graph keep keys and values as states.

    Args:
        graph: takes what is asked and then keys and values of what was before, and gives logits and those of all.
        asked: the names and shapes of its other inputs.
        past: such keys and values.
    """
    from openvino import opset13 as ops
    from openvino.passes import MakeStateful, Manager

    shapes = _shapes(past)
    _name(graph.inputs, {**asked, **{f"past_key_values.{name}": shape for name, shape in shapes.items()}})
    _name(graph.outputs, {"logits": (), **{f"present.{name}": shape for name, shape in shapes.items()}})
    order = ops.parameter([-1], np.int32, name=ORDER)  # of rows, which may change as beams do
    order.output(0).get_tensor().set_names({ORDER})
    graph.add_parameters([order])
    for port in graph.inputs[len(asked) : -1]:
        takers = port.get_target_inputs()
        for taker in takers:
            taker.replace_source_output(ops.gather(port, order, ops.constant(np.int64(0))).output(0))
    graph.validate_nodes_and_infer_types()
    states = Manager()
    states.register_pass(MakeStateful({f"past_key_values.{name}": f"present.{name}" for name in shapes}))
    states.run_passes(graph)
    _begin_empty(graph)
    return graph


def _begin_empty(graph: Any) -> None:
    """Let states begin without tokens, for as many rows as there are."""
    from openvino import opset13 as ops

    first, axis = ops.constant(np.array([0], np.int64)), ops.constant(np.int64(0))
    rows = ops.gather(ops.shape_of(graph.inputs[0], output_type="i64"), first, axis)
    for node in graph.get_ops():
        if node.get_type_name() == "ReadValue":
            shape = node.output(0).get_partial_shape()
            rest = ops.constant(np.array([shape[1].get_length(), 0, shape[3].get_length()], np.int64))
            empty = ops.broadcast(ops.constant(np.float32(0)), ops.concat([rows, rest], axis=0))
            node.set_arguments([empty.output(0)])
    graph.validate_nodes_and_infer_types()


def _stepping(model: Any) -> Any:
    """Return a module that reads tokens beside the keys and values of those before them."""
    import torch

    class Stepping(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any, places: Any, past: Any) -> Any:
            kept = _cache(past)
            found = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=places,
                past_key_values=kept,
                use_cache=True,
                logits_to_keep=1,
            )
            return (found.logits, *_tensors(kept))

    return Stepping().eval()


def _reading(model: Any, start: int) -> Any:
    """Return a module that reads prompts with an encoder, and gives what its decoder begins with."""
    import torch

    from kfp_bonsai.shared.models.shapes import stacks_of

    stack, layers = stacks_of(model)[-1]
    width = head_dim(model.config)
    reads = [path for path, axes in stack.layer.items() if axes[1:] == ("memory",)]  # to keys, and to values

    class Reading(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any) -> Any:
            hidden = padding_mask(mask)
            read = self.model.get_encoder()(ids, attention_mask=hidden).last_hidden_state
            found = [layer.get_submodule(path)(read) for layer in layers for path in reads]
            kept = [one.view(*read.shape[:-1], -1, width).transpose(1, 2) for one in found]
            return (torch.full_like(ids[:, :1], start), hidden, *kept)

    return Reading().eval()


def _beside(model: Any) -> Any:
    """Return a module that reads one token of an answer beside those before it, and what the encoder has read."""
    import torch
    from transformers.cache_utils import EncoderDecoderCache

    class Beside(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, hidden: Any, read: Any, past: Any) -> Any:
            kept = EncoderDecoderCache(_cache(past), _cache(read))
            found = self.model(
                encoder_outputs=(read[0][:, 0],),  # of which keys and values are there: it is asked for its length
                attention_mask=hidden,
                decoder_input_ids=ids,
                decoder_attention_mask=torch.zeros(1, 1, 1, 1),  # one token sees all before it
                past_key_values=kept,
                use_cache=True,
            )
            return (found.logits, *_tensors(kept.self_attention_cache))

    return Beside().eval()


def _cache(past: Sequence[Any]) -> Any:
    """Return keys and values as transformers keeps them."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    kept: Any = DynamicCache()
    for keys, values in zip(past[::2], past[1::2], strict=True):
        layer = DynamicLayer()  # windows too: they hide what is too far away, and keep it
        layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
        layer.keys, layer.values = keys, values
        kept.layers.append(layer)
    return kept


def _largest_difference(model: Any, start: int | None, file: Path) -> float:
    """Compare prompts that are padded before them, and what is said after two tokens more."""
    decoder, random, worst = load_decoder(file, threads=1), np.random.default_rng(0), 0.0
    room = positions_of(model.config) - AFTER
    for rows, tokens in ((rows, min(tokens, room)) for rows, tokens in PROBES):
        ids = random.integers(0, model.config.vocab_size, (rows, tokens + AFTER))
        mask = np.ones_like(ids)
        for row in range(1, rows):
            mask[row, : row * tokens // (2 * rows)] = 0
        found = [decoder.read(ids[:, :tokens], mask[:, :tokens]).copy()]
        found += [decoder.go_on(ids[:, tokens + step]).copy() for step in range(AFTER)]
        right = _right(model, start, ids, mask, tokens)
        scale = max(1.0, float(np.abs(right).max()))
        difference = float(np.abs(np.stack(found, axis=1) - right).max()) / scale
        if not difference <= TOLERANCE:
            raise BonsaiError(
                f"the OpenVINO export of a '{model.config.model_type}' model differs from torch by {difference:.2g} "
                f"(allowed: {TOLERANCE:g}) at {rows} rows x {tokens} tokens: use the checkpoint as it is, or report "
                "this with its config.json"
            )
        worst = max(worst, difference)
    return worst


def _right(model: Any, start: int | None, ids: np.ndarray, mask: np.ndarray, tokens: int) -> np.ndarray:
    """Return torch's logits after prompts of so many tokens, and after each token behind them."""
    import torch

    given = {"input_ids": ids, "attention_mask": mask, "position_ids": np.maximum(mask.cumsum(axis=1) - 1, 0)}
    if start is not None:
        said = np.concatenate([np.full_like(ids[:, :1], start), ids[:, tokens:]], axis=1)
        given = {"input_ids": ids[:, :tokens], "attention_mask": mask[:, :tokens], "decoder_input_ids": said}
    with torch.inference_mode():
        logits = model(**{name: torch.from_numpy(array) for name, array in given.items()}).logits
    return logits[:, tokens - ids.shape[1] - 1 :].numpy()
