"""The edge image's program: scores as the package does, speaks the protocol, and answers bad input in words."""

import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tiny
from served_made import ask, listening, sent_raw, texts_input, written

from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.quantize.quantize import quantize
from kfp_bonsai.serve.__main__ import main
from kfp_bonsai.serve.http_server import Handler, Server
from kfp_bonsai.serve.lines import score
from kfp_bonsai.serve.open_inference import MOST_CHARACTERS, infer
from kfp_bonsai.serve.served import BATCH_ROWS, MOST_ROWS, InputError, Model, load
from kfp_bonsai.shared.data.encoding import FIELDS, encode
from kfp_bonsai.shared.inference import processor, runtimes
from kfp_bonsai.shared.inference.runtimes import load_predictor
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.storage.store import write_manifest

REQUIREMENTS = Path(__file__).parents[2] / "images" / "edge" / "requirements.txt"
SERVE = [sys.executable, "-m", "kfp_bonsai.serve"]
TEXTS = ["a great film", "", "the very dull plot and the awful cast " * 4, "words nobody knows"] * 10


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def folder(request, made, tmp_path_factory):
    """The baseline quantized for one runtime."""
    path = tmp_path_factory.mktemp("quantized") / request.param
    quantize(made.baseline, made.train, path, runtime=request.param, calibration_rows=16)
    return path


def chances(model, rows) -> np.ndarray:
    """The classes' chances, (rows, classes)."""
    return np.array([[*answer["probabilities"].values()] for answer in model.tell(rows)])


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


def test_it_gives_what_the_package_gives(folder):
    """A device that answers otherwise than the model that was measured."""
    expected = [
        softmax(load_predictor(folder).predict(encode(folder, TEXTS[at : at + BATCH_ROWS])))
        for at in range(0, len(TEXTS), BATCH_ROWS)
    ]
    assert np.allclose(chances(load(folder), TEXTS), np.concatenate(expected), atol=1e-5)


def test_a_model_of_free_shape_is_served_as_it_is(made, tmp_path):
    """KServe manifests of free shapes, whose server answers otherwise than the model, or does not start."""
    matrix_prune(made.baseline, made.transfer, tmp_path / "free", flops=0.4, steps=4)
    folder, texts = tmp_path / "free", TEXTS[:BATCH_ROWS]
    expected = softmax(load_predictor(folder).predict(encode(folder, texts)))
    assert load(folder).runtime == "torch"
    assert np.allclose(chances(load(folder), texts), expected, atol=1e-5)


def test_it_needs_what_its_image_has_and_no_more(folder):
    """An edge image that must hold gigabytes, or lacks what the server imports."""
    listed = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    there = {"kfp_bonsai", *(line for line in listed if line and not line.startswith("#"))}
    code = f"""
import runpy, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in {there!r} and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocker())
sys.argv = ["serve", "score", {str(folder)!r}]
runpy.run_module("kfp_bonsai.serve", run_name="__main__")"""
    found = subprocess.run(
        [sys.executable, "-c", code], input="a great film\nan awful film\n", capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    answers = [json.loads(line) for line in found.stdout.splitlines()]
    assert [answer["label"] for answer in answers] == ["good", "bad"]
    assert list(answers[0]["probabilities"]) == ["bad", "good"]
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)


PAIR_TASK = {"columns": ["text_a", "text_b"], "labels": ["no", "yes"]}


@pytest.mark.parametrize("settings", [{}, {"padding_side": "left", "truncation_side": "left"}])
@pytest.mark.parametrize("pairs", [False, True])
def test_texts_become_the_tokens_of_training(loaded, tmp_path, settings, pairs):
    """A text that is cut or padded on another side, or a pair that is taken for one text."""
    folder = written(tmp_path / "model", settings, task=PAIR_TASK if pairs else {"labels": ["bad", "good"]})
    model, batches = loaded(folder)
    texts = TEXTS[:BATCH_ROWS]
    others = texts[::-1] if pairs else None
    model.tell(list(zip(texts, others, strict=True)) if others else texts)
    expected = encode(folder, texts, others)
    assert batches[0].keys() == expected.keys()
    assert all((batches[0][name] == array).all() for name, array in expected.items())


@pytest.fixture
def paired(loaded, tmp_path):
    """A model of pairs."""
    return loaded(written(tmp_path / "pairs", {}, task=PAIR_TASK))[0]


