"""Rows of a text and the answer to be written, in the forms in which people have them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kfp_bonsai.prepare_data.prepare import prepare_data
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data import tasks

SPLITS = ("train", "validation", "test", "unlabelled")
ROWS = [(f"the film number {number} was long", f"film {number}") for number in range(20)]


def turn(role, content):
    return {"role": role, "content": content}


FORMS = {
    "prompt": lambda text, answer: {"prompt": text, "completion": answer},
    "joined": lambda text, answer: {"prompt": text, "completion": f" {answer}"},
    "summary": lambda text, answer: {"id": 1, "document": text, "summary": answer},
    "alpaca": lambda text, answer: {"instruction": "Name it.", "input": text, "output": answer},
    "translation": lambda text, answer: {"translation": {"en": text, "de": answer}},
    "messages": lambda text, answer: {"messages": [turn("user", text), turn("assistant", answer)]},
    "system": lambda text, answer: {
        "messages": [turn("system", "Name it."), turn("user", text), turn("assistant", answer)]
    },
    "parts": lambda text, answer: {
        "messages": [
            turn(who, [{"type": "text", "text": said}]) for who, said in (("user", text), ("assistant", answer))
        ]
    },
    "turns": lambda text, answer: {"prompt": [turn("user", text)], "completion": [turn("assistant", answer)]},
    "sharegpt": lambda text, answer: {
        "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": answer}]
    },
}
CHATS = ("messages", "system", "parts", "turns", "sharegpt")


def prepare(path: Path, **options):
    """Prepare a file; return all labelled rows, and the test's task."""
    paths = [path.parent / "out" / f"{name}.parquet" for name in SPLITS]
    prepare_data(str(path), *paths, **{"kind": "generation", **options})
    found = [tasks.read_columns(one) for one in paths[:3]]
    rows = sorted(pair for each in found for pair in zip(each["text"], each["label"], strict=True))
    return rows, tasks.read_task(paths[2])


