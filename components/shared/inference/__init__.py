"""Running a model folder, as torch or ONNX."""
