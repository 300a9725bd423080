"""What models that write are trained and asked with: batches of prompts and answers, their likelihood, greedy answers.

Only the answer is learnt, with the model's own end. A decoder reads it after its prompt; an encoder-decoder reads the
prompt with its encoder and writes with its decoder.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from kfp_bonsai.shared.core import parallel
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.data.prompts import NO_LIMIT
from kfp_bonsai.shared.models.tokens import FEWEST_TOKENS
from kfp_bonsai.shared.training import answer_batches, sparing

LIKELIHOOD = "likelihood"  # of a right token, their geometric mean: one over the perplexity


def reads_on(model: Any) -> bool:
    """Say whether a model is a decoder alone, which writes where it has read."""
    return not model.config.is_encoder_decoder


def collate(items: Sequence[rows.Item], pad_id: int, start: int | None) -> dict[str, torch.Tensor]:
    """Pad prompts and answers into a batch to learn from.

    Args:
        items: "input_ids", the prompt, and "labels", the tokens of its answer.
        pad_id: the tokenizer's padding token.
        start: see `answer_batches.start_of`.
    """
    found = [answer_batches.item(item["input_ids"], item["labels"], True, start) for item in items]
    return answer_batches.with_labels(found, pad_id)


def objective(model: Any, batch: dict[str, torch.Tensor], whole: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return a part's share of a batch's loss: the mean cross-entropy of the answers' tokens."""
    logits = answer_batches.run(model, batch).logits.float()
    lost = functional.cross_entropy(logits, batch["labels"], reduction="sum")
    return parallel.share(lost, torch.tensor(len(whole["labels"]), device=lost.device))


