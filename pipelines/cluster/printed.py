"""A command's result for programs: JSON alone on the standard output, and what is told meanwhile beside it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from json import dumps
from typing import Any


@contextmanager
def printed(as_json: bool) -> Iterator[dict[str, Any]]:
    """Yield a dict for the result; as JSON it is printed at the end, and all else goes to the standard error."""
    found: dict[str, Any] = {}
    if not as_json:
        yield found
        return
    with redirect_stdout(sys.stderr):
        yield found
    print(dumps(found, ensure_ascii=False))
