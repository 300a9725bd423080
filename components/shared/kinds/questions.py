"""Questions whose answers are stretches of a text, or not in it."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from kfp_bonsai.shared.kinds.kind import NUMBERS, ONE, PAIR, PLACES, SPAN, TEXT_TENSOR, Columns, Kind, Logits
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.kinds.windows import Windows
from kfp_bonsai.shared.metrics import squad

UNANSWERABLE = "unanswerable"  # the setting of a task in which some questions have no answer
MOST_TOKENS = 30  # of an answer
NOWHERE = 0  # the token that says "not in this window": no token of the text can be first
BEST = 20  # places for each end that are looked at


def _is_answer(label: Any, _task: Task) -> bool:
    return isinstance(label, list) and all(one["text"] and one["begin"] >= 0 for one in label)


def _right(columns: Columns, _task: Task) -> list[list[str]]:
    return [[one["text"] for one in row] for row in columns["label"]]


def _targets(labels: Sequence[Any], _task: Task, windows: Windows | None) -> np.ndarray:
    assert windows is not None
    found = np.zeros((len(windows.rows), 2), np.int64)
    for window, (row, offsets, sides) in enumerate(
        zip(windows.rows.tolist(), windows.offsets, windows.sides, strict=True)
    ):
        for answer in labels[row][:1]:
            begin, end = answer["begin"], answer["begin"] + len(answer["text"])
            tokens = np.flatnonzero((sides == 1) & (offsets[:, 0] < end) & (offsets[:, 1] > begin))
            if len(tokens) and offsets[tokens[0], 0] <= begin and offsets[tokens[-1], 1] >= end:
                found[window] = tokens[0], tokens[-1]
    return found


def _predict(logits: Logits, task: Task, windows: Windows | None) -> list[str]:
    return [answer["answer"] for answer in _tell(logits, task, windows)]


def _tell(logits: Logits, task: Task, windows: Windows | None) -> list[dict[str, Any]]:
    """Return each row's answer and where it is, scored by the chance of both its ends in their window.

    No answer stands at -1, and is scored by the chance that the window that shows most of one shows none.
    """
    assert windows is not None
    best = [(-np.inf, 0, 0, 0.0)] * len(windows.texts)
    none = [(np.inf, 0.0)] * len(windows.texts)
    for row, offsets, sides, found in zip(windows.rows.tolist(), windows.offsets, windows.sides, logits, strict=True):
        score, begin, end = _best(found[: len(sides)], sides, offsets)
        whole = _log_sum(found)
        if score > best[row][0]:
            best[row] = score, begin, end, float(np.exp(score - whole))
        lacking = float(found[NOWHERE].sum())
        none[row] = min(none[row], (lacking, float(np.exp(lacking - whole))))
    may_be_none = task.setting == UNANSWERABLE
    told = []
    for (_, text), (score, begin, end, chance), (lacking, no_chance) in zip(windows.texts, best, none, strict=True):
        if not text[begin:end].strip() or (may_be_none and lacking > score):
            told.append({"answer": "", "begin": -1, "end": -1, "score": no_chance})
            continue
        begin += len(text[begin:end]) - len(text[begin:end].lstrip())
        answer = text[begin:end].rstrip()
        told.append({"answer": answer, "begin": begin, "end": begin + len(answer), "score": chance})
    return told


def _log_sum(logits: np.ndarray) -> float:
    """Return the logarithm of what both ends' chances are shares of, of a window's logits (tokens, 2)."""
    highest = logits.max(axis=0).astype(float)
    return float((highest + np.log(np.exp(logits - highest).sum(axis=0))).sum())


def _best(logits: np.ndarray, sides: np.ndarray, offsets: np.ndarray) -> tuple[float, int, int]:
    """Return the score of the likeliest stretch of a window's text, and where it is."""
    there = np.flatnonzero(sides == 1)
    if not len(there):
        return -np.inf, 0, 0
    begins, ends = (there[np.argsort(-logits[there, end], kind="stable")[:BEST]] for end in (0, 1))
    first, last = np.meshgrid(begins, ends, indexing="ij")
    scores = np.where((last >= first) & (last - first < MOST_TOKENS), logits[first, 0] + logits[last, 1], -np.inf)
    at = np.unravel_index(scores.argmax(), scores.shape)
    return float(scores[at]), int(offsets[first[at], 0]), int(offsets[last[at], 1])


def _floor(_known: Columns, asked: Columns, _task: Task) -> tuple[Any, str]:
    predicted = []
    for question, text in zip(asked["text_a"], asked["text_b"], strict=True):
        wanted = set(squad.plain(question).split())
        sentences = re.split(r"(?<=[.!?。！？])\s*", text)
        predicted.append(max(sentences, key=lambda one: len(wanted & set(squad.plain(one).split()))).strip())
    return predicted, "the sentence that shares most words with the question"


def _agreement(one: Any, other: Any, _task: Task) -> tuple[float, str]:
    return float(squad.compared(other, [[answer] if answer else [] for answer in one])[:, 1].mean()), "F1 of answers"


def _shares(labels: Sequence[Any], _task: Task, _edges: Sequence[float] | None) -> dict[str, Any]:
    answered = sum(bool(row) for row in labels) / len(labels)
    return {"labels": ["answered", "not in the text"], "shares": [answered, 1 - answered]}


KIND = Kind(
    columns=(PAIR,),
    target="answers",
    named=False,
    head=SPAN,
    says=ONE,
    metrics=("answer_f1", "exact_match"),
    answer="a stretch of a text",
    outputs=lambda _task: ("begin", "end"),
    means=lambda _task: "a list of answers, each with its place in the text",
    is_answer=_is_answer,
    targets=_targets,
    right=_right,
    predict=_predict,
    agreement=_agreement,
    floor=_floor,
    shares=_shares,
    floor_name=("count of shared words", "search for the sentence that shares most words with the question"),
    hub=("question-answering", "Question Answering"),
    does="finding answers to questions in texts",
    tell=_tell,
    tensors=lambda _task: (
        ("answer", TEXT_TENSOR, 0),
        ("begin", PLACES, 0),
        ("end", PLACES, 0),
        ("score", NUMBERS, 0),
    ),
    windows="only_second",
    group="text_b",
    setting=lambda answers: "" if all(answers) else UNANSWERABLE,
    errs="unless its answer is exactly right",
    hits=squad.hits,
)
