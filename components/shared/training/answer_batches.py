"""Batches of prompts with their answers, of whose tokens alone a model is asked for logits.

Those of all tokens would take a fifth of a small model's time, and a gigabyte and more: SmolLM2-135M has 49,152
tokens, and where ten are read for each that is written, nine of ten rows of logits are never looked at.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.kinds.kind import IGNORED

READ = "decoder_input_ids"
PLACES = "told_at"


def item(prompt: np.ndarray, answer: np.ndarray, own: bool, start: int | None) -> rows.Item:
    """Return a prompt and its answer as a model takes them.

    Args:
        prompt: what the model is asked, as tokens.
        answer: what is written, as tokens.
        own: whether that is the data's answer, and not the teacher's.
        start: the token that a decoder with an encoder begins with; None for one that reads on.
    """
    labels = answer if own else np.full(len(answer), IGNORED)
    if start is None:
        return {"input_ids": np.concatenate([prompt, answer]).astype(np.int32), "labels": labels}
    return {"input_ids": prompt, READ: np.array([start, *answer[:-1]], np.int32), "labels": labels}


def start_of(model: Any) -> int | None:
    """Return the token that a decoder with an encoder begins with; None for one that reads on from its prompt."""
    start: int | None = model.config.decoder_start_token_id if model.config.is_encoder_decoder else None
    return start


def inputs(items: Sequence[rows.Item], pad_id: int) -> dict[str, torch.Tensor]:
    """Pad items into a model's inputs, beside the places where the answers' tokens are told: PLACES (tokens,).

    Places are those of the tokens that the writing stack reads (rows, tokens), flattened.
    """
    batch = rows.pad([{"input_ids": one["input_ids"]} for one in items], pad_id)
    width, first = batch["input_ids"].shape[1], [len(one["input_ids"]) - len(one["labels"]) - 1 for one in items]
    if READ in items[0]:
        read = rows.pad([{"input_ids": one[READ]} for one in items], pad_id)
        batch[READ], width, first = read["input_ids"], read["input_ids"].shape[1], [0] * len(items)
    places = [
        np.arange(begin, begin + len(one["labels"])) + row * width
        for row, (begin, one) in enumerate(zip(first, items, strict=True))
    ]
    batch[PLACES] = torch.from_numpy(np.concatenate(places))
    return batch


def with_labels(items: Sequence[rows.Item], pad_id: int) -> dict[str, torch.Tensor]:
    """Return `inputs` with the answers' tokens, "labels" (tokens,), IGNORED where they are not the data's."""
    labels = torch.from_numpy(np.concatenate([np.asarray(one["labels"], np.int64) for one in items]))
    return {**inputs(items, pad_id), "labels": labels}


def run(model: Any, batch: Mapping[str, torch.Tensor], **options: Any) -> Any:
    """Run a model on a batch, of which it takes the inputs; where that has PLACES, logits are (tokens, vocabulary)."""
    given = {name: value for name, value in batch.items() if name.endswith("_ids") or name == "attention_mask"}
    if PLACES not in batch:
        return model(**given, **options)
    places = batch[PLACES]

    def chosen(_output: Any, states: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        return (states[0].flatten(0, 1)[places],)

    hook = getattr(model, "module", model).get_output_embeddings().register_forward_pre_hook(chosen)
    try:
        return model(**given, **options)
    finally:
        hook.remove()
