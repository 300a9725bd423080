"""Text in Markdown that is what it says, and nothing else."""

import re

_EMPHASIS = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")  # within a word it is none


def text(plain: object) -> str:
    """Return text in which nothing is taken for Markdown or HTML."""
    found = str(plain)
    for sign in "\\|*<>`[]":
        found = found.replace(sign, f"\\{sign}")
    return " ".join(_EMPHASIS.sub(r"\_", found).splitlines())


def span(plain: object) -> str:
    """Return text as code in a sentence or a cell of a table, which nothing in it ends."""
    found = " ".join(str(plain).splitlines()).replace("|", "¦")
    fence = "`" * (1 + _longest_run(found))
    return f"{fence} {found} {fence}" if "`" in found else f"`{found}`"


def code(plain: str) -> list[str]:
    """Return the lines of a block of code that nothing in it ends."""
    fence = "`" * max(3, 1 + _longest_run(plain))
    return [fence, plain, fence]


def _longest_run(plain: str) -> int:
    return max((len(run) for run in re.findall("`+", plain)), default=0)
