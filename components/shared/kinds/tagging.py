"""Texts in which stretches are tagged: names, places, what identifies a person.

A stretch is (begin, end, label) in characters, as not every language has spaces. A unit of the text is tagged B where a
stretch begins, I within it, O elsewhere; an I that continues nothing begins one, as in seqeval and conlleval.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from kfp_bonsai.shared.kinds.chances import of_one
from kfp_bonsai.shared.kinds.kind import IGNORED, ONE, TEXT, TEXT_TENSOR, TOKEN, Columns, Kind, Logits
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.kinds.units import first_tokens, units
from kfp_bonsai.shared.kinds.windows import Windows
from kfp_bonsai.shared.metrics import items

OUTSIDE = 0
Places = list[tuple[int, int]]  # of a text's units


def outputs(task: Task) -> tuple[str, ...]:
    """Return the tags: O, then B and I of each label."""
    return ("O", *(f"{tag}-{label}" for label in task.labels for tag in "BI"))


def tags_of(spans: items.Items, places: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the number of each unit's tag, shape (units,).

    Args:
        spans: stretches (begin, end, label).
        places: where the units begin and end.
    """
    begins = np.array([begin for begin, _ in places], int)
    found = np.full(len(places), OUTSIDE)
    for begin, end, label in sorted(spans):
        inside = np.flatnonzero((begins >= begin) & (begins < end))
        found[inside] = 2 + 2 * label
        found[inside[:1]] = 1 + 2 * label
    return found


def spans_of(tags: Sequence[int], places: Sequence[tuple[int, int]]) -> items.Items:
    """Return the stretches (begin, end, label) that units' tags say."""
    found: list[list[int]] = []
    before = OUTSIDE
    for tag, (begin, end) in zip(tags, places, strict=True):
        label, is_first = (tag - 1) // 2, tag % 2 == 1
        if tag != OUTSIDE:
            if is_first or before == OUTSIDE or (before - 1) // 2 != label:
                found.append([begin, end, label])
            else:
                found[-1][1] = end
        before = tag
    return tuple((begin, end, label) for begin, end, label in found)


def _is_answer(label: Any, task: Task) -> bool:
    return isinstance(label, list) and all(
        0 <= one["begin"] < one["end"] and 0 <= one["label"] < len(task.labels) for one in label
    )


def _right(columns: Columns, task: Task) -> list[items.Items]:
    """Return the stretches as units can say them: one that ends within a unit ends with it."""
    found = []
    for text, row in zip(columns["text"], columns["label"], strict=True):
        places = units(text, task.setting)
        found.append(spans_of(tags_of(_spans(row), places).tolist(), places))
    return found


def _spans(row: Sequence[Any]) -> items.Items:
    return tuple((one["begin"], one["end"], one["label"]) for one in row)


def _targets(labels: Sequence[Any], task: Task, windows: Windows | None) -> list[np.ndarray]:
    assert windows is not None
    found = []
    answering = first_tokens(windows, task.setting)
    for (row, places, tokens), offsets in zip(answering, windows.offsets, strict=True):
        target = np.full(max(1, len(offsets)), IGNORED, np.int64)
        there = tokens >= 0
        target[tokens[there]] = tags_of(_spans(labels[row]), places)[there]
        found.append(target)
    return found


def _predict(logits: Logits, task: Task, windows: Windows | None) -> list[items.Items]:
    return [spans_of(tags.tolist(), places) for places, tags, _ in _tagged(logits, task, windows)]


def _tell(logits: Logits, task: Task, windows: Windows | None) -> list[dict[str, Any]]:
    """Return the stretches of each row, scored by the mean chance of their units' tags."""
    assert windows is not None
    found = []
    for (text,), (places, tags, chances) in zip(windows.texts, _tagged(logits, task, windows), strict=True):
        begins = np.array([begin for begin, _ in places], int)
        spans = []
        for begin, end, label in spans_of(tags.tolist(), places):
            score = float(chances[(begins >= begin) & (begins < end)].mean())
            spans.append(
                {"begin": begin, "end": end, "label": task.labels[label], "text": text[begin:end], "score": score}
            )
        found.append({"spans": spans})
    return found


def _tagged(logits: Logits, task: Task, windows: Windows | None) -> list[tuple[Places, np.ndarray, np.ndarray]]:
    """Return of each row its units' places, their likeliest tags, and the chances of these."""
    assert windows is not None
    tags: list[np.ndarray] = [np.zeros(0, int)] * len(windows.texts)
    margins: list[np.ndarray] = [np.zeros(0)] * len(windows.texts)
    chances: list[np.ndarray] = [np.zeros(0)] * len(windows.texts)
    places_of: list[Places] = [[]] * len(windows.texts)
    for (row, places, tokens), found in zip(first_tokens(windows, task.setting), logits, strict=True):
        if len(tags[row]) != len(places):
            tags[row], margins[row] = np.full(len(places), OUTSIDE), np.full(len(places), -1.0)
            chances[row] = np.ones(len(places))
            places_of[row] = places
        margin = np.minimum(tokens, len(found) - 1 - tokens)  # of two windows, the one that shows more around a unit
        better = (tokens >= 0) & (margin > margins[row])
        tags[row][better] = found.argmax(axis=-1)[tokens[better]]
        chances[row][better] = of_one(found[tokens[better]]).max(axis=-1, initial=0)
        margins[row][better] = margin[better]
    return list(zip(places_of, tags, chances, strict=True))


def _floor(known: Columns, asked: Columns, task: Task) -> tuple[Any, str]:
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for text, row in zip(known["text"], known["label"], strict=True):
        places = units(text, task.setting)
        for (begin, end), tag in zip(places, tags_of(_spans(row), places).tolist(), strict=True):
            counts[text[begin:end]][tag] += 1
    usual = {word: found.most_common(1)[0][0] for word, found in counts.items()}
    predicted = []
    for text in asked["text"]:
        places = units(text, task.setting)
        predicted.append(spans_of([usual.get(text[begin:end], OUTSIDE) for begin, end in places], places))
    return predicted, "the tag that each word mostly has in the training split"


def _shares(labels: Sequence[Any], task: Task, _edges: Sequence[float] | None) -> dict[str, Any]:
    counts = np.bincount([one["label"] for row in labels for one in row], minlength=len(task.labels))
    shares = (counts / max(1, counts.sum())).tolist()
    return {"labels": list(task.labels), "shares": shares, "counted": int(counts.sum())}


KIND = Kind(
    columns=(TEXT,),
    target="spans",
    named=True,
    head=TOKEN,
    says=ONE,
    metrics=("span_f1",),
    answer="tags of words",
    outputs=outputs,
    means=lambda task: f"a list of stretches of its text with one of its {len(task.labels)} labels each",
    is_answer=_is_answer,
    targets=_targets,
    right=_right,
    predict=_predict,
    floor=_floor,
    shares=_shares,
    windows="longest_first",
    floor_name=("list of words", "list of words with the commonest tag of each"),
    hub=("token-classification", "Token Classification"),
    does="marking {labels}",
    tell=_tell,
    tensors=lambda _task: (("spans", TEXT_TENSOR, 0),),
    items="spans",
    hits=items.hits,
    errs="unless all its spans are right",
)
