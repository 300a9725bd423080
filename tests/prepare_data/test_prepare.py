import csv
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_bonsai.prepare_data import delimited
from kfp_bonsai.prepare_data.prepare import prepare_data
from kfp_bonsai.prepare_data.survey import normalise
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks

SPLITS = ("train", "validation", "test", "unlabelled")


def prepare(data, folder: Path, **options):
    paths = [Path(folder) / "out" / f"{name}.parquet" for name in SPLITS]
    outcome = prepare_data(str(data), *paths, **options)
    return outcome, {path.stem: tasks.read_columns(path) for path in paths}, {p.stem: tasks.read_task(p) for p in paths}


def rows(count: int = 200, classes=("bad", "good"), seed: int = 0, start: int = 0):
    random_ = random.Random(seed)
    return [
        {"text": f"row {start + i} of {random_.randint(0, 9)}", "label": classes[i % len(classes)]}
        for i in range(count)
    ]


def write_csv(path: Path, rows_: list[dict], delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows_[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows_)
    return path


def write_json(path: Path, rows_: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_), encoding="utf-8")
    return path


def write_parquet(path: Path, rows_: list[dict]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows_), path)
    return path


WRITERS = {".csv": write_csv, ".jsonl": write_json, ".parquet": write_parquet}


def write(path: Path, rows_: list[dict]) -> Path:
    return WRITERS[path.suffix](path, rows_)


# What comes out


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["A b", "a  B", "c", "d e", "f", "g"]), st.integers(0, 30)), max_size=60),
    st.integers(0, 5),
)
def test_splits_are_a_partition_without_leaks(extra, seed):
    """A text in train and test would make every accuracy too good."""
    with tempfile.TemporaryDirectory() as folder:
        data = [{"text": f"{text} {number}", "label": ("x", "y")[number % 2]} for text, number in extra]
        data += [{"text": f"only {i}", "label": ("x", "y")[i % 2]} for i in range(20)]
        outcome, found, _ = prepare(write_json(Path(folder) / "d.jsonl", data), Path(folder), seed=seed)
    by_split = [{normalise(text) for text in found[name]["text"]} for name in SPLITS[:3]]
    assert not by_split[0] & by_split[1] and not by_split[0] & by_split[2] and not by_split[1] & by_split[2]
    assert set.union(*by_split) == {normalise(row["text"]) for row in data}
    assert sum(len(found[name]["text"]) for name in SPLITS[:3]) == len(data) - outcome["dropped_duplicates"]
    first = {}
    for row in data:
        first.setdefault(normalise(row["text"]), (row["text"], row["label"]))
    for name in SPLITS[:3]:
        for text, label in zip(found[name]["text"], found[name]["label"], strict=True):
            assert first[normalise(text)] == (text, ("x", "y")[label])


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path):
    """Splits that cannot be made again cannot be compared."""
    data = write_csv(tmp_path / "d.csv", rows())
    hashes = [{name: task.sha256 for name, task in prepare(data, tmp_path, seed=seed)[2].items()} for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1]
    assert hashes[0]["test"] != hashes[2]["test"]


def test_classes_keep_their_shares(tmp_path):
    """A rare class that is missing in the test goes unmeasured."""
    data = [{"text": f"t {i}", "label": "rare" if i % 20 == 0 else "common"} for i in range(1000)]
    _, found, described = prepare(write_csv(tmp_path / "d.csv", data), tmp_path)
    assert described["train"].labels == ("common", "rare")
    assert [int(np.sum(found[name]["label"])) for name in SPLITS[:3]] == [36, 4, 10]


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_splits(tmp_path, suffix):
    """A reader that loses quotes, line breaks or Unicode changes the data."""
    data = [{"text": f'he said "{i}",\nand så\tvidere', "label": i % 3} for i in range(60)]
    _, found, described = prepare(write(tmp_path / f"d{suffix}", data), tmp_path)
    texts = {row["text"]: row["label"] for row in data}
    for name in SPLITS[:3]:
        for text, label in zip(found[name]["text"], found[name]["label"], strict=True):
            assert texts[text] == label
    assert described["test"].labels == ("0", "1", "2")
    assert described["test"].sha256 == prepare(write(tmp_path / "d.csv", data), tmp_path)[2]["test"].sha256
    assert pq.read_schema(tmp_path / "out" / "test.parquet").field("label").type == pa.int64()


