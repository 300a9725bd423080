"""SQuAD's own files as rows: articles of paragraphs of questions, in one JSON object."""

from collections.abc import Iterator
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError


def is_squad(found: Any) -> bool:
    """Return whether an object is such a file."""
    data = found.get("data") if isinstance(found, dict) else None
    return isinstance(data, list) and bool(data) and isinstance(data[0], dict) and "paragraphs" in data[0]


def rows(where: str, found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each question with its place.

    Raises:
        BonsaiError: an article, a paragraph or a question lacks something.
    """
    number = 0
    for title, article in enumerate(found["data"], 1):
        for place, paragraph in enumerate(_list(article, "paragraphs", where, f"article {title}"), 1):
            within = f"article {title}, paragraph {place}"
            context = _get(paragraph, "context", where, within)
            for asked in _list(paragraph, "qas", where, within):
                number += 1
                impossible = isinstance(asked, dict) and asked.get("is_impossible", False)
                answers = [] if impossible else _get(asked, "answers", where, f"{within}, question {number}")
                question = _get(asked, "question", where, f"{within}, question {number}")
                yield f"question {number}", {"question": question, "context": context, "answers": answers}


def _get(found: Any, name: str, where: str, place: str) -> Any:
    if not isinstance(found, dict) or name not in found:
        raise BonsaiError(f"{where}, {place}: no '{name}', as SQuAD's files have: correct it")
    return found[name]


def _list(found: Any, name: str, where: str, place: str) -> list[Any]:
    several = _get(found, name, where, place)
    if not isinstance(several, list):
        raise BonsaiError(f"{where}, {place}: '{name}' is no list, as in SQuAD's files: correct it")
    return several
