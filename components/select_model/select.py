"""Choose the compressed model that meets the target, and hand its folder over."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core import written
from kfp_bonsai.shared.core.documents import read_document
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import check_apart, copy_folder, new_file, new_folder
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.core.ranges import FRACTION, check_ranges
from kfp_bonsai.shared.metrics.scores import in_words
from kfp_bonsai.shared.metrics.target import shortfall
from kfp_bonsai.shared.saved.records import read_record

DEFAULT_MIN_ACCURACY = 0.95
RANGES = {"min_accuracy": FRACTION, "max_emission": FRACTION}


def select_model(
    measurement: Path,
    candidates: list[Path],
    output: Path,
    selection: Path,
    *,
    min_accuracy: float = 0.0,
    max_emission: float = 0.0,
) -> dict[str, str | int | float | bool]:
    """Choose the model with the smallest emission that keeps the accuracy asked for.

    With `--min-accuracy` it is the smallest emission that keeps that accuracy; with `--max-emission`
    the best accuracy within that emission; with both, the smallest emission that meets both. When no
    model meets the target, the nearest one is handed over and the reason says so.

    Args:
        measurement: what `bonsai evaluate-emissions` wrote (JSON).
        candidates: the folders of the compressed models, in any order.
        output: the folder to make: a copy of the chosen model.
        selection: the JSON file to write: what was chosen, and why.
        min_accuracy: the share of the baseline's accuracy to keep, such as 0.98; 0.95 if no target is given.
        max_emission: the largest emission as a share of the baseline's, such as 0.2; 0 for no limit.

    Returns:
        index, level, meets_target, relative_accuracy, relative_emission and the reason in one sentence.

    Raises:
        BonsaiError: a target is not a fraction, a candidate was not measured, or none could be measured.

    Example:
        bonsai select-model --measurement gpu.json --candidates small --candidates tiny --output best
        --selection selection.json --min-accuracy 0.98
    """
    check_ranges(RANGES, {"min_accuracy": min_accuracy, "max_emission": max_emission})
    check_apart([output, selection], [measurement, *candidates])
    if not candidates:
        raise BonsaiError("--candidates: no model is given: name the folders of the compressed models")
    by_default = not min_accuracy and not max_emission
    found = read_document(measurement, "bonsai evaluate-emissions", "models", shape=written.MEASUREMENT)
    models = found["models"]
    metric = in_words(found["task"]["metric"])
    target = Target(DEFAULT_MIN_ACCURACY if by_default else min_accuracy, max_emission, metric)

    measured = _match([Path(folder) for folder in candidates], models, Path(measurement))
    ranked = sorted((entry for entry in measured if not entry["why_not"]), key=target.rank)
    if not ranked:
        reasons = "; ".join(f"{entry['level']}: {entry['why_not']}" for entry in measured)
        raise BonsaiError(f"{measurement}: no candidate can be chosen ({reasons}): mend them and measure again")
    chosen = ranked[0]
    meets = target.shortfall(chosen) == 0
    document = {
        "format": 1,
        "target": {"min_accuracy": target.min_accuracy or None, "max_emission": target.max_emission or None},
        "target_is_default": by_default,
        "meets_target": meets,
        "reason": _reason(target, by_default, ranked),
        "chosen": _brief(chosen),
        "nearest": None if meets else _brief(chosen),
        "candidates": [
            _brief(entry) | {"meets_target": not entry["why_not"] and target.shortfall(entry) == 0}
            for entry in measured
        ],
    }
    with new_folder(Path(output)) as folder, new_file(Path(selection)) as file:
        copy_folder(Path(candidates[chosen["index"]]), folder)
        file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    say(f"select-model  {document['reason']}")
    return {
        "index": chosen["index"],
        "level": chosen["level"],
        "meets_target": meets,
        "relative_accuracy": chosen["relative_accuracy"],
        "relative_emission": chosen["relative_emission"],
        "reason": document["reason"],
    }


def select_edge_model(
    measurement: Path,
    candidates: list[Path],
    quantized: list[Path],
    output: Path,
    quantized_output: Path,
    selection: Path,
    *,
    min_accuracy: float = 0.0,
    max_emission: float = 0.0,
) -> dict[str, str | int | float | bool]:
    """Choose among int8 models as select_model does, and hand over the model that the chosen one was made of too.

    Args:
        measurement: what evaluate-emissions wrote of the int8 models (JSON).
        candidates: the folders of the models that were quantized, in any order.
        quantized: the folders of the int8 models, in any order.
        output: the folder to make: a copy of the model that the chosen one was made of.
        quantized_output: the folder to make: a copy of the chosen int8 model.
        selection: the JSON file to write: what was chosen, and why.
        min_accuracy: as for select_model.
        max_emission: as for select_model.

    Returns:
        What select_model returns; index is that of the int8 model.

    Raises:
        BonsaiError: what select_model refuses, or an int8 model was made of none of the candidates.
    """
    check_apart([output, quantized_output, selection], [measurement, *candidates, *quantized])
    by_hash = {read_record(folder)["sha256"]: folder for folder in candidates}
    parents = [(read_record(folder).get("parent") or {}).get("sha256") for folder in quantized]
    for folder, parent in zip(quantized, parents, strict=True):
        if parent not in by_hash:
            raise BonsaiError(
                f"{folder} was made of none of the candidates ({', '.join(map(str, candidates))}): give the models "
                "that were quantized"
            )
    found = select_model(
        measurement, quantized, quantized_output, selection, min_accuracy=min_accuracy, max_emission=max_emission
    )
    with new_folder(Path(output)) as folder:
        copy_folder(Path(by_hash[parents[int(found["index"])]]), folder)
    return found


@dataclass(frozen=True)
class Target:
    """What the user asked for: an accuracy to keep, an emission not to exceed, or both (0: no limit)."""

    min_accuracy: float
    max_emission: float
    metric: str

    def shortfall(self, entry: dict[str, Any]) -> float:
        """Return by how much a model misses the target, in fractions of the baseline; 0 if it meets it."""
        figures = (entry["relative_accuracy"], entry["relative_emission"])
        return shortfall(*figures, self.min_accuracy, self.max_emission)

    def rank(self, entry: dict[str, Any]) -> tuple[float, ...]:
        """Return a key that sorts the best first; ties go to the other figure, then size, then order."""
        figures = (entry["relative_emission"], -entry["relative_accuracy"])
        if not self.min_accuracy:
            figures = figures[::-1]
        return (self.shortfall(entry), *figures, entry["parameters"] or math.inf, entry["index"])

    def __str__(self) -> str:
        parts = []
        if self.min_accuracy:
            parts.append(f"at least {_percent(self.min_accuracy)} of the {self.metric}")
        if self.max_emission:
            parts.append(f"at most {_percent(self.max_emission)} of the emission")
        return " and ".join(parts)


def _match(folders: list[Path], models: list[dict[str, Any]], measurement: Path) -> list[dict[str, Any]]:
    """Find each folder's measured figures by the hash of its weights, and note why it cannot be chosen."""
    left = [model for model in models if model.get("stage") != "baseline"]
    matched = []
    for index, folder in enumerate(folders):
        record = read_record(folder)
        model = next((model for model in left if model.get("sha256") == record["sha256"]), None)
        if model is None:
            known = ", ".join(f"{model['level']} ({str(model.get('sha256'))[:12]})" for model in models)
            raise BonsaiError(
                f"{folder} (weights {record['sha256'][:12]}) is not in {measurement}, which has {known}: "
                "measure it together with the others, or name the folders that were measured"
            )
        left.remove(model)
        why_not = f"it failed ({model['error']})" if model.get("error") else ""
        for figure in ("relative_accuracy", "relative_emission"):
            value = model.get(figure)
            if not why_not and (value is None or not math.isfinite(value)):
                why_not = f"it has no {figure.replace('_', ' ')}"
        matched.append(model | {"index": index, "why_not": why_not, "lineage": record.get("lineage", [])})
    return matched


