"""Right answers as people write them, as splits hold them: one row's values in, its answer out, or words on why not."""

import ast
import json
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from kfp_bonsai.prepare_data.tag_schemes import Stretch, stretches
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.kinds.units import units

Tell = Callable[[str], None]  # counts a note, of this row
BEGIN = ("begin", "start", "start_offset", "start_char", "answer_start")
END = ("end", "end_offset", "end_char")
LABEL = ("label", "type", "tag", "entity", "entity_group", "entity_type", "labels")
NO = ("0", "false", "")
YES = ("1", "true")


def parsed(value: Any) -> Any:
    """Return what a text that is JSON stands for, as in CSV files, or a list as Python prints it, as pandas writes it.

    Anything else is returned as it is.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd in a text that is no list after all
            found = read(value.strip())
            return found if isinstance(found, list | dict) else value
    return value


def texts_of(value: Any) -> Any:
    """Return a list of texts that is written as one text; anything else as it is, such as a text that begins with [."""
    found = parsed(value)
    return found if isinstance(found, list) and all(isinstance(one, str) for one in found) else value


def is_missing(value: Any) -> bool:
    """Return whether a value is none: null, NaN or a blank text."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (not isinstance(value, list | dict) and value != value)  # NaN is not itself


def names_of(value: Any, place: str, separator: str = "") -> list[Any]:
    """Return the labels of a list, of a text with a separator between them, or of a value that is the only one.

    Raises:
        BonsaiError: it is no list of labels, or has one twice.
    """
    found = parsed(value)
    if isinstance(found, str):
        found = [part.strip() for part in found.split(separator)] if separator else [found]
    found = found if isinstance(found, list) else [found]
    for one in found:
        if is_missing(one) or isinstance(one, list | dict):
            raise BonsaiError(f"{place}: {str(value)[:40]} is no list of labels: give a list of names, or [] for none")
    counted = Counter(found)
    same = next((one for one in found if counted[one] > 1), None)
    if same is not None:
        raise BonsaiError(
            f"{place}: the label {str(same)[:40]!r} is there twice: give each label of a row once; a vector of 0 and 1 "
            "goes into a column for each label"
        )
    return found


def ticked(values: Sequence[Any], names: Sequence[str], place: str) -> list[str] | None:
    """Return the names of the columns that hold 1; None where all are missing.

    Raises:
        BonsaiError: one holds something else than 0 or 1.
    """
    if all(is_missing(value) for value in values):
        return None
    found = []
    for name, value in zip(names, values, strict=True):
        said = is_ticked(value)
        if said is None or is_missing(value):
            raise BonsaiError(f"{place}, column '{name}': {str(value)[:40]!r} is neither 0 nor 1: correct it")
        if said:
            found.append(name)
    return found


def is_ticked(value: Any) -> bool | None:
    """Return whether a value is 1, and not 0; None if it is neither."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip().lower()
    text = text.removesuffix(".0")
    return True if text in YES else False if text in NO else None


def tagged(words: Any, tags: Any, names: Sequence[str], place: str) -> list[Stretch]:
    """Return the stretches of words with a tag each.

    Args:
        words: a list of words.
        tags: a list of tags: texts, or numbers of `names`.
        names: of tags that are numbers.
        place: where they are, for messages.

    Raises:
        BonsaiError: they are no such lists.
    """
    words, tags = parsed(words), parsed(tags)
    if not isinstance(tags, list) or not isinstance(words, list):
        raise BonsaiError(f"{place}: {str(tags)[:40]!r} is no list of tags: give one for each word")
    return stretches(words, [_tag(tag, names, place) for tag in tags], place)


def _tag(tag: Any, names: Sequence[str], place: str) -> str:
    if isinstance(tag, str):
        if not tag.strip().isdecimal():
            return tag.strip()
        tag = int(tag)  # a number that is written as a text is a number all the same
    if isinstance(tag, int) and not isinstance(tag, bool):
        if not names:
            raise BonsaiError(
                f"{place}: the tag {tag} is a number, and nothing says what it means: give texts (B-PER, O), or "
                "a data set that names its classes (ClassLabel of `datasets`)"
            )
        if 0 <= tag < len(names):
            return names[tag]
    raise BonsaiError(f"{place}: {str(tag)[:40]!r} is no tag{f' of {len(names)}' if names else ''}: correct it")


def spans_of(text: str, value: Any, place: str, tell: Tell) -> list[Stretch]:
    """Return the stretches that a list says, each {start, end, label} or [start, end, label], or a dict of such lists.

    Those that begin or end within a word are widened to it, as a word has one tag; white space at their ends goes.

    Raises:
        BonsaiError: one is no stretch, lies outside of the text, is empty, or is over another one.
    """
    found = sorted((_stretch(one, text, place) for one in _listed(value, place)), key=lambda one: one[:2])
    places = units(text, "") if found else []
    made: list[Stretch] = []
    for begin, end, label in found:
        said = f"{text[max(0, begin) : max(0, end)][:40]!r} ({begin} to {end}, {label})"
        if not 0 <= begin < end <= len(text):
            raise BonsaiError(
                f"{place}: the stretch {said} is {'empty' if begin == end else 'not within the text'} of {len(text)} "
                "characters: correct it (the first is 0, and the end is not included)"
            )
        covered = [one for one in places if one[0] < end and one[1] > begin]
        if not covered:
            raise BonsaiError(f"{place}: the stretch {said} has no letter or sign in it: correct or remove it")
        whole = covered[0][0], covered[-1][1]
        if whole[0] < begin or whole[1] > end:
            tell("stretches begin or end within a word, and are widened to it")
        if made and whole[0] < made[-1][1]:
            raise BonsaiError(
                f"{place}: the stretch {said} is over {text[made[-1][0] : made[-1][1]][:40]!r}, and a word has one "
                "tag: keep one of them"
            )
        made.append((*whole, label))
    return made


def _listed(value: Any, place: str) -> list[Any]:
    value = parsed(value)
    if isinstance(value, dict) and value and all(isinstance(one, list) for one in value.values()):
        if len({len(one) for one in value.values()}) > 1:
            raise BonsaiError(f"{place}: lists of different length in {str(value)[:60]}: correct it")
        return [dict(zip(value, each, strict=True)) for each in zip(*value.values(), strict=True)]
    if not isinstance(value, list):
        raise BonsaiError(f"{place}: {str(value)[:60]} is no list: give [] where there is nothing")
    return value


def _stretch(value: Any, text: str, place: str) -> Stretch:
    if isinstance(value, list) and len(value) >= 3:
        begin, end, label = value[:3]
    elif isinstance(value, dict):
        begin, end, label = (_first(value, names) for names in (BEGIN, END, LABEL))
    else:
        begin = end = label = None
    begin, end = _whole(begin), _whole(end)
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    if begin is None or end is None or is_missing(label) or isinstance(label, list | dict):
        raise BonsaiError(
            f'{place}: {str(value)[:60]} is no stretch of a text: give {{"start": 0, "end": 5, "label": "NAME"}} or '
            '[0, 5, "NAME"]'
        )
    said, there = value.get("text") if isinstance(value, dict) else None, text[max(0, begin) : max(0, end)]
    if isinstance(said, str) and said.split() != there.split():
        raise BonsaiError(
            f"{place}: {said[:40]!r} is said to be from {begin} to {end}, where the text has {there[:40]!r}: correct "
            "it (characters are counted from 0, each of any script or emoji as one, and the end is not included)"
        )
    return begin, end, label


def _first(value: dict[str, Any], names: Sequence[str]) -> Any:
    return next((value[name] for name in names if value.get(name) is not None), None)


def _whole(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def is_stretch(value: Any) -> bool:
    """Return whether a value looks like a stretch with a label."""
    if isinstance(value, dict):
        return _first(value, BEGIN) is not None and _first(value, END) is not None
    return isinstance(value, list) and len(value) >= 3 and _whole(value[0]) is not None and isinstance(value[2], str)


def answers_of(text: str, value: Any, place: str, tell: Tell) -> list[tuple[str, int]]:
    """Return the answers to a question with their places in the text, as SQuAD has them; [] where there is none.

    Raises:
        BonsaiError: they are no answers, or one is not in the text.
    """
    value = parsed(value)
    if isinstance(value, str):
        value = [{"text": value}]
    elif isinstance(value, dict) and isinstance(value.get("text"), str):
        value = [value]
    found = []
    for one in _listed(value, place):
        one = {"text": one} if isinstance(one, str) else one
        said, begin = (one.get("text"), _whole(_first(one, BEGIN))) if isinstance(one, dict) else (None, None)
        if not isinstance(said, str):
            raise BonsaiError(
                f'{place}: {str(one)[:60]} is no answer: give {{"text": ["..."], "answer_start": [0]}} with its place '
                "in the text, and empty lists where there is none"
            )
        if said.strip():
            found.append((said, _place(text, said, begin, place, tell)))
    return found


def _place(text: str, said: str, begin: int | None, place: str, tell: Tell) -> int:
    """Return where an answer is: where it is said to be, else the nearest place that has it."""
    if begin is not None and begin >= 0 and text.startswith(said, begin):
        return begin
    places, at = [], text.find(said)
    while at >= 0:
        places.append(at)
        at = text.find(said, at + 1)
    if not places:
        raise BonsaiError(f"{place}: the answer {said[:40]!r} is not in the text, letter for letter: correct it")
    if begin is not None:
        tell("answers are not where they are said to be, and the nearest place is taken")
    elif len(places) > 1:
        tell("answers without a place are in the text several times, and the first one is taken")
    return min(places, key=lambda one: abs(one - (begin or 0)))


def is_answers(value: Any) -> bool:
    """Return whether a value looks like the answers to a question."""
    value = parsed(value)
    if isinstance(value, list):
        return (
            bool(value)
            and isinstance(value[0], dict)
            and isinstance(value[0].get("text"), str)
            and not is_stretch(value[0])
        )
    return isinstance(value, dict) and "text" in value and _first(value, BEGIN) is not None


def is_message(value: Any) -> bool:
    """Return whether a value looks like a message of a conversation, as chat templates or ShareGPT have it."""
    return isinstance(value, dict) and ({"role", "content"} <= value.keys() or {"from", "value"} <= value.keys())
