"""The model card: metadata by huggingface_hub's classes, and a body in which every sentence was measured."""

import re
from typing import Any

from kfp_bonsai.shared.core.hub import parted
from kfp_bonsai.shared.core.markup import span, text
from kfp_bonsai.shared.data.encoding import OVERLAP
from kfp_bonsai.shared.data.tasks import HUB
from kfp_bonsai.shared.energy.energy import JOULES_PER_KWH
from kfp_bonsai.shared.inference.processor import FITTING_BITS, WEIGHTS
from kfp_bonsai.shared.kinds.kind import ANY, ROW, SPAN, TOKEN, WRITTEN
from kfp_bonsai.shared.kinds.kinds import kind_in
from kfp_bonsai.shared.kinds.task import CHAT
from kfp_bonsai.shared.metrics import control
from kfp_bonsai.shared.metrics.scores import in_words, is_share
from kfp_bonsai.shared.models.configuration import family_name
from kfp_bonsai.shared.models.families import FAMILIES
from kfp_bonsai.shared.saved.records import short_name, start_of
from kfp_bonsai.shared.saved.weights import CODE_FILE

GENERIC_TAGS = ["kfp-bonsai", "model-compression", "green-ai"]
MOST_CLASSES = 20

STOCK = """\
# pip install "transformers>=5" torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")
batch = tokenizer({texts}, padding=True, truncation=True, max_length={length}, return_tensors="pt")
print(model(**batch).logits{chances})
"""
TAGS = """\
# pip install "transformers>=5" torch
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

model = AutoModelForTokenClassification.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}", model_max_length={length})
tag = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="first", stride={overlap})
print(tag("a text"))
"""
FINDS = """\
# pip install "transformers>=5" torch
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

model = AutoModelForQuestionAnswering.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")
batch = tokenizer("a question", "a text", truncation="only_second", max_length={length}, return_tensors="pt")
found = model(**batch)
text = [at for at, side in enumerate(batch.sequence_ids(0)) if side == 1]  # token 0 stands for no answer
scores = found.start_logits[0, text, None] + found.end_logits[0, text]
scores += torch.full_like(scores, -torch.inf).tril(-1)  # an answer ends where it begins, or later
begin, end = divmod(scores.argmax().item(), len(text))
print(tokenizer.decode(batch["input_ids"][0, text[begin] : text[end] + 1]))
"""
RANKS = """\
# pip install "transformers>=5" torch sentence-transformers
from sentence_transformers import CrossEncoder

model = CrossEncoder("{folder}", max_length={length})
print(model.predict([("a query", "a text"), ("a query", "another text")]))
"""
GENERATES = """\
# pip install "transformers>=5" torch
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}", padding_side="left")
batch = tokenizer({texts}, padding=True, truncation=True, max_length={length}, return_tensors="pt")
said = model.generate(**batch)[:, batch["input_ids"].shape[1] :]
print(tokenizer.batch_decode(said, skip_special_tokens=True))
"""
CHATS = """\
# pip install "transformers>=5" torch
from transformers import Auto{model}, AutoTokenizer

model = Auto{model}.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}", padding_side="{side}")
talks = [[{{"role": "user", "content": text}}] for text in {texts}]
batch = tokenizer.apply_chat_template(
    talks, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
)
said = model.generate(**batch){answer}
print(tokenizer.batch_decode(said, skip_special_tokens=True))
"""
STOCK_OF = {ROW: STOCK, TOKEN: TAGS, SPAN: FINDS, WRITTEN: GENERATES}
WRITES = """\
# pip install "transformers>=5" torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

model = AutoModelForSeq2SeqLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")
batch = tokenizer({texts}, padding=True, truncation=True, max_length={length}, return_tensors="pt")
print(tokenizer.batch_decode(model.generate(**batch), skip_special_tokens=True))
"""
RUN = {
    "openvino": """\
import openvino

model = openvino.compile_model("{folder}/model.onnx", "CPU")
names = [port.any_name for port in model.inputs]
run = lambda batch: model([batch[name] for name in names])[0]
""",
    "onnxruntime": """\
import onnxruntime

options = onnxruntime.SessionOptions()
options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads burn no energy
model = onnxruntime.InferenceSession("{folder}/model.onnx", options, providers=["CPUExecutionProvider"])
names = [port.name for port in model.get_inputs()]
run = lambda batch: model.run(None, {{name: batch[name] for name in names}})[0]
""",
}
ENCODE = """\
import numpy
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("{folder}/tokenizer.json")
tokenizer.enable_truncation({length})
tokenizer.enable_padding({padding})
{special}encoded = tokenizer.encode_batch({texts})
batch = {{
    "input_ids": numpy.array([one.ids for one in encoded]),
    "attention_mask": numpy.array([one.attention_mask for one in encoded]),
    "token_type_ids": numpy.array([one.type_ids for one in encoded]),
}}
{answer}"""
ANSWERS = {
    ROW: "print(run(batch))\n",
    TOKEN: """\
tags = json.load(open("{folder}/config.json"))["id2label"]
for one, row in zip(encoded, run(batch).argmax(axis=-1)):
    print([(token, tags[str(tag)]) for token, tag in zip(one.tokens, row) if tag])
""",
    SPAN: """\
for one, row in zip(encoded, run(batch)):
    text = [at for at, side in enumerate(one.sequence_ids) if side == 1]  # token 0 stands for no answer
    scores = row[text, None, 0] + row[text, 1]
    scores[numpy.tril_indices(len(text), -1)] = -numpy.inf  # an answer ends where it begins, or later
    begin, end = divmod(int(scores.argmax()), len(text))
    print(tokenizer.decode(one.ids[text[begin] : text[end] + 1]))
""",
}
OPENED = """\
import json

import numpy
import openvino
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("{folder}/tokenizer.json")
tokenizer.enable_truncation({length})
limits = json.load(open("{folder}/generation_config.json"))
settings = {{"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}}
"""
SAID = """\
    return tokenizer.decode(said)


print(write({text}))
"""
DECODER = """\
request = openvino.compile_model("{folder}/openvino_model.xml", "CPU", settings).create_infer_request()


def write(text):
    new, read, said = tokenizer.encode(text{plain}).ids, 0, []
    request.reset_state()
    while len(said) < limits["max_new_tokens"]:
        places = range(read, read := read + len(new))
        batch = {{"input_ids": [new], "attention_mask": [[1] * read], "position_ids": [places], "beam_idx": [0]}}
        logits = request.infer([numpy.array(batch[port.any_name]) for port in request.model_inputs])[0]
        new = [int(logits[0, -1].argmax())]
        if new[0] == limits["eos_token_id"]:
            break
        said += new
"""
ENCODER_DECODER = """\
encoder, decoder = (
    openvino.compile_model(f"{folder}/openvino_{{part}}model.xml", "CPU", settings).create_infer_request()
    for part in ("encoder_", "")
)


def write(text):
    ids, said = numpy.array([tokenizer.encode(text{plain}).ids]), []
    encoder.infer({{"input_ids": ids, "attention_mask": numpy.ones_like(ids)}})
    decoder.reset_state()
    batch = {{port.any_name: encoder.get_tensor(port) for port in encoder.model_outputs}}
    batch["beam_idx"] = numpy.array([0], numpy.int32)
    while len(said) < limits["max_new_tokens"]:
        new = int(decoder.infer(batch)[0][0, -1].argmax())
        if new == limits["eos_token_id"]:
            break
        said.append(new)
        batch["decoder_input_ids"] = numpy.array([[new]])
"""
SPOKEN = """\
from transformers import AutoTokenizer  # for its chat template; it needs no torch

talk = [{{"role": "user", "content": "a question"}}]
asked = AutoTokenizer.from_pretrained("{folder}").apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
"""
OURS = "kfp_bonsai"
TRUST = f"""\
`trust_remote_code=True` runs the Python file `{CODE_FILE}` of this folder, with all rights of whoever runs it: \
read it first. As it was made, from kfp-bonsai's source, it imports torch and transformers only, and its SHA-256 is \
`{{hash}}`. Where kfp-bonsai is installed, `import {OURS}` does the same, and the file is never run."""
CHANCES = "print(1 / (1 + numpy.exp(-run(batch))))\n"
SPLIT = "tokenizer.encode_special_tokens = True  # words such as [SEP] in a text are plain text\n"


