"""Rows of a text and the answer to be written: prompt and completion, source and target, or a conversation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from kfp_bonsai.prepare_data import columns, convert
from kfp_bonsai.prepare_data.glance import Glance, mostly
from kfp_bonsai.prepare_data.row_reading import Reading
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.kinds.task import CHAT

ASSISTANT = "assistant"
ROLES = {"human": "user", "gpt": ASSISTANT}  # as ShareGPT calls them, with "from" and "value"
FEW = 4  # times that each answer is there on average, from which on they may be names of classes
TRANSLATION = "translation"  # the column of a text a language


def find(look: Glance) -> Reading | None:
    """Find texts with an answer each, where a kind was asked for whose answers are written."""
    if not look.asked("text"):
        return None
    for name in [look.flags.text] if look.flags.text else look.called(columns.CONVERSATIONS):
        if not look.flags.label and _are_conversations(look.first(name)):
            return Reading(
                (name,), f"answer in {name}", (name,), (name,), "text", setting=CHAT, expand=_asked, answer=_said
            )
    for name in look.called((TRANSLATION,)):
        if (pair := _languages(look, name)) is not None:
            return Reading(
                (pair[0],),
                pair[1],
                (name,),
                (name,),
                "text",
                expand=lambda values, place: [(_of_language(values[0], pair[0], place),)],
                answer=partial(_translated, pair[1]),
            )
    pair = _pair(look)
    if pair is None:
        return None
    if _are_conversations(look.first(pair[0])):
        return Reading((pair[0],), pair[1], (pair[0],), (pair[1],), "text", setting=CHAT, expand=_whole, answer=_turn)
    more = look.called(("input",)) if pair[0].strip().lower() == "instruction" and not look.flags.text else []
    if more:  # as Alpaca's rows have it
        return Reading((pair[0],), pair[1], (pair[0], *more), (pair[1],), "text", expand=_together, answer=_plain)
    return Reading((pair[0],), pair[1], (pair[0],), (pair[1],), "text", answer=_plain)


def find_unasked(look: Glance) -> Reading | None:
    """Find texts with an answer each where nobody said which kind is wanted, by columns that have no other meaning.

    Raises:
        BonsaiError: the answers are a few that come again and again, as names of classes do.
    """
    if look.flags.text or look.flags.label or look.called(columns.LABELS):
        return None
    chats = [name for name in look.called(columns.CONVERSATIONS) if _are_conversations(look.first(name))]
    pairs = [found for pair in columns.ANSWERED if len(found := look.called(pair)) == 2]
    pairs += [
        [name] for name in look.called((TRANSLATION,)) if mostly(look.first(name), lambda one: isinstance(one, dict))
    ]
    if not chats and not pairs:
        return None
    kind = next(name for name, one in KINDS.items() if one.target == "text")
    answers = [] if chats else [str(one) for one in look.first(pairs[0][-1])]
    if FEW * len({*answers}) < len(answers):
        names = " and ".join(f"'{name}'" for name in pairs[0])
        raise BonsaiError(
            f"{look.where} has {names}, as texts have to which an answer is to be written, and answers that come again "
            f"and again, as labels do: say which they are with --kind {kind} or --kind classification"
        )
    found = find(Glance(look.rows, look.flags, kind))
    return replace(found, kind=kind) if found else None


def _pair(look: Glance) -> tuple[str, str] | None:
    """Return the columns of texts and answers: those that were named, and the others by name."""
    for one, other in columns.ANSWERED:
        text = [look.flags.text] if look.flags.text else look.called((one,))
        answer = [look.flags.label] if look.flags.label else look.called((other,))
        if text and answer and text != answer:
            for name, flag in ((text[0], "--text-column"), (answer[0], "--label-column")):
                columns.named(name, look.names, look.where, flag)
            return text[0], answer[0]
    return None


def _languages(look: Glance, name: str) -> tuple[str, str] | None:
    """Return the two languages of a column of translations: those that were named, else the first two of all rows."""
    found = [one for one in look.first(name) if isinstance(one, dict)]
    if not found:
        return None
    known = [str(key) for key in found[0]]
    text = look.flags.text or next((one for one in known if one != look.flags.label), "")
    label = look.flags.label or next((one for one in known if one != text), "")
    wrong = next((one for one in (text, label) if one not in known), None)
    if wrong is not None or text == label:
        raise BonsaiError(
            f"{look.where}, column '{name}' has the languages {', '.join(known)}: name two of them, as in "
            "--text-column en --label-column de"
        )
    return text, label


def _of_language(value: Any, language: str, place: str) -> Any:
    value = convert.parsed(value)
    if convert.is_missing(value):
        return None
    if not isinstance(value, dict):
        raise BonsaiError(f"{place}: {str(value)[:40]!r} is no translation, a text for each language: correct it")
    return value.get(language)


def _translated(
    language: str, values: Sequence[Any], rows: Sequence[tuple], place: str, tell: convert.Tell
) -> list[Any]:
    return _plain([_of_language(values[0], language, place)], rows, place, tell)


def _together(values: Sequence[Any], place: str) -> list[tuple]:
    return [("\n\n".join(_text(one, place) for one in values if not convert.is_missing(one)) or None,)]


def _plain(values: Sequence[Any], _rows: Sequence[tuple], place: str, _tell: convert.Tell) -> list[Any]:
    return [None if convert.is_missing(values[0]) else _text(values[0], place)]


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise BonsaiError(f"{place}: {str(value)[:40]} is no text ({type(value).__name__}): write it as one")
    return value


def _are_conversations(values: Sequence[Any]) -> bool:
    return bool(values) and mostly(
        values, lambda one: isinstance(one, list) and bool(one) and convert.is_message(one[0])
    )


def _asked(values: Sequence[Any], place: str) -> list[tuple]:
    """Return a conversation without what the assistant says last, as JSON."""
    messages = _messages(values[0], place)
    return [(_json(messages[:-1] if _is_answered(messages) else messages),)]


def _said(values: Sequence[Any], _rows: Sequence[tuple], place: str, _tell: convert.Tell) -> list[Any]:
    messages = _messages(values[0], place)
    return [(messages[-1]["content"].strip() or None) if _is_answered(messages) else None]


def _whole(values: Sequence[Any], place: str) -> list[tuple]:
    return [(_json(_messages(values[0], place)),)]


def _turn(values: Sequence[Any], rows: Sequence[tuple], place: str, tell: convert.Tell) -> list[Any]:
    """Return an answer beside its conversation: a message of the assistant alone, or a text."""
    value = convert.parsed(values[0])
    if not isinstance(value, list):
        return _plain(values, rows, place, tell)
    messages = _messages(value, place)
    if not messages:
        return [None]
    if len(messages) > 1 or not _is_answered(messages):
        raise BonsaiError(f"{place}: an answer is one message of the {ASSISTANT}, and here are others: correct it")
    return [messages[0]["content"].strip() or None]


def _json(messages: Sequence[Mapping[str, Any]]) -> str | None:
    return json.dumps(messages, ensure_ascii=False) if messages else None


def _is_answered(messages: Sequence[Mapping[str, Any]]) -> bool:
    return bool(messages) and messages[-1]["role"] == ASSISTANT


def _messages(value: Any, place: str) -> list[dict[str, Any]]:
    """Return a conversation's messages, each with a role and a text, and what else a chat template may ask for."""
    value = convert.parsed(value)
    if convert.is_missing(value):
        return []
    if not isinstance(value, list):
        raise BonsaiError(
            f'{place}: {str(value)[:40]!r} is no conversation: give [{{"role": "user", "content": "..."}}, '
            f'{{"role": "{ASSISTANT}", "content": "..."}}]'
        )
    return [_message(one, number, place) for number, one in enumerate(value, 1)]


def _message(found: Any, number: int, place: str) -> dict[str, Any]:
    found = found if isinstance(found, Mapping) else {}
    role = found.get("role", found.get("from"))
    content = found.get("content", found.get("value"))
    if isinstance(content, list) and all(
        isinstance(one, Mapping) and isinstance(one.get("text"), str) for one in content
    ):
        content = "".join(one["text"] for one in content)
    if not isinstance(role, str) or not isinstance(content, str):
        lacks = "role" if not isinstance(role, str) else "content that is a text"
        raise BonsaiError(
            f"{place}, message {number} has no {lacks}: give each message a role and a content, in words alone"
        )
    known = ("role", "content", "from", "value")
    more = {name: value for name, value in found.items() if name not in known and value not in (None, [], {})}
    return {"role": ROLES.get(role, role), "content": content, **more}
