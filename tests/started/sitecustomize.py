"""What Python runs first in every process that a test starts: conftest.py puts this folder onto its path."""

import importlib.util
from contextlib import suppress
from pathlib import Path


def _load(file: Path):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


with suppress(ImportError):  # no wrapt, as in an environment without what kfp-bonsai depends on
    _load(Path(__file__).parents[1] / "short_looks.py").shorten()
_load(Path(__file__).with_name("forks.py")).switch_on()
