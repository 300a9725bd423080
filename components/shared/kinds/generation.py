"""Texts to which a model writes an answer: a summary, a translation, the next turn of a conversation."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from kfp_bonsai.shared.kinds.kind import ONE, TEXT, TEXT_TENSOR, WRITTEN, Columns, Kind, Logits
from kfp_bonsai.shared.kinds.task import CHAT, JOINED, Task
from kfp_bonsai.shared.kinds.windows import Windows

TENTHS = 10


def _right(columns: Columns, _task: Task) -> list[str]:
    return [answer.strip() for answer in columns["label"]]


def _predict(texts: Logits, _task: Task, _windows: Windows | None) -> list[str]:
    return [text.strip() for text in texts]


def _tell(texts: Logits, task: Task, windows: Windows | None) -> list[dict[str, Any]]:
    return [{"answer": text} for text in _predict(texts, task, windows)]


def _floor(known: Columns, asked: Columns, task: Task) -> tuple[list[str], str]:
    usual = max(1, round(float(np.mean([len(answer.split()) for answer in known["label"]]))))
    texts = [_said_last(text) if task.setting == CHAT else text for text in asked["text"]]
    words = "1 word" if usual == 1 else f"{usual} words"
    return [" ".join(text.split()[:usual]) for text in texts], f"the first {words} of each text, as long as answers are"


def _said_last(conversation: str) -> str:
    content = json.loads(conversation)[-1]["content"]
    return content if isinstance(content, str) else ""


def _shares(labels: Sequence[str], _task: Task, edges: Sequence[float] | None) -> dict[str, Any]:
    lengths = [len(answer.split()) for answer in labels]
    edges = edges or np.quantile(lengths, np.arange(1, TENTHS) / TENTHS).tolist()
    counts = np.bincount(np.searchsorted(edges, lengths, side="right"), minlength=len(edges) + 1)
    return {"edges": edges, "shares": (counts / len(labels)).tolist()}


def _joined(answers: Sequence[str]) -> str:
    return JOINED if all(answer[:1].isspace() for answer in answers) else ""


KIND = Kind(
    columns=(TEXT,),
    target="text",
    named=False,
    head=WRITTEN,
    says=ONE,
    metrics=("rouge_l", "chrf", "exact_text"),
    answer="a text that is written",
    outputs=lambda _task: (),
    means=lambda _task: "a text",
    is_answer=lambda label, _task: isinstance(label, str) and bool(label.strip()),
    targets=lambda labels, _task, _windows: labels,
    right=_right,
    predict=_predict,
    floor=_floor,
    shares=_shares,
    floor_name=("copy of first words", "copy of the text's first words"),
    hub=("text-generation", "Text Generation"),
    does="writing answers to texts",
    tell=_tell,
    tensors=lambda _task: (("answer", TEXT_TENSOR, 0),),
    all_alike=lambda labels: len(set(labels)) < 2,
    setting=_joined,
    errs="unless its answer is exactly right",
    hits=lambda predicted, right: np.array([one == other for one, other in zip(predicted, right, strict=True)], bool),
    unit="answer",
)
