"""What is asked for of a data set, refused where it cannot be had: before anything is read."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from kfp_bonsai.prepare_data.glance import AUTO
from kfp_bonsai.prepare_data.read import FileRows, Rows
from kfp_bonsai.shared.core.errors import BonsaiError, check_choice
from kfp_bonsai.shared.data.tasks import SPLITS
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.metrics import scores

RANDOM, HASH = "random", "hash"  # how splits are drawn


def check_flags(
    kind: str = AUTO,
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
    check_choice("--kind", kind, (AUTO, *KINDS))
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
    if kind != AUTO:
        check_metric(metric, kind)


def check_metric(metric: str, kind: str) -> None:
    """Refuse a metric that a kind of task has not; "" is none.

    Raises:
        BonsaiError: it is of another kind.
    """
    fitting = KINDS[kind].metrics
    if metric and metric not in fitting:
        raise BonsaiError(f"--metric {metric} is not for {kind}: give {' or '.join(fitting)}, or another --kind")


def check_split_by(split_by: str = RANDOM, test_rows: int = 0, validation_rows: int = 0) -> None:
    """Refuse an unknown way to split, or numbers of rows for one that has shares.

    Raises:
        BonsaiError: it is unknown, or rows are asked for.
    """
    check_choice("--split-by", split_by, (RANDOM, HASH))
    for flag, rows in (("--test", test_rows), ("--validation", validation_rows)):
        if rows and split_by == HASH:
            raise BonsaiError(f"{flag}-rows {rows}: a split by hash has a share of the rows: give {flag}-fraction")


def check_outputs(paths: Sequence[Path]) -> None:
    """Refuse outputs that cannot be written.

    Raises:
        BonsaiError: one cannot, or two are the same.
    """
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


def check_inputs(rows: Iterable[Rows], paths: Sequence[Path]) -> None:
    """Refuse an output that is read as input.

    Raises:
        BonsaiError: one is.
    """
    read = {Path(file.where).resolve() for each in rows if isinstance(each, FileRows) for file in each.files}
    for path, title in zip(paths, SPLITS, strict=True):
        if path.resolve() in read:
            raise BonsaiError(f"--{title} {path} is read as input and would be replaced: name another output")