def test_what_a_split_says_of_itself_is_true(tmp_path):
    """Later stages and the report trust the schema's metadata."""
    outcome, found, described = prepare(write_csv(tmp_path / "d.csv", rows()), tmp_path, name="mine", metric="f1")
    for name in SPLITS:
        task = described[name]
        assert (task.name, task.split, task.metric, task.rows) == ("mine", name, "f1", len(found[name]["text"]))
        assert outcome[f"{name}_rows"] == task.rows
    assert "label" not in found["unlabelled"]


def test_rows_given_as_numbers_override_fractions(tmp_path):
    """The default demo asks for exactly 2,000 test rows."""
    outcome, _, _ = prepare(write_csv(tmp_path / "d.csv", rows()), tmp_path, test_rows=31, validation_rows=17)
    assert (outcome["test_rows"], outcome["validation_rows"], outcome["train_rows"]) == (31, 17, 152)


def test_max_rows_is_a_stratified_part_of_train(tmp_path):
    """A part taken from the top of a sorted file would have one class."""
    data = sorted(rows(), key=lambda row: row["label"])
    _, found, _ = prepare(write_csv(tmp_path / "d.csv", data), tmp_path, max_rows=20)
    assert sum(found["train"]["label"]) == 10 and len(found["train"]["label"]) == 20


def test_pairs(tmp_path):
    """Pairs that share one sentence are different rows; both sentences must arrive in their columns."""
    data = [{"premise": "same", "hypothesis": f"h {i}", "label": i % 2} for i in range(50)]
    _, found, described = prepare(write_json(tmp_path / "d.jsonl", data), tmp_path)
    assert described["train"].columns == ("text_a", "text_b")
    assert set(found["train"]["text_a"]) == {"same"} and len(set(found["train"]["text_b"])) == 36


def test_regression(tmp_path):
    """Float labels must stay numbers, and the test must cover their range."""
    data = [{"sentence1": f"a {i}", "sentence2": f"b {i}", "score": i / 7} for i in range(300)]
    _, found, described = prepare(write_csv(tmp_path / "d.csv", data), tmp_path)
    assert (described["train"].kind, described["train"].labels, described["train"].metric) == (
        "regression",
        (),
        "pearson",
    )
    assert min(found["test"]["label"]) < 300 / 7 * 0.1 and max(found["test"]["label"]) > 300 / 7 * 0.9


@pytest.mark.parametrize(
    ("labels", "kind", "names"),
    [
        ([0.0, 1.0], "classification", ("0", "1")),
        (["10", "9"], "classification", ("9", "10")),
        ([True, False], "classification", ("false", "true")),
        (["yes", " no "], "classification", ("no", "yes")),
        ([i / 2 for i in range(11)], "regression", ()),
        (list(range(12)), "classification", tuple(map(str, range(12)))),
    ],
)
def test_kind_and_class_names_are_told_from_the_labels(tmp_path, labels, kind, names):
    """A wrong guess trains the wrong head."""
    data = [{"text": f"t {i}", "label": labels[i % len(labels)]} for i in range(132)]
    _, _, described = prepare(write_json(tmp_path / "d.jsonl", data), tmp_path)
    assert (described["train"].kind, described["train"].labels) == (kind, names)


def test_columns_named_by_flags(tmp_path):
    """Data whose columns have other names must be usable without a copy."""
    data = [{"a": f"x {i}", "b": f"y {i}", "c": i % 2} for i in range(40)]
    source = write_csv(tmp_path / "d.csv", data)
    _, _, described = prepare(source, tmp_path, text_column="a", text_pair_column="b", label_column="c")
    assert described["train"].columns == ("text_a", "text_b")


def test_given_test_rows_are_kept_and_leaks_leave_train(tmp_path):
    """The test must stay comparable with published figures; train must not know it."""
    train, test = rows(100), [{"text": "ROW 3 of  6 ", "label": "good"}, *rows(20, start=500)]
    train[3]["text"] = "row 3 of 6"
    outcome, found, described = prepare(
        write_csv(tmp_path / "a.csv", train), tmp_path, test_data=str(write_json(tmp_path / "b.jsonl", test))
    )
    assert found["test"]["text"] == [row["text"] for row in test]
    assert outcome["dropped_leaks"] == 1 and "row 3 of 6" not in found["train"]["text"] + found["validation"]["text"]
    assert any("leak" in note for note in described["train"].notes)


def test_conflicting_labels_are_reported(tmp_path):
    """A reader of the report should know that the labels disagree."""
    data = [*rows(40), {"text": rows(1)[0]["text"].upper(), "label": "good"}]
    outcome, _, described = prepare(write_csv(tmp_path / "d.csv", data), tmp_path)
    assert outcome["conflicting_labels"] == 1 and any("different labels" in n for n in described["train"].notes)