def test_the_protocol_is_spoken(simple):
    """A cluster that takes the server for dead, or a client of the protocol that finds no model."""
    with listening(simple) as connection:
        assert ask(connection, "GET", "/v2/health/live") == (200, {"live": True})
        assert ask(connection, "GET", "/v2/health/ready") == (200, {"ready": True})
        assert ask(connection, "GET", "/v2/models/reviews/ready") == (200, {"name": "reviews", "ready": True})
        assert ask(connection, "GET", "/v2")[1]["extensions"] == []
        status, found = ask(connection, "GET", "/v2/models/reviews")
        assert (status, found["name"], found["inputs"]) == (
            200,
            "reviews",
            [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
        )
        request = {"id": "7", "inputs": [texts_input("a great film", "", "a dull plot")]}
        status, answer = ask(connection, "POST", "/v2/models/reviews/infer", request)
    assert (status, answer["model_name"], answer["id"]) == (200, "reviews", "7")
    label, probabilities = answer["outputs"]
    expected = chances(simple, ["a great film", "", "a dull plot"])
    assert label == {
        "name": "label",
        "datatype": "BYTES",
        "shape": [3],
        "data": [simple.task.labels[at] for at in expected.argmax(axis=1)],
    }
    assert (probabilities["name"], probabilities["datatype"], probabilities["shape"]) == (
        "probabilities",
        "FP32",
        [3, 2],
    )
    assert probabilities["data"] == pytest.approx(expected.ravel().tolist())


def test_only_the_outputs_asked_for_come(simple):
    """Probabilities of a thousand classes sent to a client that wants the label."""
    request = {"inputs": [texts_input("a")], "outputs": [{"name": "label"}]}
    assert [one["name"] for one in infer(simple, "m", request)["outputs"]] == ["label"]


def test_nested_rows_are_read(simple):
    """A client that sends a column, [n, 1], as the protocol allows."""
    request = {"inputs": [texts_input("a", "b", shape=[2, 1], data=[["a"], ["b"]])]}
    assert infer(simple, "m", request)["outputs"][0]["shape"] == [2]


def test_pairs_have_a_second_input(paired):
    """A model of pairs that gets the first texts alone."""
    with listening(paired) as connection:
        names = [one["name"] for one in ask(connection, "GET", "/v2/models/reviews")[1]["inputs"]]
        assert names == ["text", "text_pair"]
        inputs = [texts_input("b", "d", name="text_pair"), texts_input("a", "c")]
        status, answer = ask(connection, "POST", "/v2/models/reviews/infer", {"inputs": inputs})
        assert status == 200
        expected = chances(paired, [("a", "b"), ("c", "d")])
        assert answer["outputs"][1]["data"] == pytest.approx(expected.ravel().tolist())
        for bad in (inputs[:1], [inputs[0], texts_input("a")]):
            status, answer = ask(connection, "POST", "/v2/models/reviews/infer", {"inputs": bad})
            assert status == 400 and "text" in answer["error"]


def test_a_regression_gives_values(loaded, tmp_path):
    """A softmax over one number: 1 for every text."""
    model, _ = loaded(written(tmp_path / "model", {}, task={"labels": []}), classes=1)
    (output,) = infer(model, "m", {"inputs": [texts_input("a great film", "film")]})["outputs"]
    assert (output["name"], output["shape"]) == ("value", [2, 1])
    assert output["data"] == [answer["value"] for answer in model.tell(["a great film", "film"])] != [1, 1]
    assert list(score(model, ["a great film\n"])) == [{"value": output["data"][0]}]


BAD = {
    "no JSON": (b"{", r"no JSON"),
    "no UTF-8": (b"\xff\xfe\xfa", r"no JSON"),
    "nested too deep": (b"[" * 100_000, r"no JSON"),
    "no object": ([], r"no inference request"),
    "no inputs": ({"instances": ["a"]}, r'give \{"inputs"'),
    "no input": ({"inputs": []}, r"'text' is missing"),
    "another input": ({"inputs": [texts_input("a", name="txt")]}, r"no input 'txt': the model takes text"),
    "no tensor": ({"inputs": ["text"]}, r"no input 'text'"),
    "an input twice": ({"inputs": [texts_input("a"), texts_input("b")]}, r"'text' is there twice"),
    "numbers": ({"inputs": [texts_input(1)]}, r"data\[0\] is no string"),
    "another type": ({"inputs": [texts_input("a", datatype="FP32")]}, r"'FP32', but texts are BYTES"),
    "no data": ({"inputs": [texts_input("a", data="a")]}, r"data is no list"),
    "another shape": ({"inputs": [texts_input("a", shape=[2])]}, r"shape \[2\] does not fit 1 texts"),
    "no rows": ({"inputs": [texts_input()]}, r"0 rows: give 1 to"),
    "too many rows": ({"inputs": [texts_input(*["a"] * (MOST_ROWS + 1))]}, r"rows: give 1 to"),
    "a long text": ({"inputs": [texts_input("a" * (MOST_CHARACTERS + 1))]}, r"data\[0\] has over 32,768 char"),
    "half a character": ({"inputs": [texts_input("\ud800")]}, r"surrogate"),
    "another output": ({"inputs": [texts_input("a")], "outputs": [{"name": "x"}]}, r"no output 'x'"),
    "outputs no list": ({"inputs": [texts_input("a")], "outputs": "label"}, r"outputs is no list"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_are_answered_in_words(simple, case, capfd):
    """A traceback for a client's mistake, or a server or a connection that is gone afterwards."""
    body, message = BAD[case]
    with listening(simple) as connection:
        status, answer = ask(connection, "POST", "/v2/models/reviews/infer", body)
        assert status == 400 and list(answer) == ["error"]
        assert re.search(message, answer["error"]), answer
        assert connection.sock is not None  # http.client has closed it where the answer says so
        assert ask(connection, "GET", "/v2/health/live")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/models/other", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/v2/models/reviews/infer", 404),
        ("DELETE", "/v2/models/reviews", 501),
    ],
)
def test_other_addresses_are_refused_in_json(simple, method, path, status):
    """An HTML page for a client that reads JSON."""
    with listening(simple) as connection:
        found, answer = ask(connection, method, path, {} if method == "POST" else None)
    assert found == status and answer["error"]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("Content-Length: 99999999", 413),
        ("Content-Length: 99999999999999999999999", 413),
        ("Content-Length: -1", 411),
        ("Transfer-Encoding: chunked", 411),
        ("Content-Length: 2\r\nInference-Header-Content-Length: 1", 400),
        ("Content-Length: 20", 408),
    ],
)
def test_bodies_that_cannot_be_read_end_the_connection(simple, monkeypatch, head, status):
    """Memory that a stranger fills, a thread that waits for ever, or a body's rest read as the next request."""
    monkeypatch.setattr(Handler, "timeout", 0.2)
    with listening(simple) as connection, socket.create_connection((connection.host, connection.port), 30) as raw:
        raw.sendall(f"POST /v2/models/reviews/infer HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n{{}}".encode())
        with raw.makefile("rb") as answer:
            text = answer.read().decode()  # to its end: the server closes
    assert text.startswith(f"HTTP/1.1 {status} ")
    assert "error" in json.loads(text.partition("\r\n\r\n")[2])


