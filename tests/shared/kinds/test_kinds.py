"""Kinds of task: what is asked of each, and what none may do."""

import random

import numpy as np
import pytest
from kinds_made import MADE, WRITERS, rows_of, task_of
from tiny import tokenizer

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data.rows import tokenize
from kfp_bonsai.shared.kinds import kinds
from kfp_bonsai.shared.kinds.kind import IGNORED, ONE, ROW, SPAN
from kfp_bonsai.shared.kinds.tagging import outputs, spans_of, tags_of
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.kinds.units import units
from kfp_bonsai.shared.metrics.scores import METRICS, score_predictions

TASK = Task("films", "classification", ("text",), ("bad", "good"), "accuracy", "made", "test", 1, "")


@pytest.mark.parametrize("head", ["row", "tokens"])
def test_broken_outputs_are_an_error(head):
    """Argmax of NaN is class 0, which would look like a result."""
    broken = np.array([[np.nan, 1.0]])
    with pytest.raises(BonsaiError, match="NaN"):
        kinds.score(TASK, broken if head == "row" else [broken], [0])


@pytest.mark.parametrize("name", kinds.KINDS)
def test_a_kinds_metrics_are_known(name):
    """A kind that is prepared, trained, and then cannot be scored."""
    assert kinds.KINDS[name].metrics and set(kinds.KINDS[name].metrics) <= set(METRICS)


def test_every_kind_is_taken_through_the_stages():
    """A kind that is added, and of which no test ever makes a row: the first two are what most tests are of."""
    assert kinds.KINDS.keys() - MADE.keys() - WRITERS.keys() == {"classification", "regression"}


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("name", MADE)
def test_a_model_that_gives_the_targets_scores_one(name, family):
    """Targets that stand at other tokens than predictions are read from, or are lost where a row is several windows."""
    task, columns = task_of(name), rows_of(name, 60, 0)
    kind = kinds.kind_of(task)
    read = tokenize(tokenizer(family), [columns[one] for one in task.columns], 12, kind.windows)
    targets, right = kind.targets(columns["label"], task, read.windows), kind.right(columns, task)
    count = len(kind.outputs(task))
    logits = [_sure(kind, target, length, count) for target, length in zip(targets, read.lengths, strict=True)]
    logits = np.stack(logits) if kind.head == ROW else logits
    assert not kind.windows or len(read) > len(right)  # some rows are several windows
    for metric in kind.metrics:
        predicted = kinds.predict(task, logits, read.windows)
        assert score_predictions(metric, predicted, right, classes=kinds.classes_of(task)) == pytest.approx(1)
    assert kind.agreement(predicted, predicted, task)[0] == pytest.approx(1)
    assert not kind.hits or kind.hits(predicted, right).all()


def _sure(kind, target, length, count):
    """Return logits that say the target."""
    if kind.head == ROW and kind.says == ONE:
        return 9 * np.eye(count)[target]
    if kind.head == ROW:
        return np.atleast_1d(target if kind.is_number else 10 * np.asarray(target) - 5)
    found = np.zeros((length, count))
    for place, one in enumerate(target):
        if kind.head == SPAN:
            found[one, place] = 9
        elif one != IGNORED:
            found[place, one] = 9
    return found


@pytest.mark.parametrize("name", MADE)
def test_the_floor_is_a_prediction_for_each_row(name):
    """A report without the figure that tells whether a model was needed at all."""
    task, known, asked = task_of(name), rows_of(name, 80, 1), rows_of(name, 40, 2)
    kind = kinds.kind_of(task)
    predicted, method = kind.floor(known, asked, task)
    score = score_predictions(task.metric, predicted, kind.right(asked, task), classes=kinds.classes_of(task))
    assert 0 <= score <= 1 and method
    assert sum(kind.shares(known["label"], task, None)["shares"]) == pytest.approx(1)


