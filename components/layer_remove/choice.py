"""Which layers stay: by their place, by how much they change, or by what their absence costs."""

import heapq
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kfp_bonsai.layer_remove import kept_order
from kfp_bonsai.layer_remove.layer_schemes import BOTTOM, EVEN, IMPORTANCE, LIKELIHOOD, LOWER_LAST, TOP
from kfp_bonsai.shared.core.progress import Ticker, say
from kfp_bonsai.shared.data import rows
from kfp_bonsai.shared.kinds.kind import Kind
from kfp_bonsai.shared.models import heads, shapes
from kfp_bonsai.shared.saved.records import versions
from kfp_bonsai.shared.training import answer_batches, losses, writing
from kfp_bonsai.shared.training.trainer import bf16_is_faster, device

SCORED_ROWS, BATCH_ROWS = 256, 32
WRITTEN_ROWS, MISSED_ROWS, MISSED_TOKENS = 32, 96, 4096  # each of them is answered some hundred times


def choose(
    scheme: str,
    counts: Sequence[int],
    kind: Kind,
    network: Any,
    tokenizer: Any,
    data: Path,
    max_length: int,
    seed: int,
    weights: str,
) -> list[list[int]]:
    """Return the indices of the layers that stay in each stack.

    Args:
        scheme: one of SCHEMES but auto.
        counts: how many stay in each stack.
        kind: what the model does.
        network: the model.
        tokenizer: its tokenizer.
        data: the split that layers are scored on, of a model that writes with answers.
        max_length: tokens at which its texts are cut.
        seed: of the choice of its rows.
        weights: a hash of the model's, by which what is found is kept.
    """
    stacks = [(stack, len(layers)) for stack, layers in shapes.stacks_of(network)]
    totals = [total for _, total in stacks]
    if list(counts) == totals:
        return [list(range(total)) for total in totals]
    if scheme == LIKELIHOOD:
        split = rows.read_rows(data, tokenizer, max_length)
        return least_missed(kind, network, tokenizer, split, counts, seed, weights)
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


def least_missed(
    kind: Kind, network: Any, tokenizer: Any, split: rows.Rows, counts: Sequence[int], seed: int, weights: str
) -> list[list[int]]:
    """Take away the layer whose absence costs the answers' likelihood least, one after the other, until `counts`.

    As SLEB does (arXiv 2402.09025, algorithm 1), but for two things: what is predicted are the answers, of a model that
    writes the right ones, of others those of the whole model, from which theirs diverge; and a layer is tried again
    only where its absence had cost less, among more layers, than any other's does now: the fewer are left, the more
    each is missed (lazy greedy selection). What an earlier choice found for this model and these rows is not sought
    again.

    Args:
        kind: what the model does.
        network: the model.
        tokenizer: its tokenizer.
        split: rows; of a model that writes, with answers.
        counts: how many layers stay in each stack.
        seed: of the choice of rows.
        weights: a hash of the model's weights.

    Returns:
        The layers that stay, by stack.
    """
    few = _sample(split, WRITTEN_ROWS if kind.writes else MISSED_ROWS, seed)
    if not kind.writes:
        tokens = np.cumsum([len(one["input_ids"]) for one in few])
        few = few[: max(1, int(np.searchsorted(tokens, MISSED_TOKENS, "right")))]
    stacks = shapes.stacks_of(network)
    places = [(number, index) for number, (_, layers) in enumerate(stacks) for index in range(len(layers))]
    surplus = [len(layers) - count for (_, layers), count in zip(stacks, counts, strict=True)]
    losing = [number for number, most in enumerate(surplus) if most]
    key = {
        "weights": weights,
        "rows": kept_order.digest_of(few),
        "stacks": losing,
        "counts": list(counts) if len(losing) > 1 else [],  # of one stack, each choice is the beginning of the next
        "device": device(),
        "bf16": bf16_is_faster(),
        "versions": {name: versions().get(name) for name in ("torch", "kfp-bonsai")},
    }
    with kept_order.kept(key) as (order, keep):
        if order is None or len(order.gone) < sum(surplus):
            order = _found(kind, network, tokenizer.pad_token_id, few, surplus, order, keep)
        else:
            say("layer-remove  which layers the answers need least was found before, by another level or attempt")
    gone = order.gone[: sum(surplus)]
    stays = [place for place in places if place not in gone]
    return [[index for stack, index in stays if stack == number] for number in range(len(stacks))]


