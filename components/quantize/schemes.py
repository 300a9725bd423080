"""The two ways to int8: ranges of activations found beforehand (NNCF), or row by row as they come (onnxruntime).

Both take an fp32 ONNX file to an int8 one, with the weights per channel and the embeddings included.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from kfp_bonsai.shared.inference.onnx_export import quiet

Batch = dict[str, np.ndarray]


def static(fp32: Path, int8: Path, calibration: Sequence[Batch], fitting: bool = False) -> None:
    """Quantize weights and activations with NNCF, the file then holds QuantizeLinear/DequantizeLinear pairs.

    Post-training quantization for transformers with SmoothQuant (arXiv 2211.10438) and bias correction. On the
    demo model SmoothQuant takes a third off the error of the logits; more than 150 rows of calibration add nothing.
    The weights are put beside the graph, which NNCF copies at every step: it then takes a quarter less time.
    With `fitting`, weights take 7 bits, whose sums fit where a processor has no VNNI, see `shared.processor`.
    """
    with quiet(), TemporaryDirectory(dir=int8.parent) as folder:
        import nncf
        import onnx
        from nncf.onnx.quantization.backend_parameters import BackendParameters

        graph, beside = Path(folder) / "graph.onnx", {BackendParameters.EXTERNAL_DATA_DIR: folder}
        onnx.save_model(onnx.load(fp32), graph, save_as_external_data=True, location="weights")
        quantized = nncf.quantize(
            onnx.load(graph, load_external_data=False),
            nncf.Dataset(list(calibration)),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(calibration),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                backend_params=beside, overflow_fix=nncf.OverflowFix.ENABLE if fitting else None
            ),
        )
        onnx.save(quantized, int8)


def dynamic(fp32: Path, int8: Path, fitting: bool = False) -> None:
    """Quantize weights with onnxruntime, which scales the activations when it runs; `fitting` as of `static`."""
    with quiet():
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(fp32, int8, per_channel=True, reduce_range=fitting, weight_type=QuantType.QInt8)