def model_card(name: str, license: str, record: dict[str, Any], results: dict[str, Any], row: dict[str, Any]) -> str:
    """Return the README.md of the packaged model.

    Args:
        name: what the model is called.
        license: its license's identifier, or "".
        record: the model's bonsai.json.
        results: the report's results.json.
        row: the model's own row of it.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    task = results["task"]
    metric, kind = task["metric"], kind_in(task)
    evaluation = EvalResult(
        task_type=kind.hub[0],
        task_name=kind.hub[1],
        dataset_type=task["name"],
        dataset_name=task["name"],
        dataset_split=task.get("split") or "test",
        metric_type=metric,
        metric_name=_metric(task),
        metric_value=row["accuracy"],
    )
    quantized = row["stage"] == "quantized"
    data = ModelCardData(
        license=license or None,
        library_name=row["runtime"] if quantized else "transformers",
        pipeline_tag=kind.hub[0],
        base_model=_hub_name(start_of(record)),
        datasets=_hub_name(_after(HUB, str(task.get("source"))).partition(":")[0]),
        metrics=[metric],
        model_name=name,
        eval_results=[evaluation],
        tags=sorted({*GENERIC_TAGS, *(entry["stage"] for entry in record.get("lineage", []) if not _is_taken(entry))}),
        co2_eq_emissions=_training_emissions(record, results),
    )
    body = _body(name, license, record, results, row)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def _body(name: str, license: str, record: dict[str, Any], results: dict[str, Any], row: dict[str, Any]) -> str:
    parts = [
        f"# {text(name)}",
        text(results.get("verdict") or "") if row.get("chosen") else _headline(results, row),
        "This is " + _what(record, row) + ".",
        "## What was measured",
        _table(results, row),
        _floor(results, row),
        "## How to use it",
        _usage(record, results["task"], row),
        "## Intended use, and its limits",
        "\n".join(f"- {limit}" for limit in _limits(record, results, row)),
        "## How it was made",
        _lineage(record),
        "## Files",
        "`bonsai.json` is the model's record (shape, lineage, versions), `results.json` all numbers of the report, "
        "`SHA256SUMS` the files' checksums (`sha256sum -c SHA256SUMS`), `sbom.cdx.json` the bill of materials, "
        f"`kserve-{'edge' if row['stage'] == 'quantized' else 'gpu'}.yaml` serves the model on Kubernetes (KServe)"
        + (f", `{CODE_FILE}` is the code that its shape needs." if record.get("code_sha256") else ".")
        + ("" if license else " No license was stated: that of the model it was made from applies."),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _headline(results: dict[str, Any], row: dict[str, Any]) -> str:
    """Say what a model keeps that is not the one the report's verdict is about, such as the one before int8."""
    if row["relative_accuracy"] is None or row["relative_emission"] is None:
        return ""
    return (
        f"{text(row['level'])} keeps {100 * row['relative_accuracy']:.1f} % of the {_metric(results['task'])} at "
        f"{100 * row['relative_emission']:.1f} % of the emission ({text(row.get('emission_label') or 'not labelled')})."
    )