def test_spans_are_seqevals():
    """Tags that mean other stretches than everybody's: I after O, or after another label, begins one."""
    from seqeval.metrics import f1_score

    names, chance = outputs(task_of("tokens")), random.Random(0)
    said, right, tagged = [], [], []
    for _ in range(200):
        places = [(2 * number, 2 * number + 1) for number in range(chance.randint(1, 12))]
        both = [[chance.choice([0, 0, 1, 2, 3, 4]) for _ in places] for _ in range(2)]
        tagged.append([[names[tag] for tag in tags] for tags in both])
        for tags, to in zip(both, (said, right), strict=True):
            to.append(spans_of(tags, places))
        assert spans_of(tags_of(right[-1], places).tolist(), places) == right[-1]
    expected = f1_score([other for _, other in tagged], [one for one, _ in tagged])
    found = METRICS["span_f1"]
    assert found.of(found.table(said, right, 2), 2) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "setting", "wanted"),
    [
        ("In U.N. halls", "words", ["In", "U.N.", "halls"]),
        ("In U.N. halls", "", ["In", "U", ".", "N", ".", "halls"]),
        ("東京 is Tokyo.", "", ["東", "京", "is", "Tokyo", "."]),
        ("Köln2 –ja", "", ["Köln2", "–", "ja"]),
        ("", "", []),
    ],
)
def test_the_units_of_a_text(text, setting, wanted):
    """A full stop that is part of a name, or a sentence without spaces that can be tagged only as one."""
    assert [text[begin:end] for begin, end in units(text, setting)] == wanted


@pytest.mark.parametrize(
    ("said", "right", "exact", "f1"),
    [
        ("the Norman army", ["Norman army"], 1, 1),
        ("An  ARMY.", ["army"], 1, 1),
        ("Theatre", ["atre"], 0, 0),  # an article is a word
        ("state of the-art", ["state of theart"], 1, 1),  # signs go before articles are looked for
        ("U.S.", ["us"], 1, 1),
        ("1,066", ["1066"], 1, 1),
        ("\u201carmy\u201d", ["army"], 0, 0),  # signs are those of ASCII
        ("$5", ["5"], 1, 1),
        ("in 1066 AD", ["1066", "year 1066"], 0, 0.5),
        ("1066", ["in the year 1066", "year of 1066", "year 1066"], 0, 2 / 3),  # the best of several
        ("red red blue", ["red blue blue"], 0, 2 / 3),  # words count as often as they are on both sides
        ("", [], 1, 1),
        ("x", [], 0, 0),
        ("the", [], 1, 1),  # nothing is left of it
        ("", ["army"], 0, 0),
        ("", ["the", "The Who"], 0, 0),  # an answer that nothing is left of is none
        ("Who", ["the", "The Who"], 1, 1),
        ("", ["..."], 1, 1),
    ],
)
def test_answers_are_compared_as_squads_script_does(said, right, exact, f1):
    """Scores that nobody can compare with those that are published of SQuAD 2.0."""
    assert METRICS["answer_f1"].table([said], [right], 2)[0].tolist() == pytest.approx([exact, f1])


def test_ranks_are_the_textbooks():
    """MRR of queries in another order, or gains of ties that depend on the order of rows."""
    from sklearn.metrics import ndcg_score

    chance = np.random.default_rng(0)
    scores, grades = chance.normal(size=(30, 15)).round(1), chance.integers(0, 3, (30, 15)).astype(float)
    right = np.stack([np.repeat(np.arange(30), 15), grades.ravel()], axis=1)
    shuffled = chance.permutation(450)
    found = METRICS["ndcg@10"]
    table = found.table(scores.ravel()[shuffled], right[shuffled], 2)
    assert found.of(table, 2) == pytest.approx(ndcg_score(grades, scores, k=10))
    first = METRICS["mrr@10"].table(np.array([3.0, 2.0, 1.0, 5.0]), np.array([[0, 0], [0, 1], [0, 0], [1, 0]]), 2)
    assert first.tolist() == [[0.5]]  # the second query has nothing to find