def test_unlabelled_rows_are_new_and_told_once(tmp_path):
    """The teacher's outputs on test texts would be a leak through distillation."""
    labelled = rows(50)
    more = [*({"text": row["text"].upper()} for row in labelled), {"text": "new"}, {"text": "NEW"}, {"text": "newer"}]
    source, other = write_csv(tmp_path / "d.csv", labelled), write_json(tmp_path / "u.jsonl", more)
    _, found, _ = prepare(source, tmp_path, unlabelled_data=f"{other}, {other}")
    assert found["unlabelled"]["text"] == ["new", "newer"]


def test_unlabelled_copies_of_labelled_rows_do_not_hide_behind_their_print(tmp_path):
    """SST has the movie reviews with spaces round the marks: the teacher would answer every test row."""
    labelled = [{"text": f"It's the film's {i}th reel -- a mess!", "label": ("x", "y")[i % 2]} for i in range(50)]
    other = [{"text": f"it 's the film 's {i}th reel a mess ."} for i in range(60)]
    file = write_json(tmp_path / "u.jsonl", [*other, {"text": "कि"}, {"text": "की"}, {"text": "!!"}, {"text": "??"}])
    _, found, _ = prepare(write_csv(tmp_path / "d.csv", labelled), tmp_path, unlabelled_data=str(file))
    assert found["unlabelled"]["text"] == [*(row["text"] for row in other[50:]), "कि", "की", "!!", "??"]


def test_a_folder_with_named_splits_is_read_as_such(tmp_path):
    """Test rows that are lumped into train would be trained on."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_csv(folder / "train-0.csv", rows(60))
    write_csv(folder / "train-1.csv", rows(60, start=60))
    write_csv(folder / "test.csv", rows(10, start=900))
    write_csv(folder / "validation.csv", rows(8, start=950))
    outcome, _, _ = prepare(folder, tmp_path)
    assert [outcome[f"{name}_rows"] for name in SPLITS] == [120, 8, 10, 0]
    assert prepare(str(folder / "train-*.csv"), tmp_path)[0]["test_rows"] == 24


@pytest.mark.parametrize("name", ["{}/part-0.csv", "reviews_{}.csv", "reviews.{}.csv"])
def test_files_whose_folder_or_ending_names_the_split(tmp_path, name):
    """Else the test rows that Spark or a script wrote beside are trained on, and others are drawn to test with."""
    for start, split in ((0, "train"), (1000, "test")):
        file = tmp_path / "data" / name.format(split)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_csv(file, rows(60, start=start))
    _, columns, _ = prepare(tmp_path / "data", tmp_path / "out")
    assert set(columns["test"]["text"]) == {row["text"] for row in rows(60, start=1000)}


def test_files_of_no_split_are_train_where_others_are_named(tmp_path):
    """The rows of test.csv beside reviews.csv would be trained on, without a word."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_csv(folder / "reviews.csv", rows(100))
    write_csv(folder / "test.csv", rows(20, start=900))
    _, found, _ = prepare(folder, tmp_path)
    assert found["test"]["text"] == [row["text"] for row in rows(20, start=900)]
    (folder / "reviews.csv").rename(folder / "dev.csv")
    (tmp_path / "again").mkdir()
    refused(folder, tmp_path / "again", "test and validation", "none to train on")


def test_labels_with_underscores_are_names(tmp_path):
    """Python reads 1_1 as 11: two classes become one, or sixteen codes a regression."""
    codes = [f"{a}_{b}" for a in range(1, 5) for b in range(1, 5)]
    data = [{"text": f"row {i}", "label": codes[i % 16]} for i in range(320)]
    _, _, described = prepare(write_csv(tmp_path / "d.csv", data), tmp_path)
    assert described["train"].kind == "classification" and list(described["train"].labels) == sorted(codes)


def test_validation_rows_that_are_all_in_test(tmp_path):
    """One file for both: no row is left to choose the best epoch by, which fine-tune finds out much later."""
    file = write_csv(tmp_path / "dev.csv", rows(20, start=900))
    given = {"validation_data": str(file), "test_data": str(file)}
    refused(write_csv(tmp_path / "d.csv", rows(100)), tmp_path, "all validation rows are in test too", **given)


