"""transformers' Auto classes: the logits, and what generate() writes."""

import importlib.util
import json
import sys

import torch
import transformers

assert importlib.util.find_spec("kfp_bonsai") is None
folder, question, answer = sys.argv[1:]
with open(question) as file:
    asked = json.load(file)
load = getattr(transformers, asked["auto"]).from_pretrained
model, said = load(folder, trust_remote_code=asked["trust"], output_loading_info=True)
assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), said
tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side=asked["side"])
columns = asked["columns"]
batch = tokenizer(*columns, padding=True, truncation=True, max_length=asked["length"], return_tensors="pt")
batch = {name: batch[name] for name in asked["inputs"]}
found = {"type": type(model).__module__}
with torch.no_grad():
    if asked["writes"]:
        found["texts"] = tokenizer.batch_decode(
            model.generate(**batch)[:, 0 if model.config.is_encoder_decoder else batch["input_ids"].shape[1] :],
            skip_special_tokens=True,
        )
    else:
        output = model.eval()(**batch)
        logits = output.logits if "logits" in output else torch.stack([output.start_logits, output.end_logits], -1)
        found["logits"] = logits.tolist()
        found["mask"] = batch["attention_mask"].tolist()
with open(answer, "w") as file:
    json.dump(found, file)
