"""What Python runs first in every process that a test starts: conftest.py puts this folder onto its path."""

import importlib.util
from contextlib import suppress
from pathlib import Path

with suppress(ImportError):  # no wrapt, as in an environment without what kfp-bonsai depends on
    _spec = importlib.util.spec_from_file_location("short_looks", Path(__file__).parents[1] / "short_looks.py")
    _module = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_module)
    _module.shorten()