def test_the_class_that_f1_is_of_can_be_chosen_and_is_told(tmp_path, capsys):
    """Else F1 of "legit" is reported for a detector of fraud, and a model that finds none keeps it all."""
    file = write_csv(tmp_path / "rows.csv", rows(100, classes=("fraud", "legit")))
    found, *_ = prepare(file, tmp_path / "one", metric="f1")
    assert found["classes"] == "fraud, legit" and "f1 is that of the class 'legit'" in capsys.readouterr().out
    found, *_ = prepare(file, tmp_path / "two", metric="f1", positive_class="fraud")
    assert found["classes"] == "legit, fraud" and "f1 is that of the class 'fraud'" in capsys.readouterr().out
    refused(file, tmp_path / "three", "--positive-class 'frau'", "fraud, legit", "'fraud'?", positive_class="frau")


def test_a_data_set_of_the_hub_uses_its_own_splits(tmp_path):
    """GLUE's test has no labels (-1): its validation split is the test, class names are the data set's own."""
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features({"sentence": Value("string"), "label": ClassLabel(names=["wrong", "right"])})

    def made(start, labels):
        texts = [f"s {start + i}" for i in range(len(labels))]
        return Dataset.from_dict({"sentence": texts, "label": labels}, features=features)

    DatasetDict(train=made(0, [0, 1] * 50), validation=made(200, [0, 1] * 5), test=made(300, [-1] * 10)).save_to_disk(
        tmp_path / "glue"
    )
    outcome, found, described = prepare(tmp_path / "glue", tmp_path)
    assert described["train"].labels == ("wrong", "right")
    assert found["test"]["text"] == [f"s {200 + i}" for i in range(10)] and outcome["validation_rows"] == 10
    assert any("used as test" in note for note in described["test"].notes)


def test_a_test_of_nothing_but_minus_one_has_no_labels(tmp_path):
    """GLUE's rows as a table: a test of -1 that is refused, or scored as numbers, where nobody named the classes."""
    for labels in ([0, 1], [round(0.1 * i, 1) for i in range(50)]):
        folder = tmp_path / f"of {len(labels)}"
        folder.mkdir()
        for split, count, start in (("train", 100, 0), ("dev", 20, 200), ("test", 9, 300)):
            data = [{"text": f"t {start + i}", "label": labels[i % len(labels)]} for i in range(count)]
            made = data if split != "test" else [row | {"label": -1} for row in data]
            write_csv(folder / f"{split}.csv", made)
        outcome, found, described = prepare(folder, folder)
        assert outcome["test_rows"] == 20 and found["test"]["text"][0] == "t 200"
        assert any("test split has no labels" in note for note in described["test"].notes)
        refused(folder / "train.csv", folder / "x", "no label at all", test_data=str(folder / "test.csv"))


def test_many_rows_in_small_batches(tmp_path):
    """Rows beyond the first batch must not shift against their labels."""
    data = [{"text": f"t {i}", "label": f"c{i % 7}"} for i in range(20_001)]
    _, found, described = prepare(write_parquet(tmp_path / "d.parquet", data), tmp_path)
    for name in SPLITS[:3]:
        for text, label in zip(found[name]["text"], found[name]["label"], strict=True):
            assert described[name].labels[label] == f"c{int(text[2:]) % 7}"


def test_classes_of_words_and_numbers_do_not_depend_on_their_order(tmp_path):
    """Classes named "1.0" and "good" are words: the first rows must not decide how the later ones are read."""
    names = ["1.0", "2.0", "good"]
    data = [{"text": f"t {i}", "label": names[i % 2] if i < 20 else names[i % 3]} for i in range(90)]
    for order in (data, data[::-1]):
        _, _, described = prepare(write_json(tmp_path / "d.jsonl", order), tmp_path)
        assert described["train"].labels == ("1.0", "2.0", "good")


def test_numbers_of_two_types_are_one_class_and_texts_are_not(tmp_path):
    """1 and 1.0 are one number; the texts "1" and "1.0" are codes that somebody chose. Either is told."""
    for labels, names, said in (
        ([1, 1.0, 0, 0.0], ("0", "1"), "of several types"),
        (["1", "1.0", "0", "0.0"], ("0", "0.0", "1", "1.0"), "'1', '1.0' are 2 classes"),
        (["7", "007", "+7", "7e0"], ("+7", "007", "7", "7e0"), "are 4 classes"),
    ):
        data = [{"text": f"t {i}", "label": labels[i % 4]} for i in range(60)]
        _, _, described = prepare(write_json(tmp_path / "d.jsonl", data), tmp_path)
        assert described["train"].labels == names
        assert any(said in note for note in described["train"].notes), described["train"].notes


