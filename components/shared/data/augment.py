"""More text for the teacher to label, from the training texts: word dropout, crops, and mixes of two."""

import random
from collections.abc import Sequence

from kfp_bonsai.shared.core.scripts import is_without_spaces

DROPPED = 0.15
LONG_WORDS = 12  # characters a word, on average: a language that writes no spaces


def drop_words(text: str, chance: random.Random) -> str:
    """Leave out about one word in seven."""
    words, space = _words(text)
    return space.join(word for word in words if chance.random() > DROPPED) or text


def crop(text: str, chance: random.Random) -> str:
    """Keep a stretch of half to nearly all of the words."""
    words, space = _words(text)
    return space.join(_stretch(words, chance))


def mix(text: str, other: str, chance: random.Random) -> str:
    """Join a crop of one text to a crop of another."""
    (words, space), (others, _) = _words(text), _words(other)
    first, second = _stretch(words, chance), _stretch(others, chance)
    return space.join(first[: max(1, len(first) // 2 + 1)] + second[len(second) // 2 :])


def _words(text: str) -> tuple[list[str], str]:
    """Return the words of a text, and what is between them; the characters where it has no spaces, as Chinese."""
    words = text.split()
    characters = len(text) > LONG_WORDS * len(words) or is_without_spaces(text)
    return (list(text), "") if characters else (words, " ")


def _stretch(words: list[str], chance: random.Random) -> list[str]:
    if len(words) < 4:
        return words
    size = chance.randint(len(words) // 2, len(words) - 1)
    start = chance.randint(0, len(words) - size)
    return words[start : start + size]


def augment(columns: Sequence[list[str]], seed: int) -> list[list[str]]:
    """Return one changed copy of every row: each text of a pair is changed on its own, never mixed across columns."""
    chance = random.Random(seed)
    changed = []
    for texts in columns:
        new = []
        for text in texts:
            kind = chance.randrange(3)
            if kind == 0:
                new.append(drop_words(text, chance))
            elif kind == 1:
                new.append(crop(text, chance))
            else:
                new.append(mix(text, chance.choice(texts), chance))
        changed.append(new)
    return changed
