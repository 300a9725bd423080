"""The transfer set: what it holds, its bound on disk, and its refusals."""

import errno
import os
import re
import shutil
import signal
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from kfp_bonsai.report.table import make_rows
from kfp_bonsai.shared.core import stopping
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.data.augment import augment
from kfp_bonsai.shared.data.batches import by_length
from kfp_bonsai.shared.data.rows import tokenize
from kfp_bonsai.shared.saved.records import read_record, write_record
from kfp_bonsai.shared.training import attempts, transfer
from kfp_bonsai.teacher_outputs import room
from kfp_bonsai.teacher_outputs.more_text import changed_copies
from kfp_bonsai.teacher_outputs.outputs import suggested_copies, teacher_outputs


def test_it_holds_training_rows_copies_and_unlabelled_text(made):
    """Else students learn from less text than was paid for."""
    data = transfer.open_set(made.transfer)
    assert len(data) == made.outputs["rows"]
    assert 320 + 64 + 300 < len(data) <= 320 + 64 + 320  # a copy that is no other text is left out
    assert int((data.labels != transfer.NO_LABEL).sum()) == 320


def test_few_rows_are_changed_more_often(made, tmp_path):
    """Else a student learns few rows by heart; or many rows fill the disk with hidden states for nothing."""
    found = teacher_outputs(made.baseline, made.train, made.unlabelled, tmp_path / "out", unlabelled_rows=0)
    assert 320 * 8 < found["rows"] <= 320 * (1 + 8)
    assert (suggested_copies(20_000, 400_000), suggested_copies(1_000_000, 20_000_000)) == (3, 0)


def test_long_texts_are_changed_as_often_as_their_tokens_allow():
    """Copies were counted by rows alone: of 5,000 reviews of 230 tokens, ten times the price of as many snippets."""
    assert [suggested_copies(rows, rows * 230) for rows in (1_000, 5_000, 25_000)] == [8, 3, 0]


def test_text_without_spaces_is_changed_by_its_signs():
    """Else Chinese, Japanese or Thai gets no changed copies, or two whole texts glued together."""
    texts = ["这部电影的情节非常精彩而且演员也很好", "故事太长了让人觉得无聊并且没有什么意思"]
    found = [row for block in changed_copies([texts], 8, seed=0) for row in block[0]]
    assert len(found) > 10 and all(set(row) <= set("".join(texts)) for row in found)
    assert sum(len(row) < len(texts[0]) for row in found) > 5 and max(map(len, found)) < sum(map(len, texts))


def test_short_comments_without_spaces_are_changed_too():
    """Of at most 12 signs they counted as one word: few copies were new, each two whole texts and a space."""
    texts = ["剧情很无聊", "演员演得真好", "这部电影太长了", "音乐好听"]
    found = [row for block in changed_copies([texts], 8, seed=0) for row in block[0]]
    assert len(found) > 16 and not any(" " in row for row in found)


def test_no_text_is_answered_twice():
    """Else texts that are too short to be changed are learnt several times over, and paid for each time."""
    columns = [["good", "a bad film", "the same again and again"], ["x", "y", "z"]]
    found = changed_copies(columns, 8, seed=0)
    rows = [row for block in found for row in zip(*block, strict=True)]
    assert len(rows) == len(set(rows)) > 4
    assert not set(rows) & set(zip(*columns, strict=True))


@pytest.mark.parametrize(("asked", "used"), [(-1, 64), (10, 10), (500, 64), (0, 0)])
def test_the_record_says_how_much_text_without_labels_was_used(made, tmp_path, asked, used):
    """Else nobody can tell afterwards whether such text was there, and what it was worth."""
    options = {"augmentations": 0, "hidden_positions": 1, "unlabelled_rows": asked}
    teacher_outputs(made.baseline, made.train, made.unlabelled, tmp_path / "out", **options)
    lineage = read_record(tmp_path / "out")["lineage"]
    assert lineage[-1]["arguments"]["unlabelled_rows"] == used
    assert len(transfer.open_set(tmp_path / "out")) == 320 + used
    assert make_rows({"models": [{"level": "tiny", "lineage": lineage}]}, "main")[0]["unlabelled_rows"] == used


