"""Time what shapes of a model cost on a device: a few are timed, the rest is fitted (models/costs.py).

Of a model that writes an answer is timed: the prompt is read, and so many tokens are written, keys and values kept. The
shapes are of random weights, as what a batch takes does not depend on them, and take turns with the baseline as in
a measurement, so that a neighbour's burst hits all alike. Seconds are this process's CPU time on a CPU, and wall time
on a GPU. That a second costs the same energy in any shape is assumed: it is so where the energy is estimated from CPU
time, and nearly so where a counter reads it at a fixed number of threads.

A table is kept in the cache for its device (CPU, threads, type of numbers, version of torch), the model's widths, and
the rows and tokens of a batch, and those that are written.
"""

import copy
import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kfp_bonsai.shared.core.cache import cached
from kfp_bonsai.shared.core.documents import is_number, kept_document, read_document
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import new_file
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.core.threads import threads
from kfp_bonsai.shared.energy.cpu_estimate import cpu_model
from kfp_bonsai.shared.inference.runtimes import torch_predictor
from kfp_bonsai.shared.inference.writers import torch_writer
from kfp_bonsai.shared.kinds.kind import WRITTEN
from kfp_bonsai.shared.models import one_token
from kfp_bonsai.shared.models.configuration import family_of, inputs_of, is_free
from kfp_bonsai.shared.models.costs import Costs, Priced, Request, fitted
from kfp_bonsai.shared.models.free_models import task_class
from kfp_bonsai.shared.models.shapes import FREE, STOCK, LayerShape, Shape
from kfp_bonsai.shared.models.surgery import config_for, unreachable_width
from kfp_bonsai.shared.saved import kept_tokens

ROWS, MOST_TOKENS = 32, 8192  # of a batch: evaluate-emissions' rows, fewer of texts so long that a batch takes seconds
TIMED, HELD_OUT = 16, 5  # shapes
ROUNDS, FEWEST_ROUNDS, MOST_SECONDS = 9, 3, 60.0
TURN_SECONDS = 0.02
FAR_OFF, TRIES = 0.15, 3  # an error at which a table is timed again, and never kept
ALIKE = 0.1  # lengths that differ by less, of which shapes cost the same shares
OF_MODEL = {"model_type": "model", "whole": "model", "kind": "shape", "length": "length of texts"}
OF_MODEL |= {"written": "length of answers", "vocabulary": "size of the vocabulary"}
NONE_STATED = {"written": 0, "vocabulary": 0}
NARROWEST = 32  # neurons, which come and go by as many