def test_class_names_of_parquet_files_are_kept(tmp_path):
    """Without them, a data set that is prepared again or saved by datasets would have classes named 0 and 1."""
    from datasets import ClassLabel, Dataset, Features, Value

    _, _, first = prepare(write_csv(tmp_path / "d.csv", rows()), tmp_path)
    own = (tmp_path / "out" / "train.parquet").rename(tmp_path / "own.parquet")
    _, _, again = prepare(own, tmp_path)
    assert again["train"].labels == first["train"].labels == ("bad", "good")
    features = Features({"text": Value("string"), "label": ClassLabel(names=["wrong", "right"])})
    columns = {"text": [f"t {i}" for i in range(40)], "label": [0, 1] * 20}
    Dataset.from_dict(columns, features=features).to_parquet(str(tmp_path / "h.parquet"))
    assert prepare(tmp_path / "h.parquet", tmp_path)[2]["train"].labels == ("wrong", "right")


def test_a_guessed_kind_says_how_to_choose_the_other(tmp_path, capsys):
    """Ratings from 1 to 5 may be meant either way: a reader of the log must learn of the flag."""
    for labels, word in ((range(5), "--kind regression"), ([i / 2 for i in range(20)], "--kind classification")):
        data = [{"text": f"t {i}", "label": labels[i % len(labels)]} for i in range(200)]
        source = write_json(tmp_path / "d.jsonl", data)
        prepare(source, tmp_path)
        assert word in capsys.readouterr().out
    prepare(source, tmp_path, kind="regression")
    assert "--kind" not in capsys.readouterr().out


def test_the_only_column_of_unlabelled_data_is_its_text(tmp_path):
    """There is nothing to choose, and --text-column means the labelled rows."""
    more = write_json(tmp_path / "u.jsonl", [{"body": f"new {i}"} for i in range(5)])
    outcome, _, _ = prepare(write_csv(tmp_path / "d.csv", rows(50)), tmp_path, unlabelled_data=str(more))
    assert outcome["unlabelled_rows"] == 5


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
@pytest.mark.parametrize("group", [20_000, 400_000])
def test_memory_does_not_grow_with_the_file(tmp_path, group):
    """A file of 5 GB must not need 5 GB, be it one row group or many."""
    path, noise = tmp_path / "d.parquet", random.Random(0)
    texts = [noise.randbytes(300).hex() for _ in range(200_000)]
    table = pa.concat_tables([pa.table({"text": texts, "label": [i % 2 for i in range(200_000)]})] * 2)
    pq.write_table(table, path, row_group_size=group, compression="none", use_dictionary=False)
    code = (
        "import re, sys\nfrom kfp_bonsai.prepare_data.formats import DataFile\n"
        "file = DataFile(sys.argv[1], lambda: open(sys.argv[1], 'rb'))\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) >> 10\n"
        "next(file.batches(['label']))\nbefore = peak()\n"
        "for batch in file.batches(['text', 'label']): pass\nprint(peak() - before)"
    )
    grown = int(subprocess.check_output([sys.executable, "-c", code, path], text=True))
    size = path.stat().st_size >> 20
    assert size > 220 and grown < 0.75 * size, f"{grown} MB more while reading {size} MB"


# Bad input


def refused(data, folder: Path, *words: str, **options) -> str:
    with pytest.raises(BonsaiError) as caught:
        prepare(data, folder, **options)
    message = str(caught.value)
    for word in words:
        assert word in message, message
    left = [path for path in folder.rglob("*") if path.parent.name == "out" or ".parquet." in path.name]
    assert not left, "a refused run left outputs"
    return message


def with_row(index: int, **changes) -> list[dict]:
    data = rows(40)
    data[index] = {**data[index], **changes}
    return data


def test_missing_file(tmp_path):
    write_csv(tmp_path / "reviews.csv", rows(40))
    refused(tmp_path / "review.csv", tmp_path, "review.csv", "did you mean 'reviews.csv'", "--data")


@pytest.mark.parametrize("suffix", WRITERS)
def test_empty_file(tmp_path, suffix):
    (tmp_path / f"d{suffix}").touch()
    refused(tmp_path / f"d{suffix}", tmp_path, f"d{suffix} is empty")


