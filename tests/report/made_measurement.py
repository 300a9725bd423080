"""Made measurements with the shape of real ones: simulated predictions, pairs of blocks and intervals."""

import hashlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.metrics import control as states
from kfp_bonsai.shared.metrics.statistics import mcnemar

LEVELS = {
    # level: (chance to agree with a true label, true emission ratio, parameters, bytes, ms, J and s of making)
    "baseline": (0.853, 1.0, 22_713_986, 90_889_000, 6.12, 0, 0),
    "2/3 layers": (0.849, 0.676, 19_164_290, 76_690_000, 4.31, 4_150, 96),
    "1/3 layers": (0.836, 0.347, 15_614_594, 62_490_000, 2.42, 3_020, 71),
    "1/3 layers + matrix pruning": (0.829, 0.112, 13_010_000, 52_100_000, 1.27, 3_420, 84),
}
ROC = {"fpr": [0.0, 0.2, 1.0], "tpr": [0.0, 0.85, 1.0], "thresholds": [1.0, 0.5, 0.0], "auc": 0.9}
STAGES = ("layer-remove", "matrix-prune", "distill")


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def lineage(level: str, joules: float, seconds: float, quantized: bool = False) -> list[dict[str, Any]]:
    entries = [("fine-tune", {"epochs": 3, "learning_rate": 5e-5}, 2_640.0, 58.0)]
    if level != "baseline":
        shares = (0.02, 0.5 if "matrix" in level else 0.0, 0.48 if "matrix" in level else 0.98)
        arguments = ({"keep": level.split()[0]}, {"flops": 0.1, "shape": "free"}, {"epochs": 6, "temperature": 2.0})
        entries += [
            (stage, argument, joules * share, seconds * share)
            for stage, argument, share in zip(STAGES, arguments, shares, strict=True)
            if share
        ]
    if quantized:
        entries.append(("quantize", {"runtime": "openvino", "calibration_rows": 512}, 410.0, 14.0))
    return [
        {
            "stage": s,
            "arguments": a,
            "seconds": t,
            "joules": j,
            "energy_label": "estimated",
            "sha256": sha(s if s == "fine-tune" else level + s),
        }
        for s, a, j, t in entries
    ]


def interval(values: np.ndarray) -> list[float]:
    return [float(end) for end in np.percentile(values, [2.5, 97.5])]


def yearly(joules: float, ends: list[float], ratio: float, traffic: int, carbon: bool) -> dict[str, Any]:
    year = traffic * 365 * joules / 3.6e6
    return {
        "saved_kwh_per_year": year * (1 - ratio) if traffic else None,
        "saved_kwh_per_year_ci": [year * (1 - end) for end in ends[::-1]] if traffic else None,
        "saved_kg_co2_per_year": year * (1 - ratio) * 0.463 if traffic and carbon else None,
    }