def _found(
    kind: Kind,
    network: Any,
    pad_id: int,
    few: Sequence[rows.Item],
    surplus: Sequence[int],
    order: kept_order.Order | None,
    keep: Callable[[kept_order.Order], None],
) -> kept_order.Order:
    """Return the order in which so many layers of each stack go, from where an earlier choice left off.

    Args:
        kind: what the model does.
        network: the model.
        pad_id: its padding token.
        few: the rows to look at.
        surplus: how many layers of each stack go.
        order: how far an earlier choice came.
        keep: keeps how far this one has come, after each layer.
    """
    stacks, left = shapes.stacks_of(network), list(surplus)
    precision = torch.autocast(device(), torch.bfloat16, enabled=bf16_is_faster())
    network.to(device())
    with precision:
        worse = _worse_by(kind, network, few, pad_id)

    def cost(absent: Sequence[kept_order.Place]) -> float:
        with _without([stacks[number][1][index] for number, index in absent]), precision:
            return worse()

    if order is None:
        could = [
            (number, index)
            for number, (stack, layers) in enumerate(stacks)
            for index in range(len(layers))
            if surplus[number] and (index or not stack.first_stays)
        ]
        say(f"layer-remove  asks of {len(could)} layers what they are worth to {len(few)} answers")
        now = cost([])
        order = kept_order.Order((), tuple((cost([place]) - now, 0, place) for place in could), now)
        keep(order)
    else:
        say(f"layer-remove  {len(order.gone)} of the {sum(surplus)} layers to go were found before")
    gone, waiting, now = list(order.gone), list(order.waiting), order.now
    heapq.heapify(waiting)
    for number, _ in gone:
        left[number] -= 1
    ticker = Ticker("layer-remove", sum(surplus))
    while any(left):
        rise, when, place = heapq.heappop(waiting)
        if not left[place[0]]:
            continue
        if when < len(gone):
            heapq.heappush(waiting, (cost([*gone, place]) - now, len(gone), place))
            continue
        gone.append(place)
        now += rise
        left[place[0]] -= 1
        order = kept_order.Order(tuple(gone), tuple(waiting), now)
        keep(order)
        ticker.step(len(gone), **({"perplexity": float(np.exp(now))} if kind.writes else {"divergence": now}))
    network.to("cpu")
    return order


def _worse_by(kind: Kind, network: Any, few: Sequence[rows.Item], pad_id: int) -> Callable[[], float]:
    """Return what tells how badly the model answers: minus the log-likelihood of right tokens, or a divergence."""
    if kind.writes:
        return lambda: -float(np.log(writing.likelihood_of(network, few, pad_id)))
    ordered = sorted(few, key=lambda one: len(one["input_ids"]))
    padded = [rows.pad(ordered[at : at + BATCH_ROWS], pad_id) for at in range(0, len(few), BATCH_ROWS)]
    batches = [{name: value.to(network.device) for name, value in batch.items()} for batch in padded]

    def logits(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        with torch.inference_mode():
            told: torch.Tensor = answer_batches.run(network, batch).logits.float()
        return told

    network.eval()
    whole = [logits(batch) for batch in batches]

    def divergence() -> float:
        parts = [
            len(right) * losses.of_teacher(kind, logits(batch), right, batch["attention_mask"], 1.0).item()
            for batch, right in zip(batches, whole, strict=True)
        ]
        return sum(parts) / len(few)

    return divergence


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
        for start in range(0, len(chosen), BATCH_ROWS):
            items = chosen[start : start + BATCH_ROWS]
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
