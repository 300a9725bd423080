"""Put a retrained model in the champion's place, if it is not worse; else keep the champion and say why."""

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core import written
from kfp_bonsai.shared.core.documents import read_document
from kfp_bonsai.shared.core.downloads import EMBEDDED
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import check_apart, check_writable, new_file
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.kinds.kinds import classes_of, kind_of
from kfp_bonsai.shared.metrics import control
from kfp_bonsai.shared.metrics.noninferiority import check_margin, largest_loss
from kfp_bonsai.shared.metrics.scores import find_metric
from kfp_bonsai.shared.saved import champion as champions
from kfp_bonsai.shared.saved.records import read_record
from kfp_bonsai.shared.storage.store import tidy_pointer

EMISSION_MARGIN = 0.05  # of the champion's emission, where no target is stated
BATCH = 64
ALREADY = {"promoted": False, "reason": "it is the champion already"}
NOTE = ("format", "challenger", "form", "margin", "data_sha256", "decided")  # beside the decision itself


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
    to the champion's (a bootstrap that draws the same rows for both) stays above 1 - `margin`, and the rows are enough
    to rule out a larger loss: a test of non-inferiority (shared/metrics/noninferiority.py), which doubt decides for the
    champion. Its emission, measured beside the champion's in one run, must be at most `max_emission` of the baseline's
    or, where no target is stated, hardly above the champion's (5 %). The champion changes in one step, and only if
    nobody else has changed it meanwhile. Tried again after an attempt that ended before it could tell, it tells of
    that promotion.

    Args:
        challenger: the package of the new model, from `bonsai package-model` or `bonsai run` (its model/, or its
            edge-model/ where the int8 model is what is in use).
        champion: where the champion is kept: a folder, gs://bucket/prefix or s3://bucket/prefix.
        decision: the JSON file to write: what was decided and why.
        document: the champion.json that the challenger was measured against (from fetch-champion).
        incumbent: the champion's model folder (from fetch-champion).
        train: training split of the challenger. A first champion without it has no profile, so that the first
            retraining cannot tell how far its data have moved.
        validation: its validation split.
        test: the test split that both answer.
        margin: how much of the champion's accuracy may be lost, such as 0.01.
        max_emission: the largest emission as a share of the baseline's; 0 takes the champion's target, or for the first
            champion that of the run it comes from. A target of int8 models (`bonsai run --edge`) is kept as such; of a
            challenger that is not int8 the champion's own emission is the limit then.
        first: there is no champion yet: put the model there without a comparison.
        seed: seed of the bootstrap.

    Returns:
        promoted, reason, version, and relative_accuracy with its interval.

    Raises:
        BonsaiError: the champion has vanished or was changed meanwhile, the challenger was not measured beside it, or
            the decision cannot be written. Then the champion stays.

    Example:
        bonsai promote --challenger runs/demo/model --champion gs://bucket/reviews --decision decision.json --first
            --train runs/demo/work/*/prepare-data/train
    """
    check_margin(margin)
    if not 0 <= max_emission <= 1:
        raise BonsaiError(f"--max-emission {max_emission}: give a fraction such as 0.2, or 0")
    check_apart([decision], [champions.pointer_at(champion)])
    check_writable(Path(decision))
    version = champions.version_of(challenger)
    record = read_record(challenger)
    mine = measured(Path(challenger), record["sha256"])
    new = {"format": 1, "version": version, "level": mine["level"], "accuracy": mine["accuracy"]}
    form = champions.form_of(record)
    if first:
        now, token, data = _first(champion, version), None, ""
        target, of = (max_emission, form) if max_emission else (mine["target"], mine["target_of"])
    else:
        given = {"document": document, "incumbent": incumbent, "train": train, "validation": validation, "test": test}
        missing = [f"--{name}" for name, value in given.items() if not value]
        if missing:
            raise BonsaiError(f"{', '.join(missing)}: give them, or --first if there is no champion")
        before = read_document(Path(document), "bonsai fetch-champion", "profile", shape=written.CHAMPION)
        now, token = champions.find(champion)
        if now["version"] not in (before["version"], version):
            raise BonsaiError(
                f"the champion at {champion} changed meanwhile (version {before['version']} is now {now['version']}): "
                "retrain again, against the new one"
            )
        data = champions.data_sha256([Path(train), Path(validation), Path(test)])
        new["previous"] = before["version"]
        target, of = (max_emission, form) if max_emission else champions.target(now)
    new |= {"max_emission": target, "max_emission_of": of, "data_sha256": data}
    in_place = now.get("version") == version
    tidy_pointer(champions.pointer_at(champion))
    if in_place:
        found = _again(champion, now, new)
    elif first:
        _check_first(mine, target, of, form)
        _tell_first(record, target, of)
        doubt = f", although {mine['doubt']}: its emission is not to be believed" if mine["doubt"] else ""
        found = {"promoted": True, "reason": f"it is the first champion{doubt}"}
    else:
        limit = target if champions.holds(of, form) else 0.0
        found = _compare(Path(challenger), Path(incumbent), Path(test), mine, margin, limit, seed)
        if note := champions.target_in_words(target, of, form):
            found["note"] = note
    if not in_place:
        new["profile"] = _profile(Path(challenger), Path(train)) if train else {}
    told = {"challenger": version, "form": form, "margin": margin, "data_sha256": data, "decided": _now()}
    noted = {"format": 1, **told, **found}
    with new_file(Path(decision)) as file:  # before the champion changes: what cannot be told does not happen
        file.write_text(json.dumps(noted, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if found["promoted"] and not in_place:
            _publish(Path(challenger), champion, new, token)
        if data and not found.get("undecided"):
            _note(champions.decision_at(champion, data), noted)
    say(f"promote  {'promoted' if found['promoted'] else 'the champion stays'}: {found['reason']}")
    if "note" in found:
        say(f"promote  {found['note']}")
    return {"version": version, **{key: value for key, value in found.items() if key not in NOTE}}


def measured(package: Path, sha256: str) -> dict[str, Any]:
    """Return a model's own row of the results that a package holds, why to doubt its emission, and the run's target.

    The target comes with what it is of, and with the emission that was held against it: where the run held int8 models
    against it, that is the emission of the int8 model that was made of this one.

    Raises:
        BonsaiError: it was not measured there.
    """
    results = read_document(package / "results.json", "bonsai report", "rows", shape=written.RESULTS)
    rows = [row for row in results["rows"] if row.get("sha256") == sha256 and not row.get("error")]
    if not rows:
        raise BonsaiError(
            f"{package / 'results.json'} has no measurement of the model with weights {sha256[:12]}: measure both "
            "in one run of evaluate-emissions"
        )
    if rows[0]["relative_emission"] is None or rows[0]["accuracy"] is None:
        raise BonsaiError(
            f"{package / 'results.json'} has no accuracy or no emission of the model with weights {sha256[:12]}: make "
            "it again with `bonsai report`"
        )
    mine, held = rows[0], rows[0]
    of_int8 = (results.get("chosen") or {}).get("stage") == "quantized"
    if of_int8 and mine.get("stage") != "quantized":
        same_level = [row for row in results["rows"] if row.get("level") == mine["level"] and not row.get("error")]
        held = next((row for row in same_level if row.get("stage") == "quantized"), {})
    return {
        **mine,
        "doubt": control.DOUBTS.get(control.of_results(results), ""),
        "target": float((results.get("target") or {}).get("max_emission") or 0),
        "target_of": champions.INT8 if of_int8 else champions.FLOAT,
        "held_emission": held.get("relative_emission"),
    }


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
    from kfp_bonsai.shared.metrics import statistics

    theirs = measured(challenger, read_record(incumbent)["sha256"])
    task = tasks.read_task(test)
    columns = _askable((challenger, incumbent), tasks.read_columns(test), test, task)
    right, classes = kind_of(task).right(columns, task), classes_of(task)
    metric = find_metric(task.metric)
    predicted = [_predictions(folder, columns, task) for folder in (challenger, incumbent)]
    ours, others = (metric.table(one, right, classes) for one in predicted)

    def score(table: np.ndarray) -> float:
        return metric.of(table, classes)

    emissions = {"relative_emission": mine["relative_emission"], "champion_emission": theirs["relative_emission"]}
    theirs_score = score(others)
    if not theirs_score > 0:  # it does no better than chance, and nothing is relative to that
        gain = statistics.score_difference(score, others, ours, seed)
        worse = [] if gain.low > 0 else ["that is not clearly better"]
        why_not = worse + _why_not(mine, theirs, target)
        reason = (
            f"the champion's {metric.words} is {theirs_score:.3g} on these rows, and it is better by "
            f"{gain.value:.3g} ({gain.low:.3g} to {gain.high:.3g})"
            + (f", but {' and '.join(why_not)}" if why_not else "")
        )
        figures = {"test_rows": len(ours), **emissions}
        return {"promoted": not why_not, "reason": reason, **figures, **_undecided(worse, mine)}
    found = statistics.relative_score(score, others, ours, seed)
    loss = largest_loss(task.metric, right, *reversed(predicted), classes)
    figures = {
        "relative_accuracy": found.value,
        "relative_accuracy_low": found.low,
        "relative_accuracy_high": found.high,
        "largest_loss": loss,
        "test_rows": len(ours),
        **emissions,
    }
    worse = _not_as_good(found.low, loss, f"{len(ours):,} test {kind_of(task).scored}", margin)
    why_not = worse + _why_not(mine, theirs, target)
    kept = (
        f"it keeps {_percent(found.value)} ({_percent(found.low)} to {_percent(found.high)}) of the champion's "
        f"{metric.words}"
    )
    emits = (
        f"at {_percent(mine['relative_emission'])} of the baseline's emission ({_percent(theirs['relative_emission'])})"
    )
    reason = f"{kept} {emits}" + (f", but {' and '.join(why_not)}" if why_not else "")
    return {"promoted": not why_not, "reason": reason, **figures, **_undecided(worse, mine)}


def _undecided(worse: list[str], mine: dict[str, Any]) -> dict[str, bool]:
    """Say of a model that only its measurement stands against it, which is no decision: it may be tried again."""
    return {} if worse or not mine["doubt"] else {"undecided": True}


def _not_as_good(low: float, loss: float, rows: str, margin: float) -> list[str]:
    if not low >= 1 - margin:
        return [f"it may be worse by more than {_percent(margin)}"]
    if not loss <= margin:
        return [f"{rows} are too few to rule out a loss above {_percent(margin)} (up to {_percent(loss)})"]
    return []


def _why_not(mine: dict[str, Any], theirs: dict[str, Any], target: float) -> list[str]:
    parts = []
    limit = target or theirs["relative_emission"] * (1 + EMISSION_MARGIN)
    if not mine["relative_emission"] <= limit:
        whose = "the target" if target else f"the champion's and {_percent(EMISSION_MARGIN)} more"
        parts.append(f"its emission is above {whose} ({_percent(limit)})")
    if mine["doubt"]:
        parts.append(
            f"{mine['doubt']}, so that its emission is not to be believed: retrain again on a calmer machine, with "
            "more --pairs or a longer --time-budget"
        )
    return parts


def _askable(folders: Sequence[Path], columns: dict[str, list], test: Path, task: tasks.Task) -> dict[str, list]:
    """Return the rows that all models can be asked."""
    from kfp_bonsai.shared.inference import asking

    chosen = list(range(len(columns["label"])))
    for folder in folders:
        chosen = asking.askable(folder, columns, task, str(test), chosen)
    return {name: [values[row] for row in chosen] for name, values in columns.items()}


def _predictions(folder: Path, columns: dict[str, list], task: tasks.Task) -> Any:
    """Return what a model answers to all rows, in their order."""
    from kfp_bonsai.shared.inference import asking

    starts = range(0, len(columns["label"]), BATCH)
    batches = ({name: values[at : at + BATCH] for name, values in columns.items()} for at in starts)
    return asking.predictions(folder, task, batches)


def _profile(challenger: Path, train: Path) -> dict[str, Any]:
    """Return what the next retraining compares its data with."""
    from transformers import AutoTokenizer

    from kfp_bonsai.shared.data import drift

    return drift.profile(train, AutoTokenizer.from_pretrained(challenger))


def _publish(challenger: Path, champion: str, document: dict[str, Any], token: Any) -> None:
    """Publish the package, and then let the pointer name it."""
    from kfp_bonsai.promote.publish import publish
    from kfp_bonsai.shared.storage.store import write_pointer

    where = champions.package_at(champion, document["version"])
    publish(challenger, where)
    say(f"promote  published at {where}, with its kserve-*.yaml")
    write_pointer(champions.pointer_at(champion), {**document, "promoted": _now()}, token)


def _check_first(mine: dict[str, Any], target: float, of: str, form: str) -> None:
    """Refuse a first champion that misses the emission which all later ones have to meet.

    Raises:
        BonsaiError: it misses it.
    """
    as_int8 = not champions.holds(of, form)  # the target is of int8 models, and this one is not
    emission = mine["held_emission"] if as_int8 else mine["relative_emission"]
    if target and (emission is None or not emission <= target):
        accept = math.ceil(100 * mine["relative_emission"]) / 100
        raise BonsaiError(
            f"its emission{' as int8' if as_int8 else ''}, "
            f"{_percent(math.nan if emission is None else emission)} of the baseline's, is above the target of "
            f"{_percent(target)}, which every later model would have to meet: give --max-emission {accept:g} "
            f"{'(its own, not as int8) ' if as_int8 else ''}if you accept that, or run again"
        )


def _tell_first(record: dict[str, Any], target: float, of: str) -> None:
    """Tell what a retraining will make of a first champion's target, and that it needs the model it was made from."""
    if note := champions.target_in_words(target, of, champions.form_of(record)):
        say(f"promote  {note}")
    start = champions.made_from(record)
    if start.startswith((EMBEDDED, "/")):
        say(
            f"promote  it was made from {start}: a retraining on another machine or a cluster, where it is elsewhere, "
            "needs --model"
        )


def _first(champion: str, version: str) -> dict[str, Any]:
    """Return the document of a first champion that is this version already, or an empty one; refuse another's."""
    from kfp_bonsai.shared.storage.store import read_pointer

    now = read_pointer(champions.pointer_at(champion))[0]
    if now is not None and now.get("version") != version:
        raise BonsaiError(f"there is a champion at {champion} already: leave out --first, or give another location")
    return now or {}


def _again(champion: str, now: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the decision on a model that is the champion: this run's own, where an earlier attempt promoted it.

    Args:
        champion: where the champion is kept.
        now: its document, which names the model.
        new: the document that this run would write.
    """
    if any(now.get(key) != new.get(key) for key in ("previous", "max_emission", "data_sha256")):
        return ALREADY
    noted = champions.decided_on(champion, new["data_sha256"]) or {}
    if noted.get("promoted") is True and noted.get("challenger") == new["version"]:
        return noted
    return {"promoted": True, "reason": "an earlier attempt put it in place, and ended before it could tell why"}


def _note(location: str, noted: dict[str, Any]) -> None:
    """Write down what was decided on this data, in place of an earlier decision on it.

    After a promotion the champion's document tells of the data too, so there a failure is told and is none.
    """
    from kfp_bonsai.shared.storage.store import read_pointer, write_pointer

    try:
        write_pointer(location, noted, read_pointer(location)[1])
    except BonsaiError as error:
        if not noted["promoted"]:
            raise
        say(f"promote  the decision is not noted beside the champion: {error}")


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if math.isfinite(value) else "an unknown share"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
