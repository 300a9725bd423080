"""Which models have an int8 form for CPUs: told before anything is trained."""

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.inference.runtimes import ONNXRUNTIME
from kfp_bonsai.shared.kinds.kinds import KINDS, check_stage

MOST_PARAMETERS = 2_000_000_000  # a byte each in one ONNX file, which holds 2 GiB


def check_kind(kind: str, runtime: str) -> None:
    """Refuse a kind of task that has no int8 form yet, and a runtime that runs no models of it.

    Raises:
        BonsaiError: it is one; a kind that is not known here is of no concern.
    """
    check_stage(kind, "quantize")
    if runtime == ONNXRUNTIME and _writes(kind):
        raise BonsaiError("--runtime onnxruntime: models that write run on openvino, or on torch: give --runtime auto")


def check_model(model: str, kind: str, parameters: int) -> None:
    """Refuse a model without an int8 form.

    Args:
        model: what it is called.
        kind: of its task.
        parameters: how many it has; 0 where that is not known.

    Raises:
        BonsaiError: it has none.
    """
    if not _writes(kind) and parameters > MOST_PARAMETERS:
        raise BonsaiError(
            f"{model} has {parameters:,} parameters, and one ONNX file holds {MOST_PARAMETERS:,} of int8: serve the "
            "checkpoint as it is, or compress it further"
        )


def _writes(kind: str) -> bool:
    return kind in KINDS and KINDS[kind].writes
