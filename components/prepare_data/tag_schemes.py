"""Words with a tag each, as texts with stretches: whatever letters the tags begin with.

IOB1 and IOB2 (B, I), IOBES (S is a stretch of one word, E ends one), BILOU (U and L are the same) and BMEWO (M is
within) say the same; a tag without such a letter goes on as long as it is repeated.
"""

import re
from collections.abc import Sequence
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.kinds.units import WORDS, units

TAG = re.compile(r"([BIEMLSUW])-(.+)", re.DOTALL)
OUTSIDE = ("O", "")
BEGINS, ENDS = "BSUW", "ESULW"
Stretch = tuple[int, int, Any]


def join(words: Sequence[Any] | None, place: str) -> str | None:
    """Return words as one text, with a space between; nothing of nothing.

    Raises:
        BonsaiError: one is no word.
    """
    if words is None:
        return None
    for word in words:
        if not isinstance(word, str):
            raise BonsaiError(f"{place}: the word {str(word)[:40]!r} is no text ({type(word).__name__}): correct it")
        if units(word, WORDS) != [(0, len(word))]:
            what = "has white space in it" if word.strip() else "is blank"
            raise BonsaiError(f"{place}: the word {word[:40]!r} {what}: part it into words, or remove it and its tag")
    return " ".join(words)


def stretches(words: Sequence[str], tags: Sequence[str], place: str) -> list[Stretch]:
    """Return the stretches (begin, end, label) of a text of words that its tags say.

    Args:
        words: the words.
        tags: a tag a word, by name.
        place: where they are, for messages.

    Raises:
        BonsaiError: there are not as many tags as words, or tags with and without letters.
    """
    if len(words) != len(tags):
        raise BonsaiError(f"{place}: {len(words)} words and {len(tags)} tags: give each word one")
    named = [tag for tag in tags if tag not in OUTSIDE]
    if blank := next((tag for tag in named if re.fullmatch("[BIEMLSUW]-", tag)), ""):
        raise BonsaiError(f"{place}: the tag {blank!r} has no label after its letter: correct it")
    lettered = [bool(TAG.fullmatch(tag)) for tag in named]
    if any(lettered) and not all(lettered):
        bare = named[lettered.index(False)]
        raise BonsaiError(f"{place}: the tag {bare!r} has no letter before it, such as B-, and others have: correct it")
    found: list[list[Any]] = []
    is_open, at = False, 0
    for word, tag in zip(words, tags, strict=True):
        end = at + len(word)
        if tag in OUTSIDE:
            is_open = False
        else:
            letter, label = (told[1], told[2]) if (told := TAG.fullmatch(tag)) else ("I", tag)
            if is_open and letter not in BEGINS and found[-1][2] == label:
                found[-1][1] = end
            else:
                found.append([at, end, label])
            is_open = letter not in ENDS
        at = end + 1
    return [(begin, end, label) for begin, end, label in found]


def label_names(tags: Sequence[str]) -> tuple[str, ...]:
    """Return the labels of tags in the order in which a data set names them."""
    named = [tag for tag in tags if tag not in OUTSIDE]
    bare = [told[2] if (told := TAG.fullmatch(tag)) else tag for tag in named]
    return tuple(dict.fromkeys(bare))
