"""Write the evidence that is shipped for `bonsai advise` from what these benchmarks measured.

    python tests/benchmarks/evidence.py        # writes components/shared/metrics/measured/benchmarks.json

What a study measured is shipped by copying its evidence.json into that folder, under a name of its own.
"""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SHIPPED = Path(__file__).parents[2] / "components" / "shared" / "metrics" / "measured" / "benchmarks.json"
MINILM = {"family": "bert", "model": "pretrained MiniLM", "parameters": 22_713_986}
SMOLLM2 = {"family": "llama", "model": "pretrained SmolLM2", "parameters": 134_515_008}
WRITERS = {  # the other's layers are not chosen so any more
    "1/2 layers, own tokens": "layers=1/2,vocabulary=task",
    "1/2 layers + matrices, own tokens, to 1/3": "layers=1/2,flops=0.333,vocabulary=task",
}
# What the benchmarks call a level: its layers, the FLOPs that its matrices were pruned to, and their shape.
MADE_TO: dict[str, tuple[float, float, str]] = {
    "2/3 layers": (2 / 3, 1, ""),
    "1/3 layers": (1 / 3, 1, ""),
    "3 layers, free": (1 / 2, 0.335, "free"),
    "1/3 layers + matrix pruning, free": (1 / 3, 0.0995, "free"),
    "1/3 layers + matrix pruning, stock": (1 / 3, 0.0995, "stock"),
    "3 layers to a tenth, free": (1 / 2, 0.0995, "free"),
    "4 layers to a tenth, stock": (2 / 3, 0.0995, "stock"),
    "1/2 layers": (1 / 2, 1, ""),
    "1/2 layers + matrices to 1/3": (1 / 2, 0.334, "free"),
    "1/2 layers + matrices to 12 %": (1 / 2, 0.12, "free"),
    "2/3 layers + matrices to 1/3, 4 passes": (2 / 3, 0.334, "free"),
    "2/3 layers + matrices to 12 %, 6 passes": (2 / 3, 0.12, "free"),
    "2/3 layers + matrices to 45 %": (2 / 3, 0.45, "free"),
}
THREE = {  # the white paper's
    "2/3 layers": (2 / 3, 1, ""),
    "1/3 layers": (1 / 3, 1, ""),
    "1/3 layers + matrix pruning": (1 / 3, 0.1, "free"),
}
FILES = {  # test rows, texts without labels (where README.md tells them) and the command
    "quality": (2000, 61_000, "quality.py"),
    "quality-depth": (2000, 61_000, "quality.py --shorter 0.5"),
    "quality-small": (1000, None, "quality.py --data embedded:amazon-reviews"),
    "quality-news": (1000, None, "quality.py --data embedded:news"),
}
KINDS = {  # what kinds.py was run on: the kind and the metric
    "conll2003": ("tokens", "span_f1"),
    "wnut17": ("tokens", "span_f1"),
    "tags": ("multi-label", "micro_f1"),
    "sections": ("classification", "accuracy"),
    "xquad-en": ("questions", "answer_f1"),
    "synopsis": ("ranking", "ndcg@10"),
}
SCRATCH = {"model": "from scratch, a weak baseline", "from_scratch": True}
# What README.md tells and no file in results does: (FLOPs, relative accuracy) of the three levels.
FAMILIES = {
    "bert": ((0.667, 0.999), (0.334, 0.996), (0.099, 1.004)),
    "gpt2": ((0.667, 1.002), (0.333, 1.006), (0.099, 1.003)),
    "opt": ((0.667, 1.001), (0.333, 1.000), (0.099, 0.996)),
    "t5": ((0.684, 0.997), (0.368, 1.013), (0.093, 0.995)),
}
DEMO = ((0.667, 0.985), (0.334, 0.991), (0.099, 0.980))
FEW_ROWS = {1: (0.334, 0.953), 2: (0.099, 0.961)}


def evidence() -> dict[str, Any]:
    """Return the file's content."""
    found = [each for name, about in FILES.items() for each in _of_quality(name, *about)]
    found += _of_ablations() + _of_kinds() + _of_generation()
    reviews = {"data": "movie-reviews", "kind": "classification", "metric": "accuracy", "test_rows": 2000, "seed": 0}
    for at, (flops, kept) in enumerate(DEMO):
        found.append({**MINILM, **reviews, "rows": 8066, **_level(at, flops, kept), "source": "make demo"})
    few = "quality.py --max-rows 500 --unlabelled ''"
    for at, pair in FEW_ROWS.items():
        found.append({**MINILM, **reviews, "rows": 500, **_level(at, *pair), "unlabelled_rows": 0, "source": few})
    for family, figures in FAMILIES.items():
        for at, pair in enumerate(figures):
            own = {"family": family, **SCRATCH, **reviews, "rows": 8066}
            found.append({**own, **_level(at, *pair), "source": "families.py"})
    return {"format": 1, "title": "tests/benchmarks", "evidence": found}


