"""Which layers stay: by their place, by how much they change, or by what their absence costs."""

import heapq
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kfp_bonsai.layer_remove.layer_schemes import BOTTOM, EVEN, IMPORTANCE, LIKELIHOOD, LOWER_LAST, TOP
from kfp_bonsai.shared.core.progress import Ticker, say
from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.models import heads, shapes
from kfp_bonsai.shared.training import answer_batches, writing
from kfp_bonsai.shared.training.trainer import bf16_is_faster, device

SCORED_ROWS = 256
MISSED_ROWS = 32  # each of them is answered some hundred times


def choose(
    scheme: str, counts: Sequence[int], network: Any, tokenizer: Any, data: Path, max_length: int, seed: int
) -> list[list[int]]:
    """Return the indices of the layers that stay in each stack.

    Args:
        scheme: one of SCHEMES but auto.
        counts: how many stay in each stack.
        network: the model.
        tokenizer: its tokenizer.
        data: the split that layers are scored on, of a model that writes with answers.
        max_length: tokens at which its texts are cut.
        seed: of the choice of its rows.
    """
    stacks = [(stack, len(layers)) for stack, layers in shapes.stacks_of(network)]
    totals = [total for _, total in stacks]
    if list(counts) == totals:
        return [list(range(total)) for total in totals]
    if scheme == LIKELIHOOD:
        return least_missed(network, tokenizer, rows.read_rows(data, tokenizer, max_length), counts, seed)
    scores, kept = list[float](), list[list[int]]()
    if scheme == IMPORTANCE:
        scores = block_influence(network, tokenizer, rows.read_rows(data, tokenizer, max_length), seed)
    for number, ((stack, total), count) in enumerate(zip(stacks, counts, strict=True)):
        one = by_place(scheme, count, total, scores[sum(totals[:number]) :][:total])
        kept.append([0, *one[1:]] if stack.first_stays else one)
    return kept


def by_place(scheme: str, count: int, total: int, scores: Sequence[float]) -> list[int]:
    """Return the indices of `count` of a stack's `total` layers: by their place, or those with the highest scores."""
    if count == total:
        return list(range(total))
    if scheme == LOWER_LAST:
        pool = max(total // 2, count - 1)
        return [*((2 * index + 1) * pool // (2 * count - 2) for index in range(count - 1)), total - 1]
    if scheme == BOTTOM:
        return list(range(count))
    if scheme == TOP:
        return list(range(total - count, total))
    if scheme == EVEN:
        return sorted({round(index * (total - 1) / max(1, count - 1)) for index in range(count)})
    return sorted(sorted(range(total), key=lambda index: -scores[index])[:count])


def least_missed(network: Any, tokenizer: Any, split: rows.Rows, counts: Sequence[int], seed: int) -> list[list[int]]:
    """Take away the layer whose absence costs the right answers' likelihood least, one after the other, until `counts`.

    As SLEB does (arXiv 2402.09025, algorithm 1), but for two things: what is predicted are the answers, and a layer is
    tried again only where its absence had cost less, among more layers, than any other's does now: the fewer are left,
    the more each is missed (lazy greedy selection).

    Returns:
        The layers that stay, by stack.
    """
    few = _sample(split, MISSED_ROWS, seed)
    stacks = shapes.stacks_of(network)
    places = [(number, index) for number, (_, layers) in enumerate(stacks) for index in range(len(layers))]
    surplus = [len(layers) - count for (_, layers), count in zip(stacks, counts, strict=True)]
    network.to(device())

    def cost(absent: Sequence[tuple[int, int]]) -> float:
        with _without([stacks[number][1][index] for number, index in absent]), precision:
            return -float(np.log(writing.likelihood_of(network, few, tokenizer.pad_token_id)))

    precision = torch.autocast(device(), torch.bfloat16, enabled=bf16_is_faster())
    first_stay = [(number, 0) for number, (stack, _) in enumerate(stacks) if stack.first_stays]
    could = [place for place in places if surplus[place[0]] and place not in first_stay]
    say(f"layer-remove  asks of {len(could)} layers what they are worth to {len(few)} answers")
    now = cost([])
    waiting = [(cost([place]) - now, 0, place) for place in could]
    heapq.heapify(waiting)
    gone: list[tuple[int, int]] = []
    ticker = Ticker("layer-remove", sum(surplus))
    while any(surplus):
        rise, when, place = heapq.heappop(waiting)
        if not surplus[place[0]]:
            continue
        if when < len(gone):
            heapq.heappush(waiting, (cost([*gone, place]) - now, len(gone), place))
            continue
        gone.append(place)
        now += rise
        surplus[place[0]] -= 1
        ticker.step(len(gone), perplexity=float(np.exp(now)))
    network.to("cpu")
    stays = [place for place in places if place not in gone]
    return [[index for stack, index in stays if stack == number] for number in range(len(stacks))]


@contextmanager
def _without(layers: Sequence[Any]) -> Iterator[None]:
    """Let these layers hand on what they are given."""

    def handed_on(_layer: Any, inputs: tuple, output: Any) -> Any:
        return (inputs[0], *output[1:]) if isinstance(output, tuple) else inputs[0]

    with ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.register_forward_hook(handed_on).remove)
        yield


def _sample(split: rows.Rows, most: int, seed: int) -> list[rows.Item]:
    chosen = random.Random(seed).sample(range(len(split)), min(most, len(split)))
    return [split[index] for index in chosen]


def block_influence(network: Any, tokenizer: Any, split: rows.Rows, seed: int) -> list[float]:
    """Return how much each layer changes its input: 1 - cos(input, output), the mean over tokens.

    An encoder's layers come before its decoder's, whose tokens are those of the answer.
    """
    chosen = _sample(split, SCORED_ROWS, seed)
    layers = [layer for _, layer in shapes.layers_of(network)]
    changes, tokens = torch.zeros(len(layers)), torch.zeros(len(layers))
    real = torch.ones(0, 0, dtype=torch.bool)

    def observe(index: int, before: torch.Tensor, output: Any) -> None:
        after = output[0] if isinstance(output, tuple) else output
        counted = real if before.shape[:2] == real.shape else torch.ones(before.shape[:2], dtype=torch.bool)
        changes[index] += (1 - torch.cosine_similarity(before[counted], after[counted], dim=-1)).sum()
        tokens[index] += counted.sum()

    hooks = [
        layer.register_forward_hook(lambda _, inputs, output, index=index: observe(index, inputs[0], output))
        for index, layer in enumerate(layers)
    ]
    with torch.inference_mode():
        for start in range(0, len(chosen), 32):
            items = chosen[start : start + 32]
            if heads.writes(network):
                batch = writing.collate(items, tokenizer.pad_token_id, answer_batches.start_of(network))
            else:
                batch = rows.pad(items, tokenizer.pad_token_id)
            real = batch["attention_mask"].bool()
            # Free shapes compute every token only for whoever asks.
            answer_batches.run(network, batch, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    return (changes / tokens).tolist()
