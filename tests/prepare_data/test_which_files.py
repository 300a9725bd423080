"""Which files of a folder, a glob or a saved data set are read, and in which columns."""

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfp_bonsai.prepare_data.prepare import prepare_data
from kfp_bonsai.prepare_data.read import open_source
from kfp_bonsai.shared.core.errors import BonsaiError

HEAD = "text,label\n"


def read(source: Path | str) -> list[tuple]:
    """Return the texts and labels of the rows to train on."""
    rows = open_source(str(source), "--data").splits["train"]
    found = rows.batches(["text", "label"])
    return [row for batch in found for row in zip(batch.columns["text"], batch.columns["label"], strict=True)]


def made(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


@pytest.mark.parametrize("place", [".ipynb_checkpoints", "_delta_log/deep", "__MACOSX", ".git/x", "_temporary/0"])
def test_what_tools_keep_beside_the_data_is_left_alone_and_told(tmp_path, place, capsys):
    """A notebook's hidden copy has the labels of before they were corrected, and is read first."""
    made(tmp_path / "data" / "rows.csv", HEAD + "a,new\n")
    made(tmp_path / "data" / place / "rows.csv", HEAD + "a,old\n")
    for source in (tmp_path / "data", f"{tmp_path}/data/**/*.csv"):
        assert read(source) == [("a", "new")]
    assert "1 data file with . or _ before the name" in capsys.readouterr().out
    assert read(tmp_path / "data" / place.split("/")[0]) == [("a", "old")]  # what is named itself is meant
    assert read(f"{tmp_path}/data/_*/**/*.csv" if place[0] == "_" else f"{tmp_path}/data/.*/**/*.csv") == [("a", "old")]


def test_links_are_followed_and_every_file_is_read_once(tmp_path, capsys):
    """Rows twice, rows of a linked folder lost, or no end."""
    made(tmp_path / "data" / "a.csv", HEAD + "a,x\n")
    made(tmp_path / "far" / "b.csv", HEAD + "b,y\n")
    (tmp_path / "data" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "data" / "again.csv").symlink_to(tmp_path / "data" / "a.csv")
    (tmp_path / "far" / "round").symlink_to(tmp_path / "data")
    assert sorted(read(tmp_path / "data")) == [("a", "x"), ("b", "y")]
    assert "once more, and left alone" in capsys.readouterr().out
    (tmp_path / "data" / "c.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(BonsaiError, match=r"c.csv is a link to nothing"):
        read(tmp_path / "data")


def test_partitions_are_columns(tmp_path):
    """Hive and Spark write the label into the folder's name alone: without it another column would be learnt."""
    for label in ("good", "very%20bad", "__HIVE_DEFAULT_PARTITION__"):
        folder = tmp_path / "data" / f"label={label}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"text": [f"of {label}"], "score": [1]}), folder / "part-0.parquet")
    assert {label for _, label in read(tmp_path / "data")} == {"good", "very bad", None}
    made(tmp_path / "splits" / "split=train" / "0.csv", HEAD + "a,x\n")
    made(tmp_path / "splits" / "split=test" / "0.csv", HEAD + "b,x\n")
    assert read(tmp_path / "splits") == [("a", "x")]


def test_an_empty_shard_is_fine_and_one_of_no_bytes_is_told(tmp_path, capsys):
    """Spark writes shards without rows, of null types, or of no bytes, which may also be a file that did not arrive."""
    pq.write_table(pa.table({"text": pa.nulls(0), "label": pa.nulls(0)}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"label": [1], "text": ["x"]}), tmp_path / "b.parquet")
    made(tmp_path / "c.json", "[]")
    made(tmp_path / "d.csv", HEAD)
    assert read(tmp_path) == [("x", 1)]
    made(tmp_path / "e.csv", "")
    made(tmp_path / "f.jsonl", "")
    (tmp_path / "f.json.gz").write_bytes(gzip.compress(b""))
    assert read(tmp_path) == [("x", 1)]
    told = capsys.readouterr().out
    assert "e.csv is empty" in told and "f.jsonl is empty" in told and "f.json.gz is empty" in told
    with pytest.raises(BonsaiError, match=r"e.csv is empty"):
        read(tmp_path / "e.csv")
    made(tmp_path / "g.parquet", "")
    with pytest.raises(BonsaiError, match=r"g.parquet is empty"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("place", "content", "kind"),
    [
        ("_delta_log/00000000000000000000.json", '{"add": {"path": "part/a.csv"}}', ""),
        ("_delta_log/00000000000000000000.json", '{"add": {}}\n{"remove": {"path": "b.csv"}}', "a Delta"),
        ("_delta_log/00000000000000000000.json", '{"add": {"path": "a.csv", "deletionVector": {"x": 1}}}', "a Delta"),
        ("_delta_log/00000000000000000011.json", '{"add": {"path": "part/a.csv"}}', "a Delta"),
        (".hoodie/hoodie.properties", "x", "a Hudi"),
        ("metadata/v1.metadata.json", "{}", "an Iceberg"),
    ],
)
def test_deleted_rows_of_tables_are_not_read(tmp_path, place, content, kind):
    """The files of such a table hold what was deleted, and what was corrected with its old label."""
    made(tmp_path / "data" / "part" / "a.csv", HEAD + "a,x\n")
    made(tmp_path / "data" / place, content)
    for source in (tmp_path / "data" / "part", f"{tmp_path}/data/*/*.csv"):
        if kind:
            with pytest.raises(BonsaiError, match=f"data is {kind} table"):
                read(source)
        else:
            assert read(source) == [("a", "x")]


TABLES = {
    "twice": pa.Table.from_arrays([pa.array(["a"]), pa.array([1]), pa.array([2])], ["text", "label", "label"]),
    "spaces": pa.table({"text": ["a"], "label": [1], " label": [2]}),
    "cases": pa.table({"text": ["a"], "Label": [1], "label": [2]}),
}


@pytest.mark.parametrize("case", TABLES)
def test_two_columns_of_one_name_are_refused(tmp_path, case):
    """Which one is meant nobody knows; pyarrow ends in a KeyError."""
    pq.write_table(TABLES[case], tmp_path / "d.parquet")
    with pytest.raises(BonsaiError, match=r"d.parquet.*'?label'?.*(rename one|--label-column)"):
        prepare_data(str(tmp_path / "d.parquet"), *(tmp_path / name for name in "wxyz"))
    assert [path.name for path in tmp_path.iterdir()] == ["d.parquet"]


JSON = {
    "a key twice": ('{"text": "a", "label": 1, "label": 2}', "line 1", "'label' is there more than once"),
    "half a character": ('{"text": "a", "label": "\\ud83d"}', "line 1", "no valid Unicode"),
    "too deep": ('{"text": ' + "[" * 99_999, "line 1", "not valid JSON"),
    "too long a number": ('{"text": "a", "label": ' + "9" * 5000 + "}", "line 1", "4300 digits"),
    "pretty": ('{\n "text": "a"\n}', "line 1", "over several lines"),
    "wrapped": ('{"data": [{"text": "a", "label": 1}]}', "in 'data'", "list alone"),
    "two on a line": ('{"text": "a", "label": 1}{"text": "b", "label": 2}', "line 1", "Extra data"),
    "no object": ('{"text": "a", "label": 1}\n["b", 2]', "line 2", "no object"),
    "a page": ("<html></html>", "HTML"),
    "by columns": ('{"text": {"0": "a"}, "label": {"0": 1}}', "line 1", "tables by columns"),
    "half a character in a name": ('{"text": "a", "\\ud83d": 1, "label": 1}', "line 1", "no valid Unicode"),
}


@pytest.mark.parametrize("case", JSON)
def test_json_that_says_two_things_or_nothing_is_refused(tmp_path, case):
    """Python keeps the last of two keys, and half of a character ends in a traceback where it is printed."""
    content, *said = JSON[case]
    with pytest.raises(BonsaiError) as caught:
        read(made(tmp_path / "d.jsonl", content))
    assert all(words in str(caught.value) for words in ("d.jsonl", *said)), caught.value


def test_what_other_keys_of_json_hold_does_not_matter(tmp_path):
    """Tweets come with all that was known of them, cut anywhere."""
    row = (
        '{"text": "a", "label": 1, "more": {"a": 1, "a": 2}, "cut": "\\ud83d"}\n{"label": 2, "text": "b", "more": null}'
    )
    assert read(made(tmp_path / "d.jsonl", row)) == [("a", 1), ("b", 2)]


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_lines_and_arrays_are_read_alike(tmp_path, coding):
    """A mark of byte order, an integer of any size, and a line separator in a text are no reason to lose a row."""
    rows = [{"text": "a\u2028b", "label": 2**70}, {"text": "\U0001f600", "label": 2**70 + 1}]
    for text in ("\n\n".join(map(json.dumps, rows)), json.dumps(rows, ensure_ascii=False, indent=1)):
        (tmp_path / "d.json").write_bytes(text.encode(coding))
        assert read(tmp_path / "d.json") == [(row["text"], row["label"]) for row in rows]


def test_every_type_of_text_column_is_read(tmp_path):
    """Spark's binary columns, large and dictionary strings hold texts as well; bytes that are none are refused."""
    texts = ["grün", "b"]
    kinds = [pa.binary(), pa.large_binary(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
    for kind in kinds:
        column = pa.array(texts).cast(kind) if "view" not in str(kind) else pa.array(texts, kind)
        pq.write_table(pa.table({"text": column, "label": [0, 1]}), tmp_path / "d.parquet")
        assert read(tmp_path / "d.parquet") == [("grün", 0), ("b", 1)], kind
    pq.write_table(pa.table({"text": [b"\xff\xfe", b"b"], "label": [0, 1]}), tmp_path / "d.parquet")
    with pytest.raises(BonsaiError, match=r"d.parquet, column 'text', row 1: bytes that are no UTF-8"):
        read(tmp_path / "d.parquet")


@pytest.mark.parametrize("form", ["numpy", "torch", "pandas"])
def test_a_data_set_saved_with_a_format_is_read_as_plain_rows(tmp_path, form):
    """set_format is kept when it is saved, and then gives tensors, or only some of the columns."""
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    saved = Dataset.from_dict({"text": ["a", "b"], "label": [1, -1]}, features=features)
    saved.set_format(form, columns=["label"])
    saved.save_to_disk(tmp_path / "saved")
    assert read(tmp_path / "saved") == [("a", 1), ("b", -1)]
    saved.with_format(None).cast_column("text", Value("binary")).save_to_disk(tmp_path / "bytes")
    assert read(tmp_path / "bytes") == [("a", 1), ("b", -1)]


def test_damage_anywhere_in_a_saved_data_set_is_an_error_in_words(tmp_path):
    """The library raises a dozen kinds of exception, at opening and in the middle of the rows."""
    from datasets import Dataset

    Dataset.from_dict({"text": ["a text"] * 50, "label": ["x", "y"] * 25}).save_to_disk(tmp_path / "saved")
    for file in sorted((tmp_path / "saved").iterdir()):
        whole = file.read_bytes()
        damaged = [whole[: len(whole) // 2], whole[:-99] + b"\xff" * 99, b""]
        damaged += [b'{"features": {"text": 3}}', b"[]"] if file.suffix == ".json" else []
        for content in damaged:
            file.write_bytes(content)
            try:
                assert len(read(tmp_path / "saved")) == 50  # it may be that nothing of it was needed
            except BonsaiError as error:
                assert "saved" in str(error)
        file.write_bytes(whole)


def test_broken_notes_of_other_tools_in_a_parquet_file_say_nothing(tmp_path):
    """The metadata of datasets are names for integers at best: a file whose are broken still has its rows."""
    table = pa.table({"text": ["a"], "label": [0]})
    for text in (b"{", b"[]", b'{"info": 3}', b'{"info": {"features": {"label": {"names": [1, 2]}}}}', b"\xff"):
        pq.write_table(table.replace_schema_metadata({b"huggingface": text}), tmp_path / "d.parquet")
        rows = open_source(str(tmp_path / "d.parquet"), "--data").splits["train"]
        assert rows.class_names("label") == () and read(tmp_path / "d.parquet") == [("a", 0)]


@pytest.mark.parametrize("what", ["file", "note of a table", "saved data set"])
def test_what_never_begins_is_not_waited_for(tmp_path, what):
    """A pipe in a folder that a stranger gave holds the stage for ever."""
    pipe = tmp_path / {"file": "a.csv", "note of a table": f"_delta_log/{0:020}.json"}.get(what, "state.json")
    pipe.parent.mkdir(exist_ok=True)
    if what == "saved data set":
        (tmp_path / "dataset_info.json").write_text("{}")
        (tmp_path / "state.json").write_text("{}")
        pipe = tmp_path / "data-00000-of-00001.arrow"
    os.mkfifo(pipe)
    (tmp_path / "b.parquet").touch()
    given = str(pipe if what == "file" else tmp_path)
    with pytest.raises(BonsaiError, match="is no file, but a pipe"):
        open_source(given, "--data")
