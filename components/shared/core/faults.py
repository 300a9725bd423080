"""What is said of an error that nobody has foreseen: three lines, and a file with the rest."""

import errno
import os
import platform
import re
import shlex
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata

from kfp_bonsai.shared.core.cache import cached
from kfp_bonsai.shared.core.errors import in_words
from kfp_bonsai.shared.core.files import is_full_disk

DEBUG = "BONSAI_DEBUG"
PACKAGES = ("kfp-bonsai", "torch", "transformers", "tokenizers", "datasets", "kfp", "onnxruntime", "openvino", "nncf")
OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "std::bad_alloc",
    "could not create a primitive",  # of oneDNN, which has no room for the code that it writes
)
SECRET = re.compile(r"(?i)token|passw|secret|credential|api_?key|access_?key|auth")
FEWEST_SIGNS = 6  # of a secret: fewer occur by themselves


class Fault(Exception):
    """A task of a pipeline ended with an unforeseen error; its log tells all.

    Args:
        said: what happened, in words.
        log: the file that tells all.
    """

    def __init__(self, said: str, log: object) -> None:
        super().__init__(f"{said} (see {log})")
        self.said, self.log = said, log


def is_out_of_memory(error: BaseException | str) -> bool:
    """Say whether an error, or what was said of it, means that memory ran out, a processor's or a GPU's."""
    text = error if isinstance(error, str) else in_words(error)
    memory = isinstance(error, MemoryError) or text.startswith("MemoryError") or "OutOfMemoryError" in text
    return memory or any(each in text for each in OUT_OF_MEMORY) or getattr(error, "errno", None) == errno.ENOMEM


def in_plain_words(error: BaseException | str) -> str:
    """Return what to do about an error that the machine's limits explain, or "" if they do not."""
    text = error if isinstance(error, str) else in_words(error)
    if is_out_of_memory(error):
        return f"memory ran out ({text}): take a smaller --batch-size or --max-length, or a machine with more memory"
    if is_full_disk(RuntimeError(error) if isinstance(error, str) else error):
        return f"no space left on the disk ({text}): free some, and start again in the same way"
    return ""


def lines(error: Exception, command: Sequence[str]) -> list[str]:
    """Return the lines that tell of an error which is no `BonsaiError`.

    Args:
        error: what nobody caught.
        command: the command line, which is kept with the traceback, without its secrets.
    """
    if words := in_plain_words(error):
        return [f"error: {_masked(words)}", f"({DEBUG}=1 shows where)"]
    said = error.said if isinstance(error, Fault) else f"unexpected {in_words(error)}"
    where = f"all that it said is in {error.log}" if isinstance(error, Fault) else _keep(error, command)
    return [
        f"error: {_masked(said)}",
        f"this is a fault of kfp-bonsai {metadata.version('kfp-bonsai')}, or of what it runs on: please report it in "
        "the project's issues",
        where,
    ]


def _keep(error: Exception, command: Sequence[str]) -> str:
    """Write the traceback to a file, and return where it is in words."""
    versions = [f"python {platform.python_version()} on {platform.platform()}"]
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions.append(f"{package} {metadata.version(package)}")
    text = "\n".join([shlex.join(command), *versions, "", "".join(traceback.format_exception(error))])
    try:
        file = cached("faults") / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_masked(text), encoding="utf-8", errors="backslashreplace")
    except OSError as problem:
        return f"its traceback could not be kept ({problem}): {DEBUG}=1 shows it"
    return f"the traceback, with the command and versions: {file} ({DEBUG}=1 shows it here)"


def _masked(text: str) -> str:
    """Return a text without passwords: of addresses, of options, and of the environment."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= FEWEST_SIGNS and not os.path.exists(value):
            text = text.replace(value, "***")
    text = re.sub(r"(?<=://)[^/\s@'\"]+@", "***@", text)
    text = re.sub(r"(?i)(--?[\w-]*(?:token|passw|secret|key)[\w-]*[ =])('[^']*'|\S+)", r"\1***", text)
    return re.sub(r"(?i)([?&][\w-]*(?:token|signature|credential|key)[\w-]*=)[^&\s'\"]+", r"\1***", text)
