"""Right answers by their type in a split (a key of TYPES): how they are kept, written, shared out and told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kfp_bonsai.prepare_data import split


@dataclass(frozen=True)
class Target:
    """What is done with right answers of a type.

    Attributes:
        example: rows that have such answers, for who gave others.
        shared: how a draw does justice to all of them, in words.
        strata: what a draw takes its share of, a number a row; nothing where whole groups of rows are drawn.
        coded: an answer that is a list, as a tuple with codes for names of labels, or a text; nothing where it is a
            class or a number.
        numbered: such a tuple with other numbers for the codes.
        labels: the labels' numbers in such a tuple.
    """

    example: str
    shared: str
    strata: Callable[[np.ndarray], np.ndarray]
    coded: Callable[[Sequence[Any], Callable[[Any], int]], Any] | None = None
    numbered: Callable[[Any, Sequence[int]], Any] = lambda answer, _numbers: answer
    labels: Callable[[tuple], Sequence[int]] = lambda _answer: ()

    @property
    def of_lists(self) -> bool:
        """Whether an answer is a list, or a text: no class and no number."""
        return self.coded is not None


def _rarest(labels: Callable[[tuple], Sequence[int]]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda answers: split.rarest([labels(answer) for answer in answers])


def _span_labels(answer: tuple) -> list[int]:
    return [label for _, _, label in answer]


TARGETS = {
    "class": Target("texts and a label a row", "by the share of each class", lambda values: values),
    "number": Target(
        "query, document and relevance (a number), or query, positive and negative",
        "evenly over the range of the labels",
        split.quantile_bins,
    ),
    "classes": Target(
        'a column of lists of names, such as label: ["toxic", "insult"], or a column of 0 and 1 for each label, '
        "named as --label-column toxic,insult",
        "by the rarest label of each row",
        _rarest(list),
        coded=lambda labels, code: tuple(map(code, labels)),
        numbered=lambda answer, numbers: tuple(sorted(numbers[one] for one in answer)),
        labels=list,
    ),
    "spans": Target(
        'tokens: ["In", "Oslo"] and ner_tags: ["O", "B-LOC"], a CoNLL file, or text: "In Oslo" and entities: '
        '[{"start": 3, "end": 7, "label": "LOC"}]',
        "by the rarest label of each row",
        _rarest(_span_labels),
        coded=lambda found, code: tuple((begin, end, code(label)) for begin, end, label in found),
        numbered=lambda answer, numbers: tuple((begin, end, numbers[label]) for begin, end, label in answer),
        labels=_span_labels,
    ),
    "answers": Target(
        'question, context, and answers: {"text": ["Oslo"], "answer_start": [3]}, or SQuAD\'s own file',
        "by how many have an answer",
        lambda answers: np.array([bool(answer) for answer in answers], int),
        coded=lambda found, _code: tuple(found),
    ),
    "text": Target(
        'prompt and completion, document and summary, messages: [{"role": "user", "content": "..."}, {"role": '
        '"assistant", "content": "..."}], or a text and an answer',
        "at random",
        lambda answers: np.zeros(len(answers), int),
        coded=lambda answer, _code: answer,
    ),
}