def _level(at: int, flops: float, kept: float) -> dict[str, Any]:
    label = [*THREE][at]
    return {**_made_to(label, *THREE[label]), "flops_ratio": flops, "relative_accuracy": kept}


def _made_to(label: str, layers: float, flops: float, shape: str) -> dict[str, Any]:
    pruned = {"flops": flops, "shape": shape} if shape else {}
    return {"level": label, "layers": round(layers, 4), **pruned}


def _of_quality(name: str, test_rows: int, unlabelled: int | None, command: str) -> list[dict[str, Any]]:
    document = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    found = []
    for seed, one in document["seeds"].items():
        situation = _situation(document, seed, one, test_rows) | {"unlabelled_rows": unlabelled, "source": command}
        for label, level in one["levels"].items():
            if label in MADE_TO:
                found.append(situation | _made_to(label, *MADE_TO[label]) | _figures(level))
    return found


def _of_ablations() -> list[dict[str, Any]]:
    """Return the level as it is, and without text that has no labels."""
    document = json.loads((RESULTS / "ablations.json").read_text(encoding="utf-8"))
    found = []
    for seed, one in document["seeds"].items():
        situation = _situation(document, seed, one, 2000) | {"source": "quality.py --ablations --shorter 0.5"}
        for texts, figures in (
            (FILES["quality"][1], one["levels"]["1/3 layers + matrix pruning, free"]),
            (0, one["ablations"]["no unlabelled text"]),
        ):
            level = {"level": "layers=1/3,flops=0.0995, in half the steps", "shape": "free", "unlabelled_rows": texts}
            found.append(situation | level | _figures(figures))
    return found


def _of_kinds() -> list[dict[str, Any]]:
    """Return what the kinds keep; whole layers are of both shapes, pruned matrices free."""
    found = []
    for name, levels in json.loads((RESULTS / "kinds.json").read_text(encoding="utf-8"))["found"].items():
        kind, metric = KINDS[name]
        base = levels["baseline"]
        about = {"data": name, "kind": kind, "metric": metric, "rows": base["rows"], "seed": 0, "source": "kinds.py"}
        about |= {"score": round(base["score"], 4), "floor": round(base["floor"], 4)}
        for label, level in levels.items():
            if label in MADE_TO:
                kept = {"relative_accuracy": level["relative_score"], **level}
                found.append({**MINILM, **about, **_made_to(label, *MADE_TO[label]), **_figures(kept)})
    return found


def _of_generation() -> list[dict[str, Any]]:
    """Return what models that write keep, at the FLOPs of an answer."""
    levels = json.loads((RESULTS / "generation.json").read_text(encoding="utf-8"))["found"]["synopsis"]
    base = levels["baseline"]
    about = {"data": "synopsis", "kind": "generation", "metric": "rouge_l", "rows": base["train rows"], "seed": 0}
    about |= {"score": round(base["score"], 4), "floor": round(base["floor"], 4), "test_rows": base["test rows"]}
    found = []
    for label, called in WRITERS.items():
        level = {"level": called}
        kept = {"relative_accuracy": levels[label]["relative_score"], **levels[label]}
        found.append({**SMOLLM2, **about, **level, **_figures(kept), "source": "generation.py"})
    return found


def _situation(document: dict[str, Any], seed: str, one: dict[str, Any], test_rows: int) -> dict[str, Any]:
    data = document["arguments"]["data"].removeprefix("embedded:")
    about = {"data": data, "kind": "classification", "metric": "accuracy", "rows": one["rows"], "test_rows": test_rows}
    return {**MINILM, **about, "seed": int(seed), "score": one["baseline"], "floor": one["floor"]}


def _figures(level: dict[str, Any]) -> dict[str, Any]:
    names = ("flops_ratio", "relative_accuracy", "divergence")
    return {name: round(level[name], 4) for name in names if name in level}


if __name__ == "__main__":
    SHIPPED.write_text(json.dumps(evidence(), indent=1) + "\n", encoding="utf-8")
