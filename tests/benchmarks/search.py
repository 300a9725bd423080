"""What a search finds beside fixed levels, random search and a grid, on the demo task.

    python tests/benchmarks/search.py search --target 0.98 --seed 0       a search of 25 minutes
    python tests/benchmarks/search.py random --target 0.98 --seed 0       as long, at random points
    python tests/benchmarks/search.py levels --seed 0                     the three levels of `bonsai run`
    python tests/benchmarks/search.py grid --seed 0                       all of a grid, healed to the end
    python tests/benchmarks/search.py all --seed 0 --seed 1 ...           all of these that are not done yet
    python tests/benchmarks/search.py table                               what is done, held against the goals

Each piece is a folder under --work that is gone on with when it is started again, and a JSON file of its result, after
which it is not made again. --tiny tries it all on few rows of a small model, in minutes.
"""

import argparse
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from arguments import json_file, write_json

from kfp_bonsai.pipelines.local.run import run
from kfp_bonsai.pipelines.local.search_run import search
from kfp_bonsai.propose import next as proposing
from kfp_bonsai.propose.trials import RUNGS
from kfp_bonsai.shared.core.errors import BonsaiError

TARGETS = (0.99, 0.98, 0.97)
SEEDS = range(5)
BUDGET = "25m"
SHARES = (0.04, 0.07, 0.1, 0.15, 0.22, 0.33, 0.5, 1.0)
DEMO: dict[str, Any] = {  # what `make demo` trains, of which a search has less time for each trial
    **{"model": "embedded:minilm", "data": "embedded:movie-reviews", "test_rows": 2000, "epochs": 2.0},
    "unlabelled_data": "embedded:amazon-reviews,embedded:tweets,embedded:news",
    **{"augmentations": 1, "unlabelled_rows": 2500, "prune_steps": 150, "freeze_embeddings": True},
    **{"block_seconds": 1.2, "precision": 0.03, "time_budget": 90.0},
}
TINY: dict[str, Any] = {"model": "embedded:bert-tiny", "data": "embedded:movie-reviews", "max_rows": 1000}
TINY |= {"validation_rows": 400, "test_rows": 400, "augmentations": 1, "epochs": 2.0, "prune_steps": 40}
TINY |= {"pairs": 2, "block_seconds": 0.4}
LEVELS_ONLY = ("model", "data")


