"""Put a retrained model in the champion's place, if it is not worse; else keep the champion and say why."""

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared import champion as champions
from kfp_bonsai.shared import tasks
from kfp_bonsai.shared.checkpoint import read_record
from kfp_bonsai.shared.documents import read_document
from kfp_bonsai.shared.errors import BonsaiError
from kfp_bonsai.shared.files import new_file
from kfp_bonsai.shared.progress import say

EMISSION_MARGIN = 0.05  # of the champion's emission, where no target is stated
BATCH = 64


def promote(
    challenger: Path,
    champion: str,
    decision: Path,
    *,
    document: str = "",
    incumbent: str = "",
    train: str = "",
    validation: str = "",
    test: str = "",
    margin: float = 0.01,
    max_emission: float = 0.0,
    first: bool = False,
    seed: int = 0,
) -> dict[str, str | int | float | bool]:
    """Put a packaged model in the champion's place if its accuracy is not worse and its emission meets the target.

    Both models answer the same test rows. The challenger is not worse where the 95 % interval of its accuracy relative
    to the champion's (a bootstrap that draws the same rows for both) stays above 1 - `margin`: a test of
    non-inferiority, which doubt decides for the champion. Its emission, measured beside the champion's in one run, must
    be at most `max_emission` of the baseline's or, where no target is stated, hardly above the champion's (5 %). The
    champion changes in one step, and only if nobody else has changed it meanwhile.

    Args:
        challenger: the package of the new model, from `bonsai package-model` or `bonsai run` (its model/).
        champion: where the champion is kept: a folder or gs://bucket/prefix.
        decision: the JSON file to write: what was decided and why.
        document: the champion.json that the challenger was measured against (from fetch-champion).
        incumbent: the champion's model folder (from fetch-champion).
        train: training split of the challenger.
        validation: its validation split.
        test: the test split that both answer.
        margin: how much of the champion's accuracy may be lost, such as 0.01.
        max_emission: the largest emission as a share of the baseline's; 0 takes the champion's target.
        first: there is no champion yet: put the model there without a comparison.
        seed: seed of the bootstrap.

    Returns:
        promoted, reason, version, and relative_accuracy with its interval.

    Raises:
        BonsaiError: the champion has vanished or was changed meanwhile, or the challenger was not measured beside it.

    Example:
        bonsai promote --challenger runs/demo/model --champion gs://bucket/reviews --decision decision.json --first
    """
    check_margin(margin)
    if not 0 <= max_emission <= 1:
        raise BonsaiError(f"--max-emission {max_emission}: give a fraction such as 0.2, or 0")
    version = champions.version_of(challenger)
    mine = measured(Path(challenger), read_record(challenger)["sha256"])
    new = {"format": 1, "version": version, "level": mine["level"], "accuracy": mine["accuracy"]}
    if first:
        _check_none(champion)
        found: dict[str, Any] = {"promoted": True, "reason": "it is the first champion"}
        target, token, data = max_emission, None, ""
        new["profile"] = _profile(Path(challenger), Path(train)) if train else {}
    else:
        given = {"document": document, "incumbent": incumbent, "train": train, "validation": validation, "test": test}
        missing = [f"--{name}" for name, value in given.items() if not value]
        if missing:
            raise BonsaiError(f"{', '.join(missing)}: give them, or --first if there is no champion")
        before = read_document(Path(document), "bonsai fetch-champion", "profile")
        now, token = champions.find(champion)
        if now["version"] not in (before["version"], version):
            raise BonsaiError(
                f"the champion at {champion} changed meanwhile (version {before['version']} is now {now['version']}): "
                "retrain again, against the new one"
            )
        data = champions.data_sha256([Path(train), Path(validation), Path(test)])
        target = max_emission or float(now.get("max_emission") or 0)
        if now["version"] == version:
            found = {"promoted": False, "reason": "it is the champion already"}
        else:
            found = _compare(Path(challenger), Path(incumbent), Path(test), mine, margin, target, seed)
            new |= {"previous": now["version"], "profile": _profile(Path(challenger), Path(train))}
    if found["promoted"]:
        _publish(Path(challenger), champion, {**new, "max_emission": target, "data_sha256": data}, token)
    written = {"format": 1, "challenger": version, "margin": margin, "data_sha256": data, "decided": _now(), **found}
    if data:
        _note(champions.decision_at(champion, data), written)
    with new_file(Path(decision)) as file:
        file.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    say(f"promote  {'promoted' if found['promoted'] else 'the champion stays'}: {found['reason']}")
    return {"version": version, **found}


def check_margin(margin: float) -> None:
    """Refuse a margin that is no fraction.

    Raises:
        BonsaiError: it is none.
    """
    if not 0 <= margin < 1:
        raise BonsaiError(f"--margin {margin}: give a fraction from 0 to 1, such as 0.01")


