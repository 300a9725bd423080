"""The Open Inference Protocol (v2, REST): what a model takes and gives, and the answer to a request."""

import json
from typing import Any

from kfp_bonsai.serve.served import InputError, Model, Row
from kfp_bonsai.shared.inference.runtimes import TORCH
from kfp_bonsai.shared.inference.writers import Writer

TOKENS = "max_new_tokens"  # a request's parameter
MOST_CHARACTERS = 1 << 15  # of one text: it is split into tokens whole, some 140 bytes a character, before it is cut


def metadata(model: Model, name: str) -> dict[str, Any]:
    """Return what the protocol tells of a model."""
    outputs = [
        {"name": each, "datatype": kind, "shape": [-1, width] if width else [-1]} for each, kind, width in model.tensors
    ]
    return {
        "name": name,
        "versions": [],
        "platform": _platform(model),
        "inputs": [{"name": text, "datatype": "BYTES", "shape": [-1]} for text in model.names],
        "outputs": outputs,
    } | ({"parameters": {"labels": list(model.task.labels)}} if model.task.labels else {})


def _platform(model: Model) -> str:
    if model.runtime == TORCH:
        return "pytorch_safetensors"
    return f"{model.runtime}_{'ir' if isinstance(model.predictor, Writer) else 'onnx'}"


def infer(model: Model, name: str, request: Any) -> dict[str, Any]:
    """Answer an inference request of the protocol.

    Raises:
        InputError: the request is not one, or not one for this model.
    """
    if not isinstance(request, dict) or not isinstance(request.get("inputs"), list):
        raise InputError('the body is no inference request: give {"inputs": [...]}')
    known = metadata(model, name)
    rows = _rows(request["inputs"], model.names, model.most_rows)
    told = model.tell(rows, _fewer(model, request.get("parameters")))
    data = {each: [one for answer in told for one in _elements(answer[each])] for each, _, _ in model.tensors}
    wanted = _wanted(request.get("outputs"), list(data))
    outputs = [
        {**one, "shape": [len(rows), *one["shape"][1:]], "data": data[one["name"]]}
        for one in known["outputs"]
        if one["name"] in wanted
    ]
    return {"model_name": name, **({"id": request["id"]} if "id" in request else {}), "outputs": outputs}


def _fewer(model: Model, parameters: Any) -> int:
    """Return the most tokens that a request wants of an answer, 0 where it does not say."""
    if not isinstance(model.predictor, Writer) or not parameters:
        return 0
    if not isinstance(parameters, dict) or parameters.keys() != {TOKENS}:
        raise InputError(f'parameters may be {{"{TOKENS}": ...}} and nothing else: answers are the likeliest tokens')
    found, most = parameters[TOKENS], model.predictor.most
    if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= most:
        raise InputError(f"{TOKENS} is {json.dumps(found)[:40]}: give a number of 1 to {most}")
    return found


def _elements(value: Any) -> list[Any]:
    """Return a tensor's elements of one row; a list, of which the protocol has no tensor, is one element of JSON."""
    if isinstance(value, dict):
        return [*value.values()]
    return [json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value]


def parse(body: bytes) -> Any:
    """Return the JSON of a request's body."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is no JSON: {error}") from error


def _rows(inputs: list[Any], names: list[str], most: int) -> list[Row]:
    """Return the texts of the request's input tensors."""
    given: dict[str, list[str]] = {}
    for tensor in inputs:
        if not isinstance(tensor, dict) or tensor.get("name") not in names:
            found = tensor.get("name") if isinstance(tensor, dict) else tensor
            raise InputError(f"there is no input {found!r}: the model takes {' and '.join(names)}")
        if tensor["name"] in given:
            raise InputError(f"the input {tensor['name']!r} is there twice: give one tensor of all rows")
        given[tensor["name"]] = _texts(tensor)
    missing = [name for name in names if name not in given]
    if missing:
        raise InputError(f"the input {missing[0]!r} is missing: the model takes {' and '.join(names)}")
    columns = [given[name] for name in names]
    if len({len(column) for column in columns}) > 1:
        raise InputError(f"the inputs {' and '.join(names)} have different numbers of rows")
    if not 0 < len(columns[0]) <= most:
        raise InputError(f"the request has {len(columns[0])} rows: give 1 to {most}")
    return [row if len(row) > 1 else row[0] for row in zip(*columns, strict=True)]


def _texts(tensor: dict[str, Any]) -> list[str]:
    name, data, shape = tensor["name"], tensor.get("data"), tensor.get("shape")
    if tensor.get("datatype") != "BYTES":
        raise InputError(f"{name}: datatype {tensor.get('datatype')!r}, but texts are BYTES")
    if not isinstance(data, list):
        raise InputError(f"{name}: data is no list: give the texts as JSON strings (binary data is not read)")
    if data and all(isinstance(each, list) and len(each) == 1 for each in data):  # rows of shape [n, 1]
        data = [each[0] for each in data]
    wrong = next((at for at, each in enumerate(data) if not isinstance(each, str)), None)
    if wrong is not None:
        raise InputError(f"{name}: data[{wrong}] is no string")
    long = next((at for at, each in enumerate(data) if len(each) > MOST_CHARACTERS), None)
    if long is not None:
        raise InputError(f"{name}: data[{long}] has over {MOST_CHARACTERS:,} characters: cut it, as the model would")
    if shape not in ([len(data)], [len(data), 1]):
        raise InputError(f"{name}: shape {json.dumps(shape)} does not fit {len(data)} texts: give [{len(data)}]")
    return data


def _wanted(outputs: Any, known: list[str]) -> list[str]:
    if not outputs:
        return known
    if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in outputs):
        raise InputError('outputs is no list of outputs: give [{"name": ...}], or leave it out for all')
    names = [one.get("name") for one in outputs]
    unknown = [each for each in names if each not in known]
    if unknown:
        raise InputError(f"there is no output {unknown[0]!r}: the model gives {' and '.join(known)}")
    return names
