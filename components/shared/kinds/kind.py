"""What is known of a kind of task: to `task.kind` what a family is to `model_type`.

A kind is data and a few pure functions of numpy arrays. What follows from them is in no stage and in no kind: the class
of the model and its loss, what the teacher hands over, the axes of the ONNX graph, whether the last layer may leave
tokens out, the FLOPs of the head, the paired test, the confusion table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.kinds.windows import Windows
from kfp_bonsai.shared.metrics.scores import METRICS, score_predictions

# What a head gives logits for: a row, each token, where a span begins and ends, each token that is written.
ROW, TOKEN, SPAN, WRITTEN = "row", "token", "span", "text"
# What they say, of the last axis (of a span: of all tokens): one is right, any may be, a number.
ONE, ANY, NUMBER = "one", "any", "number"
# What there are losses for.
LEARNT = ((ROW, ONE), (ROW, ANY), (ROW, NUMBER), (TOKEN, ONE), (SPAN, ONE), (WRITTEN, ONE))
TEXT, PAIR = ("text",), ("text_a", "text_b")
TEXT_TENSOR, NUMBERS, PLACES = "BYTES", "FP32", "INT64"  # types of the Open Inference Protocol
NEVER = -1e4  # a logit of what cannot be
IGNORED = -100  # a target that no loss looks at, as torch's own


Logits = Any  # arrays, or a sequence of such; of a model that writes, the texts that it wrote
Columns = Mapping[str, Sequence[Any]]  # of rows: texts, and "label"


def number_a_row(logits: Logits, _task: Task, _windows: Windows | None) -> np.ndarray:
    """Return the one number that a model gives for each row, shape (rows,)."""
    return np.asarray(logits).reshape(len(logits), -1)[:, 0]


def by_metric(one: Any, other: Any, task: Task) -> tuple[float, str]:
    """Return what the second model scores where the first one's predictions are the right answers, and the score."""
    metric = task.metric
    return score_predictions(metric, other, one, classes=max(2, len(task.labels))), METRICS[metric].words


@dataclass(frozen=True)
class Kind:
    """A kind of task.

    Attributes:
        columns: names of the text columns that its rows may have.
        target: what a row's right answer is, the column "label": a key of tasks.TYPES.
        named: whether the classes have names, task.labels; there may be fewer outputs, such as one number.
        head: what the model gives logits for, ROW, TOKEN, SPAN or WRITTEN.
        says: what its logits say, ONE, ANY or NUMBER: it decides the losses.
        windows: which text of a row is cut into windows that overlap, where a row is longer than an input:
            "longest_first" or "only_second", as the tokenizers library calls it; empty: such a row is cut off.
        metrics: keys of METRICS, the default first.
        outputs: names of what a model has logits for, in their order.
        answer: what an answer is, in words, such as "a number".
        means: what a right answer is, for the message about one that is none.
        is_answer: whether a stored value is a right answer.
        targets: the losses' targets, of the labels of a column and, where there are windows, of those: one a window;
            of a model that writes, the answers as texts, of which a tokenizer makes tokens.
        right: the right answers as the metrics take them, of a split's columns.
        predict: what logits predict, as the metrics take it, one a row.
        group: the text whose rows belong together, so that no split parts them; empty: each row stands alone.
        items: what predictions are sets of (of tuples whose last entry is a label, see metrics/items.py), by which
            they are reported, and where any may be right, told by a threshold; empty: they are no sets.
        hits: which rows are right, for the paired test; nothing where a row is not right or wrong.
        scored: what a score is of, and what intervals draw again: rows, or what a group of them is, such as queries.
        errs: when a row is wrong, in words; empty where that goes without saying.
        agreement: how well predictions of one model follow another's, 1 if always, and its name.
        floor: what costs next to nothing, trained on the first rows: predictions for the others, and what it is.
        floor_name: what that is called, short, and in full.
        all_alike: whether labels are all the same, so that nothing can be learnt from them.
        setting: what a task has to know of all its right answers (Task.setting), given as `TYPES` orders their fields.
        shares: what labels look like in `shares` that add up to 1, by which drift is told, beside what they are the
            shares of: names (`labels`), or numbers between which others lie (`edges`, given or new). Where not rows are
            counted, `counted` says how many were.
        hub: the task as the model hub calls it, for programs and for people.
        does: what a model is for, in words, with the place of the labels' names.
        tell: what is answered for each row, of logits, as plain JSON.
        tensors: the entries of such an answer: each one's name, its type in the Open Inference Protocol, and how many
            numbers it has a row, 0 if it is one.
        unit: what one inference is, of which energy and time are told.
        lacking: stages that do not know such tasks yet, by their commands.
    """

    columns: tuple[tuple[str, ...], ...]
    target: str
    named: bool
    head: str
    says: str
    metrics: tuple[str, ...]
    answer: str
    outputs: Callable[[Task], tuple[str, ...]]
    means: Callable[[Task], str]
    is_answer: Callable[[Any, Task], bool]
    targets: Callable[[Sequence[Any], Task, Windows | None], Any]
    right: Callable[[Columns, Task], Any]
    predict: Callable[[Logits, Task, Windows | None], Any]
    floor: Callable[[Columns, Columns, Task], tuple[Any, str]]
    shares: Callable[[Sequence[Any], Task, Sequence[float] | None], dict[str, Any]]
    hub: tuple[str, str]
    does: str
    tell: Callable[[Logits, Task, Windows | None], list[dict[str, Any]]]
    tensors: Callable[[Task], tuple[tuple[str, str, int], ...]]
    windows: str = ""
    group: str = ""
    items: str = ""
    scored: str = "rows"
    errs: str = ""
    floor_name: tuple[str, str] = ("bag of words", "bag of words with a linear model")
    agreement: Callable[[Any, Any, Task], tuple[float, str]] = by_metric
    all_alike: Callable[[Sequence[Any]], bool] = lambda _labels: False
    setting: Callable[[Sequence[Any]], str] = lambda _answers: ""
    hits: Callable[[Any, Any], np.ndarray] | None = None
    unit: str = "inference"
    lacking: tuple[str, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether a model writes its answers, token by token."""
        return self.head == WRITTEN

    def __post_init__(self) -> None:
        """Refuse what nothing here learns."""
        if (self.head, self.says) not in LEARNT:
            raise ValueError(
                f"a {self.head}'s logits that say '{self.says}' are not learnt yet (known: "
                f"{', '.join(f'{head} {says}' for head, says in LEARNT)}): add the loss to shared/training/losses.py, "
                "what fine-tune learns by to fine_tune/learn.py, and both to LEARNT"
            )

    @property
    def is_one_class(self) -> bool:
        """Whether a row is of one class, so that there are a confusion table and a curve."""
        return self.head == ROW and self.says == ONE

    @property
    def has_thresholds(self) -> bool:
        """Whether labels of a row are told from none by a threshold."""
        return self.says == ANY and bool(self.items)

    @property
    def is_number(self) -> bool:
        """Whether a row is a number, which is learnt about 0."""
        return self.says == NUMBER
