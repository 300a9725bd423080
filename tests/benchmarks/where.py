"""Where the time of an inference goes: each part of the baseline and of small models, on one thread, taking turns.

    python tests/benchmarks/where.py [--shapes 32x28 1x28 32x128] [--work FOLDER] [--json FILE]
    python tests/benchmarks/where.py --models runs/mine/work/.../baseline SMALL ...

Without models, MiniLM is fine-tuned and cut to a third of its layers and a tenth of the FLOPs, in both shapes, on a few
hundred rows: the shapes matter, not what they answer. Parts are CPU seconds between hooks on modules; what is under no
hook (masks, sums, views, Python, arrays to tensors) is the rest. Operators are torch's profiler's. A ratio of two
models is the median over rounds, in each of which all models run.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as evaluate-emissions does

import numpy as np
import torch
from arguments import json_file, write_json
from trained import made

from kfp_bonsai.shared.inference import runtimes
from kfp_bonsai.shared.models import one_token, shapes
from kfp_bonsai.shared.models.configuration import family_of, inputs_of
from kfp_bonsai.shared.models.flops import Flops
from kfp_bonsai.shared.saved import checkpoint, records

ROWS, SHARE = 1200, 0.0995
PARTS = ("embeddings", "attention matrices", "attention", "feed-forward matrices", "activations", "norms", "head")
REST, OPERATORS = "rest", 8


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", type=Path, help="model folders, the baseline first (made if not given)")
    parser.add_argument(
        "--shapes", nargs="+", default=["32x28", "1x28", "32x128"], help="rows x tokens (32x28 1x28 32x128)"
    )
    parser.add_argument("--rounds", type=int, default=10, help="rounds of all models (10)")
    parser.add_argument("--work", type=Path, help="folder to keep the models in, for a next time")
    parser.add_argument("--json", type=json_file, help="file to write the figures to")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with ExitStack() as stack:
        work = given.work or Path(stack.enter_context(TemporaryDirectory()))
        folders = given.models or make(work)
        networks = {folder.name: checkpoint.load(folder)[0].eval() for folder in folders}
        counted = {folder.name: Flops.from_record(records.read_record(folder)) for folder in folders}
        found = {}
        for shape in given.shapes:
            rows, tokens = map(int, shape.split("x"))
            found[shape] = measured(networks, rows, tokens, given.rounds)
            whole = next(iter(counted.values())).at(tokens)
            for name, flops in counted.items():
                found[shape][name]["flops_ratio"] = flops.at(tokens) / whole
            print(table(shape, found[shape]), flush=True)
    write_json(given.json, found)


def make(work: Path) -> list[Path]:
    """Return the folders of the baseline, a free and a stock shape of it, made by the stages."""
    from kfp_bonsai.fine_tune.train import fine_tune
    from kfp_bonsai.layer_remove.remove import layer_remove
    from kfp_bonsai.matrix_prune.prune import matrix_prune
    from kfp_bonsai.prepare_data.prepare import prepare_data
    from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

    work.mkdir(parents=True, exist_ok=True)
    data = {name: work / f"{name}.parquet" for name in ("train", "validation", "test", "unlabelled")}
    if not data["unlabelled"].exists():
        prepare_data("embedded:movie-reviews", *data.values(), max_rows=ROWS)
    train, rows = data["train"], data["validation"]
    base = made(work / "baseline", lambda to: fine_tune("embedded:minilm", train, rows, to, epochs=1))
    options = {"augmentations": 0, "unlabelled_rows": 200}
    taught = made(work / "transfer", lambda to: teacher_outputs(base, train, data["unlabelled"], to, **options))
    short = made(work / "short", lambda to: layer_remove(base, rows, to, keep="1/3"))

    def cut(shape: str) -> Path:
        return made(work / shape, lambda to: matrix_prune(short, taught, to, flops=SHARE, shape=shape, steps=20))

    return [base, cut("free"), cut("stock")]


def measured(networks: dict[str, Any], rows: int, tokens: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Return each model's milliseconds a batch by part and by operator, and its ratio to the first, by part too."""
    first = next(iter(networks.values()))
    batch = made_batch(rows, tokens, first.config.vocab_size)
    runs = {name: runner(network, batch) for name, network in networks.items()}
    whole: dict[str, list[float]] = {name: [] for name in networks}
    parts: dict[str, list[dict[str, float]]] = {name: [] for name in networks}
    for run in runs.values():
        run()
    repeats = {name: repeated(run) for name, run in runs.items()}
    for _ in range(rounds):
        for name, run in runs.items():
            started = time.process_time()
            for _ in range(repeats[name]):
                run()
            whole[name].append((time.process_time() - started) / repeats[name])
        for name, run in runs.items():
            with timed(networks[name]) as spent:
                started = time.process_time()
                for _ in range(repeats[name]):
                    run()
                taken = time.process_time() - started
            spent[REST] = taken - sum(spent.values())
            parts[name].append({part: seconds / repeats[name] for part, seconds in spent.items()})
    below = whole[next(iter(networks))]
    return {
        name: {
            "ms": 1000 * float(np.median(whole[name])),
            "ratio": float(np.median(np.divide(whole[name], below))),
            "parts_ms": {part: 1000 * float(np.median([one[part] for one in parts[name]])) for part in parts[name][0]},
            "operators": operators(run),
        }
        for name, run in runs.items()
    }