def _what(record: dict[str, Any], row: dict[str, Any]) -> str:
    shape = record.get("shape") or {}
    layers = len(shape.get("layers") or [])
    size = f"{row['parameters'] / 1e6:.1f} million parameters" if row.get("parameters") else "a model"
    level, start = span(row["level"]), span(row["model"])
    said = f"{level} of {start}, fine-tuned and then compressed by kfp-bonsai: {size}"
    if record.get("student"):
        named = f"the ready-made model {span(short_name(record['student']))}"
        said = f"{level}, {named}, which kfp-bonsai taught what {start} had learnt, fine-tuned: {size}"
    if layers:
        said += f", {layers} layer{'s' if layers > 1 else ''} of width {shape.get('hidden')}"
    if row["stage"] == "quantized":
        return f"{said}, quantized to int8 for {row['runtime']} on a CPU"
    if shape.get("kind") == "free":
        why = "each layer has its own widths, and the last one computes what is read"
        needs = f"`trust_remote_code=True` or `import {OURS}`" if record.get("code_sha256") else f"`import {OURS}`"
        return f"{said}, a *free* shape ({why}), which needs {needs}"
    return f"{said}, a *stock* shape that plain transformers loads"


def _table(results: dict[str, Any], row: dict[str, Any]) -> str:
    baseline = _baseline(results, row)
    unit = text(row.get("emission_label") or "not labelled")
    one = kind_in(results["task"]).unit
    tokens = row["writing"]["tokens"] if row.get("writing") else 0
    counted = f"{one} of {tokens} tokens" if tokens else one
    many = counted.replace(one, f"1,000 {one}s")
    lines = [
        (
            f"{_metric(results['task'])} (95 % interval)",
            *(_number(r, "accuracy", results["task"]) for r in (row, baseline)),
        ),
        ("relative to the baseline", _share(row, "relative_accuracy"), "100 %"),
        (f"emission of an {counted}, relative ({unit})", _share(row, "relative_emission"), "100 %"),
        (
            f"energy of {many} ({unit})",
            _plain(row, "joules_per_1000", "J"),
            _plain(baseline, "joules_per_1000", "J"),
        ),
        (
            f"CO₂ of {many}",
            _plain(row, "grams_co2_per_1000", "g"),
            _plain(baseline, "grams_co2_per_1000", "g"),
        ),
        ("latency, p50", _plain(row, "latency_ms_p50", "ms"), _plain(baseline, "latency_ms_p50", "ms")),
        *_writing(row.get("writing"), baseline.get("writing"), unit),
        ("weights", _megabytes(row), _megabytes(baseline)),
        ("FLOPs, relative", _share(row, "flops_ratio"), "100 %"),
    ]
    rows = results.get("test_rows") or results["task"]["rows"] or 0
    what = kind_in(results["task"]).scored
    queries = f", {row['scored']:,} {what}," if what != "rows" and row.get("scored") else ""
    head = f"On {text(row['device'])}, {rows:,} test rows{queries} of {text(results['task']['name'])}:"
    table = ["| | this model | baseline |", "| --- | ---: | ---: |"]
    table += [f"| {' | '.join(line)} |" for line in lines if line[1] != "–"]
    return head + "\n\n" + "\n".join(table)