def made_measurement(
    levels: tuple[str, ...] = tuple(LEVELS)[1:],
    quantized: str = "",
    labels: tuple[str, ...] = ("negative", "positive"),
    metric: str = "accuracy",
    rows: int = 2000,
    device: str = "cpu (AMD EPYC 9B45, 2 cores, 2 threads)",
    label: str = "estimated",
    carbon: bool = True,
    noise: float = 0.02,
    control: float = 1.0,
    seed: int = 0,
    traffic: int = 0,
    embodied: float = 0,
) -> dict[str, Any]:
    """Simulate what evaluate-emissions writes: the baseline, some levels, and maybe one of them as int8."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, max(len(labels), 1), rows)
    hard = random.random(rows)
    joules = 0.0214  # one row, baseline

    def pairs(ratio: float) -> list[list[float]]:
        machine = joules * (1 + 0.15 * random.random(12))
        return [[float(m), float(m * ratio * (1 + noise * random.standard_normal()))] for m in machine]

    def boot(pair: list[list[float]]) -> tuple[float, list[float]]:
        array = np.array(pair)
        picks = random.integers(0, len(array), (500, len(array)))
        sums = array[picks].sum(axis=1)
        return float(array[:, 1].sum() / array[:, 0].sum()), interval(sums[:, 1] / sums[:, 0])

    plan = [("baseline", "baseline"), *((level, "compressed") for level in levels)]
    if quantized:
        plan.append((quantized, "quantized"))
    models: list[dict[str, Any]] = []
    base_right = hard < LEVELS["baseline"][0]
    for level, stage in plan:
        chance, ratio, parameters, size, ms, making_joules, seconds = LEVELS[level]
        if stage == "quantized":
            chance, ratio, size, ms = chance - 0.003, ratio * 0.3, size // 4, ms * 0.27
        right = (hard + 0.03 * random.standard_normal(rows)) < chance if stage != "baseline" else base_right
        predicted = np.where(right, truth, (truth + 1) % max(len(labels), 1))
        picks = random.integers(0, rows, (300, rows))
        accuracy = float(right.mean())
        measured = pairs(ratio)
        emission, emission_ci = boot(measured)
        if stage == "baseline":
            emission, emission_ci = 1.0, [1.0, 1.0]
        per_thousand = 1000 * joules * 1.075 * emission
        made = making_joules + (410 if stage == "quantized" else 0)
        confusion = None
        if labels:
            confusion = np.zeros((len(labels), len(labels)), int)
            np.add.at(confusion, (truth, predicted), 1)
            confusion = confusion.tolist()
        flops = 6.1e8 * {"baseline": 1, "2/3 layers": 0.667, "1/3 layers": 0.333}.get(level, 0.0995)
        models.append(
            {
                "model": "all-MiniLM-L6-v2",
                "level": level,
                "stage": stage,
                "shape": "free" if "matrix" in level else "stock",
                "path": f"/models/{level}",
                "sha256": sha(level + stage),
                "runtime": "openvino" if stage == "quantized" else "torch",
                "metric": accuracy,
                "accuracy": accuracy,
                "accuracy_ci": interval(right[picks].mean(axis=1)),
                "relative_accuracy": accuracy / float(base_right.mean()),
                "relative_accuracy_ci": interval(right[picks].mean(axis=1) / base_right[picks].mean(axis=1)),
                "mcnemar_p": mcnemar(base_right, right) if labels and stage != "baseline" else None,
                "relative_emission": emission,
                "relative_emission_ci": emission_ci,
                "emission_label": label,
                "joules_per_1000": per_thousand,
                "grams_co2_per_1000": per_thousand / 3.6e6 * 463 if carbon else None,
                "sci_per_1000": {"sci_g": per_thousand / 3.6e6 * 463 + embodied / 1000 if carbon else None},
                "flops": flops,
                "flops_ratio": flops / 6.1e8,
                "layers": float(Fraction(level.split()[0])) if "/" in level else 1.0,
                "parameters": parameters,
                "size_bytes": size,
                "peak_memory_bytes": size + (160_000_000 if stage == "quantized" else 540_000_000),
                "latency_ms_p50": ms,
                "latency_ms_p95": ms * 1.31,
                "latency_ms_p99": ms * 1.52,
                "best_batch_size": 8 if stage == "quantized" else 32,
                "throughput_rows_per_s": 1000 / ms * 3.1,
                "confusion": confusion,
                "roc": ROC if len(labels) == 2 else None,
                "making": None
                if stage == "baseline"
                else {"seconds": seconds + (14 if stage == "quantized" else 0), "joules": made, "label": label},
                "payback_inferences": None if stage == "baseline" else round(made / (joules * 1.075 * (1 - emission))),
                "pairs": [] if stage == "baseline" else measured,
                **yearly(joules * 1.075, emission_ci, emission, 0 if stage == "baseline" else traffic, carbon),
                "lineage": lineage(level, making_joules, seconds, stage == "quantized"),
                "error": "",
            }
        )
    control_pairs = pairs(control)
    control_ratio, control_ci = boot(control_pairs)
    return {
        "format": 1,
        "created": "2026-11-24T10:31:00+00:00",
        "device": device,
        "device_kind": "cuda" if "NVIDIA" in device else "cpu",
        "task": {
            "name": "movie-reviews",
            "kind": "classification" if labels else "regression",
            "columns": ["text"],
            "labels": list(labels),
            "metric": metric,
            "source": "vaderSentiment 2.5, movieReviewSnippets_GroundTruth.txt",
            "split": "test",
            "rows": rows,
            "sha256": sha("task"),
            "notes": ["dropped 14 rows that were in two splits"],
        },
        "rows": rows,
        "seed": seed,
        "versions": {"kfp_bonsai": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0", "codecarbon": "3.3.2"},
        "environment": {
            "cpu": "AMD EPYC 9B45",
            "cores": 2,
            "threads": 2,
            "memory_bytes": 8_330_000_000,
            "os": "Linux 6.1",
            "load_start": 0.21,
            "load_end": 1.94,
        },
        "floor": {"accuracy": 0.791, "method": "TF-IDF + linear SVM (scikit-learn), trained on the training split"},
        "protocol": {
            "pairs": 12,
            "block_seconds": 2.0,
            "batch_size": 32,
            "max_length": 128,
            "bootstrap": 2000,
            "precision": 0.02,
            "order": "alternating",
            "stopped_because": "the intervals are as narrow as asked",
        },
        "energy": {
            "label": label,
            "source": "codecarbon 3.3.2, process mode",
            "detail": "TDP × CPU time of this process; RAM by a constant",
        },
        "carbon": {"intensity_g_per_kwh": 463.0, "country": "JPN", "year": 2024, "source": "Ember"} if carbon else None,
        "traffic_per_day": traffic or None,
        "embodied_g_per_hour": embodied or None,
        "control": {
            "ratio": control_ratio,
            "ci": control_ci,
            "margin": 0.04,
            "state": states.state(control_ci, 0.04),
            "covers_one": control_ci[0] <= 1 <= control_ci[1],
            "pairs": control_pairs,
        },
        "models": models,
    }


def made_selection(
    measurement: dict[str, Any], level: str = "1/3 layers + matrix pruning", min_accuracy: float | None = 0.95
) -> dict[str, Any]:
    """Return what select-model writes when it chose a level."""
    index, model = next((i, m) for i, m in enumerate(measurement["models"][1:]) if m["level"] == level)
    keys = ("level", "sha256", "relative_accuracy", "relative_accuracy_ci", "relative_emission", "lineage")
    brief = {"index": index} | {key: model[key] for key in keys}
    meets = min_accuracy is None or model["relative_accuracy"] >= min_accuracy
    return {
        "format": 1,
        "target": {"min_accuracy": min_accuracy, "max_emission": None},
        "target_is_default": False,
        "meets_target": meets,
        "reason": f"{level} has the smallest emission of those that meet the target.",
        "chosen": brief,
        "nearest": None if meets else brief,
        "candidates": [{"index": i} | {key: m[key] for key in keys} for i, m in enumerate(measurement["models"][1:])],
    }


def write(path: Path, document: dict[str, Any]) -> Path:
    path.write_text(json.dumps(document))
    return path
