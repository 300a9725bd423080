"""Single texts as pairs, for tasks on pairs: text to distil with where a user has none that comes in two."""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kfp_bonsai.prepare_data.formats import Batch
from kfp_bonsai.prepare_data.read import Rows
from kfp_bonsai.shared.data.augment import crop, drop_words

SENTENCE_ENDS = re.compile(r"(?<=[.!?…][\"')\]”’])\s+|(?<=[.!?…])\s+|(?<=[。！？])|\n+|<br\s*/?>")
NEARBY = 32  # texts before and after, of which the second one of a pair may be
HOW = (
    "made of single texts: a third are neighbouring sentences, a third are of texts nearby, and a third are a sentence "
    "and a part of it"
)


@dataclass(frozen=True)
class PairedRows:
    """Single texts, each as a pair, the same ones whenever they are gone through.

    A text of several sentences gives two neighbouring ones, or one beside one of a text nearby; a single sentence is
    beside the next text's. A third of the pairs say much the same, as a sentence beside a stretch of it or its copy
    without some words, so that a teacher is asked about all degrees of likeness.

    Attributes:
        rows: the single texts.
        column: their column.
        seed: of the draws.
    """

    rows: Rows
    column: str
    seed: int

    @property
    def where(self) -> str:
        """Where the rows come from, for messages."""
        return self.rows.where

    def names(self) -> list[str]:
        """Return the names of the columns, as messages have them: the second is made of the first."""
        return [self.column, f"{self.column}, beside it"]

    def class_names(self, _column: str) -> tuple[str, ...]:
        """Return nothing: no column is of classes."""
        return ()

    def digest(self) -> str:
        """Return a hash of the content of the single texts."""
        return self.rows.digest()

    def batches(self, _columns: Sequence[str]) -> Iterator[Batch]:
        """Go through the pairs, as many as there are texts; one that is no text, or blank, is in both columns."""
        for batch in self.rows.batches([self.column]):
            chance = random.Random(f"{self.seed} {batch.first}")
            pairs = _paired(batch.columns[self.column], chance)
            columns = {name: [pair[side] for pair in pairs] for side, name in enumerate(self.names())}
            yield Batch(batch.where, batch.first, columns, batch.numbers)


def _paired(texts: Sequence[object], chance: random.Random) -> list[tuple]:
    parts = [_sentences(text) for text in texts]
    pairs: list[tuple] = []
    for at, own in enumerate(parts):
        if not own:
            pairs.append((texts[at], texts[at]))
            continue
        kind, place = chance.randrange(3), chance.randrange(len(own))
        first = own[place]
        if kind == 0:
            after = own[place + 1 :] or own[:place][-1:] or next(filter(None, parts[at + 1 :] + parts[:at][::-1]), own)
            second = after[0]
        elif kind == 1:
            near = [one for one in parts[max(0, at - NEARBY) : at] + parts[at + 1 : at + 1 + NEARBY] if one]
            second = chance.choice(chance.choice(near)) if near else drop_words(first, chance)
        else:
            second = chance.choice((crop, drop_words))(first, chance)
        pairs.append((first, second) if chance.random() < 0.5 else (second, first))
    return pairs


def _sentences(text: object) -> list[str]:
    """Return a text's sentences; nothing of what is no text, or blank."""
    if not isinstance(text, str):
        return []
    return [part.strip() for part in SENTENCE_ENDS.split(text) if any(map(str.isalnum, part))] or [text] * bool(
        text.strip()
    )
