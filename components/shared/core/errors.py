"""The one error that is meant for users: it names the input, what is wrong, and what to do."""

import errno
from collections.abc import Sequence

LONGEST = 3000  # letters of a message: it may quote a value, of which there may be megabytes


class BonsaiError(Exception):
    """Bad input or an impossible request, explained in words a user can act on.

    The command line prints the message without a traceback and exits with status 2.
    """

    def __init__(self, message: str = "") -> None:
        text = str(message)
        half = LONGEST // 2
        super().__init__(text if len(text) <= LONGEST else f"{text[:half]} ... {text[-half:]}")


class PassingError(BonsaiError):
    """Something was away, such as a bucket or the hub: the same request may be answered later.

    On a cluster this name, in the last line of a task's log, says that trying again makes sense.
    """


AWAY = ("EIO", "ESTALE", "ENOTCONN", "EREMOTEIO", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ETIMEDOUT")
AWAY_NUMBERS = tuple(getattr(errno, name) for name in AWAY if hasattr(errno, name))
NOT_REACHED = (
    "ConnectionError",
    "ConnectError",
    "ConnectTimeout",
    "ReadTimeout",
    "ReadError",
    "RemoteProtocolError",
    "ProxyError",
    "LocalEntryNotFoundError",
    "IncompleteSnapshotError",
    "gaierror",
)


def kind_of(error: BaseException | None) -> type[BonsaiError]:
    """Return PassingError if a library's error, or one it came from, says that something was away; else BonsaiError.

    That is a file system that does not answer, a server that was not reached, or one that is busy or broken (429, 5xx).
    """
    while error is not None:
        response = getattr(error, "response", error)
        status = getattr(response, "status_code", None) or getattr(response, "status", None)
        if (
            isinstance(error, ConnectionError | TimeoutError)
            or (isinstance(error, OSError) and error.errno in AWAY_NUMBERS)
            or type(error).__name__ in NOT_REACHED
            or status in (429, 500, 502, 503, 504)
        ):
            return PassingError
        error = error.__cause__ or error.__context__
    return BonsaiError


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