def test_a_header_without_rows(tmp_path):
    (tmp_path / "d.csv").write_text("text,label\n")
    refused(tmp_path / "d.csv", tmp_path, "d.csv has no rows")
    pq.write_table(
        pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())}), tmp_path / "d.parquet"
    )
    refused(tmp_path / "d.parquet", tmp_path, "d.parquet has no rows")


def test_truncated_parquet(tmp_path):
    whole = write_parquet(tmp_path / "d.parquet", rows(5000)).read_bytes()
    (tmp_path / "d.parquet").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "d.parquet", tmp_path, "d.parquet is not a whole Parquet file")


def test_parquet_damaged_inside(tmp_path):
    whole = bytearray(write_parquet(tmp_path / "d.parquet", rows(5000)).read_bytes())
    whole[100:2000] = b"\xff" * 1900
    (tmp_path / "d.parquet").write_bytes(whole)
    refused(tmp_path / "d.parquet", tmp_path, "d.parquet cannot be read to its end")


def test_csv_that_calls_itself_parquet(tmp_path):
    write_csv(tmp_path / "d.csv", rows()).rename(tmp_path / "d.parquet")
    refused(tmp_path / "d.parquet", tmp_path, "not a whole Parquet file", ".csv")


def test_malformed_csv(tmp_path):
    path = write_csv(tmp_path / "d.csv", rows(40))
    path.write_text(path.read_text() + "a,b,c\n")
    refused(path, tmp_path, "d.csv, line 42 is malformed", "needs 2 values")


def test_a_quote_that_is_plain_text_in_a_table_with_tabs(tmp_path, monkeypatch):
    """Else all rows up to the next quote become one text, with their labels in it, and nothing is said."""
    data = rows(60)
    data[3]["text"], data[7]["text"] = '"Great start, but dull', 'the end"'
    lines = ["text\tlabel", *(f"{row['text']}\t{row['label']}" for row in data)]
    file = tmp_path / "rows.tsv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    _, found, _ = prepare(file, tmp_path / "read")
    texts = [text for name in SPLITS[:3] for text in found[name]["text"]]
    assert sorted(texts) == sorted(row["text"] for row in data)
    monkeypatch.setattr(delimited, "SAMPLE_CHARACTERS", 40)  # the quote comes after what says how the file is written
    refused(file, tmp_path / "out", "rows.tsv, line 5", "Great start", "over several rows", "a quote in it doubled")


def test_csv_that_is_not_utf8(tmp_path):
    path = write_csv(tmp_path / "d.csv", rows(40))
    path.write_bytes(path.read_bytes() + "café,good\n".encode("latin-1"))
    refused(path, tmp_path, "d.csv is not UTF-8")


def test_malformed_json_line(tmp_path):
    path = write_json(tmp_path / "d.jsonl", rows(40))
    path.write_text(path.read_text() + '{"text": "x",\n')
    refused(path, tmp_path, "d.jsonl, line 41", "not valid JSON")


def test_json_line_that_is_no_object_or_lacks_a_key(tmp_path):
    path = write_json(tmp_path / "d.jsonl", rows(40))
    path.write_text(path.read_text() + "[1]\n")
    refused(path, tmp_path, "line 41")
    path = write_json(tmp_path / "d.jsonl", [*rows(40), {"text": "no label"}])
    refused(path, tmp_path, "line 41", "no 'label'")


def test_missing_columns_with_near_names(tmp_path):
    data = [{"txet": row["text"], "other": 1, "label": row["label"]} for row in rows(40)]
    refused(write_csv(tmp_path / "d.csv", data), tmp_path, "no text column", "did you mean 'txet'", "--text-column")
    without_names = [{"what a very fine film": row["text"], "pos": row["label"]} for row in rows(40)]
    refused(write_csv(tmp_path / "d.csv", without_names), tmp_path, "pos; the first line is to name them")
    apart = [{"tokens": row["text"], "ner_tags": "O B-LOC"} for row in rows(40)]
    refused(write_csv(tmp_path / "d.csv", apart), tmp_path, "tokens and ner_tags, which hold no lists", "CoNLL")
    data = [{"text": row["text"], "lable": row["label"]} for row in rows(40)]
    refused(write_csv(tmp_path / "d.csv", data), tmp_path, "no label column", "did you mean 'lable'", "--label-column")
    refused(tmp_path / "d.csv", tmp_path, "'lables'", "did you mean 'lable'", label_column="lables")


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("column", ["text", "label"])
@pytest.mark.parametrize("value", [None, "  "])
def test_null_or_blank_texts_and_labels(tmp_path, suffix, column, value):
    data = with_row(6, **{column: value})
    path = write(tmp_path / f"d{suffix}", data)
    refused(path, tmp_path, f"d{suffix}", f"column '{column}'", "row 7", "--drop-empty")
    outcome, _, _ = prepare(path, tmp_path, drop_empty=True)
    assert sum(outcome[f"{name}_rows"] for name in SPLITS) == 39


