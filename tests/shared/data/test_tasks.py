import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks


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


def test_a_flipped_bit_is_an_error_and_no_other_text(tmp_path):
    """Rows are read lazily: damage raised pyarrow's exceptions in the middle of training, or changed a text."""
    rows, chance = 4000, random.Random(0)
    texts = [f"{chance.random()} {i}" for i in range(rows)]
    about, path = task(rows=rows), tmp_path / "x.parquet"
    table = pa.table({"text": texts, "label": [i % 2 for i in range(rows)]}, schema=tasks.schema(about))
    with pq.ParquetWriter(path, table.schema, write_page_checksum=True, use_dictionary=False) as file:
        file.write_table(table)
    whole = path.read_bytes()
    for at in [chance.randrange(len(whole) - 8) for _ in range(60)] + [*range(len(whole) - 3000, len(whole) - 8, 40)]:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            found = tasks.read_columns(path)["text"]
        except BonsaiError as error:
            assert "x.parquet" in str(error)
        else:  # it was in what is only a note, such as the statistics
            assert found == texts and tasks.read_task(path) == about


def test_prepared_splits_are_written_with_checksums(tmp_path):
    """Without them what was damaged between two stages is read as another text."""
    from kfp_bonsai.prepare_data.prepare import prepare_data

    (tmp_path / "d.csv").write_text("text,label\n" + "".join(f"the text of row {i},{i % 2}\n" for i in range(60)))
    paths = [tmp_path / f"{name}.parquet" for name in ("train", "validation", "test", "unlabelled")]
    prepare_data(str(tmp_path / "d.csv"), *paths)
    whole = bytearray(paths[0].read_bytes())
    column = pq.read_metadata(paths[0]).row_group(0).column(0)
    whole[column.dictionary_page_offset + column.total_compressed_size - 9] ^= 1
    paths[0].write_bytes(whole)
    with pytest.raises(BonsaiError, match=r"train.parquet cannot be read to its end .*prepare the data set again"):
        tasks.read_columns(paths[0])


STRANGE = [None, 3, True, [], {}, [[1]], {"a": {}}, "word"]


@pytest.mark.parametrize("name", ["name", "kind", "columns", "labels", "metric", "split", "sha256", "notes", ""])
def test_a_task_of_another_type_is_refused(tmp_path, name):
    """An AttributeError somewhere in a later stage."""
    columns = {"text": ["a", "b", "c"], "label": [0, 1, 0]}
    path, table = tmp_path / "x.parquet", pa.table(columns, schema=tasks.schema(task()))
    stored = json.loads(table.schema.metadata[tasks.METADATA_KEY])
    for value in STRANGE:
        if isinstance(value, str) and name in ("name", "sha256"):
            continue
        changed = json.dumps({**stored, name: value} if name else value).encode()
        pq.write_table(table.replace_schema_metadata({tasks.METADATA_KEY: changed}), path)
        if (name, value) == ("notes", []):
            assert tasks.read_task(path).notes == ()
        else:
            with pytest.raises(BonsaiError, match=r"x.parquet .*prepare the data set again"):
                tasks.read_task(path)


@pytest.mark.parametrize(
    "columns",
    [
        {"text": ["a", None], "label": [0, 1]},
        {"text": ["a", "b"], "label": [0, 2]},
        {"text": ["a", "b"], "label": [0, -1]},
        {"text": ["a", "b"], "label": [0, None]},
        {"text": ["a", "b"], "label": [0.5, 1.0]},
        {"text": [1, 2], "label": [0, 1]},
        {"text": ["a", "b"]},
        {"label": [0, 1]},
    ],
)
def test_rows_that_no_task_has_are_refused_where_they_are_read(tmp_path, columns):
    """A split that somebody edited: a label without a class is an index out of range in the middle of training."""
    metadata = tasks.schema(task()).metadata
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), tmp_path / "x.parquet")
    with pytest.raises(BonsaiError, match=r"x.parquet.* (column|text|classes).*prepare the data set again"):
        tasks.read_columns(tmp_path / "x.parquet")