def test_long_rows_keep_only_so_many_hidden_states(made, tmp_path):
    """Else the disk that a transfer set takes has no bound."""
    bounded = {"augmentations": 0, "unlabelled_rows": 0, "hidden_positions": 4}
    teacher_outputs(made.baseline, made.train, made.unlabelled, tmp_path / "out", **bounded)
    data = transfer.open_set(tmp_path / "out")
    assert len(data) == 320
    assert data.hidden.shape == (320 * 4, 32)
    assert all(data[index]["positions"][0] == 0 for index in range(5))


def test_the_texts_are_those_that_the_tokens_are_of(made):
    """Else a student with a tokenizer of its own learns what the teacher said of another row."""
    data, (texts,) = transfer.open_set(made.transfer), transfer.texts_of(made.transfer)
    tokenizer = AutoTokenizer.from_pretrained(made.baseline)
    found = tokenize(tokenizer, [texts], data.record["max_length"]).inputs["input_ids"]
    assert len(found) == len(data) > 320 + 64 and len(set(texts)) > 600
    assert all(map(np.array_equal, found, data.inputs["input_ids"]))


@given(length=st.integers(1, 600), most=st.integers(1, 600))
def test_kept_positions_are_different_and_within_the_row(length, most):
    """Else a hidden state is matched twice, or read beyond its row."""
    kept = transfer.positions(length, most)
    assert len(kept) == min(length, most) == len(set(kept.tolist()))
    assert kept[0] == 0 and kept.max() < length


@given(
    st.lists(st.text(alphabet="ab c", min_size=1, max_size=12).filter(str.strip), min_size=1, max_size=5),
    st.integers(0, 50),
)
def test_changed_copies_use_only_words_of_the_texts(texts, seed):
    """Else augmentation invents words or loses rows."""
    (changed,) = augment([texts], seed)
    words = {word for text in texts for word in text.split()}
    assert len(changed) == len(texts)
    assert all(set(text.split()) <= words for text in changed)


def test_a_damaged_set_is_refused(made, tmp_path):
    """Else a copy that broke off trains students on other rows' states."""
    shutil.copytree(made.transfer, tmp_path / "set")
    np.save(tmp_path / "set" / "hidden.npy", np.zeros((3, 32), np.float16))
    with pytest.raises(BonsaiError, match="incomplete"):
        transfer.open_set(tmp_path / "set")
    with pytest.raises(BonsaiError, match="holds no teacher outputs"):
        transfer.open_set(tmp_path)


