"""What libraries tell their makers of their use: nothing, once this package is imported.

OpenVINO does so whenever it is imported or used, from a process that is forked beside running threads, and that can
then wait for ever, and with it the one that forked it.
"""

import os
import sys
from typing import Any

OFF = {
    "DO_NOT_TRACK": "true",  # MLflow, Hugging Face's clients
    "NNCF_CI": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # traces of every session of onnxruntime
}
ABSENT = "openvino_telemetry"  # without which OpenVINO and NNCF do all else


def switch_off() -> None:
    """Switch it off in this process and those it starts, where its environment does not state otherwise."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
    imported: dict[str, Any] = sys.modules
    imported.setdefault(ABSENT, None)  # by which an import fails as if it was not installed, see Python's import system
