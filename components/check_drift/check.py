"""Compare new data with what the champion was trained on, before any GPU is asked for."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core import written
from kfp_bonsai.shared.core.documents import read_document
from kfp_bonsai.shared.core.errors import BonsaiError, check_choice, listed
from kfp_bonsai.shared.core.files import check_apart, new_file
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.kinds.kinds import drawn, kind_of
from kfp_bonsai.shared.metrics.noninferiority import check_margin
from kfp_bonsai.shared.metrics.statistics import rows_for_even_odds, rows_to_rule_out
from kfp_bonsai.shared.saved import champion as champions
from kfp_bonsai.shared.saved.records import read_record

WARN, STOP = "warn", "stop"
TRAIN, NOTHING = "train", "nothing"
DIFFERING = 0.05  # share of test rows that only one of two models gets right, as compressed models of one task do
MAJOR_LABEL_SHIFT = 0.2  # population stability index
MAJOR_TOKEN_SHIFT = 0.1  # Jensen-Shannon distance beyond what chance gives


def check_drift(
    champion: str,
    document: Path,
    incumbent: Path,
    train: Path,
    validation: Path,
    test: Path,
    output: Path,
    *,
    on_drift: str = WARN,
    again: bool = False,
    margin: float = 0.0,
    form: str = "",
) -> dict[str, str | int | float | bool]:
    """Check new data against the champion's: whether it was decided on before, its schema, and how far it moved.

    Labels that the champion does not know, or other columns, are another task and an error. A shifted balance of the
    labels or of the vocabulary is a reason to retrain, and sometimes the sign of a broken feed: it is told, or stops
    the run if `--on-drift stop`.

    Args:
        champion: where the champion is kept.
        document: its champion.json (from fetch-champion).
        incumbent: its model folder (from fetch-champion).
        train: new training split.
        validation: new validation split.
        test: new test split.
        output: the JSON file to write: what was compared, and what is to be done.
        on_drift: warn or stop.
        again: train although it was decided on this data before.
        margin: how much of the champion's accuracy promote will let go, such as 0.01: test rows that are too few to
            rule out a larger loss are told before anything is trained. 0 leaves that out.
        form: what the new model is to be, float or int8 (from fetch-champion): what was decided of the other one is no
            decision on it. By default what the champion is.

    Returns:
        todo (train or nothing), reason, data_sha256, and label_shift, vocabulary_shift and vocabulary_noise where the
        champion's data is known.

    Raises:
        BonsaiError: the data is of another task, or moved far and `on_drift` is "stop".

    Example:
        bonsai check-drift --champion gs://bucket/reviews --document champion.json --incumbent champion --train train.parquet
            --validation validation.parquet --test test.parquet --output drift.json
    """  # noqa: E501
    check_on_drift(on_drift)
    check_apart([output], [document, incumbent, train, validation, test])
    check_margin(margin)
    found = read_document(document, "bonsai fetch-champion", "profile", shape=written.CHAMPION)
    record = read_record(incumbent)
    before = tasks.task_in(record.get("task"), str(incumbent), "fetch the champion again")
    check_schema(tasks.read_task(train), asdict(before), Path(train))
    data = champions.data_sha256([train, validation, test])
    decided = champions.decided_on(champion, data)
    if decided is None and found.get("data_sha256") == data:  # promote could not note it
        decided = {"reason": "the champion was made from it", "form": champions.form_of(record)}
    if decided and (decided.get("form") or champions.FLOAT) != (form or champions.form_of(record)):
        decided = None
    shifts = _shifts(found["profile"], Path(incumbent), Path(train), str(document))
    moved = _in_words(shifts)
    if decided and not again:
        todo, reason = NOTHING, f"it was decided on this data before: {decided['reason']}"
    else:
        todo, reason = TRAIN, moved or "the data is new, and like the champion's"
    if moved and todo == TRAIN and on_drift == STOP:
        raise BonsaiError(f"{train}: {moved}: check the data, or go on with --on-drift warn")
    result = {"todo": todo, "reason": reason, "data_sha256": data, **shifts}
    with new_file(Path(output)) as file:
        file.write_text(json.dumps({"format": 1, **result}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if todo == TRAIN and margin:
        score = found["accuracy"] or 0
        _tell_few_rows(test, margin, score if score > 0 else 1.0)
    say(f"check-drift  {'nothing to do' if todo == NOTHING else 'to be trained'}: {reason}")
    return result


def _tell_few_rows(test: Path, margin: float, score: float) -> None:
    """Say if the test rows are too few for promote, which allows for a share of the champion's right answers."""
    task = tasks.read_task(test)
    loss = margin * (score if task.metric == "accuracy" else 1.0)
    enough, even = rows_to_rule_out(loss), rows_for_even_odds(loss, DIFFERING)
    what, rows = kind_of(task).scored, drawn(task, tasks.read_columns(test))
    few = f"check-drift  {rows:,} test {what} are too few to rule out a loss above {100 * margin:g} %"
    if rows < enough:
        say(
            f"{few}, so that only a clearly better model will be promoted: give {max(enough, even):,} or more, or a "
            "larger --margin"
        )
    elif rows < even:
        say(
            f"{few} in most cases: of models that are as good, and answer {100 * DIFFERING:g} % of the {what} "
            f"otherwise, half will be promoted with {even:,} {what}, fewer with these: give more, or a larger --margin"
        )