def measured(package: Path, sha256: str) -> dict[str, Any]:
    """Return a model's own row of the results that a package holds.

    Raises:
        BonsaiError: it was not measured there.
    """
    results = read_document(package / "results.json", "bonsai report", "rows")
    rows = [row for row in results["rows"] if row.get("sha256") == sha256 and not row.get("error")]
    if not rows:
        raise BonsaiError(
            f"{package / 'results.json'} has no measurement of the model with weights {sha256[:12]}: measure both "
            "in one run of evaluate-emissions"
        )
    return {**rows[0], "believable": results.get("control_covers_one", True)}


def _compare(
    challenger: Path,
    incumbent: Path,
    test: Path,
    mine: dict[str, Any],
    margin: float,
    target: float,
    seed: int,
) -> dict[str, Any]:
    """Return whether the challenger is to be promoted, why, and by which figures."""
    from kfp_bonsai.shared import metrics, statistics

    theirs = measured(challenger, read_record(incumbent)["sha256"])
    task = tasks.read_task(test)
    right = np.asarray(tasks.read_columns(test)["label"])
    ours, others = (metrics.predictions(task.metric, _logits(folder, test)) for folder in (challenger, incumbent))

    def score(predicted: np.ndarray, labels: np.ndarray) -> float:
        return metrics.score_predictions(task.metric, predicted, labels, classes=max(2, task.num_labels))

    found = statistics.relative_score(score, others, ours, right, seed)
    figures = {
        "relative_accuracy": found.value,
        "relative_accuracy_low": found.low,
        "relative_accuracy_high": found.high,
        "relative_emission": mine["relative_emission"],
        "champion_emission": theirs["relative_emission"],
    }
    why_not = _why_not(found, mine, theirs, margin, target)
    kept = (
        f"it keeps {_percent(found.value)} ({_percent(found.low)} to {_percent(found.high)}) of the champion's accuracy"
    )
    emits = (
        f"at {_percent(mine['relative_emission'])} of the baseline's emission ({_percent(theirs['relative_emission'])})"
    )
    reason = f"{kept} {emits}" + (f", but {' and '.join(why_not)}" if why_not else "")
    return {"promoted": not why_not, "reason": reason, **figures}


def _why_not(found: Any, mine: dict[str, Any], theirs: dict[str, Any], margin: float, target: float) -> Sequence[str]:
    parts = []
    if not found.low >= 1 - margin:
        parts.append(f"it may be worse by more than {_percent(margin)}")
    limit = target or theirs["relative_emission"] * (1 + EMISSION_MARGIN)
    if not mine["relative_emission"] <= limit:
        whose = "the target" if target else f"the champion's and {_percent(EMISSION_MARGIN)} more"
        parts.append(f"its emission is above {whose} ({_percent(limit)})")
    if not mine["believable"]:
        parts.append("the measurement's control failed, so that its emission is not to be believed")
    return parts


def _logits(folder: Path, split: Path) -> np.ndarray:
    """Return a model's logits for all rows of a split, in their order."""
    from kfp_bonsai.shared import inference

    predictor, columns = inference.load_predictor(folder), tasks.read_task(split).columns
    found = []
    for batch in tasks.batches(split, BATCH):
        found.append(predictor.predict(inference.encode(folder, *(batch[column] for column in columns))))
    logits = np.concatenate(found)
    if not np.isfinite(logits).all():
        raise BonsaiError(f"the model in {folder} gives no numbers: train it again")
    return logits


def _profile(challenger: Path, train: Path) -> dict[str, Any]:
    """Return what the next retraining compares its data with."""
    from transformers import AutoTokenizer

    from kfp_bonsai.shared import drift

    return drift.profile(train, AutoTokenizer.from_pretrained(challenger))


def _publish(challenger: Path, champion: str, document: dict[str, Any], token: Any) -> None:
    """Publish the package, and then let the pointer name it."""
    from kfp_bonsai.shared.store import upload_folder, write_pointer

    upload_folder(challenger, champions.package_at(champion, document["version"]))
    write_pointer(champions.pointer_at(champion), {**document, "promoted": _now()}, token)


def _check_none(champion: str) -> None:
    from kfp_bonsai.shared.store import read_pointer

    if read_pointer(champions.pointer_at(champion))[0] is not None:
        raise BonsaiError(f"there is a champion at {champion} already: leave out --first, or give another location")


def _note(location: str, written: dict[str, Any]) -> None:
    """Write down what was decided on this data, in place of an earlier decision on it."""
    from kfp_bonsai.shared.store import read_pointer, write_pointer

    write_pointer(location, written, read_pointer(location)[1])


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if math.isfinite(value) else "an unknown share"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
