"""Read labelled texts from where they are, and write splits that fit together."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kfp_bonsai.prepare_data import labels
from kfp_bonsai.prepare_data.asked import check_flags, check_inputs, check_outputs, check_split_by
from kfp_bonsai.prepare_data.draws import Wanted, cut, draw
from kfp_bonsai.prepare_data.gather import gather, survey_labelled, survey_unlabelled
from kfp_bonsai.prepare_data.glance import Flags
from kfp_bonsai.prepare_data.goal import Goal, counts, goal_of, label_notes, metric_notes
from kfp_bonsai.prepare_data.leaks import drop, note
from kfp_bonsai.prepare_data.write import TEST, TRAIN, UNLABELLED, VALIDATION, Part, content_sha256, write_splits
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.data.tasks import SPLITS

STAGE = "prepare-data"


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
    share of every class (of numbers: of every tenth), or whole queries, or whole texts with all their questions.

    Args:
        data: a Parquet, CSV, TSV, JSON lines, CoNLL or SQuAD file, a folder or glob of them, gs://, s3://bucket/path,
            embedded:NAME (movie-reviews, amazon-reviews, tweets, news), or a Hugging Face data set name (org/name,
            with :configuration and @revision behind it where it has such; glue:sst2, glue:mnli_mismatched).
        train: the Parquet file to write the training rows to.
        validation: the Parquet file to write the validation rows to.
        test: the Parquet file to write the test rows to.
        unlabelled: the Parquet file to write the texts without labels to (it may have no rows).
        test_data: where the test rows are, as for --data; else the data's own test split, else drawn from train.
        validation_data: where the validation rows are; else the data's own, else drawn from train.
        unlabelled_data: where texts without labels are, separated by commas; distillation learns from them too. By
            default the data's own unlabelled split. Besides the above there is embedded:film-sentences. For tasks on
            pairs, single texts are made pairs.
        name: what to call the task; by default the data's name.
        text_column: the column of texts; by default text, sentence, review or content, or a known pair.
        text_pair_column: the column of second texts, for tasks on pairs.
        label_column: the column of labels; by default label, labels, target, class, sentiment, score or rating, or what
            the kind has, such as ner_tags. Several columns of 0 and 1 are named with commas between.
        kind: classification, regression, multi-label, tokens, questions, ranking, generation, or auto: what the
            columns and their values look like (never generation, whose answers are written); regression where labels
            are more than 10 different floats.
        metric: one that the kind has; by default what GLUE scores a task of its by, or the kind's first: accuracy (f1,
            matthews_correlation, macro_f1, balanced_accuracy), pearson (spearman, r2), micro_f1 (macro_f1), span_f1,
            answer_f1 (exact_match), ndcg@10 (mrr@10), rouge_l (chrf, exact_text).
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
        bonsai prepare-data --data glue:mrpc --train train.parquet --validation validation.parquet
            --test test.parquet --unlabelled unlabelled.parquet
    """
    paths = [Path(train), Path(validation), Path(test), Path(unlabelled)]
    check_flags(kind, metric, validation_fraction, test_fraction, validation_rows, test_rows, max_rows, seed)
    check_split_by(split_by, test_rows, validation_rows)
    check_outputs(paths)
    given = gather(data, test_data, validation_data, unlabelled_data)
    check_inputs([rows for _, rows in given.rows], paths)
    flags = Flags(text_column, text_pair_column, label_column)
    labelled, notes = survey_labelled(given, flags, kind, drop_empty)
    first = labelled[TRAIN].survey
    goal = goal_of(first, kind, metric, positive_class, given.metric)
    notes += [*given.notes, *metric_notes(goal, metric)]
    say(f"{STAGE}  {data}: text {' and '.join(first.columns)}, label {first.label}, {goal}")
    parts = [
        Part.of(role, each.rows, each.survey, labels.written(each.survey, goal.labels, goal.kind, SPLITS[role]))
        for role, each in sorted(labelled.items())
    ]
    extra, paired = survey_unlabelled(given.unlabelled, first, label_column, drop_empty, seed)
    notes += paired
    notes += _tell_read([*parts, *extra], goal)
    notes += labels.alike(goal.labels)
    dropped = {
        "read_rows": sum(part.survey.rows for part in (*parts, *extra)),
        "dropped_empty": sum(part.survey.empty + part.survey.unlabelled for part in (*parts, *extra)),
        **drop(parts, extra, notes, goal.together),
    }
    wanted = [Wanted(TEST, test_rows, test_fraction), Wanted(VALIDATION, validation_rows, validation_fraction)]
    notes += [
        f"{each.flag} has no effect: the data has its own {each.title} rows"
        for each in wanted
        if each.rows and each.role in labelled
    ]
    notes += draw(parts[0], goal, [each for each in wanted if each.role not in labelled], split_by, seed)
    dropped["dropped_by_max_rows"], cut_notes = cut(parts[0], goal, max_rows, seed)
    notes += cut_notes
    origins = [labelled[role].origin if role in labelled else given.origin for role in (TRAIN, VALIDATION, TEST)]
    origins.append(", ".join(part.survey.where for part in extra) or given.origin)
    splits = _described([*parts, *extra], goal, name or given.name, origins, notes)
    write_splits([*parts, *extra], list(zip(paths, splits, strict=True)))
    return {
        "name": name or given.name,
        "kind": goal.kind,
        "metric": goal.metric,
        "classes": ", ".join(goal.labels),
        **{f"{task.split}_rows": task.rows for task in splits},
        **dropped,
    }


def _tell_read(parts: Sequence[Part], goal: Goal) -> list[str]:
    """Say how many rows of each split were read; return notes on those that were left out, and on labels."""
    notes: list[str] = []
    for part in parts:
        title, found = SPLITS[part.role], part.survey
        say(f"{STAGE}  {found.rows:,} rows of {title} read from {found.where}")
        lacking = "text" if part.role == UNLABELLED else "text or label"
        note(notes, found.empty, f"rows of {title} without {lacking} left out")
        note(notes, found.unlabelled, f"rows of {title} without a gold label left out")
        notes += label_notes(goal, title, found)
    return notes


def _described(
    parts: Sequence[Part], goal: Goal, name: str, origins: Sequence[str], notes: Sequence[str]
) -> list[tasks.Task]:
    """Say what each split is and all notes; return the tasks that the splits carry."""
    splits = []
    answers = [one for part in parts if part.survey.answers is not None for one in part.labels[part.goes >= 0]]
    setting = parts[0].survey.reading.setting or goal.known.setting(answers)
    for target, title in enumerate(SPLITS):
        task = tasks.Task(
            name=name,
            kind=goal.kind,
            columns=("text",) if len(parts[0].survey.columns) == 1 else ("text_a", "text_b"),
            labels=goal.labels,
            metric=goal.metric,
            source=origins[target],
            split=title,
            setting=setting,
            rows=sum(int((part.goes == target).sum()) for part in parts),
            sha256=content_sha256(parts, target),
            notes=tuple(notes),
        )
        values = np.concatenate([part.labels[part.goes == target] for part in parts])
        say(f"{STAGE}  {title}: {task.rows:,} rows{'' if target == UNLABELLED else counts(goal, values)}")
        splits.append(task)
    for each in notes:
        say(f"{STAGE}  note: {each}")
    return splits