def test_one_class_only(tmp_path):
    data = write_csv(tmp_path / "d.csv", rows(40, classes=("good",)))
    refused(data, tmp_path, "column 'label'", "every label is 'good'")


def test_labels_of_the_test_that_train_does_not_have(tmp_path):
    test = write_csv(tmp_path / "t.csv", [*rows(10, start=90), {"text": "z", "label": "goood"}])
    refused(
        write_csv(tmp_path / "d.csv", rows(40)),
        tmp_path,
        "t.csv, row 11",
        "'goood'",
        "did you mean 'good'",
        test_data=str(test),
    )


@pytest.mark.parametrize("flag", ["test_data", "validation_data"])
@pytest.mark.parametrize("label", [{}, {"label": ""}], ids=["no column", "no label in it"])
def test_a_test_file_of_a_competition_without_labels(tmp_path, flag, label):
    """Else the advice is --label-column, which cannot help, or the file is left out though it was asked for."""
    test = write_csv(tmp_path / "k.csv", [{"text": row["text"], **label} for row in rows(20, start=90)])
    data = write_csv(tmp_path / "d.csv", rows(40))
    message = refused(data, tmp_path, "k.csv", "accuracy cannot be measured", "--unlabelled-data", **{flag: str(test)})
    assert "--label-column" not in message


def test_a_test_file_whose_label_column_is_misspelt(tmp_path):
    """Else a test split that has labels is said to have none."""
    test = write_csv(tmp_path / "t.csv", [{"text": row["text"], "lable": row["label"]} for row in rows(20, start=90)])
    data = write_csv(tmp_path / "d.csv", rows(40))
    refused(data, tmp_path, "t.csv", "did you mean 'lable'", "rename it", test_data=str(test))


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_text_column_of_numbers(tmp_path, suffix):
    data = [{"text": i * 1.5, "label": i % 2} for i in range(40)]
    refused(write(tmp_path / f"d{suffix}", data), tmp_path, "column 'text'", "--text-column")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"test_fraction": 0.0}, "--test-fraction 0"),
        ({"test_fraction": 1.0}, "--test-fraction 1"),
        ({"validation_fraction": -0.1}, "--validation-fraction -0.1"),
        ({"validation_fraction": float("nan")}, "--validation-fraction nan"),
        ({"test_rows": -1}, "--test-rows -1"),
        ({"test_rows": 200}, "--test-rows 200"),
        ({"validation_rows": 1}, "--validation-rows 1"),
        ({"max_rows": 1}, "--max-rows 1"),
        ({"seed": -5}, "--seed -5"),
        ({"kind": "clasification"}, "did you mean 'classification'"),
        ({"kind": "regression"}, "'bad' is no number"),
        ({"metric": "acuracy"}, "did you mean 'accuracy'"),
        ({"metric": "pearson"}, "--metric pearson is not for classification"),
        ({"text_column": "txt"}, "did you mean 'text'"),
        ({"text_pair_column": "text"}, "--text-column"),
        ({"test_data": "nowhere.csv"}, "--test-data"),
        ({"unlabelled_data": "embedded:movies"}, "did you mean 'movie-reviews'"),
    ],
)
def test_flags_out_of_range(tmp_path, options, word):
    refused(write_csv(tmp_path / "d.csv", rows(40)), tmp_path, word, **options)


def test_too_few_rows_of_a_class(tmp_path):
    data = [*rows(40), {"text": "z", "label": "lonely"}]
    refused(write_csv(tmp_path / "d.csv", data), tmp_path, "too few rows", "'lonely' has 1")


def test_labels_that_are_as_many_as_rows(tmp_path):
    """Else someone whose label column holds names or keys is told to add rows."""
    data = [{"text": f"row {index}", "label": f"key {index}"} for index in range(5000)]
    refused(write_csv(tmp_path / "d.csv", data), tmp_path, "too few rows", "if these are no classes: --label-column")


