"""The two ways to int8: ranges of activations found beforehand (NNCF), or row by row as they come (onnxruntime).

Both take an fp32 ONNX file to an int8 one, with the weights per channel and the embeddings included.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kfp_bonsai.shared.onnx_export import quiet

Batch = dict[str, np.ndarray]


def static(fp32: Path, int8: Path, calibration: Sequence[Batch]) -> None:
    """Quantize weights and activations with NNCF, the file then holds QuantizeLinear/DequantizeLinear pairs.

    Post-training quantization for transformers with SmoothQuant (arXiv 2211.10438) and bias correction. On the
    demo model SmoothQuant takes a third off the error of the logits; more than 150 rows of calibration add nothing.
    """
    os.environ.setdefault("NNCF_CI", "1")  # no telemetry
    with quiet():
        import nncf
        import onnx
        from nncf.onnx.quantization.backend_parameters import BackendParameters

        beside = {BackendParameters.EXTERNAL_DATA_DIR: str(fp32.parent.absolute())}  # where weights of over 2 GiB are
        quantized = nncf.quantize(
            onnx.load(fp32, load_external_data=False),
            nncf.Dataset(list(calibration)),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(calibration),
            advanced_parameters=nncf.AdvancedQuantizationParameters(backend_params=beside),
        )
        onnx.save(quantized, int8)


def dynamic(fp32: Path, int8: Path) -> None:
    """Quantize weights with onnxruntime; it scales the activations of each matrix product when it runs it."""
    with quiet():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(fp32, int8, per_channel=True, weight_type=QuantType.QInt8)
