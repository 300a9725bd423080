"""Tables of a word a row as rows of a sentence each: their columns become lists, one entry a word."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kfp_bonsai.prepare_data.convert import is_missing, parsed
from kfp_bonsai.shared.core.errors import BonsaiError

SENTENCES = ("sentence #", "sentence_id", "sentence id", "sentence_idx", "sentence_number", "sent_id", "sentence#")
WORD = ("word", "words", "token", "tokens")


def sentence_column(names: Sequence[str]) -> str:
    """Return the column that says which sentence a row's word is of; "" where no names say that rows are words."""
    lower = {name.strip().lower(): name for name in names}
    return next((lower[one] for one in SENTENCES if one in lower), "") if {*lower} & {*WORD} else ""


def are_words(block: dict[str, list[Any]]) -> bool:
    """Return whether rows have a word each, and not the list of all words."""
    found = [value for name, values in block.items() if name.strip().lower() in WORD for value in values]
    return not any(isinstance(parsed(value), list) for value in found)


def sentences(
    where: str, blocks: Iterable[dict[str, list[Any]]], of: str, columns: Sequence[str], most: int
) -> Iterator[dict[str, list[Any]]]:
    """Yield lists of some columns, at most `most` sentences at a time; a row without a sentence is of the one before.

    Args:
        where: the file, for messages.
        blocks: its rows, by column.
        of: the column of sentences.
        columns: what to yield.
        most: how many sentences at a time.

    Raises:
        BonsaiError: the first row is of no sentence, a word is missing, or a sentence's rows are not together.
    """
    seen: set[Any] = set()
    made: dict[str, list[Any]] = {name: [] for name in columns}
    current, number = None, 0
    for block in blocks:
        for place, sentence in enumerate(block[of]):
            number += 1
            if is_missing(sentence) and current is None:
                raise BonsaiError(f"{where}, row 1, column '{of}': no sentence is said: number the sentences")
            if not is_missing(sentence) and sentence != current:
                if sentence in seen:
                    raise BonsaiError(
                        f"{where}, row {number}, column '{of}': '{sentence}' was there before, and other rows are "
                        "between: sort the rows by it, in the words' order"
                    )
                current = sentence
                seen.add(sentence)
                if len(seen) > 1 and len(seen) % most == 1:
                    yield made
                    made = {name: [] for name in columns}
                for name in columns:
                    made[name].append([])
            for name in columns:
                if name.strip().lower() in WORD and is_missing(block[name][place]):
                    raise BonsaiError(f"{where}, row {number}, column '{name}': no word: fill it in, or remove the row")
                made[name][-1].append(block[name][place])
    if current is not None:
        yield made