def _writing(ours: dict[str, Any] | None, theirs: dict[str, Any] | None, unit: str) -> list[tuple[str, ...]]:
    """Return what is told of models that write: tokens, their cost and speed, and how likely right answers are."""
    if not ours or not theirs:
        return []
    own = ours.get("own") or {}
    shown = (
        ("energy of a written token ({unit})", "joules_per_token", "J"),
        ("tokens of an answer that it ends by itself, mean", "mean_tokens", "tokens"),
        ("first token, p50", "first_token_ms_p50", "ms"),
        ("first token, p95", "first_token_ms_p95", "ms"),
        ("tokens a second, p50", "tokens_per_s_p50", ""),
        ("tokens a second, p95", "tokens_per_s_p95", ""),
        ("perplexity of the right answers", "perplexity", ""),
    )
    lines = [
        (head.format(unit=unit), *(_plain(one, key, name).strip() for one in (ours, theirs)))
        for head, key, name in shown
    ]
    lines.insert(2, (f"emission of such an answer, relative ({unit})", _share(own, "relative_emission"), "100 %"))
    return lines


def _floor(results: dict[str, Any], row: dict[str, Any]) -> str:
    floor = results.get("floor_accuracy")
    if floor is None:
        return ""
    task = results["task"]
    name = kind_in(task).floor_name[0]
    shown = f"{_value(floor, task)} ({text(results.get('floor_method') or f'a {name}')})"
    if row["accuracy"] is not None and row["accuracy"] <= floor:
        return f"**A {name} does as well: {shown}. Use that instead.**"
    return f"For comparison, a {name} reaches {shown}."


