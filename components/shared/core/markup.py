"""Text in Markdown that is what it says, and nothing else."""

import re

# What a terminal takes for commands, turns letters around, or is half of a sign, which no file holds.
_ODD = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_EMPHASIS = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")  # within a word it is none


def readable(plain: object) -> str:
    """Return text without what no reader sees, but other programs act by."""
    return _ODD.sub("\N{REPLACEMENT CHARACTER}", str(plain))


def text(plain: object) -> str:
    """Return text in which nothing is taken for Markdown or HTML."""
    found = readable(plain)
    for sign in "\\|*<>`[]":
        found = found.replace(sign, f"\\{sign}")
    return " ".join(_EMPHASIS.sub(r"\_", found).splitlines())


def span(plain: object) -> str:
    """Return text as code in a sentence or a cell of a table, which nothing in it ends."""
    found = " ".join(readable(plain).splitlines()).replace("|", "¦")
    fence = "`" * (1 + _longest_run(found))
    return f"{fence} {found} {fence}" if "`" in found else f"`{found}`"


def code(plain: str) -> list[str]:
    """Return the lines of a block of code that nothing in it ends."""
    fence = "`" * max(3, 1 + _longest_run(plain))
    return [fence, readable(plain), fence]


def _longest_run(plain: str) -> int:
    return max((len(run) for run in re.findall("`+", plain)), default=0)
