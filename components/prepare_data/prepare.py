"""Read labelled texts from where they are, and write splits that fit together."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from kfp_bonsai.prepare_data import labels as labels_
from kfp_bonsai.prepare_data import split
from kfp_bonsai.prepare_data.columns import LABELS
from kfp_bonsai.prepare_data.columns import label_column as find_label
from kfp_bonsai.prepare_data.columns import text_columns as find_texts
from kfp_bonsai.prepare_data.leaks import drop, note
from kfp_bonsai.prepare_data.read import FileRows, Rows, Source, open_source
from kfp_bonsai.prepare_data.survey import Survey, survey
from kfp_bonsai.prepare_data.write import (
    TEST,
    TRAIN,
    UNLABELLED,
    VALIDATION,
    Part,
    content_sha256,
    write_splits,
)
from kfp_bonsai.shared.core.errors import BonsaiError, check_choice, listed, nearest
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.data.tasks import SPLITS
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.metrics import scores
from kfp_bonsai.shared.storage.fingerprint import of_parts

STAGE = "prepare-data"
WITHOUT_LABELS = {
    role: f"without labels, accuracy cannot be measured; leave this file out ({title} rows are then drawn from train), "
    "and give it as --unlabelled-data if it may be learnt from"
    for role, title in ((VALIDATION, "validation"), (TEST, "test"))
}
RANDOM, HASH = "random", "hash"  # how splits are drawn


def prepare_data(
    data: str,
    train: Path,
    validation: Path,
    test: Path,
    unlabelled: Path,
    *,
    test_data: str = "",
    validation_data: str = "",
    unlabelled_data: str = "",
    name: str = "",
    text_column: str = "",
    text_pair_column: str = "",
    label_column: str = "",
    kind: str = "auto",
    metric: str = "",
    positive_class: str = "",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    validation_rows: int = 0,
    test_rows: int = 0,
    max_rows: int = 0,
    drop_empty: bool = False,
    split_by: str = "random",
    seed: int = 0,
) -> dict[str, str | int | float | bool]:
    """Turn labelled texts into train, validation, test and unlabelled Parquet splits without leaks.

    A text that is in the test or validation rows is dropped from train, and of equal texts in train the first
    stays (equal after folding case and white space). Splits that are not given are drawn from train, with the same
    share of every class (for regression: of every tenth of the labels).

    Args:
        data: a Parquet, CSV, TSV or JSON lines file, a folder or glob of them, gs://bucket/path, embedded:NAME
            (movie-reviews, amazon-reviews, tweets, news), or a Hugging Face data set name (org/name, glue:sst2).
        train: the Parquet file to write the training rows to.
        validation: the Parquet file to write the validation rows to.
        test: the Parquet file to write the test rows to.
        unlabelled: the Parquet file to write the texts without labels to (it may have no rows).
        test_data: where the test rows are, as for --data; else the data's own test split, else drawn from train.
        validation_data: where the validation rows are; else the data's own, else drawn from train.
        unlabelled_data: where texts without labels are, separated by commas; distillation learns from them too. Besides
            the above there is embedded:film-sentences.
        name: what to call the task; by default the data's name.
        text_column: the column of texts; by default text, sentence, review or content, or a known pair.
        text_pair_column: the column of second texts, for tasks on pairs.
        label_column: the column of labels; by default label, labels, target, class, sentiment, score or rating.
        kind: classification, regression, or auto: regression where labels are more than 10 different floats.
        metric: accuracy, f1, matthews_correlation, pearson or spearman; by default accuracy or pearson.
        positive_class: of two classes the one that f1 is of; by default the data's second, else that by alphabet.
        validation_fraction: the fraction of train to draw for validation where none is given.
        test_fraction: the fraction of train to draw for the test where none is given.
        validation_rows: how many rows to draw for validation instead of a fraction; 0 takes the fraction.
        test_rows: how many rows to draw for the test instead of a fraction; 0 takes the fraction.
        max_rows: at most so many training rows, with the same share of every class; 0 takes all.
        drop_empty: leave out rows without a text or a label, instead of refusing them.
        split_by: random draws splits anew for every data set; hash goes by each row's text alone, so that a row stays
            in its split when the data set grows, as retraining needs it.
        seed: of the draws.

    Returns:
        name, kind, metric, classes, the rows of each split, and how many rows were dropped and why.

    Raises:
        BonsaiError: the data cannot be read or is not fit to be learnt from; the message says where.

    Example:
        bonsai prepare-data --data reviews.csv --train train.parquet --validation validation.parquet
            --test test.parquet --unlabelled unlabelled.parquet
        bonsai prepare-data --data glue:mrpc --metric f1 --train train.parquet --validation validation.parquet
            --test test.parquet --unlabelled unlabelled.parquet
    """
    paths = [Path(train), Path(validation), Path(test), Path(unlabelled)]
    check_flags(kind, metric, validation_fraction, test_fraction, validation_rows, test_rows, max_rows, seed)
    check_split_by(split_by, test_rows, validation_rows)
    _check_outputs(paths)
    notes: list[str] = []
    source = open_source(data, "--data")
    given = _given(source, test_data, validation_data)
    further = _unlabelled_rows(source, unlabelled_data)
    _check_inputs([*(rows for rows, _ in given.values()), *further], paths)
    flags = (text_column, text_pair_column, label_column)
    _check_labelled(given, label_column)
    surveys = {role: _survey(rows, flags, drop_empty) for role, (rows, _) in sorted(given.items())}
    _check_columns(surveys)
    flagged = {role for role, text in ((TEST, test_data), (VALIDATION, validation_data)) if text}
    _settle_unlabelled(given, surveys, flagged, notes)
    hint = labels_.hint(surveys[TRAIN], kind)
    kind = labels_.kind_of(surveys[TRAIN], kind)
    _check_metric(metric, kind)
    metric = metric or KINDS[kind].metrics[0]
    labels = labels_.class_names(surveys[TRAIN], given[TRAIN][0], kind, positive_class)
    if metric == "f1" and len(labels) == 2:
        notes.append(f"f1 is that of the class '{labels[1]}'; another one by --positive-class")
    columns = surveys[TRAIN].columns
    say(
        f"{STAGE}  {data}: text {' and '.join(columns)}, label {surveys[TRAIN].label}, {kind}"
        + (f" into {len(labels)} classes ({listed(labels)}){hint}" if labels else hint)
    )
    parts = [
        Part.of(role, given[role][0], found, labels_.written(found, labels, kind, SPLITS[role]))
        for role, found in sorted(surveys.items())
    ]
    extra = _unlabelled_parts(further, surveys[TRAIN], label_column, drop_empty)
    for part in (*parts, *extra):
        title, found = SPLITS[part.role], part.survey
        say(f"{STAGE}  {found.rows:,} rows of {title} read from {found.where}")
        note(
            notes, found.empty, f"rows of {title} without text{'' if part.role == UNLABELLED else ' or label'} left out"
        )
        note(notes, found.unlabelled, f"rows of {title} without a gold label left out")
        if kind == tasks.CLASSIFICATION:
            notes += [f"{title}: {each}" for each in found.notes]
    notes += labels_.alike(labels)
    dropped = {
        "read_rows": sum(part.survey.rows for part in (*parts, *extra)),
        "dropped_empty": sum(part.survey.empty + part.survey.unlabelled for part in (*parts, *extra)),
        **drop(parts, extra, notes),
    }
    dropped["dropped_by_max_rows"] = _make_splits(
        parts[0],
        kind,
        labels,
        {
            TEST: (TEST not in surveys, "test", test_rows, test_fraction),
            VALIDATION: (VALIDATION not in surveys, "validation", validation_rows, validation_fraction),
        },
        max_rows,
        split_by,
        seed,
        notes,
    )
    parts += extra
    task_columns = ("text",) if len(columns) == 1 else ("text_a", "text_b")
    written = []
    for target, title in enumerate(SPLITS):
        rows = sum(int((part.goes == target).sum()) for part in parts)
        origins = [given[target][1]] if target in given else [source.origin]
        if target == UNLABELLED:
            origins = [part.survey.where for part in extra] or [source.origin]
        task = tasks.Task(
            name=name or source.name,
            kind=kind,
            columns=task_columns,
            labels=labels,
            metric=metric,
            source=", ".join(origins),
            split=title,
            rows=rows,
            sha256=content_sha256(parts, target),
            notes=tuple(notes),
        )
        written.append((paths[target], task))
        counts = _class_counts(parts, target, labels) if target != UNLABELLED else ""
        say(f"{STAGE}  {title}: {rows:,} rows{counts}")
    for each in notes:
        say(f"{STAGE}  note: {each}")
    write_splits(parts, written)
    return {
        "name": name or source.name,
        "kind": kind,
        "metric": metric,
        "classes": ", ".join(labels),
        **{f"{task.split}_rows": task.rows for _, task in written},
        **dropped,
    }


def look_at(
    data: str,
    *,
    test_data: str = "",
    validation_data: str = "",
    unlabelled_data: str = "",
    text_column: str = "",
    text_pair_column: str = "",
    label_column: str = "",
) -> str:
    """Find the data and their columns without reading the rows; return a fingerprint of all that would be read.

    Args:
        data: as prepare_data takes it, and the others too.
        test_data: the test rows.
        validation_data: the validation rows.
        unlabelled_data: texts without labels.
        text_column: the column of texts.
        text_pair_column: the column of second texts.
        label_column: the column of labels.

    Raises:
        BonsaiError: there are no such data, or no such columns.
    """
    source = open_source(data, "--data", streamed=True)
    given = _given(source, test_data, validation_data, streamed=True)
    further = _unlabelled_rows(source, unlabelled_data, streamed=True)
    _check_labelled(given, label_column)
    for rows, _ in given.values():
        _columns(rows, (text_column, text_pair_column, label_column))
    read = [*((role, rows) for role, (rows, _) in given.items()), *((UNLABELLED, rows) for rows in further)]
    return of_parts((f"{SPLITS[role]} {rows.where}", rows.digest()) for role, rows in read)


def check_split_by(split_by: str = RANDOM, test_rows: int = 0, validation_rows: int = 0) -> None:
    """Refuse an unknown way to split, or numbers of rows for one that has shares.

    Raises:
        BonsaiError: it is unknown, or rows are asked for.
    """
    check_choice("--split-by", split_by, (RANDOM, HASH))
    for flag, rows in (("--test", test_rows), ("--validation", validation_rows)):
        if rows and split_by == HASH:
            raise BonsaiError(f"{flag}-rows {rows}: a split by hash has a share of the rows: give {flag}-fraction")


def check_flags(
    kind: str = "auto",
    metric: str = "",
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    validation_rows: int = 0,
    test_rows: int = 0,
    max_rows: int = 0,
    seed: int = 0,
) -> None:
    """Refuse values that make no data set, of those that are given.

    Raises:
        BonsaiError: one does not.
    """
    check_choice("--kind", kind, ("auto", tasks.CLASSIFICATION, tasks.REGRESSION))
    for flag, fraction in (("--validation-fraction", validation_fraction), ("--test-fraction", test_fraction)):
        if not 0 < fraction < 1:
            raise BonsaiError(f"{flag} {fraction:g}: give a fraction between 0 and 1, such as 0.1")
    for flag, number in (
        ("--validation-rows", validation_rows),
        ("--test-rows", test_rows),
        ("--max-rows", max_rows),
    ):
        if number < 0:
            raise BonsaiError(f"{flag} {number}: give a number of rows, or 0, the default")
    if seed < 0:
        raise BonsaiError(f"--seed {seed}: give 0 or more")
    if metric:
        check_choice("--metric", metric, [*scores.METRICS])


def _check_outputs(paths: Sequence[Path]) -> None:
    if len({path.resolve() for path in paths}) < len(paths):
        raise BonsaiError("--train, --validation, --test and --unlabelled must be four different files: rename one")
    for path, title in zip(paths, SPLITS, strict=True):
        if path.is_dir():
            raise BonsaiError(f"--{title} {path} is a folder: name a file, such as {path / title}.parquet")
        parent = next(folder for folder in path.absolute().parents if folder.exists())
        if not parent.is_dir():
            raise BonsaiError(f"--{title} {path}: {parent} is no folder: name a file in one")
        if not os.access(parent, os.W_OK):
            raise BonsaiError(f"--{title} {path}: {parent} cannot be written to: name another folder")


def _check_inputs(rows: Iterable[Rows], paths: Sequence[Path]) -> None:
    read = {Path(file.where).resolve() for each in rows if isinstance(each, FileRows) for file in each.files}
    for path, title in zip(paths, SPLITS, strict=True):
        if path.resolve() in read:
            raise BonsaiError(f"--{title} {path} is read as input and would be replaced: name another output")


def _check_metric(metric: str, kind: str) -> None:
    fitting = KINDS[kind].metrics
    if metric and metric not in fitting:
        raise BonsaiError(f"--metric {metric} is not for {kind}: give {' or '.join(fitting)}, or another --kind")


def _given(
    source: Source, test_data: str, validation_data: str, *, streamed: bool = False
) -> dict[int, tuple[Rows, str]]:
    """Return the labelled splits that exist: those of the data, or those named by flags."""
    given = {
        role: (source.splits[SPLITS[role]], source.origin)
        for role in (TRAIN, VALIDATION, TEST)
        if SPLITS[role] in source.splits
    }
    for role, flag, text in ((TEST, "--test-data", test_data), (VALIDATION, "--validation-data", validation_data)):
        if text:
            other = open_source(text, flag, streamed=streamed)
            given[role] = (other.splits.get(SPLITS[role]) or other.splits["train"], other.origin)
    return given


def _check_labelled(given: dict[int, tuple[Rows, str]], label_column: str) -> None:
    """Refuse a validation or test split without labels, such as those of competitions, as what it is."""
    train = given[TRAIN][0]
    for role in sorted(given.keys() - {TRAIN}):
        rows, wanted, names = (
            given[role][0],
            find_label(train.names(), train.where, label_column),
            given[role][0].names(),
        )
        if wanted in names or (not label_column and any(name.strip().lower() in LABELS for name in names)):
            continue
        near = nearest(wanted, [name for name in names if name not in train.names()])
        raise BonsaiError(
            f"{rows.where} has no label column '{wanted}', unlike train (columns: {', '.join(names)}){near}: "
            f"{'rename it, if these are the labels; ' if near else ''}{WITHOUT_LABELS[role]}"
        )


def _survey(rows: Rows, flags: tuple[str, str, str], drop_empty: bool) -> Survey:
    columns, label = _columns(rows, flags)
    return survey(rows, columns, label, drop_empty=drop_empty)


def _columns(rows: Rows, flags: tuple[str, str, str]) -> tuple[tuple[str, ...], str]:
    """Return the columns of texts, and that of labels."""
    names = rows.names()
    columns = find_texts(names, rows.where, *flags)
    label = find_label(names, rows.where, flags[2])
    if label in columns:
        raise BonsaiError(f"{rows.where}: the column '{label}' is both text and label: name the other one too")
    return columns, label


def _check_columns(surveys: dict[int, Survey]) -> None:
    wanted = len(surveys[TRAIN].columns)
    for found in surveys.values():
        if len(found.columns) != wanted:
            raise BonsaiError(
                f"{found.where} has the text columns {', '.join(found.columns)}, train has "
                f"{', '.join(surveys[TRAIN].columns)}: name them with --text-column and --text-pair-column"
            )


def _settle_unlabelled(
    given: dict[int, tuple[Rows, str]], surveys: dict[int, Survey], flagged: set[int], notes: list[str]
) -> None:
    """Where the test has no labels (as GLUE's) or there is none, the validation split of the data becomes the test."""
    if not surveys[TRAIN].kept.any():
        raise BonsaiError(
            f"{surveys[TRAIN].where}, column '{surveys[TRAIN].label}' has no label at all: name another with "
            "--label-column, or give the rows as --unlabelled-data"
        )
    for role in (VALIDATION, TEST):
        if role in surveys and not surveys[role].kept.any():
            if role in flagged:
                found = surveys[role]
                raise BonsaiError(f"{found.where}, column '{found.label}' has no label at all: {WITHOUT_LABELS[role]}")
            notes.append(f"the {SPLITS[role]} split has no labels and is not used")
            del surveys[role], given[role]
    same_source = VALIDATION in given and given[VALIDATION][1] == given[TRAIN][1]
    if same_source and TEST not in given:
        notes.append("the data's validation split is used as test, and validation is drawn from train")
        surveys[TEST], given[TEST] = surveys.pop(VALIDATION), given.pop(VALIDATION)


def _unlabelled_rows(source: Source, unlabelled_data: str, *, streamed: bool = False) -> list[Rows]:
    found: list[Rows] = []
    for text in filter(None, (part.strip() for part in unlabelled_data.split(","))):
        other = open_source(text, "--unlabelled-data", streamed=streamed)
        found.append(other.splits.get("unlabelled") or other.splits["train"])
    if not found and "unlabelled" in source.splits:
        found.append(source.splits["unlabelled"])
    return found


def _unlabelled_parts(found: Sequence[Rows], train: Survey, label_column: str, drop_empty: bool) -> list[Part]:
    parts = []
    for rows in found:
        names = rows.names()
        same = all(column in names for column in train.columns)
        columns = train.columns if same else find_texts(names, rows.where, "", "", label_column)
        if len(columns) != len(train.columns):
            raise BonsaiError(
                f"{rows.where} has {'pairs' if len(columns) == 2 else 'single texts'} ({', '.join(columns)}), the "
                f"labelled rows have {', '.join(train.columns)}: name the columns alike"
            )
        survey_ = survey(rows, columns, "", drop_empty=drop_empty)
        parts.append(Part.of(UNLABELLED, rows, survey_, np.zeros(survey_.rows, np.int64)))
    return parts


def _make_splits(
    part: Part,
    kind: str,
    labels: tuple[str, ...],
    wanted: dict[int, tuple[bool, str, int, float]],
    max_rows: int,
    split_by: str,
    seed: int,
    notes: list[str],
) -> int:
    """Draw the splits that were not given from train, then cut train down to `max_rows`; return how many that drops."""
    made = [title for make, title, _, _ in wanted.values() if make]
    share = "by the share of each class" if kind == tasks.CLASSIFICATION else "evenly over the range of the labels"
    how = "by their texts' hashes, so that a row stays in its split" if split_by == HASH else share
    for make, title, rows, _ in wanted.values():
        if rows and not make:
            notes.append(f"--{title}-rows {rows} has no effect: the data has its own {title} rows")
    kept = np.flatnonzero(part.goes == TRAIN)
    if kind == tasks.CLASSIFICATION:
        sizes = np.bincount(part.labels[kept], minlength=len(labels))
        split.check_sizes(sizes.tolist(), labels, made)
    elif len(kept) < len(made) + 1:
        raise BonsaiError(f"{part.survey.where} has {len(kept)} different rows, too few to split: add rows")
    steps = [(target, title, rows, fraction) for target, (make, title, rows, fraction) in wanted.items() if make]
    for place, (target, title, rows, fraction) in enumerate(steps):
        strata = _strata(part, kept, kind)
        flag = f"--{title}-rows {rows}" if rows else f"--{title}-fraction {fraction:g}"
        if split_by == HASH:
            chosen = split.by_hash(part.survey.keys[kept], fraction, place)
            _check_every_class(strata, chosen, flag)
        else:
            classes, leave = len(np.unique(strata)), len(steps) - place
            count = rows or min(max(round(fraction * len(kept)), classes), len(kept) - leave * classes)
            chosen = _draw(strata, count, seed + target, leave, flag)
        part.goes[kept[chosen]] = target
        notes.append(f"{title}: {int(chosen.sum()):,} rows drawn from the {len(kept):,} of train, {how}")
        kept = kept[~chosen]
    if max_rows and max_rows < len(kept):
        chosen = _draw(_strata(part, kept, kind), max_rows, seed, 0, f"--max-rows {max_rows}")
        part.goes[kept[~chosen]] = -1
        notes.append(f"train: {max_rows:,} of {len(kept):,} rows taken, {share} (--max-rows)")
        return len(kept) - max_rows
    return 0


def _check_every_class(strata: np.ndarray, chosen: np.ndarray, flag: str) -> None:
    """Refuse a split by hash that leaves a class to one side alone."""
    if not len(np.unique(strata)) == len(np.unique(strata[chosen])) == len(np.unique(strata[~chosen])):
        raise BonsaiError(f"{flag} by hash leaves a class out of a split: add rows, or use --split-by random")


def _strata(part: Part, kept: np.ndarray, kind: str) -> np.ndarray:
    return part.labels[kept] if kind == tasks.CLASSIFICATION else split.quantile_bins(part.labels[kept])


def _draw(strata: np.ndarray, count: int, seed: int, leave: int, flag: str) -> np.ndarray:
    sizes = np.unique(strata, return_counts=True)[1]
    least, most = len(sizes), int((sizes - leave).sum())
    if not least <= count <= most:
        raise BonsaiError(
            f"{flag} asks for {count:,} of {len(strata):,} rows in {len(sizes)} classes: give {least:,} to {most:,}, "
            "so that every class is in every split"
        )
    return split.draw(strata, count, seed, leave=leave)


def _class_counts(parts: Sequence[Part], target: int, labels: tuple[str, ...]) -> str:
    if not labels:
        return ""
    counts = np.bincount(np.concatenate([part.labels[part.goes == target] for part in parts]), minlength=len(labels))
    shown = ", ".join(f"{label} {count:,}" for label, count in zip(labels[:6], counts, strict=False))
    return f" ({shown}{', ...' if len(labels) > 6 else ''})"