def check_on_drift(on_drift: str) -> None:
    """Refuse an unknown way to deal with a shift.

    Raises:
        BonsaiError: it is unknown.
    """
    check_choice("--on-drift", on_drift, (WARN, STOP))


def check_schema(task: tasks.Task, before: dict[str, Any], train: Path) -> None:
    """Check that new data is of the task that the champion has learnt.

    Raises:
        BonsaiError: it is not.
    """
    if (task.kind, len(task.columns)) != (before["kind"], len(before["columns"])):
        raise BonsaiError(
            f"{train} is {task.kind} of {len(task.columns)} text column(s), and the champion's task is "
            f"{before['kind']} of {len(before['columns'])}: this is another task: start it with `bonsai run`"
        )
    unseen = [label for label in task.labels if label not in before["labels"]]
    gone = [label for label in before["labels"] if label not in task.labels]
    for labels, what in ((unseen, "labels that the champion does not know"), (gone, "no rows with the champion's")):
        if labels:
            raise BonsaiError(
                f"{train} has {what}: {listed(labels)}: mend the data, or start a new task with `bonsai run` "
                "and `bonsai promote --first`"
            )
    if task.setting != before.get("setting", ""):
        now, then = (f"'{one}'" if one else "none" for one in (task.setting, before.get("setting", "")))
        raise BonsaiError(
            f"{train} is of another setting ({now}) than the champion's data ({then}), such as whole texts where that "
            "had lists of words, or questions of which none is without an answer: give rows that are written alike, or "
            "start a new task with `bonsai run` and `bonsai promote --first`"
        )
    if task.labels != tuple(before["labels"]):
        raise BonsaiError(
            f"{train} has its classes in another order ({listed(task.labels)}) than the champion "
            f"({listed(before['labels'])}), so that the same number means another class: give data whose class names "
            "come in the champion's order, or start a new task with `bonsai run` and `bonsai promote --first`"
        )


def _shifts(before: dict[str, Any], incumbent: Path, train: Path, document: str) -> dict[str, float]:
    """Return how far labels and tokens have moved; nothing where the champion's data is not known."""
    if not before:
        return {}
    from transformers import AutoTokenizer

    from kfp_bonsai.shared.data import drift

    now = drift.profile(train, AutoTokenizer.from_pretrained(incumbent), drift.check_edges(before, document))
    drift.check_profile(before, now, document)
    return {
        "label_shift": drift.label_shift(before, now),
        "label_noise": drift.label_noise(before, now),
        "vocabulary_shift": drift.token_distance(before["tokens"], now["tokens"]),
        "vocabulary_noise": max(before["noise"], now["noise"]),
    }


def _in_words(shifts: dict[str, float]) -> str:
    if not shifts:
        return ""
    parts = []
    if shifts["label_shift"] > shifts["label_noise"] + MAJOR_LABEL_SHIFT:
        parts.append(
            f"the labels' balance has shifted (population stability index {shifts['label_shift']:.2f}, where chance "
            f"gives {shifts['label_noise']:.2f})"
        )
    if shifts["vocabulary_shift"] > shifts["vocabulary_noise"] + MAJOR_TOKEN_SHIFT:
        parts.append(
            f"the vocabulary has shifted (Jensen-Shannon distance {shifts['vocabulary_shift']:.2f}, where chance gives "
            f"{shifts['vocabulary_noise']:.2f})"
        )
    return " and ".join(parts)
