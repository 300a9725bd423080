"""transformers' pipeline of the task: what it answers for each text."""

import importlib.util
import json
import sys

from transformers import pipeline

assert importlib.util.find_spec("kfp_bonsai") is None
folder, question, answer = sys.argv[1:]
with open(question) as file:
    asked = json.load(file)
run = pipeline(asked["task"], model=folder, trust_remote_code=asked["trust"], device="cpu")
options = {"truncation": True, "max_length": asked["length"]} if asked["task"] == "text-classification" else {}
if asked["task"] == "question-answering":
    found = [run(question=one, context=text) for one, text in zip(*asked["columns"], strict=True)]
elif asked["task"] == "text-generation":
    found = [run(text, return_full_text=False) for text in asked["columns"][0]]
elif asked["task"] == "token-classification":
    found = [run(text) for text in asked["columns"][0]]
else:
    pairs = [
        {"text": one[0], "text_pair": one[1]} if len(one) > 1 else one[0] for one in zip(*asked["columns"], strict=True)
    ]
    found = [run(one, top_k=None, function_to_apply="none", **options) for one in pairs]
with open(answer, "w") as file:
    json.dump(found, file, default=float)