def _usage(record: dict[str, Any], task: dict[str, Any], row: dict[str, Any]) -> str:
    length = record.get("max_length") or 128
    pair, kind = len(task.get("columns") or ["text"]) > 1, kind_in(task)
    any_may_hold = kind.head == ROW and kind.says == ANY
    model_type = record.get("model_type")
    in_text = bool(model_type) and FAMILIES[family_name(str(model_type))].answers_in_text
    if row["stage"] == "quantized" and kind.writes:
        chat = task.get("setting") == CHAT
        code = SPOKEN * chat + OPENED + (ENCODER_DECODER if in_text else DECODER) + SAID
        said = {"text": "asked" if chat else '"a fine film"', "plain": ", add_special_tokens=False" * chat}
        filled = code.format(folder=".", length=length, **said)
        return (
            f"With `pip install openvino tokenizers numpy{' transformers' * chat}`; torch is not needed:\n\n"
            f"```python\n{filled}```"
        )
    if row["stage"] == "quantized":
        padding = _padding(record)
        texts = '[("a first text", "a second text")]' if pair else '["a fine film", "a dull one"]'
        code = RUN[row["runtime"]] + "\n" + ENCODE
        with_it = f"With `pip install {row['runtime']} tokenizers numpy`; neither torch nor transformers is needed:"
        special = SPLIT if record.get("split_special_tokens") else ""
        answer = CHANCES if any_may_hold else ANSWERS[kind.head].format(folder=".")
        cut = f'{length}, strategy="{kind.windows}"' if pair and kind.windows else length
        filled = code.format(folder=".", length=cut, padding=padding, special=special, texts=texts, answer=answer)
        filled = f"import json\n\n{filled}" if "json." in answer else filled
        return f"{with_it}\n\n```python\n{filled}```"
    texts = '["a first text"], ["a second text"]' if pair else '["a fine film", "a dull one"]'
    code = WRITES if in_text else STOCK_OF[kind.head] if kind.scored == "rows" else RANKS
    if kind.writes and task.get("setting") == CHAT:
        code = CHATS.replace("{model}", "ModelForSeq2SeqLM" if in_text else "ModelForCausalLM")
        code = code.replace("{side}", "right" if in_text else "left")
        code = code.replace("{answer}", "" if in_text else '[:, batch["input_ids"].shape[1] :]')
    chances = ".sigmoid()" if any_may_hold else ""
    code = code.format(folder=".", length=length, texts=texts, chances=chances, overlap=length // OVERLAP)
    if record.get("code_sha256"):
        code = re.sub(
            r'(= (?:AutoModelFor\w+\.from_pretrained|CrossEncoder)\("\.")', r"\1, trust_remote_code=True", code
        )
        return f"```python\n{code}```\n\n{TRUST.format(hash=record['code_sha256'])}"
    if (record.get("shape") or {}).get("kind") == "free":
        code = f"import {OURS}  # registers shapes with a width of its own for each layer\n" + code
    return f"```python\n{code}```"


def _padding(record: dict[str, Any]) -> str:
    """Return the argument for padding: the padding token's id, where it is not 0."""
    pad = record.get("pad_token_id") or 0
    return f"pad_id={pad}" if pad else ""


def _limits(record: dict[str, Any], results: dict[str, Any], row: dict[str, Any]) -> list[str]:
    task = results["task"]
    labels, kind = list(task.get("labels") or []), kind_in(task)
    what = kind.does.format(labels=f"{text(', '.join(labels[:8]))}{' …' if len(labels) > 8 else ''}")
    long = "are cut, or, where they are conversations, refused" if kind.writes else "are cut"
    if kind.windows:
        long = "were read in parts that overlap when it was measured: code that reads one part alone misses the rest"
    source = task.get("source") or "a source not stated"
    limits = [
        f"Made for one task: {what}, in texts like those of {text(task['name'])} (from {text(source)}). "
        "Other texts were not tried.",
        f"Texts longer than {record.get('max_length') or 128} tokens {long}.",
    ]
    limits += _processors(record)
    ends = row.get("relative_accuracy_ci")
    if ends:
        levels = {one["level"] for one in results["rows"] if one["stage"] == "compressed"}
        chosen = f"; of several levels it was chosen by these very {kind.scored}, which flatters it a little"
        flatters = chosen if len(levels) > 1 else ""
        limits.append(
            f"On other {kind.scored} of the same kind it may keep between {100 * ends[0]:.1f} and "
            f"{100 * ends[1]:.1f} % of the baseline's {_metric(task)} (95 % interval{flatters})."
        )
    doubt = control.DOUBTS.get(control.of_results(results))
    if row.get("emission_label") != "measured":
        reliable = ": the ratio to the baseline is reliable on this device, the joules are rough"
        limits.append(f"Its emission was not, or not all, read from a counter{'' if doubt else reliable}.")
    if doubt:
        limits.append(f"**In its measurement {doubt}: do not rely on the emission figures.**")
    return limits + _classes(results, row, labels)


def _processors(record: dict[str, Any]) -> list[str]:
    """Say on which processors a quantized model was seen to answer as before."""
    found = record.get("quantization") or {}
    seen = found.get("processor") or {}
    if not seen:
        return []
    sets = ", ".join(seen.get("instruction_sets") or ()) or "instruction sets that its system did not tell"
    kept = f"Quantized, it gave the same answer on {100 * found['agreement']:.1f} % of {found['agreement_rows']} rows"
    if (how_found := found.get("agreement_kind")) != "equal classes":
        kept = f"Quantized, its answers correlate with those before by {found['agreement']:.3f}"
        if how_found and how_found != "correlation":
            kept = f"Quantized, its answers agree with those before by {found['agreement']:.3f} ({how_found})"
    if seen.get("weight_bits") == FITTING_BITS:
        how = "its weights have 7 bits, whose sums are exact on other processors too"
    else:
        other = "one without VNNI and AMX" if seen.get("exact") else "one with VNNI or AMX"
        how = f"on {other} it may answer otherwise"
        if found.get("scheme") != WEIGHTS:
            how += " (`bonsai quantize --any-processor` makes one that does not)"
    return [f"{kept}, seen on {text(seen.get('machine'))} with {text(sets)}; {how}."]


def _classes(results: dict[str, Any], row: dict[str, Any], labels: list[str]) -> list[str]:
    """Say which class is recognised worst, and how much each lost."""
    baseline = _baseline(results, row)
    if row.get("by_label"):
        return _labels(baseline.get("by_label") or [], row["by_label"])
    before, after = _recalls(baseline.get("confusion")), _recalls(row.get("confusion"))
    known = [at for at in range(len(labels)) if at < len(after) and after[at] is not None]
    if not known:
        return []
    worst = min(known, key=lambda at: after[at] or 0.0)
    weakest = f"Weakest class: {span(labels[worst])}, of which it finds {100 * (after[worst] or 0):.1f} %."
    return [weakest, *_side_by_side("Share found of each class", labels, before, after, known)]


def _labels(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[str]:
    """Say which label is found worst, and how much each lost, of labels of which a row may have several."""
    known = [at for at, one in enumerate(after) if one["items"]]
    if not known:
        return []
    worst = after[min(known, key=lambda at: after[at]["f1"] or 0.0)]
    weakest = f"Weakest label: {span(worst['label'])}, with an F1 of {100 * (worst['f1'] or 0):.1f} %."
    names, theirs, ours = [one["label"] for one in after], [one["f1"] for one in before], [one["f1"] for one in after]
    return [weakest, *_side_by_side("F1 of each label", names, theirs, ours, known)]


def _side_by_side(
    what: str, names: list[str], before: list[float | None], after: list[float | None], known: list[int]
) -> list[str]:
    """Say shares of the baseline beside the model's, of those that are known; nothing where they are of other names."""
    if len(before) != len(after):
        return []
    parts = [
        f"{span(names[at])} {100 * (before[at] or 0):.1f} → {100 * (after[at] or 0):.1f} %"
        for at in known[:MOST_CLASSES]
    ]
    more = " …" if len(known) > MOST_CLASSES else ""
    return [f"{what}, baseline → this model: {', '.join(parts)}{more}."]


def _recalls(confusion: list[list[int]] | None) -> list[float | None]:
    return [row[at] / sum(row) if sum(row) else None for at, row in enumerate(confusion or [])]


def _lineage(record: dict[str, Any]) -> str:
    lines = ["| stage | arguments | time | energy |", "| --- | --- | ---: | ---: |"]
    for entry in record.get("lineage", []):
        shown = ", ".join(
            f"{key} {value}" for key, value in (entry.get("arguments") or {}).items() if not _is_path(value)
        )
        seconds, joules = entry.get("seconds"), entry.get("joules")
        cost = "–" if joules is None else f"{joules:,.0f} J ({entry.get('energy_label', '')})"
        lines.append(
            f"| {text(entry['stage'])} | {text(shown)} | {'–' if seconds is None else f'{seconds:,.0f} s'} | {cost} |"
        )
    versions = ", ".join(f"{key} {value}" for key, value in (record.get("versions") or {}).items())
    seed = record.get("seed")
    return "\n".join(lines) + f"\n\n{f'Seed {seed}. ' if seed is not None else ''}Versions: {text(versions)}."


def _training_emissions(record: dict[str, Any], results: dict[str, Any]) -> dict[str, Any] | None:
    """Return what making the model emitted, in grams as the hub wants it, if an intensity is known."""
    carbon, lineage = results.get("carbon"), record.get("lineage") or []
    if not carbon or not lineage or any(entry.get("joules") is None for entry in lineage):
        return None
    joules = sum(entry["joules"] for entry in lineage)
    labels = sorted({entry.get("energy_label") or "unlabelled" for entry in lineage})
    emissions = {
        "emissions": float(f"{joules / JOULES_PER_KWH * carbon['intensity_g_per_kwh']:.4g}"),
        "source": f"codecarbon ({', '.join(labels)} energy), {carbon['intensity_g_per_kwh']:g} g/kWh",
        "training_type": "fine-tuning",
        "geographical_location": carbon.get("country") or None,
    }
    return {key: value for key, value in emissions.items() if value is not None}


def _baseline(results: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    same = [r for r in results["rows"] if r["stage"] == "baseline" and r.get("measurement") == row.get("measurement")]
    return same[0] if same else next(r for r in results["rows"] if r["stage"] == "baseline")


def _is_taken(entry: dict[str, Any]) -> bool:
    """Tell whether a stage took a ready-made model instead of doing what it is called after."""
    return bool((entry.get("arguments") or {}).get("student"))


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and (not value or value.startswith(("/", ".", "[")) or value.count("/") > 1)


def _after(prefix: str, text: str) -> str:
    return text.removeprefix(prefix) if text.startswith(prefix) else ""


def _hub_name(value: Any) -> str | None:
    """Return a value if it is a name on the hub, such as owner/name; a folder is recorded by its whole path."""
    name = parted(value)[0] if isinstance(value, str) else ""
    return name if re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", name) else None


def _metric(task: dict[str, Any]) -> str:
    return in_words(task["metric"])


def _value(value: float | None, task: dict[str, Any]) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" if is_share(task["metric"]) else f"{value:.3f}"


def _number(row: dict[str, Any], key: str, task: dict[str, Any]) -> str:
    ends = row.get(f"{key}_ci")
    shown = f" ({_value(ends[0], task)} to {_value(ends[1], task)})" if ends else ""
    return _value(row.get(key), task) + shown


def _share(row: dict[str, Any], key: str) -> str:
    value, ends = row.get(key), row.get(f"{key}_ci")
    if value is None:
        return "–"
    return f"{100 * value:.1f} %" + (f" ({100 * ends[0]:.1f} to {100 * ends[1]:.1f} %)" if ends else "")


def _plain(row: dict[str, Any], key: str, unit: str) -> str:
    return "–" if row.get(key) is None else f"{row[key]:.3g} {unit}"


def _megabytes(row: dict[str, Any]) -> str:
    return "–" if row.get("size_bytes") is None else f"{row['size_bytes'] / 1e6:.1f} MB"
