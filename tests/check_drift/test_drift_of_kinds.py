"""check-drift on the other kinds of task: labels that are gone, new or rarer, and what is counted of them."""

from dataclasses import asdict, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from kinds_made import MADE, rows_of, splits, task_of

from kfp_bonsai.check_drift import check
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import drift
from kfp_bonsai.shared.data.tasks import schema
from kfp_bonsai.shared.kinds.kinds import KINDS


def profile_of(kind, folder, columns):
    """The profile of stated rows."""
    task = task_of(kind, "train", len(columns["label"]))
    table = pa.table({each.name: pa.array(columns[each.name], each.type) for each in schema(task)})
    pq.write_table(table.cast(schema(task)), folder / "train.parquet")
    return drift.profile(folder / "train.parquet", tiny.tokenizer())


@pytest.mark.parametrize("kind", MADE)
def test_rows_of_the_same_kind_are_no_drift(kind, tmp_path):
    """An alarm at every retraining of a tagger."""
    before, now = (profile_of(kind, tmp_path, rows_of(kind, 200, seed)) for seed in (0, 1))
    drift.check_profile(before, now, "champion.json")
    assert drift.label_shift(before, now) < drift.label_noise(before, now) + check.MAJOR_LABEL_SHIFT


@pytest.mark.parametrize("kind", ["multi-label", "tokens"])
def test_a_label_that_has_become_rare_is_told(kind, tmp_path):
    """A feed that lost its persons' names, and a champion that is trained to find none."""
    columns = rows_of(kind, 200, 1)
    number = (lambda one: one["label"]) if kind == "tokens" else (lambda one: one)
    kept = [[one for one in row if number(one) == 0 or at < 8] for at, row in enumerate(columns["label"])]
    before, now = (profile_of(kind, tmp_path, each) for each in (rows_of(kind, 200, 0), {**columns, "label": kept}))
    moved = {"label_shift": drift.label_shift(before, now), "label_noise": drift.label_noise(before, now)}
    assert "the labels' balance has shifted" in check._in_words({**moved, "vocabulary_shift": 0, "vocabulary_noise": 0})


def test_chance_is_told_by_the_labels_that_there_are_and_not_by_rows():
    """Ten thousand rows with twenty names among them: chance moves their labels' shares as it does those of twenty."""
    kind, task = KINDS["tokens"], task_of("tokens")
    chance, found = np.random.default_rng(0), []
    for _ in range(60):
        drawn = [{"begin": 0, "end": 1, "label": int(one)} for one in chance.integers(0, 2, 20)]
        rows = [[one] for one in drawn] + [[]] * 9980
        found.append({"rows": len(rows), **kind.shares(rows, task, None)})
    assert found[0]["counted"] == 20
    pairs = list(zip(found[::2], found[1::2], strict=True))
    beyond = [drift.label_shift(*pair) > drift.label_noise(*pair) for pair in pairs]
    assert np.mean(beyond) < 0.15
    assert np.mean([drift.label_shift(*pair) for pair in pairs]) > 20 * 2 / 10_000  # what rows would have told


@pytest.mark.parametrize("kind", ["multi-label", "tokens"])
def test_labels_that_are_gone_or_new_are_another_task(kind, tmp_path):
    """Tags that are numbered anew, and a tagger that is compared by them."""
    task = task_of(kind)
    check.check_schema(task, asdict(task), tmp_path)
    for labels, said in (
        (("bad", "good", "odd"), "labels that the champion does not know: odd"),
        (("good",), "no rows with the champion's: bad"),
        (("good", "bad"), "in another order"),
    ):
        with pytest.raises(BonsaiError, match=said):
            check.check_schema(replace(task, labels=labels), asdict(task), tmp_path)


@pytest.mark.parametrize(
    ("kind", "setting", "said"), [("tokens", "", "(none)"), ("questions", "unanswerable", "('unanswerable')")]
)
def test_rows_of_another_setting_are_another_task(kind, setting, said, tmp_path):
    """A tagger of words that is compared on texts whose words end elsewhere, or questions that may have no answer."""
    task = task_of(kind)
    with pytest.raises(BonsaiError) as caught:
        check.check_schema(replace(task, setting=setting), asdict(task), tmp_path)
    assert f"another setting {said}" in str(caught.value)


@pytest.mark.parametrize(("kind", "said"), [("ranking", "24 test queries are"), ("tokens", "96 test rows are")])
def test_too_few_queries_are_told(kind, said, tmp_path, capsys):
    """A hundred pairs that are but a few queries, of which promote can rule out nothing."""
    check._tell_few_rows(splits(tmp_path / "data", kind)["test"], 0.01, 1.0)
    assert said in capsys.readouterr().out


def test_a_count_of_labels_that_is_none_is_refused(tmp_path):
    """A champion.json that somebody edited, and a division by a text."""
    now = profile_of("tokens", tmp_path, rows_of("tokens", 40, 0))
    for counted in (-1, "x", None):
        with pytest.raises(BonsaiError, match=r"champion\.json holds no whole profile"):
            drift.check_profile({**now, "counted": counted}, now, "champion.json")
