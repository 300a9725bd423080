"""CoNLL files as rows: a word a line with its tag in the last column, blank lines between sentences."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from kfp_bonsai.prepare_data.tag_schemes import OUTSIDE, TAG
from kfp_bonsai.prepare_data.text import Lines
from kfp_bonsai.shared.core.errors import BonsaiError

WORDS, TAGS = "tokens", "tags"  # the columns that rows of such a file have
DOCUMENT = "-DOCSTART-"
SAMPLE = 100  # lines that tell whether it is one
ADVICE = (
    "every line is a word and, as its last column, its tag; a blank line ends a sentence (a table of texts has the "
    "suffix .csv or .tsv)"
)


def is_conll(lines: Lines) -> bool:
    """Return whether a file begins so: each line ends in a tag, the first one too, which names no columns then."""
    parts = [each for line in islice(lines, SAMPLE) if (each := _parts(line)) and each[0] not in (DOCUMENT, "#")]
    return bool(parts) and all(len(each) > 1 and _is_tag(each[-1]) for each in parts)


def blocks(lines: Lines, columns: list[str], most: int) -> Iterator[dict[str, list]]:
    """Yield some of the columns, at most `most` sentences at a time.

    Raises:
        BonsaiError: a line is no word with a tag.
    """
    block: list[dict[str, Any]] = []
    for row in _sentences(lines):
        block.append(row)
        if len(block) == most:
            yield {name: [one[name] for one in block] for name in columns}
            block = []
    if block:
        yield {name: [one[name] for one in block] for name in columns}


def _sentences(lines: Lines) -> Iterator[dict[str, list[str]]]:
    words, tags, width = list[str](), list[str](), 0
    for line in lines:
        parts = _parts(line)
        if not parts or parts[0] == DOCUMENT:
            if words:
                yield {WORDS: words, TAGS: tags}
            words, tags = [], []
            continue
        if parts[0] == "#" and not words and not _is_tag(parts[-1]):
            continue  # a comment, such as # sent_id = 1
        width = width or len(parts)
        if len(parts) != width or width < 2 or len(parts[0].split()) != 1:
            has = f"{len(parts)} column{'s' if len(parts) > 1 else ''}"
            others = f" ({width} in the lines before)" if len(parts) != width else ""
            raise BonsaiError(
                f"{lines.where}, line {lines.number}: {line.strip()[:40]!r} is no word with its tag, and has {has}"
                f"{others}: {ADVICE}"
            )
        words.append(parts[0])
        tags.append(parts[-1])
    if words:
        yield {WORDS: words, TAGS: tags}


def _is_tag(text: str) -> bool:
    return text in OUTSIDE or bool(TAG.fullmatch(text))


def _parts(line: str) -> list[str]:
    """Return a line's columns: between tabs if there are any, as a word may have spaces then, else between spaces."""
    if "\t" in line:
        return [part.strip() for part in line.rstrip().split("\t")] if line.strip() else []
    return line.split()
