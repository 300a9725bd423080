"""The one error that is meant for users: it names the input, what is wrong, and what to do."""

from collections.abc import Sequence


class BonsaiError(Exception):
    """Bad input or an impossible request, explained in words a user can act on.

    The command line prints the message without a traceback and exits with status 2.
    """


def listed(names: Sequence[str]) -> str:
    """Return the first eight names, as messages list them."""
    return ", ".join(map(str, names[:8])) + (", ..." if len(names) > 8 else "")


def in_words(error: BaseException) -> str:
    """Return another's error in one short line, with what kind it is."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def nearest(wanted: str, known: list[str]) -> str:
    """Return "; did you mean 'x'?" for the known name most like `wanted`, or ""."""
    import difflib

    match = difflib.get_close_matches(wanted.lower(), [name.lower() for name in known], n=1, cutoff=0.5)
    if not match:
        return ""
    original = next(name for name in known if name.lower() == match[0])
    return f"; did you mean '{original}'?"


def check_choice(flag: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value that is none of those known.

    Raises:
        BonsaiError: it is none of them.
    """
    if value not in known:
        raise BonsaiError(f"{flag} '{value}' is unknown (known: {', '.join(known)}){nearest(value, [*known])}")
