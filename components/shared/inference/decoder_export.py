"""A decoder as an OpenVINO graph that keeps keys and values: any shape, batch and length, proven equal to torch.

One graph reads a prompt and goes on from it token by token: what it has read stays inside, as a state. Widths are taken
as they are, layer by layer, so free shapes export like any other. It is traced with torch's own attention, which
OpenVINO joins with the keys and values that it keeps: with plain products a token takes half as long again.

Inputs and outputs have the names that OpenVINO GenAI looks for, so that it runs the file too.
"""

from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.inference.decoding import load_decoder
from kfp_bonsai.shared.inference.onnx_export import TOLERANCE, quiet

READ = (2, 5, 3)  # rows, tokens read before, and tokens beside them, that the graph is traced with
PROBES = ((1, 1), (3, 7), (2, 20))  # rows x tokens of the prompts that must agree, and so must two tokens after them
KINDS = ("key", "value")


def export(model: Any, file: Path) -> float:
    """Write a decoder's graph, and check it against torch on random prompts of several sizes.

    Args:
        model: a decoder that writes, in float32 and evaluation mode.
        file: the XML file to write; its weights go into a .bin file beside it.

    Returns:
        The largest difference between the logits of torch and of the file.

    Raises:
        BonsaiError: the model does not export, or the file gives other logits than torch.
    """
    import openvino

    model.set_attn_implementation("sdpa")
    try:
        with quiet():
            openvino.save_model(_graph(model), file, compress_to_fp16=False)
    except Exception as error:
        raise BonsaiError(
            f"a '{model.config.model_type}' model does not export to OpenVINO: {error}: use the checkpoint as it is, "
            "or report this with its config.json"
        ) from error
    return _largest_difference(model, file)


def _graph(model: Any) -> Any:
    """Return a decoder as a graph of OpenVINO whose keys and values are states."""
    import openvino
    import torch
    from openvino import opset13 as ops
    from openvino.passes import MakeStateful, Manager

    rows, before, beside = READ
    with torch.inference_mode():
        kept = model(torch.zeros(1, 1, dtype=torch.long), use_cache=True).past_key_values.layers
        widths = [(one.shape[1], one.shape[3]) for layer in kept for one in (layer.keys, layer.values)]
        ids = torch.ones(rows, beside, dtype=torch.long)
        mask = torch.ones(rows, before + beside, dtype=torch.long)
        places = torch.arange(before, before + beside).repeat(rows, 1)
        past = tuple(torch.randn(rows, heads, before, width) for heads, width in widths)
        graph = openvino.convert_model(_stepping(model), example_input=(ids, mask, places, past))
    names = [f"{layer}.{kind}" for layer in range(len(kept)) for kind in KINDS]
    shapes = [[-1, -1]] * 3 + [[-1, heads, -1, width] for heads, width in widths]
    asked = ["input_ids", "attention_mask", "position_ids", *(f"past_key_values.{name}" for name in names)]
    for port, name, shape in zip(graph.inputs, asked, shapes, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_partial_shape(openvino.PartialShape(shape))
    for port, name in zip(graph.outputs, ["logits", *(f"present.{name}" for name in names)], strict=True):
        port.get_tensor().set_names({name})
    order = ops.parameter([-1], np.int32, name="beam_idx")  # of rows, which may change as beams do
    order.output(0).get_tensor().set_names({"beam_idx"})
    graph.add_parameters([order])
    for port in graph.inputs[3:-1]:
        takers = port.get_target_inputs()
        for taker in takers:
            taker.replace_source_output(ops.gather(port, order, ops.constant(np.int64(0))).output(0))
    graph.validate_nodes_and_infer_types()
    states = Manager()
    states.register_pass(MakeStateful({f"past_key_values.{name}": f"present.{name}" for name in names}))
    states.run_passes(graph)
    _begin_empty(graph)
    return graph


def _begin_empty(graph: Any) -> None:
    """Let states begin without tokens, for as many rows as there are."""
    from openvino import opset13 as ops

    first, axis = ops.constant(np.array([0], np.int64)), ops.constant(np.int64(0))
    rows = ops.gather(ops.shape_of(graph.input("input_ids"), output_type="i64"), first, axis)
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
    from transformers.cache_utils import DynamicCache, DynamicLayer

    class Stepping(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, mask: Any, places: Any, past: Any) -> Any:
            kept: Any = DynamicCache()
            for keys, values in zip(past[::2], past[1::2], strict=True):
                layer = DynamicLayer()  # windows too: they hide what is too far away, and keep it
                layer.dtype, layer.device, layer.is_initialized = keys.dtype, keys.device, True
                layer.keys, layer.values = keys, values
                kept.layers.append(layer)
            found = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=places,
                past_key_values=kept,
                use_cache=True,
                logits_to_keep=1,
            )
            return (found.logits, *(one for layer in kept.layers for one in (layer.keys, layer.values)))

    return Stepping().eval()


def _largest_difference(model: Any, file: Path) -> float:
    """Compare prompts that are padded before them, and what is said after two tokens more."""
    import torch

    decoder, random, worst = load_decoder(file, threads=1), np.random.default_rng(0), 0.0
    for rows, tokens in PROBES:
        ids = random.integers(0, model.config.vocab_size, (rows, tokens + 2))
        mask = np.ones_like(ids)
        for row in range(1, rows):
            mask[row, : row * tokens // (2 * rows)] = 0
        found = [decoder.read(ids[:, :tokens], mask[:, :tokens]).copy()]
        found += [decoder.go_on(ids[:, tokens + step]).copy() for step in range(2)]
        with torch.inference_mode():
            places = np.maximum(mask.cumsum(axis=1) - 1, 0)
            given = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
            right = model(**{name: torch.from_numpy(array) for name, array in given.items()}).logits[:, -3:].numpy()
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