def lines(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("parquet", [False, True], ids=["json", "parquet"])
def test_the_ways_in_which_people_write_prompts_and_answers_are_read(form, parquet, tmp_path):
    """A form that a trainer's users have, refused, or with the answer left in what the model is asked."""
    rows = [FORMS[form](*row) for row in ROWS]
    path = tmp_path / ("d.parquet" if parquet else "d.jsonl")
    if parquet:
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        lines(path, rows)
    found, task = prepare(path)
    assert len(found) == len(ROWS) and {answer.strip() for _, answer in found} == {answer for _, answer in ROWS}
    assert task.setting == ("chat" if form in CHATS else "joined" if form == "joined" else "")
    for text, answer in found:
        wanted = next(asked for asked, said in ROWS if said == answer.strip())
        if form in CHATS:
            messages = json.loads(text)
            assert messages[-1] == turn("user", wanted) and len(messages) == 1 + (form == "system")
        else:
            assert text == (f"Name it.\n\n{wanted}" if form == "alpaca" else wanted)


def test_a_conversation_is_answered_by_its_last_turn(tmp_path):
    """An earlier turn of the assistant taken for the answer, or lost from what was said before."""
    rows = [
        {"messages": [turn("user", "hi"), turn("assistant", "hello"), turn("user", text), turn("assistant", answer)]}
        for text, answer in ROWS
    ]
    found, _ = prepare(lines(tmp_path / "d.jsonl", rows))
    for text, answer in found:
        assert [one["content"] for one in json.loads(text)[:2]] == ["hi", "hello"] and answer.startswith("film")


def test_columns_and_languages_that_were_named_are_taken(tmp_path):
    """A translation in the other direction than was asked for, or a column of another name that cannot be given."""
    path = lines(tmp_path / "d.jsonl", [FORMS["translation"](*row) for row in ROWS])
    assert prepare(path, text_column="de", label_column="en")[0][0][0].startswith("film")
    path = lines(tmp_path / "e.jsonl", [{"body": text, "headline": answer} for text, answer in ROWS])
    assert prepare(path, text_column="body", label_column="headline")[0][0][1].startswith("film")


@pytest.mark.parametrize(
    ("row", "options", "said"),
    [
        (FORMS["prompt"]("a", ""), {}, r"column 'completion': no label in .*row 21"),
        (FORMS["prompt"]("a", " \n"), {}, r"no label in .*row 21"),
        (FORMS["prompt"]("a", 7), {}, r"row 21: 7 is no text"),
        (FORMS["prompt"]("", "b"), {}, r"column 'prompt': no text in .*row 21"),
        ({"prompt": "a"}, {}, "line 21"),
        (FORMS["prompt"]("a", "b"), {"label_column": "completions"}, "no column 'completions'.*completion"),
        (FORMS["prompt"]("a", "b"), {"metric": "accuracy"}, "--metric accuracy is not for generation: give rouge_l"),
    ],
)
def test_rows_without_an_answer_are_refused_with_their_place(row, options, said, tmp_path):
    """A model taught to write nothing, or a row dropped in silence."""
    path = lines(tmp_path / "d.jsonl", [*(FORMS["prompt"](*one) for one in ROWS), row])
    with pytest.raises(BonsaiError, match=said):
        prepare(path, **options)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([turn("user", "a")], "no label in .*row 21"),
        ([turn("user", "a"), turn("assistant", " ")], "no label in .*row 21"),
        ([turn("user", "a"), {"role": "assistant"}], "row 21, message 2 has no content that is a text"),
        ([turn("user", [{"type": "image"}]), turn("assistant", "b")], "row 21, message 1 has no content"),
        ([{"content": "a"}, turn("assistant", "b")], "row 21, message 1 has no role"),
        ("hello", "row 21: 'hello' is no conversation"),
        ([turn("assistant", "b")], "no text in .*row 21"),
    ],
)
def test_conversations_that_are_none_are_refused_with_their_place(messages, said, tmp_path):
    """A conversation without an answer, or with a picture, learnt as if it were a text."""
    rows = [*(FORMS["messages"](*one) for one in ROWS), {"messages": messages}]
    with pytest.raises(BonsaiError, match=said):
        prepare(lines(tmp_path / "d.jsonl", rows))


@pytest.mark.parametrize("form", ["prompt", "messages", "translation"])
def test_rows_with_answers_are_known_by_their_columns(form, tmp_path):
    """Everybody who has such rows told to say what they are; or classes learnt as texts, because a column says so."""
    rows = [FORMS[form](*row) for row in ROWS]
    assert prepare(lines(tmp_path / "d.jsonl", rows), kind="auto")[1].kind == "generation"
    classes = [FORMS["prompt"](text, ("good", "bad")[number % 2]) for number, (text, _) in enumerate(ROWS)]
    with pytest.raises(BonsaiError, match=r"'prompt' and 'completion'.*--kind generation or --kind classification"):
        prepare(lines(tmp_path / "e.jsonl", classes), kind="auto")


def test_answers_that_are_all_alike_are_refused(tmp_path):
    """Hours of training on what can be said without a model."""
    with pytest.raises(BonsaiError, match=r"every row's is the same \('film'\)"):
        prepare(lines(tmp_path / "d.jsonl", [FORMS["prompt"](text, "film") for text, _ in ROWS]))


def test_prompts_that_are_in_two_splits_are_told_and_dropped(tmp_path):
    """A model tested on what it was trained on."""
    path = lines(tmp_path / "d.jsonl", [FORMS["prompt"](*row) for row in ROWS])
    other = lines(tmp_path / "t.jsonl", [FORMS["prompt"](*row) for row in ROWS[:5]])
    _, task = prepare(path, test_data=str(other))
    assert task.rows == 5 and any("5 rows of train dropped" in note for note in task.notes)