def test_files_of_a_folder_with_different_columns(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_csv(folder / "a.csv", rows(40))
    write_csv(folder / "b.csv", [{"body": "x", "label": "good"}])
    refused(folder, tmp_path, "b.csv has no column 'text'", "a.csv")


def test_a_folder_without_data(tmp_path):
    refused(tmp_path, tmp_path, "holds no data")
    refused(tmp_path / "*.csv", tmp_path, "matches")


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_labels_that_are_not_finite(tmp_path, suffix, value):
    data = [{"text": f"t {i}", "label": value if i == 12 else i / 3} for i in range(60)]
    refused(write(tmp_path / f"d{suffix}", data), tmp_path, "column 'label'", "row 13")


def test_outputs_that_are_the_same_file_or_a_folder(tmp_path):
    data = str(write_csv(tmp_path / "d.csv", rows(40)))
    one = tmp_path / "x.parquet"
    with pytest.raises(BonsaiError, match="four different files"):
        prepare_data(data, one, one, tmp_path / "c", tmp_path / "d")
    with pytest.raises(BonsaiError, match="is a folder"):
        prepare_data(data, tmp_path, one, tmp_path / "c", tmp_path / "d")
    assert not one.exists()


def test_all_rows_of_train_are_test_rows(tmp_path):
    data = str(write_csv(tmp_path / "d.csv", rows(40)))
    refused(data, tmp_path, "all rows are in validation or test too", test_data=data)


def test_earlier_outputs_stay_when_a_run_is_refused(tmp_path):
    """Half of the old and half of the new splits would be mixed up."""
    prepare(write_csv(tmp_path / "d.csv", rows(40)), tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(BonsaiError):
        prepare(write_csv(tmp_path / "e.csv", rows(40, classes=("good",))), tmp_path)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def test_outputs_over_their_own_input(tmp_path):
    """The rows that a user owns would be replaced by a part of them."""
    refused_here = tmp_path / "out"
    refused_here.mkdir()
    data = write_parquet(refused_here / "train.parquet", rows(40))
    more = write_parquet(refused_here / "unlabelled.parquet", [{"text": "x"}])
    before = data.read_bytes(), more.read_bytes()
    with pytest.raises(BonsaiError, match=r"--train .*is read as input"):
        prepare(data, tmp_path)
    with pytest.raises(BonsaiError, match=r"--unlabelled .*is read as input"):
        prepare(write_csv(tmp_path / "d.csv", rows(40)), tmp_path, unlabelled_data=str(more))
    assert before == (data.read_bytes(), more.read_bytes())


def test_an_output_below_a_file(tmp_path):
    """Found at the end only, it would cost the whole preparation."""
    data = write_csv(tmp_path / "d.csv", rows(40))
    with pytest.raises(BonsaiError, match=r"--train .*d.csv is no folder"):
        prepare_data(str(data), data / "a.parquet", *(tmp_path / name for name in "bcd"))


def test_a_class_of_train_that_is_in_the_test_only(tmp_path):
    """All its rows are leaks: the message must say so where all splits are given."""
    train, test = [*rows(20), {"text": "z", "label": "lonely"}], [*rows(9, start=50), {"text": "Z", "label": "lonely"}]
    files = [write_csv(tmp_path / f"{i}.csv", each) for i, each in enumerate((train, test, rows(9, start=90)))]
    refused(files[0], tmp_path, "'lonely'", test_data=str(files[1]), validation_data=str(files[2]))


def test_integers_without_a_class_name(tmp_path):
    """A label of 7 in a data set of two classes is an error in the data."""
    _, _, _ = prepare(write_csv(tmp_path / "d.csv", rows()), tmp_path)
    table = pq.read_table(tmp_path / "out" / "test.parquet")
    labels = pa.array([7, *table["label"].to_pylist()[1:]])
    pq.write_table(table.set_column(1, table.schema.field("label"), labels), tmp_path / "x.parquet")
    refused_in = tmp_path / "again"
    refused_in.mkdir()
    (tmp_path / "x.parquet").rename(refused_in / "x.parquet")
    refused(refused_in / "x.parquet", refused_in, "row 1", "7", "bad, good")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text_column": "label"}, "'label' is both text and label"),
        ({"label_column": "text"}, "'text' is both text and label"),
        ({"text_column": "text", "text_pair_column": "text"}, "'text' is named twice"),
    ],
)
def test_one_column_for_two_things_is_refused(tmp_path, options, said):
    """A traceback of pyarrow's schema."""
    file = tmp_path / "r.csv"
    file.write_text("text,label\na fine film,pos\na dull film,neg\n")
    with pytest.raises(BonsaiError, match=said):
        prepare_data(str(file), *(tmp_path / name for name in ("a", "b", "c", "d")), **options)