def _reason(target: Target, by_default: bool, ranked: list[dict[str, Any]]) -> str:
    """Say in one sentence what was chosen and why, with the second best beside it."""
    chosen, others = ranked[0], ranked[1:]
    asked = f"{target} (the default, since no target was given)" if by_default else str(target)
    if target.shortfall(chosen):
        text = f"No model meets the target of {asked}; {_figures(chosen, target)} comes nearest"
        return f"{text}, before {_figures(others[0], target)}." if others else f"{text}."
    quality = "has the smallest emission" if target.min_accuracy else f"has the best {target.metric}"
    fitting = [entry for entry in others if not target.shortfall(entry)]
    if fitting:
        text = f"{_figures(chosen, target)} {quality} of the {len(fitting) + 1} models that meet the target of {asked}"
        overlap = " (their intervals overlap)" if _overlap(chosen, fitting[0], target) else ""
        return f"{text}, before {_figures(fitting[0], target)}{overlap}."
    text = f"{_figures(chosen, target)} is the only model that meets the target of {asked}"
    return f"{text}; the next, {_figures(others[0], target)}, misses it." if others else f"{text}."


def _overlap(one: dict[str, Any], two: dict[str, Any], target: Target) -> bool:
    figure = "relative_emission_ci" if target.min_accuracy else "relative_accuracy_ci"
    first, second = one.get(figure), two.get(figure)
    return bool(first and second and first[0] <= second[1] and second[0] <= first[1])


def _figures(entry: dict[str, Any], target: Target) -> str:
    accuracy, emission = _percent(entry["relative_accuracy"]), _percent(entry["relative_emission"])
    return f"{entry['level']} ({accuracy} of the {target.metric} at {emission} of the emission)"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %".replace(".0 %", " %")


def _brief(entry: dict[str, Any]) -> dict[str, Any]:
    kept = ("index", "level", "sha256", "relative_accuracy", "relative_accuracy_ci", "relative_emission")
    return {key: entry.get(key) for key in (*kept, "relative_emission_ci", "why_not", "lineage")}