def cost_table(
    config: Any,
    whole: Shape,
    kept: Sequence[int],
    kind: str,
    asked: Request,
    device: str,
    stage: str = "costs",
) -> Costs:
    """Return the table of a model's shapes on a device here, timed now unless the cache has it.

    Args:
        config: the model's configuration, or that of some of its layers.
        whole: the baseline's widths.
        kept: about how many layers of each stack the shapes of interest have.
        kind: "free" or "stock".
        asked: what is asked of it.
        device: "auto", "cpu" or "cuda", as emissions are measured.
        stage: who says what is done.

    Raises:
        BonsaiError: there is no such device here, whose costs nothing else tells.
    """
    device = _device(device)
    tokens, answer = max(1, round(asked.length)), round(asked.written)
    key = {
        **described(device),
        **described_model(config, whole, kind, asked),
        "kept": list(kept),
        "rows": max(1, min(ROWS, MOST_TOKENS // (tokens + answer))),
    }
    words = device_words(device)
    text = json.dumps(key, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    file = cached(f"costs/{name}.json")
    wanted = json.loads(text)
    with suppress(OSError, ValueError, KeyError, TypeError):  # none yet, or a damaged one
        found = kept_document(file)
        if found["key"] == wanted and found["costs"]["baseline"] > 0:
            costs = Costs(**found["costs"])
            say(f"{stage}  cost table of {words}, from {file}: off by {100 * costs.error:.1f} % at the most")
            return costs
    writes = f", to which {answer} are written" if answer else ""
    say(f"{stage}  timing {TIMED + HELD_OUT} shapes on {words}: {key['rows']} rows of {tokens} tokens{writes}")
    tried: list[tuple[Costs, list[Priced]]] = []
    while not tried or (tried[-1][0].error > FAR_OFF and len(tried) < TRIES):
        drawn = designs(whole, kept, kind, config)
        seconds, timed = _timed(config, whole, drawn, key["rows"], tokens, device, kind, answer, asked.vocabulary)
        tried.append((fitted(timed[:-HELD_OUT], timed[-HELD_OUT:], seconds, words), timed))
        say(
            f"{stage}  cost table: the baseline takes {1000 * seconds:.1f} ms a batch; {HELD_OUT} shapes that it was "
            f"not fitted to are off by {100 * tried[-1][0].error:.1f} % at the most ({file})"
        )
    costs, timed = min(tried, key=lambda one: one[0].error)
    if costs.error > FAR_OFF:
        say(
            f"{stage}  WARNING: what this level emits may be {100 * costs.error:.0f} % off what was asked for: other "
            "work disturbs the timing; prune on a machine that has nothing else to do, or ask for a share of the FLOPs"
        )
        return costs
    with suppress(OSError, BonsaiError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with new_file(file) as path:
            path.write_text(json.dumps({"key": key, "costs": asdict(costs), "timed": [asdict(one) for one in timed]}))
    return costs


def write_costs(costs: Costs, file: Path, model: Mapping[str, Any]) -> None:
    """Write a table for other processes to prune by, with what described_model says of its model."""
    with new_file(file) as path:
        text = json.dumps({"key": dict(model), "costs": asdict(costs)}, indent=1)
        path.write_text(text + "\n", encoding="utf-8")


def read_costs(file: Path, model: Mapping[str, Any] | None = None) -> Costs:
    """Read a table that was timed before.

    Args:
        file: the table.
        model: what described_model says of the model that it has to be of, or a part of that.

    Raises:
        BonsaiError: it is not there, or no table, or that of another model.
    """
    document = read_document(file, "bonsai search", "costs")
    if model is not None:
        _check_model(file, document.get("key"), json.loads(json.dumps(model)))
    try:
        costs = Costs(**document["costs"])
        if costs.baseline > 0 and all(float(one) >= 0 for one in costs.seconds.values()):
            return costs
    except (TypeError, ValueError, AttributeError):
        pass
    raise BonsaiError(f"{file} holds no table of costs: give one that a search wrote, such as costs-free.json")


def _check_model(file: Path, known: Any, model: Mapping[str, Any]) -> None:
    known = {**NONE_STATED, **(known if isinstance(known, dict) else {})}
    model = {**NONE_STATED, **model} if "length" in model else model
    other = {name: value for name, value in model.items() if known.get(name) != value}
    for name in ("length", *NONE_STATED):
        if is_number(known.get(name)) and abs(known[name] - other.get(name, math.inf)) <= ALIKE * known[name]:
            del other[name]
    for name in other:
        theirs, ours = known.get(name, "none is stated"), model[name]
        shown = ": other widths" if name == "whole" else f" ({theirs}, here {ours})"
        raise BonsaiError(
            f"{file} is a table of costs of another {OF_MODEL[name]}{shown}: give one of this model, or none, and one "
            "is timed"
        )


def described_model(config: Any, whole: Shape, kind: str, asked: Request | None = None) -> dict[str, Any]:
    """Return what a table is of, beside the device.

    Args:
        config: the model's configuration.
        whole: the baseline's widths.
        kind: "free" or "stock".
        asked: what is asked of it; None where that is not known yet.
    """
    found = {"model_type": config.model_type, "whole": asdict(whole), "kind": kind}
    if asked is None:
        return found
    others = {"written": round(asked.written), "vocabulary": asked.vocabulary}
    return {**found, "length": max(1, round(asked.length)), **{name: value for name, value in others.items() if value}}


def described(device: str) -> dict[str, Any]:
    """Return what decides how long a batch takes on a device, beside the model."""
    name = cpu_model() if device == "cpu" else torch.cuda.get_device_name()
    return {"device": f"{device} ({name})", "threads": threads(), "dtype": "float32", "torch": torch.__version__}


def device_words(device: str) -> str:
    """Return the same in words, as tables say which device they are of."""
    key = described(_device(device))
    return f"{key['device']}, threads: {key['threads']}, {key['dtype']}, torch {key['torch']}"


def designs(whole: Shape, kept: Sequence[int], kind: str, config: Any, seed: int = 0) -> list[Shape]:
    """Return shapes to time, drawn from all that a model can be cut to; those to hold out are the last.

    Args:
        whole: the baseline's widths.
        kept: about how many layers of each stack they are to have; some get fewer, some more.
        kind: "free" or "stock".
        config: the model's configuration.
        seed: of the draw.
    """
    chance = random.Random(seed)
    groups = whole.layers[0].heads // whole.group
    steps = max(1, whole.layers[0].ffn // NARROWEST)

    def drawn(most: int) -> int:
        return min(most, max(1, round(most ** chance.random())))

    def layer(heads: int, blocks: int, like: LayerShape) -> LayerShape:
        ffn = like.ffn if blocks == steps else blocks * NARROWEST
        return LayerShape(heads * whole.group, ffn, heads * whole.group if like.cross_heads else 0)

    found: list[Shape] = []
    extremes = [(1, 1), (groups, steps), (groups, 1), (1, steps)]
    for _ in range(100 * (TIMED + HELD_OUT)):
        if len(found) == TIMED + HELD_OUT:
            break
        number = len(found)
        counts = [
            max(1, min(total, round(count * (1, 0.5, 1, 1.5)[number % 4])))
            for total, count in zip(whole.stacks, kept, strict=True)
        ]
        starts = np.cumsum([0, *whole.stacks])
        like = [whole.layers[start] for start, count in zip(starts, counts, strict=False) for _ in range(count)]
        one = extremes[number] if number < len(extremes) else (drawn(groups), drawn(steps))
        alike = kind == STOCK or number < len(extremes)
        widths = [one if alike else (drawn(groups), drawn(steps)) for _ in like]
        layers = tuple(layer(heads, blocks, each) for (heads, blocks), each in zip(widths, like, strict=True))
        hidden = layers[0].heads * whole.head_dim if kind == STOCK and whole.tied else whole.hidden
        made = replace(whole, hidden=hidden, layers=layers, stacks=tuple(counts))
        if kind == FREE or (made.kind == STOCK and hidden != unreachable_width(config)):
            found.append(made)
        elif number < len(extremes):
            extremes[number] = (drawn(groups), drawn(steps))
    return found


def _device(asked: str) -> str:
    """Return the device, as evaluate-emissions chooses it.

    Raises:
        BonsaiError: it is not here.
    """
    there = torch.cuda.is_available()
    if asked == "cuda" and not there:
        raise BonsaiError(
            "a level by its emission needs the costs on the device that is measured on, and torch sees no GPU here "
            "(--device cuda): prune where that GPU is, or ask for a share of the FLOPs (--flops) instead"
        )
    return "cuda" if there and asked != "cpu" else "cpu"


def _timed(
    config: Any,
    whole: Shape,
    shapes_to_time: Sequence[Shape],
    rows: int,
    tokens: int,
    device: str,
    kind: str,
    written: int = 0,
    vocabulary: int = 0,
) -> tuple[float, list[Priced]]:
    """Return the seconds of a batch of the baseline, and of each shape."""
    smaller = _with_tokens(config, vocabulary) if vocabulary else config
    batch = _batch(smaller, rows, tokens, written)
    head = WRITTEN if written else ""
    words: dict[torch.Size, torch.nn.Parameter] = {}
    with _threads(threads()), torch.random.fork_rng(), torch.inference_mode():
        own = [_network(config, whole, is_free(config), head, words)]
        own += [_network(smaller, shape, kind == FREE, head, words) for shape in shapes_to_time]
        runs = [_run(network, batch, device, written) for network in own]
        clock = time.process_time if device == "cpu" else time.perf_counter
        repeats = [max(1, round(TURN_SECONDS / max(1e-4, _seconds(run, 1, clock)))) for run in runs]
        taken: list[list[float]] = []
        started = time.perf_counter()
        while len(taken) < FEWEST_ROUNDS or (len(taken) < ROUNDS and time.perf_counter() - started < MOST_SECONDS):
            taken.append([_seconds(run, count, clock) for run, count in zip(runs, repeats, strict=True)])
    each = np.array(taken)
    baseline = float(np.median(each[:, 0]))
    ratios = np.median(each[:, 1:] / each[:, :1], axis=0)
    found = [
        Priced(shape, one_token.leaves_out(network), float(baseline * ratio))
        for shape, network, ratio in zip(shapes_to_time, own[1:], ratios, strict=True)
    ]
    return baseline, found


def _seconds(run: Callable[[], Any], count: int, clock: Callable[[], float]) -> float:
    started = clock()
    for _ in range(count):
        run()
    return (clock() - started) / count


def _run(network: Any, batch: dict[str, np.ndarray], device: str, written: int = 0) -> Callable[[], Any]:
    if written:
        writer = torch_writer(network, network.config, device)
        writer.write(batch, written)
        return lambda: writer.write(batch, written)
    predictor = torch_predictor(network, device)
    own = {name: batch[name] for name in predictor.inputs}
    predictor.run(own)
    return lambda: predictor.run(own)


def _with_tokens(config: Any, count: int) -> Any:
    """Return a configuration of a model with fewer tokens, whose special ones are among them."""
    found = copy.deepcopy(config)
    found.vocab_size = count
    for name in kept_tokens.IDS:
        if isinstance(one := getattr(found, name, None), int):
            setattr(found, name, min(one, count - 1))
    return found


def _network(config: Any, shape: Shape, free: bool, head: str, words: dict[torch.Size, torch.nn.Parameter]) -> Any:
    """Return a model of random weights; those of its vocabulary, which are large, are the same for all models.

    Args:
        config: the baseline's configuration.
        shape: the widths.
        free: whether it is of free shape.
        head: what it gives logits for; empty for what the configuration says.
        words: what the vocabulary's matrices are, by their shape; those of this model are put to it.
    """
    from transformers.initialization import no_init_weights

    some = copy.deepcopy(config)
    for stack, count in zip(family_of(config).stacks, shape.stacks, strict=True):
        setattr(some, stack.count, count)
    for name in family_of(config).per_layer:
        if listed := getattr(some, name, None):
            setattr(some, name, [listed[index % len(listed)] for index in range(len(shape.layers))])
    made = config_for(some, shape, free)
    with no_init_weights():
        network = task_class(made, head)(made)
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.shape[:1] == (getattr(config, "vocab_size", 0),):
                if parameter.shape not in words:
                    words[parameter.shape] = parameter
                    parameter.data.normal_(std=0.02)
                setattr(module, name, words[parameter.shape])
            else:
                parameter.data.normal_(std=0.02)
    return network


def _batch(config: Any, rows: int, tokens: int, written: int = 0) -> dict[str, np.ndarray]:
    """Return random tokens, a row in eight a little shorter, as in batches of texts sorted by length."""
    ids = np.random.default_rng(0).integers(config.vocab_size // 10, config.vocab_size, (rows, tokens))
    there = np.ones((rows, tokens), np.int64)
    if rows > 1 and tokens > 2:
        there[::8, slice(2) if written and not config.is_encoder_decoder else slice(-2, None)] = 0
    ids[there == 0] = config.pad_token_id or 0
    every = {"input_ids": ids, "attention_mask": there}
    return {name: every.get(name, np.zeros_like(ids)) for name in inputs_of(config)}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch work in as many threads as a measurement does."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
