"""check-drift: what is another task, what has moved, and what is nothing but chance."""

import json
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

from kfp_bonsai.check_drift.check import MAJOR_LABEL_SHIFT, check_drift
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import drift
from kfp_bonsai.shared.data.tasks import Task, schema
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.saved import champion as champions
from kfp_bonsai.shared.storage.store import write_pointer


def split(folder: Path, texts: list[str], labels: list, names=("bad", "good"), kind="classification") -> Path:
    """Write a training split of stated rows."""
    folder.mkdir(parents=True, exist_ok=True)
    digest = str(hash(tuple(texts)))
    task = Task("made", kind, ("text",), tuple(names), KINDS[kind].metrics[0], "made", "train", len(texts), digest)
    pq.write_table(pa.table({"text": texts, "label": labels}).cast(schema(task)), folder / "train.parquet")
    return folder / "train.parquet"


def rows(count: int, seed: int, share: float = 0.5) -> tuple[list[str], list[int]]:
    """Texts as tiny makes them, with this share of good ones."""
    found = tiny.texts(count * 3, seed)
    good, bad = ([row for row in found if row[1] == label] for label in (1, 0))
    chosen = good[: round(share * count)] + bad[: count - round(share * count)]
    random.Random(seed).shuffle(chosen)
    return [text for text, _ in chosen], [label for _, label in chosen]


@pytest.fixture
def check(made, tmp_path):
    """Check new rows against a champion trained on 400 rows; options go to check-drift."""
    before = split(tmp_path / "before", *rows(400, 1))
    document = tmp_path / "champion.json"
    profile = drift.profile(before, tiny.tokenizer())
    document.write_text(json.dumps({"format": 1, "version": "0", "profile": profile}))

    def run(train: Path, **options):
        where = str(tmp_path / "champion")
        inputs = (where, document, made.baseline, train, made.validation, made.test, tmp_path / "drift.json")
        return check_drift(*inputs, **options)

    return run


def test_more_rows_of_the_same_kind_are_no_drift(check, tmp_path):
    """An alarm at every run, so that nobody reads them."""
    found = check(split(tmp_path / "new", *rows(300, 2)), on_drift="stop")
    assert found["todo"] == "train" and found["label_shift"] < 0.05
    assert found["vocabulary_shift"] < found["vocabulary_noise"] + 0.05


def test_a_shifted_balance_is_told_and_stops_the_run_if_asked(check, tmp_path):
    """A feed that lost half of one class, and a champion that is trained on it."""
    train = split(tmp_path / "new", *rows(300, 2, share=0.9))
    assert "the labels' balance has shifted (population stability index" in check(train)["reason"]
    with pytest.raises(BonsaiError, match=r"balance has shifted .* go on with --on-drift warn"):
        check(train, on_drift="stop")


def test_another_vocabulary_is_told(check, tmp_path):
    """A feed whose texts were replaced, with the same labels."""
    texts, labels = rows(300, 2)
    found = check(split(tmp_path / "new", [f"music {len(text)} scene music" for text in texts], labels))
    assert "the vocabulary has shifted (Jensen-Shannon distance" in found["reason"]


@pytest.mark.parametrize(
    ("names", "labels", "said"),
    [
        (("good", "bad"), [0, 1, 1], r"in another order \(good, bad\) than the champion \(bad, good\)"),
        (("bad", "good", "odd"), [0, 1, 2], "labels that the champion does not know: odd"),
        (("good",), [0, 0, 0], "no rows with the champion's: bad"),
        (("bad", "fine"), [0, 1, 1], "labels that the champion does not know: fine"),
    ],
)
def test_other_labels_are_another_task(check, tmp_path, names, labels, said):
    """Classes that are numbered anew, and a model that is compared by them."""
    with pytest.raises(BonsaiError, match=said):
        check(split(tmp_path / "new", ["a film", "the film", "it was"], labels, names))


def test_another_kind_of_task_is_refused(check, tmp_path):
    """A model with two outputs that is compared with one with one."""
    with pytest.raises(BonsaiError, match=r"is regression of 1 text column.*start it with `bonsai run`"):
        check(split(tmp_path / "new", ["a film", "the film"], [0.1, 0.7], (), "regression"))


