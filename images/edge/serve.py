"""Score or serve a folder that `bonsai quantize` or `bonsai package-model` wrote, on a CPU, without torch.

    serve.py score MODEL [FILE]     texts, one a line, to JSON lines with the answers
    serve.py serve MODEL            HTTP, the Open Inference Protocol (v2, REST), on port 8080

Of kfp-bonsai it needs what loads a folder and splits texts, which asks for numpy, tokenizers, and the runtime that the
folder's bonsai.json names. A model that is not quantized it runs with torch, on a GPU if there is one.
"""

import argparse
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kfp_bonsai.shared.core.documents import RECORD, read_object
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data.encoding import TextError, encode_batch, encode_parts, folder_tokenizer
from kfp_bonsai.shared.inference.asking import Asked, together
from kfp_bonsai.shared.inference.runtimes import TORCH, Predictor, load_predictor, runtime_of, stated_threads
from kfp_bonsai.shared.inference.writers import Writer, load_writer, prompt_batch
from kfp_bonsai.shared.kinds.kinds import KINDS, kind_in, kind_of, tell
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.models.weights import DECODER_FILE, ONNX_FILE

BATCH_ROWS = 32
TOKENS = "max_new_tokens"  # a request's parameter
MOST_ROWS, MOST_BYTES = 1024, 4 << 20  # of one request
MOST_PROMPTS = 64  # of one request: each is answered in many steps
MOST_CHARACTERS = 1 << 15  # of one text: it is split into tokens whole, some 140 bytes a character, before it is cut
ENCODING = threading.Lock()  # one batch at a time, on all cores: so much memory once

Row = str | tuple[str, str]


class InputError(BonsaiError):
    """A request or a line cannot be used: says what, and what to do."""


