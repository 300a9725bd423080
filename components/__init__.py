"""kfp-bonsai: make fine-tuned language models smaller, and prove how much less each inference emits.

Importing this package teaches transformers' Auto classes the free-shaped models it makes. That happens
when they are first used, so that the import itself stays fast and works without transformers. It also keeps
libraries from telling their makers of their use.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from kfp_bonsai.shared.core import telemetry

try:
    from wrapt import when_imported, wrap_function_wrapper
except ImportError:  # installed without what it depends on, as in the edge image, which has no transformers either
    wrap_function_wrapper = None  # type: ignore[assignment]

try:
    __version__ = version("kfp-bonsai")
except PackageNotFoundError:  # running from a source tree that was never installed
    __version__ = "0+unknown"


def _teach(module: Any) -> None:
    """Let AutoConfig register the free types when it is first asked for one.

    Not earlier: transformers imports its Auto classes in the midst of other modules, whose types are not there yet.
    """

    def registered(wrapped: Any, _instance: Any, arguments: Any, options: Any) -> Any:
        from kfp_bonsai.shared.models.free_models import register

        register()
        return wrapped(*arguments, **options)

    for name in ("from_pretrained", "for_model"):
        wrap_function_wrapper(module, f"AutoConfig.{name}", registered)


telemetry.switch_off()
if wrap_function_wrapper is not None:
    when_imported("transformers.models.auto.configuration_auto")(_teach)
