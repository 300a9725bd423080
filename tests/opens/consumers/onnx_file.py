"""An ONNX file with its tokenizer.json, in onnxruntime or OpenVINO: the logits."""

import importlib.util
import json
import sys

import numpy
from tokenizers import Tokenizer

assert importlib.util.find_spec("kfp_bonsai") is None
folder, question, answer = sys.argv[1:]
with open(question) as file:
    asked = json.load(file)
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
tokenizer.enable_truncation(asked["length"])
tokenizer.enable_padding(pad_id=asked["pad"])
columns = asked["columns"]
encoded = tokenizer.encode_batch([one if len(one) > 1 else one[0] for one in zip(*columns, strict=True)])
whole = {
    "input_ids": numpy.array([one.ids for one in encoded]),
    "attention_mask": numpy.array([one.attention_mask for one in encoded]),
    "token_type_ids": numpy.array([one.type_ids for one in encoded]),
}
if asked["runtime"] == "openvino":
    import openvino

    model = openvino.compile_model(f"{folder}/model.onnx", "CPU")
    logits = model([whole[port.any_name] for port in model.inputs])[0]
else:
    import onnxruntime

    model = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
    logits = model.run(None, {port.name: whole[port.name] for port in model.get_inputs()})[0]
with open(answer, "w") as file:
    json.dump({"logits": logits.tolist(), "mask": whole["attention_mask"].tolist()}, file)