def test_a_full_disk_is_told_as_one(made, tmp_path, monkeypatch):
    """Else the process ends by SIGBUS, without a word, when the memory map meets the end of the disk."""

    def full(file, offset, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(BonsaiError, match="no space left on the disk"):
        teacher_outputs(made.baseline, made.train, made.unlabelled, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def sized(made, tmp_path, monkeypatch, free):
    """Make a transfer set on a disk with so much room beside the models to come."""
    monkeypatch.setattr(room, "MODELS", 0)
    monkeypatch.setattr(room, "free_bytes", lambda folder: free)
    return teacher_outputs(made.baseline, made.train, made.unlabelled, tmp_path / "out", augmentations=3)


def test_its_size_is_told_before_it_is_made(made, tmp_path, monkeypatch, capsys):
    """Else a disk is full after an hour, or is bought twice as large as needed."""
    found = sized(made, tmp_path, monkeypatch, 10**12)
    first = capsys.readouterr().out.splitlines()[0]
    rows, tokens, most = (
        float(text.replace(",", "")) for text in re.findall(r"([\d,.]+) (?:rows|tokens|MB)", first)[:3]
    )
    assert (rows, tokens) == (found["rows"], found["tokens"]) and "(320 of training, " in first
    taken = sum(path.stat().st_size for path in (tmp_path / "out").glob("[hr]*[ty]")) / 1e6
    assert 0.6 * most < taken <= most + 0.05


def test_what_has_no_room_on_the_disk_is_left_out_and_told(made, tmp_path, monkeypatch, capsys):
    """Else a long text's transfer set fills the disk, or is another one than was asked for without a word."""
    whole = sized(made, tmp_path / "whole", monkeypatch, None)
    taken = sum(path.stat().st_size for path in (tmp_path / "whole" / "out").iterdir())
    assert "WARNING" not in capsys.readouterr().out
    fewer = sized(made, tmp_path / "fewer", monkeypatch, int(0.95 * taken))
    assert fewer["rows"] == whole["rows"] and 8 <= fewer["hidden_positions"] < 64
    assert f"with {fewer['hidden_positions']} hidden states a row" in capsys.readouterr().out.splitlines()[1]
    assert read_record(tmp_path / "fewer" / "out")["hidden_positions"] == fewer["hidden_positions"]
    less = sized(made, tmp_path / "less", monkeypatch, int(0.5 * taken))
    said = capsys.readouterr().out.splitlines()[1]
    assert less["hidden_positions"] == 8 and "WARNING" in said and f"{less['rows']:,} rows (320 of training, " in said
    data = transfer.open_set(tmp_path / "less" / "out")
    assert len(data) == less["rows"] < whole["rows"] and int((data.labels != transfer.NO_LABEL).sum()) == 320
    assert "64 unlabelled" in said, "changed copies go before real text"
    for name in ("whole", "fewer", "less"):
        assert sum(path.stat().st_size for path in (tmp_path / name / "out").glob("[hr]*[ty]")) <= taken
    least = sized(made, tmp_path / "least", monkeypatch, int(0.25 * taken))
    assert least["rows"] < 320 + 64 and " 0 changed copies" in capsys.readouterr().out.splitlines()[1]


def test_a_disk_without_room_for_the_training_rows_is_refused_before_the_teacher_runs(made, tmp_path, monkeypatch):
    """Else the teacher runs for an hour, and the student learns from a part of the labels."""
    monkeypatch.setattr(transfer, "Writer", None)
    with pytest.raises(BonsaiError, match=r"with 0.0 MB free.* training rows alone .*larger disk"):
        sized(made, tmp_path, monkeypatch, 20_000)
    assert list(tmp_path.iterdir()) == []


def test_long_rows_make_small_batches():
    """Else 64 rows of 512 tokens with all layers' states take gigabytes; or a row is answered twice or never."""
    lengths = [3] * 10 + [200] * 5 + [512] * 3 + [128] * 4
    found = list(by_length(lengths, 8))
    assert sorted(number for numbers in found for number in numbers) == list(range(22))
    assert [len(numbers) for numbers in found] == [8, 5, 2, 2, 2, 2, 1]
    assert all(len(numbers) * lengths[numbers[-1]] <= 8 * 128 for numbers in found)
    assert list(by_length([5000], 4)) == [[0]] and list(by_length([], 4)) == []


def test_rows_that_are_cut_are_counted(made, tmp_path, capsys):
    """Else nobody learns that most reviews are read to their 256th token only."""
    shutil.copytree(made.baseline, tmp_path / "base")
    write_record(tmp_path / "base", {**read_record(made.baseline), "max_length": 10})
    teacher_outputs(tmp_path / "base", made.train, made.unlabelled, tmp_path / "out", augmentations=0)
    columns = [tasks.read_columns(path)["text"] for path in (made.train, made.unlabelled)]
    longer = sum(len(text.split()) > 8 for texts in columns for text in texts)
    assert f"{longer} rows are longer than 10 tokens" in capsys.readouterr().out and 50 < longer < 384


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"unlabelled_rows": -2}, "--unlabelled-rows is -2"),
        ({"augmentations": -2}, "--augmentations is -2"),
        ({"hidden_positions": 0}, "--hidden-positions is 0"),
        ({"train": "unlabelled"}, "has no labels"),
    ],
)
def test_bad_input_is_refused(made, tmp_path, changes, said):
    """Else a traceback of range(), or students that never see a label."""
    if "train" in changes:
        changes = {"train": made.unlabelled}
    with pytest.raises(BonsaiError, match=said):
        teacher_outputs(
            **{"model": made.baseline, "train": made.train, "unlabelled": made.unlabelled} | changes,
            output=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


def test_rows_of_other_classes_are_refused(made, tmp_path):
    """Students that learn from labels whose numbers mean something else to their teacher."""
    task = replace(tasks.read_task(made.train), labels=("good", "bad"))
    pq.write_table(pq.read_table(made.train).cast(tasks.schema(task)), tmp_path / "train.parquet")
    with pytest.raises(BonsaiError, match=r"is not of the data set that .*baseline was trained on"):
        teacher_outputs(made.baseline, tmp_path / "train.parquet", made.unlabelled, tmp_path / "out")


def test_a_baseline_that_has_learnt_nothing_is_refused(made, tmp_path):
    """Else all levels are trained before the measurement says that nothing can be relative to a score of 0."""
    shutil.copytree(made.baseline, tmp_path / "base")
    record = read_record(tmp_path / "base")
    write_record(tmp_path / "base", {**record, "validation": {"accuracy": 0.0}})
    with pytest.raises(BonsaiError, match="scores 0 by accuracy on its validation rows"):
        teacher_outputs(tmp_path / "base", made.train, made.unlabelled, tmp_path / "out")


def _last_of(rows, column: str) -> int:
    """Where the values of a column's first block end in a Parquet file."""
    group = pq.ParquetFile(rows).metadata.row_group(0)
    columns = [group.column(at) for at in range(group.num_columns)]
    found = next(one for one in columns if one.path_in_schema.startswith(column))
    return found.data_page_offset + found.total_compressed_size - 8


def test_a_damaged_transfer_set_is_refused_in_words(made, tmp_path):
    """Students are trained from it for hours: pyarrow's exceptions, or another teacher's numbers, without a word."""
    folder = shutil.copytree(made.transfer, tmp_path / "transfer")
    rows = folder / transfer.ROWS
    whole, table = rows.read_bytes(), pq.read_table(rows)
    middle = bytearray(whole)
    middle[_last_of(rows, "logits")] ^= 1
    for content in (whole[:-40], bytes(middle), b"PAR1"):
        rows.write_bytes(content)
        with pytest.raises(BonsaiError, match=r"transfer is damaged .*make it again"):
            transfer.open_set(folder)
    for changed in (
        table.drop(["logits"]),
        table.drop(["input_ids"]),
        table.drop(["labels"]),
        table.slice(3),
        table[:0],
    ):
        pq.write_table(changed, rows)
        with pytest.raises(BonsaiError, match=r"transfer is (damaged|incomplete).*make it again"):
            transfer.open_set(folder)
    rows.write_bytes(whole)
    middle = bytearray(whole)
    middle[_last_of(rows, "text")] ^= 1
    rows.write_bytes(bytes(middle))
    with pytest.raises(BonsaiError, match=r"transfer is damaged .*make it again"):
        transfer.texts_of(folder)
    rows.write_bytes(whole)
    table = pq.read_table(rows)
    for name, other in (
        ("input_ids", "a text"),
        ("logits", 1.0),
        ("logits", ["a"]),
        ("labels", "a"),
        ("labels", [None]),
    ):
        pq.write_table(table.set_column(table.schema.names.index(name), name, pa.array([other] * len(table))), rows)
        with pytest.raises(BonsaiError, match=r"is damaged.*make it again"):
            transfer.open_set(folder)
    rows.write_bytes(whole)
    states = np.load(folder / transfer.HIDDEN)
    for other in (states[:-1], states[:, 0], states.astype(np.float64), states + 1):
        np.save(folder / transfer.HIDDEN, other)
        with pytest.raises(BonsaiError, match=r"(transfer is incomplete|is damaged).*make it again"):
            transfer.open_set(folder)
    (folder / transfer.HIDDEN).write_bytes(b"")
    with pytest.raises(BonsaiError, match=r"is damaged.*make it again"):
        transfer.open_set(folder)


@pytest.mark.parametrize("way", ["TERM", "KILL"])
def test_what_was_written_is_gone_on_after(made, tmp_path, monkeypatch, way, capsys):
    """Each start of a teacher that is ended after an hour begins anew; or the set is another one."""
    options = {"augmentations": 2, "batch_size": 32}
    teacher_outputs(made.baseline, made.train, made.unlabelled, tmp_path / "whole", **options)
    monkeypatch.setenv(attempts.SECONDS, "0")
    add, done = transfer.Writer.add, {"batches": 0, "all": 0}

    def ending(self, *given):
        done["all"] += 1
        done["batches"] += 1
        add(self, *given)
        if done["batches"] == 7:
            if way == "KILL":
                raise KeyboardInterrupt
            stopping._on_signal(signal.SIGTERM, None)  # the signal itself has ended a whole run of tests

    monkeypatch.setattr(transfer.Writer, "add", ending)
    handler = signal.getsignal(signal.SIGTERM)
    for free in (1 << 40, 1 << 20, 1 << 20):  # the disk fills meanwhile
        monkeypatch.setattr(stopping, "_asked", None)
        monkeypatch.setattr(room, "free_bytes", lambda folder, free=free: free)
        done["batches"] = 0
        with pytest.raises((SystemExit, KeyboardInterrupt)):
            teacher_outputs(made.baseline, made.train, made.unlabelled, tmp_path / "out", **options)
    monkeypatch.setattr(stopping, "_asked", None)
    done["batches"] = 100
    teacher_outputs(made.baseline, made.train, made.unlabelled, tmp_path / "out", **options)
    signal.signal(signal.SIGTERM, handler)
    whole, found = (transfer.open_set(tmp_path / name) for name in ("whole", "out"))
    assert (tmp_path / "out" / "rows.parquet").read_bytes() == (tmp_path / "whole" / "rows.parquet").read_bytes()
    assert np.array_equal(found.hidden, whole.hidden)
    assert len(found) > 20 * 32 and "resuming after batch" in capsys.readouterr().out
    assert done["all"] <= -(-len(found) // 32) + (3 if way == "KILL" else 0), "batches were answered again"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


@pytest.mark.parametrize(("moment", "linked"), [("_put", True), ("hidden_sha256", True), ("hidden_sha256", False)])
def test_an_end_while_all_is_put_together_is_gone_on_after(made, tmp_path, monkeypatch, moment, linked):
    """A teacher that is killed after its last batch fails at each start from then on, or begins anew."""
    given = (made.baseline, made.train, made.unlabelled, tmp_path / "out")
    if not linked:
        monkeypatch.setattr(transfer.os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "other disk")))
    with monkeypatch.context() as patch:
        patch.setattr(transfer, moment, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            teacher_outputs(*given, augmentations=0)
    monkeypatch.setattr(transfer.Writer, "add", None)  # nothing is answered again
    teacher_outputs(*given, augmentations=0)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    transfer.open_set(tmp_path / "out")


@pytest.mark.parametrize("damage", ["block", "note", "hidden", "one state", "a link"])
def test_a_part_that_is_damaged_is_not_gone_on_after(made, tmp_path, monkeypatch, damage, capsys):
    """A transfer set that another attempt's damage is in, or one that fails at each start."""
    options = {"augmentations": 0, "batch_size": 32}
    teacher_outputs(made.baseline, made.train, made.unlabelled, tmp_path / "whole", **options)
    monkeypatch.setenv(attempts.SECONDS, "0")
    with monkeypatch.context() as patch:
        patch.setattr(transfer.Writer, "close", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            teacher_outputs(made.baseline, made.train, made.unlabelled, tmp_path / "out", **options)
    (hidden,) = tmp_path.glob(".out.*/hidden.npy")
    if damage == "hidden":
        os.truncate(hidden, 5000)
    elif damage == "a link":
        hidden.unlink()
        hidden.symlink_to("/dev/zero")
    else:
        file = hidden if damage == "one state" else sorted(tmp_path.glob(".out.*/rows-*.parquet"))[2]
        content = bytearray(file.read_bytes())
        content[content.index(b"spent") if damage == "note" else 200] ^= 1
        file.write_bytes(content)
    teacher_outputs(made.baseline, made.train, made.unlabelled, tmp_path / "out", **options)
    for name in ("rows.parquet", "hidden.npy"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert "is damaged" in capsys.readouterr().out
