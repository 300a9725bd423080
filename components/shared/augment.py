"""More text for the teacher to label, from the training texts: word dropout, crops, and mixes of two."""

import random
from collections.abc import Sequence

DROPPED = 0.15


def drop_words(text: str, chance: random.Random) -> str:
    """Leave out about one word in seven."""
    kept = [word for word in text.split() if chance.random() > DROPPED]
    return " ".join(kept) or text


def crop(text: str, chance: random.Random) -> str:
    """Keep a stretch of half to nearly all of the words."""
    words = text.split()
    if len(words) < 4:
        return text
    size = chance.randint(len(words) // 2, len(words) - 1)
    start = chance.randint(0, len(words) - size)
    return " ".join(words[start : start + size])


def mix(text: str, other: str, chance: random.Random) -> str:
    """Join a crop of one text to a crop of another."""
    first, second = crop(text, chance).split(), crop(other, chance).split()
    return " ".join(first[: max(1, len(first) // 2 + 1)] + second[len(second) // 2 :])


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
