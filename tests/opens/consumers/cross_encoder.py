"""sentence-transformers' CrossEncoder: the score of each pair."""

import importlib.util
import json
import sys

import torch
from sentence_transformers import CrossEncoder

assert importlib.util.find_spec("kfp_bonsai") is None
folder, question, answer = sys.argv[1:]
with open(question) as file:
    asked = json.load(file)
model = CrossEncoder(folder, max_length=asked["length"], trust_remote_code=asked["trust"], device="cpu")
pairs = list(zip(*asked["columns"], strict=True))
with open(answer, "w") as file:
    json.dump({"scores": model.predict(pairs, activation_fn=torch.nn.Identity()).tolist()}, file)
