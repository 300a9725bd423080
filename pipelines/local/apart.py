"""Functions called in a process of their own, which may crash, or fill the memory, without harm to this one."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from types import TracebackType
from typing import Any

from kfp_bonsai.pipelines.lean_kfp import import_kfp
from kfp_bonsai.shared.core import errors, faults
from kfp_bonsai.shared.core.errors import BonsaiError


class Apart:
    """Calls functions by name with what JSON can hold; one process serves many calls, and another where it died."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def call(self, function: str, **given: Any) -> Any:
        """Call a function, such as "package.module:name", and return what it returns.

        Raises:
            BonsaiError: the function raised one, or something unforeseen, or its process ended.
        """
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if os.environ.get(faults.DEBUG) else subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C is this process's business
            )
        assert self.process.stdin and self.process.stdout
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps([function, given]) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self._end()
            raise BonsaiError("the process that looked at it ended, as when memory runs out")
        kind, value = json.loads(line)
        if kind:
            raise getattr(errors, kind)(value)
        return value

    def _end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def main() -> None:
    """Answer calls from standard input, one after the other; what they print goes nowhere."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    import_kfp()
    for line in sys.stdin:
        function, given = json.loads(line)
        module, _, name = function.partition(":")
        try:
            found = ["", getattr(import_module(module), name)(**given)]
        except BonsaiError as error:
            known = type(error).__name__ if hasattr(errors, type(error).__name__) else "BonsaiError"
            found = [known, str(error)]
        except Exception as error:
            found = ["BonsaiError", faults.in_plain_words(error) or f"unexpected {errors.in_words(error)}"]
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
