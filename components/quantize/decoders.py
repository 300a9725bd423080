"""Models that write: OpenVINO's graphs with weights of 8 or 4 bits, how well they follow the checkpoint, how fast."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.documents import read_object
from kfp_bonsai.shared.core.errors import BonsaiError, check_choice
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.inference import decoding, int8_form, writers
from kfp_bonsai.shared.inference.onnx_export import quiet
from kfp_bonsai.shared.inference.processor import WEIGHTS
from kfp_bonsai.shared.inference.runtimes import OPENVINO
from kfp_bonsai.shared.kinds.kinds import kind_of, predict
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.saved import weights
from kfp_bonsai.shared.saved.weights import DECODER_FILE

BITS = (8, 4)
GROUP = 64  # weights of 4 bits with a scale of their own
WRITTEN, ROUNDS = 8, 3  # tokens that are timed beside the first one, and how often
ROWS, READ = (1, 8), 32  # rows, and tokens that they read before, or as many as there is room for
BATCH_ROWS = 16
GREEDY = (  # what a generation_config.json may say beside which answers are the likeliest tokens, one after the other
    "bos_token_id",
    "decoder_start_token_id",
    "eos_token_id",
    "max_length",
    "max_new_tokens",
    "pad_token_id",
    "transformers_version",
    "use_cache",
    "_from_model_config",
)
OFF = (None, False, 0, 1, 1.0)


def check(model: Path, kind: str, runtime: str, any_processor: bool) -> None:
    """Refuse what is not quantized: a runtime that writes nothing, and models that do not write greedily.

    Raises:
        BonsaiError: one of them.
    """
    int8_form.check_kind(kind, runtime)
    if any_processor:
        raise BonsaiError(
            "--any-processor: a model that writes has no such form yet: leave it out, and quantize it on a processor "
            "like those that are to serve it"
        )
    writers.check_writing(model)
    file = model / "generation_config.json"
    found = read_object(file)
    other = [name for name, value in found.items() if name not in GREEDY and (value is True or value not in OFF)]
    if other:
        raise BonsaiError(
            f"{file} sets {other[0]} to {found[other[0]]!r}, and a quantized model writes greedily, the likeliest "
            "token each time: remove it, as the model was trained and measured without"
        )


def check_bits(bits: int, writes: bool) -> None:
    """Refuse a number of bits that weights are not rounded to.

    Raises:
        BonsaiError: it is one.
    """
    check_choice("--weight-bits", str(bits), [str(each) for each in BITS])
    if bits != BITS[0] and not writes:
        raise BonsaiError(
            f"--weight-bits {bits}: fewer bits save a model that writes its reading of weights; others compute with "
            "8 bits all the same: leave it out"
        )


def compress(model: Path, folder: Path, texts: Sequence[str], task: Task, bits: int) -> dict[str, Any]:
    """Write a model's graphs with rounded weights into a folder, and tell how well it follows the checkpoint.

    Args:
        model: the checkpoint.
        folder: what is made.
        texts: what both are asked.
        task: what they answer.
        bits: of a weight.
    """
    from kfp_bonsai.shared.inference.decoder_export import export
    from kfp_bonsai.shared.models.configuration import positions_of
    from kfp_bonsai.shared.saved import checkpoint

    network, tokenizer = checkpoint.load(model)
    work = folder / "work"
    work.mkdir()
    difference, file = export(network, work / DECODER_FILE), folder / DECODER_FILE
    say(f"quantize  exported to OpenVINO, largest difference to torch {difference:.1g}")
    for whole in work.glob("*.xml"):
        _round_weights(whole, folder / whole.name, bits)
    torch_writes, decoder = writers.torch_writer(network, tokenizer), decoding.load_decoder(file)
    ordered = sorted(texts, key=len)
    batches = [
        writers.prompt_batch(model, ordered[at : at + BATCH_ROWS], task) for at in range(0, len(ordered), BATCH_ROWS)
    ]
    most, end = network.generation_config.max_new_tokens, torch_writes.end
    said, others, followed = [], [], 0
    for batch in batches:
        right = torch_writes.write(batch)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        found = writers.Written(*decoding.greedy(decoder, ids, mask, end, most))
        followed += decoding.followed(decoder, ids, mask, [np.array(one) for one in right.tokens])
        said.append(right)
        others.append(found)
    expected, answered = (
        predict(task, [text for one in each for text in torch_writes.texts(one)]) for each in (said, others)
    )
    agreed, how = kind_of(task).agreement(expected, answered, task)
    tokens = sum(len(row) for one in said for row in one.tokens)
    size = weights.size_bytes(folder)
    positions = positions_of(network.config)
    return {
        "runtime": OPENVINO,
        "scheme": WEIGHTS,
        "agreement": round(agreed, 6),
        "agreement_kind": how,
        "agreement_rows": len(texts),
        "next_tokens": round(followed / tokens, 6),
        "weight_bits": bits,
        "export_difference": difference,
        "size_bytes": size,
        "size_ratio": round(size / weights.size_bytes(model), 4),
        "positions": positions,
        **_times(torch_writes, file, positions, network.config.vocab_size),
    }


def _round_weights(whole: Path, file: Path, bits: int) -> None:
    """Round weights with NNCF: each output's own scale for 8 bits, GROUP weights' for 4, but embeddings and output."""
    with quiet():
        import nncf
        import openvino

        adjusted = nncf.AdvancedCompressionParameters(group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST)
        options = {
            8: {"mode": nncf.CompressWeightsMode.INT8_ASYM},
            4: {"mode": nncf.CompressWeightsMode.INT4_ASYM, "group_size": GROUP, "advanced_parameters": adjusted},
        }[bits]
        rounded = nncf.compress_weights(openvino.Core().read_model(whole), **options)
        openvino.save_model(rounded, file, compress_to_fp16=False)


def _times(torch_writes: writers.Writer, file: Path, positions: int, vocabulary: int) -> dict[str, float]:
    """Return CPU milliseconds of a written token on one thread, and their ratio to torch's in float32, in turns."""
    import torch

    decoder, threads = decoding.load_decoder(file, threads=1), torch.get_num_threads()
    more = min(WRITTEN, positions // 2)
    read = min(READ, positions - more)
    found: dict[str, float] = {}
    torch.set_num_threads(1)
    try:
        for rows in ROWS:
            ids = np.random.default_rng(0).integers(0, vocabulary, (rows, read))
            batch = {"input_ids": ids, "attention_mask": np.ones_like(ids)}

            def ours(tokens: int, batch: Any = batch) -> Any:
                return decoding.greedy(decoder, *batch.values(), torch_writes.end, tokens, forced=True)

            def theirs(tokens: int, batch: Any = batch) -> Any:
                return torch_writes.write(batch, tokens)

            best: dict[Any, float] = {}
            for _ in range(ROUNDS):
                for write in (ours, theirs):
                    for tokens in (1, 1 + more):
                        taken = _cpu_ms(write, tokens)
                        best[write, tokens] = min(best.get((write, tokens), np.inf), taken)
            mine, other = ((best[each, 1 + more] - best[each, 1]) / more for each in (ours, theirs))
            found |= {f"cpu_ms_token_{rows}": round(mine, 3), f"token_ratio_{rows}": round(mine / other, 3)}
    finally:
        torch.set_num_threads(threads)
    return found


def _cpu_ms(write: Callable[[int], Any], tokens: int) -> float:
    started = time.process_time()
    write(tokens)
    return (time.process_time() - started) * 1000
