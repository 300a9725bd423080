"""The floor must be what words alone give, on the task's own metric."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfp_bonsai.shared.errors import BonsaiError
from kfp_bonsai.shared.floor import floor
from kfp_bonsai.shared.tasks import CLASSIFICATION, REGRESSION, Task, schema

WORDS = ("awful", "fine", "splendid")


def test_words_that_decide_the_class_give_a_floor_of_one(tmp_path):
    """A floor that cannot learn one word per class is broken."""
    rows = {"text": [f"a {WORDS[i % 3]} film {i}" for i in range(60)], "label": [i % 3 for i in range(60)]}
    path = split(tmp_path / "s.parquet", rows, labels=WORDS, metric="f1")
    assert floor(path, path) == 1.0


def test_random_labels_give_chance_on_new_rows(tmp_path):
    """A floor above chance here would have seen the test rows."""
    train = {"text": [f"word{i}" for i in range(100)], "label": [i % 2 for i in range(100)]}
    test = {"text": [f"other{i}" for i in range(100)], "label": [i % 2 for i in range(100)]}
    assert floor(split(tmp_path / "a.parquet", train), split(tmp_path / "b.parquet", test)) == pytest.approx(0.5)


def test_pairs_and_regression(tmp_path):
    """Two text columns and a number must work as one text and a class do."""
    rows = {
        "text_a": ["same"] * 40,
        "text_b": [WORDS[i % 3] for i in range(40)],
        "label": [i % 3 / 2 for i in range(40)],
    }
    path = split(tmp_path / "s.parquet", rows, labels=(), metric="pearson", kind=REGRESSION)
    assert floor(path, path) > 0.9


def test_texts_without_a_word_do_not_crash(tmp_path):
    """Emoji-only texts leave an empty vocabulary."""
    path = split(tmp_path / "s.parquet", {"text": ["!", "?"] * 5, "label": [0, 1] * 5})
    assert floor(path, path) == 0.5


def test_one_class_alone_is_an_error(tmp_path):
    """scikit-learn's own message would not name the file."""
    path = split(tmp_path / "s.parquet", {"text": ["a", "b"], "label": [0, 0]})
    with pytest.raises(BonsaiError, match=r"s\.parquet"):
        floor(path, path)


def split(path, rows, labels=("no", "yes"), metric="accuracy", kind=CLASSIFICATION):
    columns = tuple(name for name in rows if name != "label")
    task = Task("made", kind, columns, tuple(labels), metric, "made", "train", len(rows["label"]), "0")
    if kind == REGRESSION:
        rows = {**rows, "label": [float(one) for one in rows["label"]]}
    pq.write_table(pa.table(rows, schema=schema(task)), path)
    return path
