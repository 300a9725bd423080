"""Known truth: measure models whose true energy ratio is known, many times, and count how often we are right.

    python tests/benchmarks/measurement.py --repetitions 20 [--busy] [--json FILE]

The truth of a cut of one and the same network is its share of the layers, plus what does not shrink (embeddings,
classifier, what a call costs): where the line through the CPU times of one to six layers, each alone, begins, found in
between the repetitions. The same model twice must give 1, and added sleep must change nothing, as a process that waits
uses no energy of its own. It sleeps shortly, as a core that has slept for long needs more CPU time for a while.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is loaded, as evaluate-emissions does

import numpy as np
from arguments import json_file, write_json

from kfp_bonsai.evaluate_emissions import protocol
from kfp_bonsai.shared.core.threads import threads
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.metrics import statistics

LAYERS, ROWS, TOKENS = 6, 8, 32  # with 16 tokens, what a call costs beside its layers is 1 to 6 % of the whole
SLEEP_SECONDS = 0.001  # before each batch, 5 % more wall time; 20 ms are 4 % more CPU time too, measured alone
TRUTH_ROUNDS = 10  # before each repetition
GOAL_ERROR, GOAL_WIDTH, GOAL_COVERAGE = 0.03, 0.03, 0.90


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=20, help="whole measurements (20)")
    parser.add_argument("--pairs", type=int, default=10, help="rounds of each (10)")
    parser.add_argument(
        "--block-seconds", type=float, default=0.5, help="seconds a block (0.5, a quarter of the stage's)"
    )
    parser.add_argument("--precision", type=float, default=0.02, help="goal of the interval, as --precision (0.02)")
    parser.add_argument("--busy", action="store_true", help="keep another core busy meanwhile")
    parser.add_argument("--only", nargs="*", help="names of models, as the table has them; all of them")
    parser.add_argument("--json", type=json_file, help="file to write all estimates to")
    args = parser.parse_args()
    neighbour = _burn() if args.busy else 0
    try:
        found = run(args)
    finally:
        if neighbour:
            os.kill(neighbour, signal.SIGKILL)
    print(table(found, args))
    write_json(args.json, {"arguments": vars(args), "models": found})


def run(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return each model's truth and the intervals of all repetitions."""
    cuts = networks()
    batches = made_batches()
    sources = energy.find_sources()
    models = {
        "whole": cuts[LAYERS],
        "the same model": cuts[0],
        "half of the layers": cuts[LAYERS // 2],
        "a third of the layers": cuts[LAYERS // 3],
        "the same model, sleeping": sleeping(cuts[LAYERS]),
    }
    print(f"source: {sources[0].name}", flush=True)
    layers = {
        "the same model": LAYERS,
        "half of the layers": LAYERS // 2,
        "a third of the layers": LAYERS // 3,
        "the same model, sleeping": LAYERS,
    }
    layers = {name: count for name, count in layers.items() if not args.only or name in args.only}
    found: dict[str, dict[str, Any]] = {name: {"intervals": []} for name in layers}
    fixed: list[float] = []
    plan = protocol.Plan(args.pairs, args.block_seconds, args.precision)
    for repetition in range(args.repetitions):
        started = time.monotonic()
        if set(layers.values()) != {LAYERS}:
            fixed += fixed_shares([cuts[count] for count in range(1, LAYERS + 1)], batches, seed=repetition)
        subjects = [protocol.Subject("baseline", models["whole"])]
        subjects += [protocol.Subject(name, models[name]) for name in layers]
        rounds = protocol.measure(subjects, batches, plan, sources)
        for subject in subjects[1:]:
            ratio = statistics.ratio(protocol.pairs_of(subject, subjects[0], rounds.again))
            found[subject.name]["intervals"].append([ratio.value, ratio.low, ratio.high])
        print(
            f"repetition {repetition + 1}/{args.repetitions}: {time.monotonic() - started:.0f} s, {rounds.done} pairs, "
            f"neighbours {100 * rounds.neighbours:.0f} %",
            flush=True,
        )
    share, unsure = 0.0, 0.0
    if fixed:
        share, unsure = float(np.median(fixed)), 1.25 * float(np.std(fixed)) / len(fixed) ** 0.5
        print(f"beside the layers: {100 * share:.2f} ± {100 * unsure:.2f} % of the whole model's CPU time")
    for name, count in layers.items():
        found[name] |= {"truth": share + (1 - share) * count / LAYERS, "unsure": unsure * (1 - count / LAYERS)}
    return found


def networks() -> dict[int, Any]:
    """Return predict functions of random models by their layers, alike but for the weights; 0 is the largest again."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    torch.set_num_threads(threads())
    config = BertConfig(hidden_size=384, num_attention_heads=12, intermediate_size=1536, num_hidden_layers=LAYERS)

    def cut(layers: int) -> Any:
        network = BertForSequenceClassification(config).eval()
        network.bert.encoder.layer = network.bert.encoder.layer[:layers]

        def predict(batch: dict[str, np.ndarray]) -> np.ndarray:
            with torch.inference_mode():
                return network(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()

        return predict

    return {0: cut(LAYERS), **{layers: cut(layers) for layers in range(1, LAYERS + 1)}}


def sleeping(predict: Any) -> Any:
    """Return a predict function that waits before each batch."""

    def wait_first(batch: dict[str, np.ndarray]) -> np.ndarray:
        time.sleep(SLEEP_SECONDS)
        return predict(batch)

    return wait_first


def made_batches() -> list[dict[str, np.ndarray]]:
    """Return batches of random tokens of three lengths, three of each."""
    random = np.random.default_rng(0)
    return [
        {
            "input_ids": random.integers(1000, 30_000, (ROWS, length)),
            "attention_mask": np.ones((ROWS, length), np.int64),
        }
        for length in (TOKENS // 2, TOKENS, TOKENS * 2) * 3
    ]


def fixed_shares(cuts: list[Any], batches: list[dict[str, np.ndarray]], seed: int) -> list[float]:
    """Return what share of the last cut's CPU time does not grow with the layers, once for each of some rounds.

    Args:
        cuts: predict functions of models with 1, 2, 3, ... layers.
        batches: what a pass runs.
        seed: of the models' order.
    """
    random, shares = np.random.default_rng(seed), []
    for _ in range(TRUTH_ROUNDS):
        seconds = [0.0] * len(cuts)
        for index in random.permutation(len(cuts)):
            cuts[index](batches[0])
            started = time.process_time()
            for batch in batches:
                cuts[index](batch)
            seconds[index] = time.process_time() - started
        slope, start = np.polyfit(range(1, len(cuts) + 1), seconds, 1)
        shares.append(start / (start + slope * len(cuts)))
    return shares


def table(found: dict[str, dict[str, Any]], args: argparse.Namespace) -> str:
    """Return the result: for each model the truth, the estimate, its error, its interval and its coverage."""
    where = "a busy neighbour" if args.busy else "no neighbour of our own"
    lines = [
        f"\n{args.repetitions} repetitions of {args.pairs} pairs or more, blocks of {args.block_seconds} s, {where}, "
        f"load {os.getloadavg()[0]:.1f}",
        f"{'model':26} {'truth':>7} {'median':>7} {'error':>8} {'worst':>8} {'interval':>9} {'covers':>7}  goal",
    ]
    for name, one in found.items():
        values = np.array(one["intervals"])
        errors = values[:, 0] / one["truth"] - 1
        width = float(np.median((values[:, 2] - values[:, 1]) / 2 / values[:, 0]))
        covered = float(np.mean((values[:, 1] <= one["truth"]) & (one["truth"] <= values[:, 2])))
        error = float(np.median(errors))
        met = abs(error) <= GOAL_ERROR and width <= GOAL_WIDTH and covered >= GOAL_COVERAGE
        lines.append(
            f"{name:26} {one['truth']:7.4f} {np.median(values[:, 0]):7.4f} {100 * error:+7.1f}% "
            f"{100 * np.abs(errors).max():7.1f}% {'±' + format(100 * width, '.1f'):>8}% {100 * covered:6.0f}%  "
            f"{'met' if met else 'missed'}"
        )
    return "\n".join(lines)


def _burn() -> int:
    """Keep a core busy by a process that is no child of ours, as a child's work would be charged to the models."""
    script = '"$0" -c "while True: sum(range(100_000))" >/dev/null 2>&1 & echo $!'
    return int(subprocess.run(["sh", "-c", script, sys.executable], stdout=subprocess.PIPE, check=True).stdout)


if __name__ == "__main__":
    main()