def test_test_rows_that_can_promote_nothing_are_told_before_training(check, tmp_path, capsys):
    """An hour of training, after which promote finds that the rows are too few for the margin."""
    train = split(tmp_path / "new", *rows(300, 2))
    check(train, margin=0.01)
    assert "test rows are too few to rule out a loss above 1 %" in capsys.readouterr().out
    check(train, margin=0.5)
    assert "too few" not in capsys.readouterr().out


def test_data_that_was_decided_on_is_not_trained_on_again(check, made, tmp_path):
    """GPU hours every night for nothing; and --again, which must go on nevertheless."""
    train = split(tmp_path / "new", *rows(300, 2))
    data = champions.data_sha256([train, made.validation, made.test])
    decision = {"promoted": False, "reason": "it was worse"}
    write_pointer(champions.decision_at(str(tmp_path / "champion"), data), decision, None)
    found = check(train)
    assert found["todo"] == "nothing" and "it was worse" in found["reason"]
    assert check(train, again=True)["todo"] == "train"


def test_data_that_made_the_champion_is_not_trained_on_again(check, made, tmp_path):
    """A promotion whose note could not be written, and a second champion from the same data."""
    train = split(tmp_path / "new", *rows(300, 2))
    document = tmp_path / "champion.json"
    data = champions.data_sha256([train, made.validation, made.test])
    document.write_text(json.dumps(json.loads(document.read_text()) | {"data_sha256": data}))
    found = check(train)
    assert found["todo"] == "nothing" and "the champion was made from it" in found["reason"]


def test_the_deciles_of_numbers_are_compared(tmp_path):
    """A regression whose targets have moved, and that counts as unchanged."""
    texts = [f"a film {number}" for number in range(200)]

    def profile(name: str, labels: list[float], edges=None) -> dict:
        return drift.profile(split(tmp_path / name, texts, labels, (), "regression"), tiny.tokenizer(), edges)

    before = profile("a", [i / 200 for i in range(200)])
    same = profile("b", [((i * 7) % 200) / 200 for i in range(200)], before["edges"])
    moved = profile("c", [0.5 + i / 400 for i in range(200)], before["edges"])
    assert drift.label_shift(before, same) < 0.01 and drift.label_shift(before, moved) > 1


def test_many_classes_of_few_rows_are_not_said_to_shift():
    """Else of 77 intents every retraining is told of a shift, and stopped, that is only chance."""
    chance = np.random.default_rng(0)
    draws = [chance.multinomial(500, np.full(77, 1 / 77)) for _ in range(40)]
    profiles = [{"rows": 500, "shares": (draw / 500).tolist()} for draw in draws]
    found = [(drift.label_shift(*pair), drift.label_noise(*pair)) for pair in pairwise(profiles)]
    assert np.mean([shift > MAJOR_LABEL_SHIFT for shift, _ in found]) > 0.9
    assert not any(shift > noise + MAJOR_LABEL_SHIFT for shift, noise in found)


@pytest.mark.parametrize("name", ["rows", "shares", "tokens", "noise"])
@pytest.mark.parametrize("value", [None, "x", True, [], {}, [0.5], -1, ["a", "b"], {"1": "x"}, [float("inf"), 0.5]])
def test_a_profile_of_another_type_is_refused(made, tmp_path, name, value):
    """A champion.json that somebody edited or that was cut off ended in a TypeError, or in a distance from nothing."""
    train = split(tmp_path / "before", *rows(60, 1))
    profile = drift.profile(train, tiny.tokenizer())
    if (name, value) == ("tokens", {}):
        return  # a champion whose texts had no token
    document = tmp_path / "champion.json"
    document.write_text(json.dumps({"format": 1, "version": "0", "profile": {**profile, name: value}}))
    inputs = (str(tmp_path / "c"), document, made.baseline, train, made.validation, made.test, tmp_path / "drift.json")
    with pytest.raises(BonsaiError, match=r"champion.json holds no whole profile .*fetch the champion again"):
        check_drift(*inputs)
    assert not (tmp_path / "drift.json").exists()


def test_edges_that_are_no_rising_numbers_are_refused(tmp_path):
    """Labels would be counted between them all the same."""
    assert drift.check_edges({"edges": [0.1, 2]}, "champion.json") == [0.1, 2]
    for edges in (3, [], [2, 1], ["a"], [1, None], {"a": 1}):
        with pytest.raises(BonsaiError, match=r"champion.json has no rising numbers"):
            drift.check_edges({"edges": edges}, "champion.json")
