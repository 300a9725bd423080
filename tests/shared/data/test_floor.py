"""The floor must be what words alone give, on the task's own metric."""

import random
import tracemalloc
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data.floor import floor, floor_and_method
from kfp_bonsai.shared.data.tasks import Task, schema

WORDS = ("awful", "fine", "splendid")
MOST_ROWS = "kfp_bonsai.shared.data.floor.MOST_ROWS"
ENGLISH = "I did not expect much of this film, but its ending is one that I will not forget 🙂"


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
    path = split(tmp_path / "s.parquet", rows, labels=(), metric="pearson", kind="regression")
    assert floor(path, path) > 0.9


def test_texts_without_a_word_do_not_crash(tmp_path):
    """Emoji-only texts leave an empty vocabulary."""
    path = split(tmp_path / "s.parquet", {"text": ["!", "?"] * 5, "label": [0, 1] * 5})
    assert floor(path, path) == 0.5


def test_one_class_alone_is_an_error(tmp_path):
    """scikit-learn's own message would not name the file."""
    for rows in (2, 0):
        path = split(tmp_path / "s.parquet", {"text": ["a"] * rows, "label": [0] * rows})
        with pytest.raises(BonsaiError, match=r"s\.parquet"):
            floor(path, path)


@pytest.mark.parametrize("most", [150, 220])
def test_rows_sorted_by_class_are_all_drawn_from(tmp_path, monkeypatch, most):
    """Were it the first rows, they would be of one class, which ended the run, or of two, a floor that is too low."""
    monkeypatch.setattr(MOST_ROWS, most)
    labels = [0] * 200 + [1] * 50 + [2] * 50
    rows = {"text": [f"a {WORDS[label]} film" for label in labels], "label": labels}
    path = split(tmp_path / "s.parquet", rows, labels=WORDS)
    assert floor(path, path) == 1.0


def test_a_class_too_rare_to_be_drawn_does_not_end_the_run(tmp_path, monkeypatch):
    """The split has both classes: to prepare it again would not help."""
    monkeypatch.setattr(MOST_ROWS, 10)
    rows = {"text": [f"a {WORDS[i == 500]} film" for i in range(1000)], "label": [int(i == 500) for i in range(1000)]}
    path = split(tmp_path / "s.parquet", rows)
    assert floor(path, path) == 0.999


def test_rows_that_are_not_drawn_are_not_held(tmp_path, monkeypatch):
    """A training split of gigabytes, held whole as Python strings, would not fit into memory."""
    test = split(tmp_path / "test.parquet", {"text": ["a fine film", "an awful film"], "label": [0, 1]})
    labels = [i % 2 for i in range(20_000)]
    train = split(tmp_path / "train.parquet", {"text": [f"{WORDS[i]} " + 1000 * "-" for i in labels], "label": labels})
    floor(test, test)  # which imports what it needs
    monkeypatch.setattr(MOST_ROWS, 100)
    tracemalloc.start()
    try:
        floor(train, test)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 5_000_000  # bytes, of 20 million characters


@pytest.mark.parametrize(
    ("letters", "words"),
    [
        ("我在这家店买了东西物流快递", ("差", "好")),  # Chinese, in comments shorter than a long English word
        ("この映画を見てとおもうたの", ("駄作", "すばらしい")),  # Japanese
        ("กขคงจชดตถทนบปพมยรลวสห", ("แย่", "ดี")),  # Thai
        ("कखगचजटडतदनपबमरलसह", (" बुरी ", " मीठी ")),  # Hindi: between vowel signs are single letters, no two
    ],
)
def test_languages_whose_words_are_not_between_spaces(tmp_path, letters, words):
    """By words every clause is one new word, and Hindi is cut at its vowel signs: the floor would be near chance."""
    chance = random.Random(0)

    def made(name):
        before, after = (["".join(chance.sample(letters, 3)) for _ in range(200)] for _ in range(2))
        rows = {"text": [before[i] + words[i % 2] + after[i] for i in range(200)], "label": [i % 2 for i in range(200)]}
        return split(tmp_path / name, rows)

    score, method = floor_and_method(made("train.parquet"), made("test.parquet"))
    assert score > 0.95
    assert "1 to 3 characters" in method


@pytest.mark.parametrize(
    "text",
    [
        ENGLISH,
        "Nice! ❤️❤️❤️",  # whose emoji have variation selectors, marks as well
        "https://example.org/a-page-with-a-long-address",
        "Donaudampfschifffahrtsgesellschaft Rechtsschutzversicherungsgesellschaften",
        unicodedata.normalize("NFD", "Tous les êtres humains naissent libres et égaux en dignité et en droits"),
        "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다",
        "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق",
        f"{ENGLISH} {ENGLISH} 很好",
    ],
)
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_languages_with_spaces_are_counted_by_words(tmp_path, text, kind):
    """Taken by characters, the floor would no longer be the bag of words that the report and README speak of."""
    metric, labels = ("accuracy", ("no", "yes")) if kind == "classification" else ("pearson", ())
    rows = {"text": [f"{text} {WORDS[i % 2]}" for i in range(10)], "label": [i % 2 for i in range(10)]}
    path = split(tmp_path / "s.parquet", rows, labels, metric, kind)
    assert "1 and 2 words" in floor_and_method(path, path)[1]


def split(path, rows, labels=("no", "yes"), metric="accuracy", kind="classification"):
    columns = tuple(name for name in rows if name != "label")
    task = Task("made", kind, columns, tuple(labels), metric, "made", "train", len(rows["label"]), "0")
    if kind == "regression":
        rows = {**rows, "label": [float(one) for one in rows["label"]]}
    pq.write_table(pa.table(rows, schema=schema(task)), path)
    return path
