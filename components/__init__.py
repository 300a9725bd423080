"""kfp-bonsai: make fine-tuned language models smaller, and prove how much less each inference emits.

Importing this package teaches transformers' Auto classes the free-shaped models it makes. That happens
when transformers is first used, so that the import itself stays fast and works without transformers.
"""

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

try:
    from wrapt import when_imported
except ImportError:  # installed without what it depends on, as in the edge image, which has no transformers either
    when_imported = None  # type: ignore[assignment]

try:
    __version__ = version("kfp-bonsai")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+unknown"

_MODELS = "transformers.models.auto.modeling_auto"


def _import_models(_module: object) -> None:
    if _MODELS not in sys.modules:  # else it is what imports the configurations
        import_module(_MODELS)


def _register(_module: object) -> None:
    from kfp_bonsai.shared.models.free_models import register

    register()


if when_imported is not None:
    when_imported("transformers.models.auto.configuration_auto")(_import_models)
    when_imported(_MODELS)(_register)