def test_a_client_that_waits_is_asked_for_its_body(simple, monkeypatch):
    """Large bodies that curl sends a second late, and 408 for a client that waits as it should."""
    monkeypatch.setattr(Handler, "timeout", 2)
    body = json.dumps({"inputs": [texts_input("a great film")]}).encode()
    head = f"Host: x\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    with listening(simple) as connection, socket.create_connection((connection.host, connection.port), 30) as raw:
        raw.sendall(f"POST /v2/models/reviews/infer HTTP/1.1\r\n{head}".encode())
        with raw.makefile("rb") as answer:
            assert [answer.readline(), answer.readline()] == [b"HTTP/1.1 100 Continue\r\n", b"\r\n"]
            raw.sendall(body)
            assert answer.readline() == b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("method", "head", "status"),
    [
        ("POST", "Content-Length: 99999999", 413),
        ("POST", "Transfer-Encoding: chunked", 411),
        ("PUT", "Content-Length: 9", 501),
        ("GET", "Connection: close", 404),
    ],
)
def test_a_body_is_not_asked_for_in_vain(simple, monkeypatch, method, head, status):
    """Megabytes that a client sends only to have them refused, or a request of no body refused for its length."""
    monkeypatch.setattr(Handler, "timeout", 0.2)
    with listening(simple) as connection:
        request = f"{method} /v2/models/reviews/infer HTTP/1.1\r\nHost: x\r\n{head}\r\nExpect: 100-continue\r\n\r\n"
        assert sent_raw(connection, request).startswith(f"HTTP/1.1 {status} ")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("PUT /v2/models/reviews HTTP/1.1\r\nContent-Length: 29\r\n", 501),
        ("GET /v2/models/other HTTP/1.1\r\nContent-Length: 29\r\n", 404),
        ("GET /v2/health/live HTTP/1.1\r\nTransfer-Encoding: chunked\r\n", 200),
        ("POST /v2/models/reviews/infer HTTP/1.1\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n", 411),
        ("POST /v2/models/reviews/infer HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 29\r\n", 411),
        ("GET /v2/health/live HTTP/1.1" + "\r\nA: b" * 101, 431),
    ],
)
def test_what_is_left_of_a_request_is_not_the_next_one(simple, monkeypatch, head, status):
    """A request within a request, which passes what a proxy forbids, and whose answer another client gets."""
    monkeypatch.setattr(Handler, "timeout", 0.2)
    with listening(simple) as connection:
        text = sent_raw(connection, f"{head}\r\nGET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert re.findall(r"HTTP/1\.1 (\d+)", text) == [str(status)]
    assert "\r\nConnection: close\r\n" in text


def test_the_answer_to_head_has_no_body(simple, monkeypatch):
    """A body that the client reads as the next answer; or a healthy server that a probe by HEAD takes for broken."""
    monkeypatch.setattr(Handler, "timeout", 0.2)
    with listening(simple) as connection:
        text = sent_raw(connection, "HEAD /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
    assert text.startswith("HTTP/1.1 200 ") and text.endswith("\r\n\r\n")
    assert "\r\nContent-Length: 14\r\n" in text


def test_a_fault_of_ours_is_no_traceback_for_the_client(simple, capfd):
    """Paths and code shown to strangers; or nothing in the log for those who mend it."""

    def broken(batch):
        raise RuntimeError("as if the runtime failed")

    object.__setattr__(simple.predictor, "run", broken)
    with listening(simple) as connection:
        status, answer = ask(connection, "POST", "/v2/models/reviews/infer", {"inputs": [texts_input("a")]})
    assert status == 500 and "as if" not in answer["error"]
    assert "as if the runtime failed" in capfd.readouterr().err


def test_it_stops_when_asked(folder):
    """A container that a cluster must kill after its grace period."""
    command = [*SERVE, "serve", str(folder), "--host", "127.0.0.1", "--port", "0", "--name", "m"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http://127.0.0.1:(\d+)/v2/models/m/infer", process.stdout.readline())
        assert found is not None
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
        request = {"inputs": [texts_input("a great film")]}
        assert ask(connection, "POST", "/v2/models/m/infer", request)[0] == 200
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_requests_that_are_on_their_way_are_answered(simple):
    """A balancer that sends on for some seconds after a replica was told to end."""
    with Server(simple, "m", "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.stop(grace=1.0)
        for path, status in (("/v2/health/ready", 503), ("/v2/models/m/ready", 503), ("/v2/health/live", 200)):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
            assert ask(connection, "GET", path)[0] == status
            connection.close()
        thread.join(30)
        assert not thread.is_alive()


def test_connections_end_when_it_stops(simple):
    """A client that asks on and on, on one connection, and keeps the server from ending."""
    with Server(simple, "m", "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        assert ask(connection, "GET", "/v2/health/live")[0] == 200
        server.stop()
        thread.join()
        connection.request("GET", "/v2/health/live")
        response = connection.getresponse()
        assert (response.status, response.headers["Connection"]) == (200, "close")
        connection.close()


def test_lines_may_be_json(simple, paired):
    """A text with a line's end in it that cannot be scored."""
    lines = ['"a great\\nfilm"\n', '{"text": "a great\\nfilm", "label": "good"}\n']
    first, second = score(simple, lines, as_json=True)
    assert first == second == next(score(simple, ["a great film"]))
    as_json = list(score(paired, ['{"text": "a", "text_pair": "b"}'], as_json=True))
    assert as_json == list(score(paired, ["a\tb\r\n"]))


@pytest.mark.parametrize(
    ("lines", "as_json", "message"),
    [
        (["a\tb", "one text"], False, r"line 2: give two texts with a tab"),
        (["a\tb\tc"], False, r"line 1: give two texts"),
        (['{"text": "a"}'], True, r'line 1: give an object with "text" and "text_pair"'),
        (['{"text": "a", "text_pair": 1}'], True, r"line 1: give an object"),
        (["a\tb"], True, r"line 1 is no JSON"),
    ],
)
def test_bad_lines_are_named(paired, lines, as_json, message):
    """An answer that belongs to another line than it stands on."""
    with pytest.raises(InputError, match=message):
        list(score(paired, lines, as_json))


def without(name: str):
    return lambda folder: (folder / name).unlink()


def with_text(name: str, text: str):
    return lambda folder: (folder / name).write_text(text)


def with_record(**changed):
    """Another record than the one that was published."""

    def change(folder: Path) -> None:
        record = {"runtime": "made", "max_length": 9, "lineage": [], **changed}
        (folder / "bonsai.json").write_text(json.dumps(record))

    return change


def published_with(change):
    """A folder that is changed after its checksums were written."""

    def changed(folder: Path) -> None:
        write_manifest(folder)
        change(folder)

    return changed


BROKEN = {
    "no model": (without("model.onnx"), r"model.onnx is missing: give a folder that bonsai quantize"),
    "no tokenizer": (without("tokenizer.json"), r"tokenizer.json is missing"),
    "no record": (without("bonsai.json"), r"bonsai.json is missing"),
    "record no JSON": (with_text("bonsai.json", "{"), r"bonsai.json is not JSON"),
    "record no object": (with_text("bonsai.json", "[]"), r"bonsai.json was not written by .*it has no 'lineage'"),
    "another runtime": (with_record(runtime="torch"), r"'torch' is not one of openvino, onnxruntime"),
    "several runtimes": (with_record(runtime=["made"]), r'runtime is \["made"\], which no stage writes'),
    "half a tokenizer": (with_text("tokenizer.json", "{"), r"tokenizer.json holds no tokenizer"),
    "no length": (with_record(max_length="9"), r'max_length is "9", which no stage writes'),
    "a length below one": (with_record(max_length=-1), r"max_length is -1, which no stage writes"),
    "a length without end": (with_record(max_length=10**30), r"max_length is 10+, which no stage writes"),
    "a list of how it was quantized": (with_record(quantization=[]), r"quantization is \[\], which no stage writes"),
    "a place in words": (with_record(quantization={"positions": "512"}), r'positions is "512", which no stage writes'),
    "no labels": (with_record(task={"labels": [1]}), r"labels\[0\] is 1, which no stage writes"),
    "a label twice": (with_record(task={"labels": ["good", "good"]}), r"its task is none"),
    "three texts a row": (with_record(task={"columns": ["a", "b", "c"]}), r"its task is none"),
    "too few labels": (
        with_record(task={"labels": ["one", "two"]}),
        r"of shape \(1, 1\) .*speaks of 2 of the kind class",
    ),
    "another kind": (with_record(task={"kind": "questions"}), r"speaks of 2 of the kind questions"),
    "other weights": (with_record(sha256="0"), r"the weights in .* not those"),
    "changed since it was published": (
        published_with(with_record(task={"labels": ["good", "bad"]})),
        r"bonsai.json is not as SHA256SUMS says",
    ),
    "more than was published": (
        published_with(with_text("generation_config.json", "{}")),
        r"generation_config.json is not as SHA256SUMS says",
    ),
    "checksums of nothing": (with_text("SHA256SUMS", ""), r"SHA256SUMS lists no file"),
    "no padding token": (with_text("tokenizer_config.json", '{"pad_token": "<x>"}'), r"padding token '<x>' is not in"),
    "half a model": (with_record(runtime="onnxruntime"), r"model.onnx is not a whole ONNX file"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_named(loaded, tmp_path, capsys, case):
    """A container that restarts for ever, with a traceback in its log."""
    folder = written(tmp_path / "model", {})
    loaded(folder, classes=1)
    change, message = BROKEN[case]
    change(folder)
    assert main(["serve", str(folder)]) == 2
    printed = capsys.readouterr().err
    assert re.search(rf"^error: .*{message}", printed), printed


def test_a_model_that_cannot_run_is_not_said_to_be_ready(loaded, tmp_path, capsys, monkeypatch):
    """A replica that takes requests, and answers each with status 500."""
    folder = written(tmp_path / "model", {})
    loaded(folder, classes=1)

    def fails(_batch):
        raise RuntimeError("no such operation")

    monkeypatch.setitem(runtimes._ONNX_RUNTIMES, "made", lambda *_: runtimes.Predictor("made", tuple(FIELDS), fails))
    assert main(["serve", str(folder)]) == 2
    assert re.search(r"^error: .*answers no text \(RuntimeError: no such operation\)", capsys.readouterr().err)


GOOD_IDS, BAD_IDS = (
    [tiny.tokenizer().convert_tokens_to_ids(word) for word in words] for words in (tiny.GOOD, tiny.BAD)
)
LONG = "the film was " * 12 + "great fine and it is dull"


def knows(kind: str):
    """What runs a model that finds good and bad words, whatever it is asked of them."""

    def run(batch):
        good, bad = (np.isin(batch["input_ids"], ids) for ids in (GOOD_IDS, BAD_IDS))
        if kind == "tokens":
            before = np.roll(good, 1, axis=1)
            tags = np.select([bad, good & ~before, good], [1, 3, 4], 0)  # O, B-bad, I-bad, B-good, I-good
            return (9.0 * np.eye(5)[tags]).astype(np.float32)
        if kind == "questions":
            ends = [good & ~np.roll(good, by, axis=1) & (batch["token_type_ids"] == 1) for by in (1, -1)]
            found = np.where(np.stack(ends, axis=-1), 9.0, 0.0)
            found[:, 0] = 3  # no answer here
            return found.astype(np.float32)
        both = np.stack([bad.any(axis=1), good.any(axis=1)], axis=1)
        return np.where(both, 4.0, -4.0).astype(np.float32)[:, 1 if kind in ("ranking", "regression") else 0 :]

    return run


@pytest.fixture
def knowing(monkeypatch, tmp_path):
    """A model of a kind that finds good and bad words."""

    def loading(kind: str):
        made = runtimes.Predictor("made", tuple(FIELDS), knows(kind))
        monkeypatch.setitem(runtimes._ONNX_RUNTIMES, "made", lambda file, threads: made)
        task = {"kind": kind, "labels": ["bad", "good"] * KINDS[kind].named}
        return load(written(tmp_path / "model", {}, task=task))

    return loading


def test_every_kind_is_answered_in_its_own_terms(knowing):
    """The likeliest of several labels, or of a row's first token, as the answer; or only what one window shows."""
    (first, second) = knowing("tokens").tell([LONG, "poor"])
    place = LONG.index("great")
    assert [(one["begin"], one["end"], one["label"], one["text"]) for one in first["spans"]] == [
        (place, place + 10, "good", "great fine"),
        (LONG.index("dull"), len(LONG), "bad", "dull"),
    ]
    assert [one["text"] for one in second["spans"]] == ["poor"] and 0.99 < second["spans"][0]["score"] < 1
    (found,) = knowing("questions").tell([("the good", text := LONG.replace(" fine", ""))])
    assert text[found["begin"] : found["end"]] == found["answer"] == "great" and 0 < found["score"] < 1
    both, none = knowing("multi-label").tell(["a great and awful film", "film"])
    assert both["labels"] == ["bad", "good"] and none["labels"] == []
    assert both["probabilities"] == pytest.approx({"bad": 0.982, "good": 0.982}, abs=1e-3)
    ranked = knowing("ranking").tell([("plot", "a great plot"), ("plot", "a plot")])
    assert [one["score"] for one in ranked] == pytest.approx([0.982, 0.018], abs=1e-3)


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if not kind.writes])
def test_every_kind_speaks_the_protocol(knowing, kind):
    """An answer that is not what the model's metadata promises, or cannot be read again as JSON."""
    model = knowing(kind)
    rows = [("the film", LONG), ("a", "great"), ("", "")] if model.pairs else [LONG, "great", ""]
    columns = zip(*rows, strict=True) if model.pairs else [rows]
    names = ["text", "text_pair"][: 1 + model.pairs]
    inputs = [texts_input(*column, name=name) for name, column in zip(names, columns, strict=True)]
    with listening(model) as connection:
        promised = ask(connection, "GET", "/v2/models/reviews")[1]["outputs"]
        status, answer = ask(connection, "POST", "/v2/models/reviews/infer", {"inputs": inputs})
    assert status == 200 and [one["name"] for one in promised] == [one["name"] for one in answer["outputs"]]
    types = {"BYTES": str, "FP32": float, "INT64": int}
    told = model.tell(rows)
    for said, given in zip(promised, answer["outputs"], strict=True):
        assert given["datatype"] == said["datatype"] and given["shape"] == [3, *said["shape"][1:]]
        assert len(given["data"]) == np.prod(given["shape"])
        assert {type(one) for one in given["data"]} == {types[said["datatype"]]}
        if isinstance(told[0][said["name"]], list):
            assert [json.loads(one) for one in given["data"]] == [one[said["name"]] for one in told]
    lines = ["\t".join(row) if model.pairs else row for row in rows]
    scored = list(score(model, lines))
    assert [one.keys() for one in scored] == [one.keys() for one in told] == [told[0].keys()] * 3


def test_more_windows_than_a_batch_are_run_in_several(knowing):
    """One long text that is split into thousands of inputs, all in memory at once."""
    model, sizes = knowing("tokens"), []
    inner = model.predictor.run

    def noted(batch):
        sizes.append(len(batch["input_ids"]))
        return inner(batch)

    model = Model(runtimes.Predictor("made", model.predictor.inputs, noted), model.tokenizer, model.task)
    (answer,) = model.tell(["the plot was great " * 200])
    assert len(answer["spans"]) == 200 and len(sizes) > 1 and max(sizes) <= BATCH_ROWS


def test_a_kind_that_is_not_known_is_refused(loaded, tmp_path, capsys):
    """A model of a later version, whose outputs are taken for classes."""
    folder = written(tmp_path / "model", {}, task={"kind": "poems", "labels": ["bad", "good"]})
    assert main(["serve", str(folder)]) == 2
    assert "answers poems, which this server does not" in capsys.readouterr().err


@pytest.mark.parametrize("pairs", [("plot " * 50, "great"), ("plot " * 50, "")])
def test_a_question_that_fills_the_input_is_no_fault_of_the_server(knowing, pairs):
    """Status 500 and a traceback for what whoever asks can mend."""
    with listening(knowing("questions")) as connection:
        inputs = [texts_input(text, name=name) for name, text in zip(("text", "text_pair"), pairs, strict=True)]
        status, answer = ask(connection, "POST", "/v2/models/reviews/infer", {"inputs": inputs})
    assert status == 200 and answer["outputs"][0]["data"] == [pairs[1]]


def test_what_is_noted_of_a_model_is_no_answer(loaded, tmp_path, capsys, monkeypatch):
    """A line of words among the JSON lines that a program reads; or no word of answers that may be others."""
    record = {"agreement": 0.99, "processor": {"weight_bits": 8, "exact": True}}
    folder = written(tmp_path / "model", {}, task={"labels": ["bad", "good"]}, quantization=record)
    loaded(folder)
    runtimes._say_once.cache_clear()
    (tmp_path / "texts.txt").write_text("a great film\n", encoding="utf-8")
    monkeypatch.setattr(processor, "sums_exactly", lambda: False)
    assert main(["score", str(folder), str(tmp_path / "texts.txt")]) == 0
    out, err = capsys.readouterr()
    assert list(json.loads(out)) == ["label", "probabilities"] and f"note: {folder}: its agreement of 99.0%" in err


def test_files_and_ports_that_cannot_be_used_are_named(loaded, tmp_path, capsys, monkeypatch):
    """A traceback for a wrong path, for text that is no UTF-8, or for a port that is taken."""
    folder = written(tmp_path / "model", {})
    loaded(folder, classes=1)
    assert main(["score", str(folder), str(tmp_path / "none.txt")]) == 2
    assert "none.txt" in capsys.readouterr().err
    (tmp_path / "latin.txt").write_bytes("café\n".encode("latin-1"))
    assert main(["score", str(folder), str(tmp_path / "latin.txt")]) == 2
    assert "latin.txt is no UTF-8 text" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", str(folder), "--host", "127.0.0.1", "--port", port]) == 2
    assert f"port {port}" in capsys.readouterr().err


def test_scores_of_a_file_are_json_lines(loaded, tmp_path, capsys):
    """Lines that do not match the texts', one for one."""
    model, _ = loaded(written(tmp_path / "model", {}, task={"labels": ["bad", "good"]}))
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    assert main(["score", str(tmp_path / "model"), str(tmp_path / "texts.txt")]) == 0
    answers = [json.loads(line) for line in io.StringIO(capsys.readouterr().out)]
    assert [answer["label"] for answer in answers] == [
        model.task.labels[at] for at in chances(model, TEXTS).argmax(axis=1)
    ]
