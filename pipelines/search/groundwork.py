"""What a search stands on, found before its first trial: tables of costs, the baseline's figures, what was seen."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kfp_bonsai.pipelines.search.earlier import Earlier, earlier_searches
from kfp_bonsai.pipelines.search.trial import COSTS
from kfp_bonsai.propose.ground import ANY, FREE, SHAPES, STOCK, USUAL_KEEPS, Ground, write_ground
from kfp_bonsai.quantize.quantize import quantize
from kfp_bonsai.shared.core.errors import BonsaiError, check_choice
from kfp_bonsai.shared.core.files import new_folder
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.saved.records import read_record, short_name

BASELINE_INT8 = "baseline-int8"
AFTER = 2 / 3  # of the layers: about what tables are of


def lay_ground(
    baseline: Path,
    train: Path,
    validation: Path,
    pool: Path,
    *,
    shape: str = FREE,
    device: str = "auto",
    edge: bool = False,
    with_memory: bool = False,
    rivals: Sequence[str] = (),
    costs: str = "",
    before: str = "",
    block_seconds: float = 2.0,
    seed: int = 0,
) -> Ground:
    """Time a table of costs for each shape, measure the baseline, and write a pool without trials.

    Args:
        baseline: the baseline's folder.
        train: the training split.
        validation: the validation split.
        pool: the folder to write.
        shape: "free", "stock" or "any".
        device: where emission is measured.
        edge: measure the baseline as int8 too.
        with_memory: measure the peak memory too.
        rivals: ready-made models to try too.
        costs: a table of this device that was timed before; "" times one.
        before: a file or folder of earlier searches; "" for those that were left on this machine.
        block_seconds: of the measurement at the end.
        seed: of all that is drawn.

    Raises:
        BonsaiError: the table is of another device.
    """
    from kfp_bonsai.evaluate_emissions.given import check_device
    from kfp_bonsai.pipelines.search.bench import look_at, task_facts
    from kfp_bonsai.shared.inference.cost_table import cost_table, described_model, write_costs
    from kfp_bonsai.shared.models.costs import Request
    from kfp_bonsai.shared.models.shapes import shape_of
    from kfp_bonsai.shared.saved.checkpoint import load

    check_choice("--shape", shape, SHAPES)
    record = read_record(baseline)
    network, tokenizer = load(baseline)
    whole = shape_of(network)
    vocabulary = _tokens_needed(record, network, tokenizer, (train, validation))
    where = check_device("cpu" if edge else device, [])
    kinds = kinds_of(network.config, shape)
    looking = {"with_memory": with_memory, "block_seconds": block_seconds, "seed": seed}
    kept = [max(1, round(AFTER * count)) for count in whole.stacks]
    with energy.track() as meter, new_folder(Path(pool)) as folder:
        own = look_at(baseline, baseline, train, validation, device, **looking)
        asked = Request(own.length, own.written, vocabulary)
        limits, errors = {}, []
        for kind in kinds:
            if costs:
                table = stated_costs(costs, network, kind, where, asked)
            else:
                table = cost_table(network.config, whole, kept, kind, asked, where, "search")
            write_costs(table, folder / COSTS.format(kind), described_model(network.config, whole, kind, asked))
            limits[kind] = _limits(table, whole, kind, network)
            errors.append(table.error)
        figures = {**own.figures, "emission": 1.0, "accuracy": own.score, "rows": own.rows}
        figures["size_rest_mb"] = _rest_mb(network, vocabulary)
        int8 = {}
        if edge:
            quantize(baseline, train, folder / BASELINE_INT8, seed=seed)
            small = look_at(baseline, folder / BASELINE_INT8, train, validation, "cpu", **looking).figures
            own_cpu = figures if where == "cpu" else look_at(baseline, baseline, train, validation, "cpu").figures
            for name in ("emission", "latency_ms", "size_mb", "memory_mb"):
                if small.get(name) and (own_cpu.get(name) or name == "emission"):
                    int8[name] = small[name] / (own_cpu.get(name) or 1.0)
            int8["emission"] = small["emission"]
        alike = record["model_type"] + (" that writes" if own.written else "")  # whose searches teach this one
        known, cost = earlier_searches(alike, before), meter.so_far()
        made = Ground(
            layers=min(whole.stacks),
            limits=limits,
            error=max(errors),
            device=table.device,
            baseline=figures,
            int8=int8,
            seen=_seen(known, record["model_type"]),
            gains=known.gains,
            rivals=list(rivals),
            begin=known.begin,
            rest={
                "task": task_facts(validation),
                "model_type": alike,
                "model": short_name(str(record["lineage"][0]["arguments"].get("model", ""))),
                "earlier": known.count,
                "vocabulary": vocabulary,
                "written": own.written,
                "cost": {"seconds": cost.seconds, "joules": cost.joules, "energy_label": cost.label},
                "seed": seed,
            },
        )
        write_ground(folder, made)
    if vocabulary:
        of = f"{network.config.vocab_size:,} tokens"
        say(f"search  models keep {vocabulary:,} of {of}: those of the task, and bytes for other words")
    what = f"an answer of {own.written} tokens" if own.written else "a request"
    words = f"{known.count} trials of earlier searches" if known.count else "no earlier search"
    say(
        f"search  the baseline scores {figures['accuracy']:.4f} on {own.rows:,} validation rows and takes "
        f"{figures['latency_ms']:.2f} ms for {what}; shapes from {100 * made.least:.2g} % of its emission; "
        f"{words} of this family"
    )
    return made


def kinds_of(config: Any, shape: str) -> list[str]:
    """Return the kinds of shapes that a search of a model looks at.

    Raises:
        BonsaiError: it cannot have such shapes.
    """
    from kfp_bonsai.shared.models.configuration import is_free

    if is_free(config) and shape == STOCK:
        raise BonsaiError("--shape stock: a model of free shape cannot become stock: leave it out")
    return [FREE] if is_free(config) else [FREE, STOCK] if shape == ANY else [shape]


def stated_costs(costs: str, network: Any, kind: str, device: str, asked: Any = None) -> Any:
    """Return the table of costs that was given for a model and a kind of shape.

    Args:
        costs: a file, or the folder of a search or its pool.
        network: the baseline, or one like it without weights.
        kind: "free" or "stock".
        device: where emission is measured.
        asked: what is asked of it (costs.Request); None where that is not known yet.

    Raises:
        BonsaiError: there is none, or it is of another device or model.
    """
    from kfp_bonsai.shared.inference.cost_table import described_model, device_words, read_costs
    from kfp_bonsai.shared.models.shapes import shape_of

    given, name = Path(costs).expanduser(), COSTS.format(kind)
    inside = given / "work" / "pool" / name
    file = next((one for one in (given, given / name) if one.is_file()), inside)
    found = read_costs(file, described_model(network.config, shape_of(network), kind, asked))
    do = "leave --costs out to time a table here, or search where that device is"
    check_table(found.device, device_words(device), f"--costs {costs}", do)
    return found


def check_table(table: str, here: str, where: str, do: str) -> None:
    """Refuse a table of another device: what it says of costs is not so here.

    Args:
        table: its device, in words.
        here: the one that is here.
        where: what holds it, for the message.
        do: what to do about it.

    Raises:
        BonsaiError: it is of another device.
    """
    ours, theirs = (one.partition(", torch")[0] for one in (here, table))
    if ours != theirs:
        raise BonsaiError(f"{where} holds costs of another device, {theirs}; here it is {ours}: {do}")


def _limits(table: Any, whole: Any, kind: str, network: Any) -> dict[str, list[float]]:
    """Return the least and the most that so many layers cost, for each number of layers."""
    from kfp_bonsai.matrix_prune.budget import STEP, alike
    from kfp_bonsai.shared.models import one_token
    from kfp_bonsai.shared.models.surgery import unreachable_width

    single = kind == FREE and one_token.can(type(network), network.config)
    found = {}
    for layers in range(1, min(whole.stacks) + 1):
        kept, start = [], 0
        for total in whole.stacks:
            kept += whole.layers[start : start + layers]
            start += total
        short = replace(whole, layers=tuple(kept), stacks=tuple(layers for _ in whole.stacks))
        least = math.inf
        for heads in range(whole.group, whole.layers[0].heads + 1, whole.group):
            hidden = heads * whole.head_dim if kind == STOCK and whole.tied else whole.hidden
            small = alike(short, heads, min(STEP, whole.layers[0].ffn), hidden)
            if kind == STOCK and (small.kind != STOCK or hidden == unreachable_width(network.config)):
                continue
            least = min(least, table.share(small, single))
        most = table.share(short, one_token.leaves_out(network))
        if least < math.inf:
            found[str(layers)] = [least, max(most, least)]
    return found


def _rest_mb(network: Any, vocabulary: int) -> float:
    """Return the megabytes of what no layer holds, embeddings and the head, of so many tokens if that is not 0."""
    from kfp_bonsai.shared.models.shapes import layers_of

    in_layers, words = {id(one) for _, layer in layers_of(network) for one in layer.parameters()}, 0
    rest = [one for one in network.parameters() if id(one) not in in_layers]
    if vocabulary:
        words = sum(one.numel() for one in rest if len(one) == network.config.vocab_size)
    kept = sum(one.numel() for one in rest) - words * (1 - vocabulary / network.config.vocab_size)
    return float(4 * kept / 1e6)


def _tokens_needed(record: Mapping[str, Any], network: Any, tokenizer: Any, splits: Sequence[Path]) -> int:
    """Return how many tokens a model that writes needs for its task; 0 where its vocabulary stays whole."""
    from kfp_bonsai.shared.data.rows import read_rows
    from kfp_bonsai.shared.kinds.kinds import kind_in
    from kfp_bonsai.shared.saved import kept_tokens

    if not kind_in(record["task"]).writes or not kept_tokens.can(tokenizer):
        return 0
    rows = [read_rows(split, tokenizer, record["max_length"]) for split in splits]
    used = [tokens for one in rows for tokens in (*one.inputs["input_ids"], *one.labels)]
    needed = len(kept_tokens.needed(tokenizer, used))
    return needed if needed < network.config.vocab_size else 0


def _seen(known: Earlier, model_type: str) -> list[list[float]]:
    """Return what like models kept at which emission: by earlier searches, else by evidence, else as usual; rising."""
    points = known.seen or _evidence(model_type)
    if len(points) < 2:
        return [list(one) for one in USUAL_KEEPS]
    ordered = sorted({round(emission, 4): kept for emission, kept in points}.items())
    rising, best = [], 0.0
    for emission, kept in ordered:
        best = max(best, min(kept, 1.0))
        rising.append([emission, best])
    if rising[-1][0] < 1.0:
        rising.append([1.0, max(1.0, best)])
    return rising


def _evidence(model_type: str) -> list[tuple[float, float]]:
    """Return what compressed levels of this family, or of any, kept at which share of the FLOPs."""
    from kfp_bonsai.shared.metrics.evidence import left_here, shipped

    strong = [one for one in (*shipped(), *left_here()) if not one.is_weak and not one.student]
    own = [one for one in strong if one.family == model_type] or strong
    groups: dict[float, list[float]] = {}
    for one in own:
        groups.setdefault(round(math.log(one.relative_emission or one.flops_ratio), 1), []).append(
            one.relative_accuracy
        )
    return [(math.exp(share), sum(kept) / len(kept)) for share, kept in groups.items() if share < 0]