class BodyError(InputError):
    """A request's body cannot be read; `code` is the status to answer with."""

    def __init__(self, code: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Model:
    """A model that is loaded and ready.

    Attributes:
        predictor: gives the logits of a batch, or writes answers.
        tokenizer: pads, and cuts at the length that the model was trained with.
        task: what it answers.
        folder: where it is.
        running: lets one batch have all threads: requests at the same time would only slow each other down.
    """

    predictor: Predictor | Writer
    tokenizer: Any
    task: Task
    folder: Path = Path()
    running: threading.Lock = field(default_factory=threading.Lock)

    @property
    def runtime(self) -> str:
        """What runs it: "openvino", "onnxruntime" or "torch"."""
        return self.predictor.runtime

    @property
    def most_rows(self) -> int:
        """How many rows one request may have."""
        return MOST_PROMPTS if isinstance(self.predictor, Writer) else MOST_ROWS

    @property
    def pairs(self) -> bool:
        """Whether a row is two texts."""
        return len(self.task.columns) > 1

    @property
    def tensors(self) -> tuple[tuple[str, str, int], ...]:
        """What an answer holds, see the kind's `tensors`."""
        return kind_of(self.task).tensors(self.task)

    def tell(self, rows: Sequence[Row], fewer: int = 0) -> list[dict[str, Any]]:
        """Return the answer for each row, as the kind of its task tells it; what is written ends at `fewer` tokens.

        Raises:
            InputError: a conversation is none, or too long.
        """
        parts = (rows[at : at + BATCH_ROWS] for at in range(0, len(rows), BATCH_ROWS))
        if isinstance(self.predictor, Writer):
            return tell(self.task, [text for part in parts for text in self._written(self.predictor, part, fewer)])
        return [answer for part in parts for answer in self._told(self.predictor, part)]

    def _written(self, writer: Writer, rows: Sequence[Any], fewer: int) -> list[str]:
        try:
            with ENCODING:
                batch = prompt_batch(self.folder, rows, self.task)
            with self.running:
                return writer.texts(writer.write(batch, fewer=fewer))
        except TextError:
            raise
        except BonsaiError as error:
            raise InputError(str(error)) from error

    def _told(self, predictor: Predictor, rows: Sequence[Row]) -> list[dict[str, Any]]:
        columns: Any = list(zip(*rows, strict=True)) if self.pairs else [rows]
        with ENCODING:
            part = Asked(*encode_parts(self.tokenizer, columns, kind_of(self.task).windows))
        inputs = len(part.batch["input_ids"])  # more than rows, where long ones are read in windows
        logits = [
            self._run(predictor, {name: array[at : at + BATCH_ROWS] for name, array in part.batch.items()})
            for at in range(0, inputs, BATCH_ROWS)
        ]
        return tell(self.task, *together([np.concatenate(logits)], [part]))

    def _run(self, predictor: Predictor, batch: dict[str, np.ndarray]) -> np.ndarray:
        with self.running:
            return predictor.predict(batch)


def load(folder: Path, threads: int = 0) -> Model:
    """Load a model's folder.

    Args:
        folder: holds tokenizer.json, bonsai.json, and model.onnx (openvino_model.xml of one that writes) or, not
            quantized, safetensors and config.json.
        threads: threads that work on one batch; 0 leaves it to the runtime.

    Raises:
        BonsaiError: a file is missing or broken, or the runtime is unknown or not installed.
    """
    made = DECODER_FILE if (folder / DECODER_FILE).exists() else ONNX_FILE
    weights = "config.json" if any(folder.glob("*.safetensors")) else made
    for name in (weights, "tokenizer.json", RECORD):
        if not (folder / name).is_file():
            raise BonsaiError(f"{folder / name} is missing: give a folder that bonsai quantize or package-model wrote")
        if not os.access(folder / name, os.R_OK):
            raise BonsaiError(f"{folder / name} cannot be read by user {os.getuid()}: chmod -R a+rX {folder}")
    task = _task(folder)
    tokenizer = folder_tokenizer(folder)
    encode_batch(tokenizer, ["a"])  # which a damaged one cannot
    with redirect_stdout(sys.stderr):  # what is noted while it is loaded is no answer
        run = load_writer if kind_of(task).writes else load_predictor
        return Model(run(folder, _device(folder), threads=threads), tokenizer, task, folder)


def _task(folder: Path) -> Task:
    """Return what a model answers.

    Raises:
        BonsaiError: its record does not say it, or it is of a kind that is not known here.
    """
    found = read_object(folder / RECORD).get("task") or {}
    if not isinstance(found, dict):
        raise BonsaiError(f"{folder / RECORD}: its task is none: copy or make it again")
    stated, setting = found.get("kind") or "", found.get("setting") or ""
    labels, columns = (found.get(name) or [] for name in ("labels", "columns"))
    lists = all(isinstance(each, list) and all(isinstance(one, str) for one in each) for each in (labels, columns))
    if not lists or not isinstance(stated, str) or not isinstance(setting, str):
        raise BonsaiError(f"{folder / RECORD}: its task is none: copy or make it again")
    if stated and stated not in KINDS:
        raise BonsaiError(f"{folder} answers {stated}, which this server does not: it knows {', '.join(KINDS)}")
    kind = kind_in(found)
    if bool(labels) != kind.named:
        raise BonsaiError(f"{folder / RECORD}: its task is none: copy or make it again")
    name = next(name for name, each in KINDS.items() if each is kind)
    return Task("", name, tuple(columns) or kind.columns[0], tuple(labels), "", "", "", 0, "", setting)


def _device(folder: Path) -> str:
    """Return where a model runs: on a GPU if it is not quantized and there is one."""
    if runtime_of(folder) != TORCH:
        return "cpu"

    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def score(model: Model, lines: Iterable[str], as_json: bool = False) -> Iterator[dict[str, Any]]:
    """Give the answer for each line, such as label and probabilities.

    Args:
        model: the model.
        lines: texts, for a model of pairs with a tab between the two; or JSON.
        as_json: lines are JSON: strings, or objects with "text" (and "text_pair").

    Raises:
        InputError: a line is not what the model takes.
    """
    rows = (_row(model, line.rstrip("\r\n"), number, as_json) for number, line in enumerate(lines, 1))
    while chunk := list(islice(rows, BATCH_ROWS)):
        yield from map(_shortened, model.tell(chunk))


def _row(model: Model, line: str, number: int, as_json: bool) -> Row:
    texts: list[Any] = line.split("\t") if model.pairs else [line]
    wanted = "two texts with a tab between" if model.pairs else "one text"
    if as_json:
        wanted = 'an object with "text" and "text_pair"' if model.pairs else 'a string, or an object with "text"'
        try:
            found = json.loads(line)
        except ValueError as error:
            raise InputError(f"line {number} is no JSON: give {wanted} ({error})") from error
        texts = [found.get(key) for key in _names(model)] if isinstance(found, dict) else [found]
    if len(texts) != 1 + model.pairs or not all(isinstance(text, str) for text in texts):
        raise InputError(f"line {number}: give {wanted}")
    return (texts[0], texts[1]) if model.pairs else texts[0]


def _names(model: Model) -> list[str]:
    return ["text", "text_pair"] if model.pairs else ["text"]


def _shortened(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer whose chances have six digits."""
    return {key: _rounded(value) if isinstance(value, dict | list) else value for key, value in answer.items()}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 6) if isinstance(value, float) else value


def metadata(model: Model, name: str) -> dict[str, Any]:
    """Return what the protocol tells of a model."""
    outputs = [
        {"name": each, "datatype": kind, "shape": [-1, width] if width else [-1]} for each, kind, width in model.tensors
    ]
    return {
        "name": name,
        "versions": [],
        "platform": _platform(model),
        "inputs": [{"name": text, "datatype": "BYTES", "shape": [-1]} for text in _names(model)],
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
    rows = _rows(request["inputs"], _names(model), model.most_rows)
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


class Handler(BaseHTTPRequestHandler):
    """Speaks the Open Inference Protocol, in JSON, errors too."""

    protocol_version = "HTTP/1.1"
    server: "Server"
    server_version, sys_version = "kfp-bonsai-edge", ""
    timeout = 10  # seconds; a connection that sends nothing for so long is closed
    wbufsize = 1 << 16  # headers and body leave together
    disable_nagle_algorithm = True

    def handle_expect_100(self) -> bool:
        """Ask for the body, unless the answer does without it."""
        if self.command != "POST":
            return True
        try:
            self._length()
        except BodyError as error:
            self.send_error(error.code, str(error))
            return False
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def do_GET(self) -> None:
        """Answer a probe, or say what the model takes and gives."""
        model, name = self.server.model, self.server.name
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # the body, which nobody reads, would be read as the next request
        found: dict[str, dict[str, Any]] = {
            "/v2": {"name": self.server_version, "version": "2", "extensions": []},
            "/v2/health/live": {"live": True},
            "/v2/health/ready": {"ready": not self.server.stopping},
            f"/v2/models/{name}": metadata(model, name),
            f"/v2/models/{name}/ready": {"name": name, "ready": not self.server.stopping},
        }
        if self._route() in found:
            answer = found[self._route()]
            self._reply(HTTPStatus.OK if answer.get("ready", True) else HTTPStatus.SERVICE_UNAVAILABLE, answer)
        else:
            self._unknown()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Answer an inference request."""
        model, name = self.server.model, self.server.name
        try:
            body = self._body()
            if self._route() == f"/v2/models/{name}/infer":
                self._reply(HTTPStatus.OK, infer(model, name, parse(body)))
            else:
                self._unknown()
        except BodyError as error:
            self.send_error(error.code, str(error))
        except (InputError, TextError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except Exception:  # a fault of ours: the details are for the log
            traceback.print_exc()
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the model failed: see the server's log")

    def _route(self) -> str:
        return self.path.partition("?")[0].rstrip("/")

    def _unknown(self) -> None:
        here = f"the model here is /v2/models/{self.server.name}"
        self._refuse(HTTPStatus.NOT_FOUND, f"there is no {self._route()}: {here}")

    def _length(self) -> int:
        """Return the body's length in bytes, or refuse the body before it is read."""
        length = ", ".join(self.headers.get_all("Content-Length", []))  # two are no number
        if self.headers.get("Inference-Header-Content-Length"):
            raise BodyError(HTTPStatus.BAD_REQUEST, "binary tensors are not read: give the texts in JSON")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            raise BodyError(HTTPStatus.LENGTH_REQUIRED, "give one Content-Length, and no Transfer-Encoding")
        if len(length) > 10 or int(length) > MOST_BYTES:
            raise BodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has over {MOST_BYTES} bytes")
        return int(length)

    def _body(self) -> bytes:
        length = self._length()
        try:
            body = self.rfile.read(length)
        except TimeoutError as error:
            raise BodyError(HTTPStatus.REQUEST_TIMEOUT, f"no more of it came for {self.timeout} s") from error
        if len(body) < length:
            raise BodyError(HTTPStatus.BAD_REQUEST, "the body is shorter than its Content-Length")
        return body

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer an error that leaves the request partly unread; http.server too calls this for those it finds."""
        self.close_connection = True  # the rest would be read as the next request
        self._refuse(code, message or HTTPStatus(code).phrase)

    def _refuse(self, code: int, message: str) -> None:
        self._reply(code, {"error": message})

    def _reply(self, code: int, found: dict[str, Any]) -> None:
        body = json.dumps(found).encode()
        self.close_connection |= self.server.stopping
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *arguments: Any) -> None:
        """Log nothing: probes come every few seconds, and texts are private."""


class Server(ThreadingHTTPServer):
    """Listens, and answers each connection in a thread; closes when what is being answered is answered."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, model: Model, name: str, host: str, port: int) -> None:
        """Listen; port 0 takes a free one.

        Raises:
            BonsaiError: the address or port cannot be used.
        """
        self.model, self.name, self.stopping = model, name, False
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise BonsaiError(f"cannot listen on --host {host}, --port {port} ({error}): give others") from error

    def stop(self, grace: float = 0) -> None:
        """End connections after their next answer, and take no more after `grace` seconds, as some are on their way."""
        self.stopping = True
        threading.Timer(grace, self.shutdown).start()  # which waits for the loop that may have called this

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what went wrong, unless the client just went away."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def serve(model: Model, name: str, host: str, port: int, grace: float = 0) -> None:
    """Serve until SIGTERM or SIGINT, and finish the requests at hand; after SIGTERM take more for `grace` seconds."""
    with Server(model, name, host, port) as listening:
        signal.signal(signal.SIGTERM, lambda *_: listening.stop(grace))
        signal.signal(signal.SIGINT, lambda *_: listening.stop())
        print(f"{name} ({model.runtime}) on http://{host}:{listening.server_port}/v2/models/{name}/infer", flush=True)
        listening.serve_forever()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status: 2 for what the user can mend."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("model", type=Path, help="the model's folder")
    common.add_argument("--threads", type=int, default=stated_threads(), help="of one batch; 0: the runtime's choice")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    scoring = commands.add_parser("score", help="texts to JSON lines", parents=[common])
    scoring.add_argument(
        "file", nargs="?", default="-", help="texts, one a line, pairs with a tab between; - for stdin"
    )
    scoring.add_argument(
        "--json", action="store_true", help='lines are JSON: "..." or {"text": "...", "text_pair": "..."}'
    )
    serving = commands.add_parser("serve", help="the Open Inference Protocol over HTTP", parents=[common])
    serving.add_argument("--name", default="model", help="the model's name in the addresses (model)")
    serving.add_argument("--host", default="0.0.0.0", help="address to listen on (all)")
    serving.add_argument("--port", type=int, default=8080, help="port to listen on (8080)")
    serving.add_argument(
        "--grace", type=float, default=0, help="seconds to take requests after SIGTERM, while it is not ready (0)"
    )
    options = parser.parse_args(arguments)
    try:
        model = load(options.model, options.threads)
        if options.command == "serve":
            serve(model, options.name, options.host, options.port, options.grace)
            return 0
        with open(0 if options.file == "-" else options.file, encoding="utf-8", newline="\n") as lines:
            for answer in score(model, lines, options.json):
                print(json.dumps(answer, ensure_ascii=False))
    except BrokenPipeError:  # whoever reads has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except UnicodeDecodeError as error:
        print(f"error: {options.file} is no UTF-8 text: {error}", file=sys.stderr)
        return 2
    except (BonsaiError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
