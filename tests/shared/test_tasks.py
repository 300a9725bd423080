import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfp_bonsai.shared import tasks
from kfp_bonsai.shared.errors import BonsaiError


def task(**changes) -> tasks.Task:
    about = {
        "name": "made",
        "kind": "classification",
        "columns": ("text",),
        "labels": ("no", "yes"),
        "metric": "accuracy",
        "source": "here",
        "split": "train",
        "rows": 3,
        "sha256": "0" * 64,
        "notes": ("a note",),
    }
    return tasks.Task(**{**about, **changes})


def write(path, about: tasks.Task, columns: dict) -> None:
    pq.write_table(pa.table(columns, schema=tasks.schema(about)), path)


def test_a_task_is_read_as_it_was_written(tmp_path):
    """A split must explain itself without a second file."""
    about = task()
    write(tmp_path / "x.parquet", about, {"text": ["a", "b", "c"], "label": [0, 1, 0]})
    assert tasks.read_task(tmp_path / "x.parquet") == about
    assert about.num_labels == 2 and task(kind="regression", labels=()).num_labels == 1


def test_a_filtered_split_has_the_rows_that_it_holds(tmp_path):
    """An emptied test set that still says it has 2,000 rows, and an error in the middle of a measurement."""
    write(tmp_path / "x.parquet", task(), {"text": ["a", "b", "c"], "label": [0, 1, 0]})
    pq.write_table(pq.read_table(tmp_path / "x.parquet").slice(0, 0), tmp_path / "x.parquet")
    assert tasks.read_task(tmp_path / "x.parquet").rows == 0


def test_labels_are_of_the_kind_and_unlabelled_splits_have_none():
    """A wrong column type would train a wrong head."""
    assert tasks.schema(task()).field("label").type == pa.int64()
    assert tasks.schema(task(kind="regression", labels=())).field("label").type == pa.float64()
    assert tasks.schema(task(split="unlabelled", columns=("text_a", "text_b"))).names == ["text_a", "text_b"]


def test_batches_are_the_whole_split_in_order(tmp_path):
    """A lost last batch would go unnoticed."""
    columns = {"text": [str(i) for i in range(2500)], "label": [i % 2 for i in range(2500)]}
    write(tmp_path / "x.parquet", task(rows=2500), columns)
    found = list(tasks.batches(tmp_path / "x.parquet", 1000))
    assert [len(batch["text"]) for batch in found] == [1000, 1000, 500]
    assert [text for batch in found for text in batch["text"]] == columns["text"]
    assert tasks.read_columns(tmp_path / "x.parquet") == columns


def test_files_that_are_no_splits_are_refused_by_name(tmp_path):
    """Without the task, later stages would guess what labels mean."""
    with pytest.raises(BonsaiError, match=r"no data set at .*x.parquet"):
        tasks.read_task(tmp_path / "x.parquet")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(BonsaiError, match="not a whole Parquet file"):
        tasks.read_task(tmp_path / "x.parquet")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(BonsaiError, match="does not say what its labels mean"):
        tasks.read_task(tmp_path / "x.parquet")