def made_batch(rows: int, tokens: int, words: int) -> dict[str, np.ndarray]:
    """Return random tokens, a row in eight a little shorter than the others, as in batches of rows sorted by length."""
    ids = np.random.default_rng(0).integers(words // 10, words, (rows, tokens))
    there = np.ones((rows, tokens), np.int64)
    there[::8, -2:] = 0 if rows > 1 else 1
    return {"input_ids": ids * there, "attention_mask": there, "token_type_ids": np.zeros_like(ids)}


def runner(network: Any, batch: dict[str, np.ndarray]) -> Callable[[], Any]:
    """Return what runs a batch as evaluate-emissions has it run."""
    predictor = runtimes.torch_predictor(network, "cpu")
    own = {name: batch[name] for name in inputs_of(network.config)}
    return lambda: predictor.run(own)


def repeated(run: Callable[[], Any]) -> int:
    """Return how often a model is to run in a turn, so that it takes some 20 ms."""
    started = time.process_time()
    run()
    return max(1, round(0.02 / max(1e-4, time.process_time() - started)))


@contextmanager
def timed(network: Any) -> Iterator[dict[str, float]]:
    """Note the seconds of each part of a model: of a module without those of the modules in it."""
    spent, inner, hooks = dict.fromkeys(PARTS, 0.0), [0.0], []
    began: list[float] = []

    def before(*_: Any) -> None:
        began.append(time.process_time())
        inner.append(0.0)

    def after(part: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            seconds, within = time.process_time() - began.pop(), inner.pop()
            spent[part] += seconds - within
            inner[-1] += seconds

        return hook

    for module, part in parts_of(network).items():
        hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after(part))]
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()


def parts_of(network: Any) -> dict[Any, str]:
    """Return which part of a model each of its modules is; some are none."""
    family, found = family_of(network.config), {}
    for path in family.tokens:
        if (module := shapes.module_at(network, path.rpartition(".")[0])) is not None and "embeddings" in path:
            found[module] = "embeddings"
    for path in family.head:
        if (module := shapes.module_at(network, path)) is not None:
            found[module] = "head"
    for stack, layer in shapes.layers_of(network):
        for path, axes in stack.layer.items():
            module = shapes.module_at(layer, path)
            if module is not None and axes[0] is not None:
                of_network = "ffn" in (axes[-1], axes[0]) or (isinstance(axes[0], tuple) and "ffn" in axes[0])
                matrix = "feed-forward matrices" if of_network else "attention matrices"
                found[module] = matrix if len(axes) == 2 else "norms"
        found |= dict.fromkeys(one_token.attentions(layer), "attention")
        for module in layer.modules():
            idle = isinstance(module, torch.nn.Dropout | torch.nn.Identity)
            if module not in found and not idle and not [*module.children()] and not [*module.parameters()]:
                found[module] = "activations"
    return found


def operators(run: Callable[[], Any]) -> dict[str, float]:
    """Return the share of each operator of torch, the largest first."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(repeated(run)):
            run()
    events = sorted(profile.key_averages(), key=lambda one: -one.self_cpu_time_total)
    total = sum(one.self_cpu_time_total for one in events)
    return {one.key.removeprefix("aten::"): one.self_cpu_time_total / total for one in events[:OPERATORS]}


def table(shape: str, found: dict[str, dict[str, Any]]) -> str:
    """Return the figures as lines: for each part milliseconds, its share, and its ratio to the baseline's."""
    names = list(found)
    base = found[names[0]]["parts_ms"]
    lines = [
        f"\n{shape:23}" + "".join(f"{name:>24}" for name in names),
        f"{'':23}" + f"{'ms':>8}{'%':>8}{'ratio':>8}" * len(names),
    ]
    for part in (*PARTS, REST):
        line = f"{part:23}"
        for name in names:
            own = found[name]["parts_ms"]
            ratio = own[part] / base[part] if base[part] > 0 else float("nan")
            line += f"{own[part]:8.2f}{100 * own[part] / sum(own.values()):8.1f}{ratio:8.3f}"
        lines.append(line)
    lines.append(f"{'all':23}" + "".join(f"{one['ms']:8.2f}{100:8.1f}{one['ratio']:8.3f}" for one in found.values()))
    lines.append(f"{'FLOPs':23}" + "".join(f"{'':16}{one['flops_ratio']:8.3f}" for one in found.values()))
    for name, one in found.items():
        told = ", ".join(f"{operator} {100 * share:.1f} %" for operator, share in one["operators"].items())
        lines.append(f"{name}: {told}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