def summary(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a search."""
    test = document["test"]
    return {
        "chosen": document["chosen"]["name"],
        "accuracy": test["relative_accuracy"],
        "accuracy_ci": test["relative_accuracy_ci"],
        "emission": test["figures"]["emission"],
        "met": test["met"],
        "called": test["probability_before_test"],
        "probability": test["probability"],
        "joules": document["energy"]["joules"],
        "seconds": document["energy"]["seconds"],
        "trials": len(document["trials"]),
        "front": [[one["figures"]["emission"], one["relative_accuracy"]] for one in document["front"]],
    }


def searched(folder: Path, setting: Mapping[str, Any], target: float, seed: int, budget: str) -> dict[str, Any]:
    """Search, or go on with it."""
    search(output=folder, min_accuracy=target, seed=seed, budget=budget, before=str(nothing_known(folder)), **setting)
    return summary(json.loads((folder / "search.json").read_text(encoding="utf-8")))


def nothing_known(folder: Path) -> Path:
    """Return a file of no earlier search, so that each begins as the first one did."""
    path = folder.parent / "nothing-known.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format": 1, "model_type": "none", "trials": [], "chosen": {}}), encoding="utf-8")
    return path


def whole_jobs(points: Callable[[Any, int], Mapping[str, Any] | None]) -> Callable[..., list[Any]]:
    """Return what proposes given points, each healed to the end at once, in the place of `next_jobs`."""

    def jobs(ground: Any, trials: Sequence[Any], targets: Any, count: int, seed: int, *, fresh: bool = True) -> list:
        number = max((each.number for each in trials), default=-1) + 1
        point = points(ground, number) if fresh else None
        if point is None:
            return []
        return [proposing.Job(number, len(RUNGS) - 1, number, ground.settled(point), -1, RUNGS[-1])]

    return jobs


def at_random(seed: int) -> Callable[[Any, int], Mapping[str, Any]]:
    """Return points that are drawn from the whole space."""

    def point(ground: Any, number: int) -> dict[str, Any]:
        chance = random.Random(1000 * seed + number)
        layers = chance.randint(1, ground.layers)
        low, high = ground.bounds(ground.shapes[0], layers)
        return {"layers": layers, "share": low * (high / low) ** chance.random(), "shape": ground.shapes[0]}

    return point


def on_grid(ground: Any, number: int) -> dict[str, Any] | None:
    """Return a point of the grid: shares that so many layers can have."""
    shape, found = ground.shapes[0], []
    for layers, share in product(range(1, ground.layers + 1), SHARES):
        low, high = ground.bounds(shape, layers)
        point = ground.settled({"layers": layers, "share": min(share, high), "shape": shape})
        if share >= low and point not in found:
            found.append(point)
    return found[number] if number < len(found) else None


def with_proposals(jobs: Callable[..., list[Any]], call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do a search in which something else proposes; that targets cannot be met ends it no earlier."""
    from kfp_bonsai.propose import choose

    before, never = proposing.next_jobs, choose.impossible
    proposing.next_jobs, choose.impossible = jobs, lambda *_: ""
    try:
        return call()
    finally:
        proposing.next_jobs, choose.impossible = before, never


def fixed_levels(folder: Path, setting: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Run the three levels, or go on with them."""
    if not (folder / "results.json").is_file():
        own = {name: value for name, value in setting.items() if name not in LEVELS_ONLY}
        run(setting["model"], setting["data"], folder, seed=seed, **own)
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    levels = [row for row in found["rows"] if row["stage"] == "compressed"]
    return {"levels": [[row["level"], row["relative_accuracy"], row["relative_emission"]] for row in levels]}


def grid(folder: Path, setting: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Make all of the grid, and return every trial on validation rows and what is the best for each target."""
    with_proposals(whole_jobs(on_grid), lambda: searched(folder, setting, TARGETS[1], seed, "1000 trials"))
    document = json.loads((folder / "search.json").read_text(encoding="utf-8"))
    healed = [one for one in document["trials"] if one["state"] == "healed"]
    points = [[one["name"], one["believed_accuracy"], one["figures"]["emission"]] for one in healed]
    return {"trials": points, "joules": document["energy"]["joules"], "seconds": document["energy"]["seconds"]}


def piece(work: Path, name: str, make: Callable[[Path], dict[str, Any]]) -> None:
    """Make one piece unless it is done, and keep its result; one that fails is told of."""
    file = work / f"{name}.json"
    if file.is_file():
        print(f"{name}: done")
        return
    work.mkdir(parents=True, exist_ok=True)
    try:
        found = make(work / name)
    except BonsaiError as error:
        print(f"{name}: {error}")
        return
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{name}: {json.dumps(found)[:300]}")


def best_of(points: Sequence[Sequence[Any]], target: float) -> float:
    """Return the smallest emission of (name, accuracy, emission) that keeps the target; infinity where none does."""
    return min((emission for _, kept, emission in points if kept is not None and kept >= target), default=math.inf)


def table(work: Path) -> dict[str, Any]:
    """Print what is done, held against the goals; return it."""
    done = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(work.glob("*-[0-9]*.json"))}
    searches = {name: one for name, one in done.items() if name.startswith("search-")}
    print(
        f"{'target':>7} {'seed':>4} {'emission':>9} {'kept':>7} {'met':>5} {'called':>6}  {'levels':>8} {'random':>8}"
    )
    better, beaten = [], []
    for name, one in searches.items():
        _, target, seed = name.split("-")
        levels = best_of(done.get(f"levels-{seed}", {}).get("levels", []), float(target))
        other = done.get(f"random-{target}-{seed}")
        drawn = other["emission"] if other and other["met"] else math.inf
        if f"levels-{seed}" in done:
            better.append(one["met"] and one["emission"] <= levels)
        if other:
            beaten.append(one["met"] and one["emission"] <= drawn)
        print(
            f"{target:>7} {seed:>4} {100 * one['emission']:8.1f}% {100 * one['accuracy']:6.1f}% {one['met']!s:>5} "
            f"{100 * one['called']:5.0f}%  {100 * levels:7.1f}% {100 * drawn:7.1f}%"
        )
    met = [one["met"] for one in searches.values()]
    called = mean([one["called"] for one in searches.values()])
    print(f"met on test: {sum(met)} of {len(met)} (goal: 9 of 10); called: {called}")
    print(f"at least as good as the best fixed level: {sum(better)} of {len(better)} (goal: all)")
    print(f"better than random search: {sum(beaten)} of {len(beaten)} (goal: 4 of 5)")
    for name, one in done.items():
        if name.startswith("grid-"):
            seed = name.partition("-")[2]
            own = [(key, each) for key, each in searches.items() if key.endswith(f"-{seed}")]
            for key, each in own:
                least = best_of(one["trials"], float(key.split("-")[1]))
                print(
                    f"{key}: {each['emission'] / least - 1:+.1%} of the grid's best emission (goal: 3 %) at "
                    f"{each['joules'] / one['joules']:.2f} of its energy (goal: 0.33)"
                )
    return done


def mean(values: Sequence[float]) -> str:
    """Return a mean in words."""
    return f"{sum(values) / len(values):.2f} on average" if values else "none"


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("search", "random", "levels", "grid", "all", "table"))
    parser.add_argument("--target", type=float, action="append")
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--budget", default=BUDGET)
    parser.add_argument("--work", type=Path, default=Path("runs/search-benchmark"))
    parser.add_argument("--tiny", action="store_true", help="few rows of a small model")
    parser.add_argument("--json", type=json_file, help="with table: a file to write all results to")
    given = parser.parse_args()
    if given.what == "table":
        write_json(given.json, table(given.work))
        return
    setting = TINY if given.tiny else DEMO
    for seed in given.seed or SEEDS:
        if given.what in ("levels", "all"):
            piece(given.work, f"levels-{seed}", lambda folder, seed=seed: fixed_levels(folder, setting, seed))
        for target in given.target or TARGETS:
            if given.what in ("search", "all"):
                piece(
                    given.work,
                    f"search-{target}-{seed}",
                    lambda folder, target=target, seed=seed: searched(folder, setting, target, seed, given.budget),
                )
            if given.what in ("random", "all"):
                piece(
                    given.work,
                    f"random-{target}-{seed}",
                    lambda folder, target=target, seed=seed: with_proposals(
                        whole_jobs(at_random(seed)), lambda: searched(folder, setting, target, seed, given.budget)
                    ),
                )
        if given.what in ("grid", "all"):
            piece(given.work, f"grid-{seed}", lambda folder, seed=seed: grid(folder, setting, seed))


if __name__ == "__main__":
    main()
