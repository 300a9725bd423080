"""Optimum's ONNX classes: the logits."""

import importlib.util
import json
import sys

from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import AutoTokenizer

assert importlib.util.find_spec("kfp_bonsai") is None
folder, question, answer = sys.argv[1:]
with open(question) as file:
    asked = json.load(file)
model = ORTModelForSequenceClassification.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
batch = tokenizer(*asked["columns"], padding=True, truncation=True, max_length=asked["length"], return_tensors="np")
batch = {name: batch[name] for name in asked["inputs"]}
with open(answer, "w") as file:
    json.dump({"logits": model(**batch).logits.tolist(), "mask": batch["attention_mask"].tolist()}, file)
