"""Labels are what the user wrote."""

import json
import re
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfp_bonsai.prepare_data.prepare import prepare_data
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks

SPLITS = ("train", "validation", "test", "unlabelled")


def prepare(folder: Path, labels: list, rows: int = 60, **options):
    """Prepare rows with these labels in turn, as JSON lines; return the outcome and the training split's task."""
    lines = [json.dumps({"text": f"t {at}", "label": labels[at % len(labels)]}) for at in range(rows)]
    (folder / "d.jsonl").write_text("\n".join(lines))
    return prepared(folder / "d.jsonl", **options)


def prepared(path: Path, **options):
    paths = [path.parent / f"{name}.parquet" for name in SPLITS]
    return prepare_data(str(path), *paths, **options), tasks.read_task(paths[0])


@pytest.mark.parametrize(
    "labels",
    [
        ["eng", "nan", "deu"],
        ["inf", "NA", "None", "null"],
        ["true", "false", "1e5"],
        ["007", "bond"],
        ["x", "-inf", "Infinity"],
        ["01", "1", "001"],
        ["1", "１"],
        ["Good", "good"],
    ],
)
def test_words_stay_words(tmp_path, labels):
    """Min Nan's code is nan, and somebody's articles are 01 and 1: read as numbers they vanish or become one."""
    _, task = prepare(tmp_path, labels)
    assert task.kind == "classification" and sorted(task.labels) == sorted(labels)


@pytest.mark.parametrize(("labels", "said"), [(["a", "a|b"], True), (["a, b", "b"], True), (["a|b", "c d"], False)])
def test_labels_of_several_names_are_told_to_be_classes(tmp_path, capsys, labels, said):
    """`bad|rude` learnt as a class of its own, and nobody told that there is a kind for it."""
    _, task = prepare(tmp_path, labels)
    assert task.kind == "classification" and ("--kind multi-label" in capsys.readouterr().out) == said


def test_all_that_is_said_of_labels(tmp_path):
    """What is one class though it was written in two ways, and what is two classes though it looks like one."""
    for labels, said in (
        ([1, 1.0, 2], "several types"),
        (["1", 1, 2], "several types"),
        ([" x", "x", "y"], "white space"),
        (["Good", "good", "x"], "'Good', 'good' are 2 classes"),
        (["caf\u00e9", "cafe\u0301", "x"], "'cafe\\u0301', 'caf\\xe9' are 2 classes"),
        (["a", "a\u200b"], "'a', 'a\\u200b' are 2 classes"),
        (["1", "1.0"], "'1', '1.0' are 2 classes"),
    ):
        notes = prepare(tmp_path, labels)[1].notes
        assert any(said in note for note in notes), (labels, notes)
    assert not any("classes" in note or "types" in note for note in prepare(tmp_path, ["x", "y"])[1].notes)


@pytest.mark.parametrize("labels", [[2**63, 2**63 + 1], [10**400, 10**400 + 1], [2**53, 2**53 + 1]])
def test_integers_of_any_size_stay_apart(tmp_path, labels):
    """As floats they would be equal, or too large."""
    assert prepare(tmp_path, labels)[1].labels == tuple(map(str, labels))


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("1,5", "'1,5' is no number"),
        ("NaN", "NaN or infinite"),
        ("inf", "NaN or infinite"),
        ("0x1f", "'0x1f' is no number"),
        ("1_0", "'1_0' is no number"),
        ("1e400", "too large"),
        (10**400, "is no number"),
        (None, "no label"),
        (float("nan"), "no label"),
    ],
)
def test_regression_takes_numbers_alone(tmp_path, label, said):
    """A number that cannot be computed with spoils every gradient."""
    with pytest.raises(BonsaiError, match=said) as caught:
        prepare(tmp_path, [label, *(at / 8 for at in range(20))], kind="regression")
    assert re.search(r"d\.jsonl.*rows? 1\b", str(caught.value)), caught.value


def test_numbers_with_a_name_for_none(tmp_path):
    """Which of both it is decides the user: nan among numbers is a gap, or the name of a class."""
    with pytest.raises(BonsaiError, match=r"--kind classification"):
        prepare(tmp_path, ["1", "2", "nan"])
    assert prepare(tmp_path, ["1", "2", "nan"], kind="classification")[1].labels == ("1", "2", "nan")


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        (pa.array([2**64 - 1, 2**64 - 2] * 30, pa.uint64()), (str(2**64 - 2), str(2**64 - 1))),
        (pa.array([Decimal("0"), Decimal("1")] * 30, pa.decimal128(3, 0)), ("0", "1")),
        (pa.array([Decimal("0.00"), Decimal("2.50")] * 30, pa.decimal128(5, 2)), ("0", "2.5")),
        (pa.array([Decimal("1" * 29 + ".1"), Decimal("1" * 29 + ".2")] * 30), ("1" * 29 + ".1", "1" * 29 + ".2")),
        (pa.array([0.1, 123456792.0] * 30, pa.float32()), ("0.1", "123456792")),
        (pa.array([True, False] * 30), ("false", "true")),
        (pa.array([b"no", b"yes"] * 30), ("no", "yes")),
    ],
)
def test_label_columns_of_databases(tmp_path, column, labels):
    """DECIMAL and binary are what a database's export has."""
    pq.write_table(pa.table({"text": [f"t {at}" for at in range(60)], "label": column}), tmp_path / "d.parquet")
    assert prepared(tmp_path / "d.parquet")[1].labels == labels


def test_every_row_that_is_read_is_written_or_dropped_for_a_reason(tmp_path, capsys):
    """A row that is lost on the way is learnt by nobody and missed by nobody."""
    rows = [(f"t {at}", "xy"[at % 2]) for at in range(100)]
    (tmp_path / "d.csv").write_text("text,label\n" + "".join(f"{a},{b}\n" for a, b in [*rows, *rows[:7], ("", "x")]))
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"{a},{b}\n" for a, b in rows[90:]))
    (tmp_path / "u.csv").write_text("text\n" + "".join(f"{a}\n" for a in ("t 1", "new", "new", "newer")))
    found, _ = prepared(
        tmp_path / "d.csv",
        test_data=str(tmp_path / "t.csv"),
        unlabelled_data=str(tmp_path / "u.csv"),
        drop_empty=True,
        max_rows=50,
    )
    written = sum(found[f"{name}_rows"] for name in SPLITS)
    reasons = {name: count for name, count in found.items() if name.startswith("dropped_")}
    assert found["read_rows"] == 108 + 10 + 4 == written + sum(reasons.values())
    assert reasons == {
        "dropped_empty": 1,
        "dropped_leaks": 10,
        "dropped_duplicates": 7,
        "dropped_unlabelled": 2,
        "dropped_by_max_rows": 31,
    }
    told = capsys.readouterr().out
    assert "108 rows of train read from" in told and "10 rows of test read" in told and "4 rows of unlabelled" in told