def log_likelihoods(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the summed log-likelihood of each row's answer, and its number of tokens: (rows, 2)."""
    logits = answer_batches.run(model, batch).logits.float()
    told = -functional.cross_entropy(logits, batch["labels"], reduction="none")
    width = batch.get(answer_batches.READ, batch["input_ids"]).shape[1]
    found = torch.zeros(len(batch["input_ids"]), 2, device=told.device)
    return found.index_add(0, batch[answer_batches.PLACES] // width, torch.stack([told, torch.ones_like(told)], 1))


def likelihood(found: np.ndarray) -> float:
    """Return the geometric mean of the right tokens' likelihood, of sums and numbers a row (rows, 2)."""
    total, tokens = np.asarray(found, float).sum(axis=0)
    return float(np.exp(total / tokens))


def likelihood_of(model: Any, data: rows.Rows | Sequence[rows.Item], pad_id: int, batch_size: int = 16) -> float:
    """Return the likelihood of a right token of all answers."""
    start, device = answer_batches.start_of(model), next(model.parameters()).device

    def of(chosen: Sequence[int]) -> np.ndarray:
        batch = collate([data[index] for index in chosen], pad_id, start)
        return log_likelihoods(model, {name: value.to(device) for name, value in batch.items()}).cpu().numpy()

    model.eval()
    with torch.inference_mode():
        starts = range(0, len(data), batch_size)
        found = [one for at in starts for one in sparing.in_halves(of, range(len(data))[at : at + batch_size])]
    return likelihood(np.stack(found))


def check_room(train: rows.Rows, validation: rows.Rows, where: Sequence[Any], max_length: int, most: int) -> int:
    """Return how many tokens a prompt may have, so that there is room for every answer after it.

    Args:
        train: training rows, whose prompts are cut at `max_length`, if that is not 0.
        validation: validation rows.
        where: the files of both.
        max_length: what was asked for; 0 for none.
        most: how many tokens the model takes of prompt and answer together; NO_LIMIT if the answer takes none of them.

    Raises:
        BonsaiError: an answer or a prompt leaves no room for the other.
    """
    longest = max(len(answer) for data in (train, validation) for answer in data.labels)
    room = most if most >= NO_LIMIT else most - longest
    for path, data in zip(where, (train, validation), strict=True):
        for number, answer in enumerate(data.labels, 1):
            if most - len(answer) < FEWEST_TOKENS:
                raise BonsaiError(
                    f"{path}, row {number}: the answer has {len(answer):,} tokens with its end, and the model takes "
                    f"{most:,} of text and answer together: shorten it or leave it out"
                )
        for number, prompt in enumerate(data.inputs["input_ids"], 1):
            if not max_length and len(prompt) > room:
                raise BonsaiError(
                    f"{path}, row {number}: the text has {len(prompt):,} tokens, and {room:,} are taken beside answers "
                    f"of up to {longest:,}: shorten it, or have texts cut with --max-length {room}"
                )
    if max_length > room:
        raise BonsaiError(
            f"--max-length {max_length}: with answers of up to {longest:,} tokens the model takes texts of "
            f"{FEWEST_TOKENS} to {room:,}: give no more, or 0"
        )
    return max_length or min(room, max(rows.LONGEST, *train.lengths, *validation.lengths))


def usual(train: rows.Rows) -> dict[str, float]:
    """Return the mean tokens of texts and answers, at which models that write are compared, as a record holds them."""
    return {
        "read_tokens": float(np.mean(train.lengths)),
        "written_tokens": float(np.mean([len(one) for one in train.labels])),
    }


def settle(model: Any, tokenizer: Any, most: int) -> None:
    """Let a model write greedily, to its own end or so many tokens, whoever asks: in place."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        decoder_start_token_id=answer_batches.start_of(model),
        max_new_tokens=most,
        do_sample=False,
    )


def write(model: Any, prompts: Sequence[np.ndarray], tokenizer: Any, batch_size: int = 32) -> list[str]:
    """Return a model's greedy answers to prompts."""
    said = write_tokens(model, prompts, tokenizer.pad_token_id, batch_size)
    return tokenizer.batch_decode(said, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def write_tokens(
    model: Any, prompts: Sequence[np.ndarray], pad_id: int, batch_size: int = 32, ticker: Any = None
) -> list[list[int]]:
    """Return the tokens of a model's greedy answers to prompts, batched by length, without its end."""
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    device = next(model.parameters()).device
    found: dict[int, list[int]] = {}

    def answer(chosen: Sequence[int]) -> list[list[int]]:
        batch = pad_prompts([prompts[index] for index in chosen], pad_id, reads_on(model))
        return generated(model, {name: value.to(device) for name, value in batch.items()})

    model.eval()
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size].tolist()
        found.update(zip(chosen, sparing.in_halves(answer, chosen), strict=True))
        if ticker is not None:
            ticker.step(min(start + batch_size, len(order)))
    return [found[index] for index in range(len(prompts))]


def answers_of(model: Any, data: rows.Rows, tokenizer: Any) -> tuple[list[str], dict[str, float]]:
    """Return a model's greedy answers to rows, and the perplexity of the right ones."""
    said = write(model, data.inputs["input_ids"], tokenizer)
    return said, {"perplexity": 1 / likelihood_of(model, data, tokenizer.pad_token_id)}


def pad_prompts(prompts: Sequence[np.ndarray], pad_id: int, before: bool) -> dict[str, torch.Tensor]:
    """Pad prompts into a batch, before them where a model reads on from their ends."""
    batch = rows.pad([{"input_ids": prompt} for prompt in prompts], pad_id)
    if before:
        width = batch["input_ids"].shape[1]
        moved = (torch.arange(width) + torch.tensor([[len(prompt)] for prompt in prompts])) % width
        batch = {name: value.gather(1, moved) for name, value in batch.items()}
    return batch


def generated(model: Any, batch: dict[str, torch.Tensor]) -> list[list[int]]:
    """Return the tokens that a model writes to prompts, without its end and what comes after."""
    with torch.inference_mode():
        said = model.generate(**batch, use_cache=True)
    said = said[:, batch["input_ids"].shape[1] :] if reads_on(model) else said[:, 1:]
    end = model.generation_config.eos_token_id
    return [row[: row.index(end)] if end in row else row for row in said.tolist()]
