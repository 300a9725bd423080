"""What the server takes of a client, and for how long; what it tells of itself; how it ends."""

import gzip
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families
from served_made import ask, listening, sent_raw, texts_input

from kfp_bonsai.serve import bodies, http_server
from kfp_bonsai.serve.gauges import resident_bytes
from kfp_bonsai.serve.http_server import Handler

PATH = "/v2/models/reviews/infer"
REQUEST = {"inputs": [texts_input("a great film")]}
MEGABYTE = 1 << 20


def test_a_packed_body_is_read(simple):
    """A client that packs what it sends, as many do by themselves, and is told that it sent no JSON."""
    with listening(simple) as connection:
        plain = ask(connection, "POST", PATH, REQUEST)
        for name in ("gzip", "x-gzip", "GZIP"):
            packed = gzip.compress(json.dumps(REQUEST).encode())
            assert ask(connection, "POST", PATH, packed, {"Content-Encoding": name}) == plain
        assert ask(connection, "POST", PATH, REQUEST, {"Content-Encoding": "identity"}) == plain
        assert ask(connection, "POST", PATH, json.dumps(REQUEST).encode("utf-16")) == plain
        bom = b"\xef\xbb\xbf" + json.dumps(REQUEST).encode()
        assert ask(connection, "POST", PATH, bom, {"Content-Type": 'application/json; charset="UTF-8"'}) == plain


BODY = json.dumps(REQUEST).encode()
ODD = {
    "a bomb": (gzip.compress(b" " * (100 * MEGABYTE)), {"Content-Encoding": "gzip"}, 413, "bytes, unpacked"),
    "a bomb in a bomb": (gzip.compress(gzip.compress(BODY)), {"Content-Encoding": "gzip, gzip"}, 415, "'gzip, gzip'"),
    "no gzip": (BODY, {"Content-Encoding": "gzip"}, 400, "no gzip, as its Content-Encoding"),
    "half a gzip": (gzip.compress(BODY)[:-9], {"Content-Encoding": "gzip"}, 400, "no whole gzip"),
    "more than a gzip": (gzip.compress(BODY) + b"x", {"Content-Encoding": "gzip"}, 400, "no whole gzip"),
    "brotli": (BODY, {"Content-Encoding": "br"}, 415, "'br' is not read: send JSON, or gzip"),
    "latin-1": (
        '{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["é"]}]}'.encode("latin-1"),
        {"Content-Type": "application/json; charset=latin-1"},
        415,
        "'latin-1' is not JSON's: send UTF-8",
    ),
    "latin-1, unsaid": ('{"inputs": ["é"]}'.encode("latin-1"), {}, 400, "no JSON"),
    "no charset at all": (BODY, {"Content-Type": "text/plain; charset=klingon"}, 415, "'klingon'"),
}


@pytest.mark.parametrize("case", ODD)
def test_another_encoding_is_refused_in_words(simple, case):
    """Other words than the client's, or gigabytes that a few bytes unpack to."""
    body, headers, status, message = ODD[case]
    with listening(simple) as connection:
        before = resident_bytes()
        found, answer = ask(connection, "POST", PATH, body, headers)
        assert (found, list(answer)) == (status, ["error"]) and message in answer["error"], answer
        assert resident_bytes() - before < 40 * MEGABYTE
        assert ask(connection, "POST", PATH, REQUEST)[0] == 200


def test_a_hundred_megabytes_are_refused_and_not_held(simple):
    """A server that ends for lack of memory, or a client that reads no reason, as its connection broke."""
    with listening(simple) as connection:
        before = resident_bytes()
        body = (b" " * MEGABYTE for _ in range(100))
        connection.request("POST", PATH, body, {"Content-Length": str(100 * MEGABYTE)})
        response = connection.getresponse()
        assert (response.status, response.headers["Connection"]) == (413, "close")
        assert "over 4194304 bytes" in json.loads(response.read())["error"]
        assert resident_bytes() - before < 20 * MEGABYTE
        connection.close()
        assert ask(connection, "POST", PATH, REQUEST)[0] == 200


@pytest.mark.parametrize("head", [f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n", ""])
def test_a_client_that_sends_byte_by_byte_is_given_up(simple, monkeypatch, head):
    """A few slow clients that hold a thread each for days, while each byte comes in time."""
    monkeypatch.setattr(bodies, "REQUEST_SECONDS", 0.3)
    start = time.monotonic()
    with listening(simple) as connection, socket.create_connection((connection.host, connection.port), 30) as raw:
        raw.settimeout(0.03)
        raw.sendall(head.encode())
        answer = b""
        while time.monotonic() - start < 20:
            try:
                raw.sendall(b"a")
                found = raw.recv(1000)
            except TimeoutError:
                continue
            except ConnectionError:
                break
            answer += found
            if not found:
                break
    assert time.monotonic() - start < 10
    assert answer.startswith(b"HTTP/1.1 408 ") if head else answer == b""


def test_a_client_that_reads_nothing_is_given_up(simple, monkeypatch):
    """A thread that waits for ever to give its answer."""
    monkeypatch.setattr(Handler, "timeout", 0.2)
    with listening(simple) as connection, socket.create_connection((connection.host, connection.port), 30) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = json.dumps({"inputs": [texts_input(*["a"] * 1000)]}).encode()  # whose answer is long
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        raw.settimeout(20)  # of which TimeoutError would tell
        with pytest.raises(ConnectionError):
            while True:
                raw.sendall(head + body)
        assert ask(connection, "GET", "/v2/health/live")[0] == 200


def test_connections_beyond_the_most_are_refused_in_words(simple, monkeypatch):
    """Threads without an end, a server that answers nobody, or one that is killed as its probe is refused."""
    monkeypatch.setattr(http_server, "MOST_CONNECTIONS", 2)
    monkeypatch.setattr(http_server, "SPARE_SECONDS", 0.2)
    post = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY.decode()}"
    probe = "GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with listening(simple) as connection:
        ask(connection, "GET", "/v2")
        with socket.create_connection((connection.host, connection.port), 30) as second:
            second.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert second.recv(4) == b"HTTP"
            assert sent_raw(connection, "") == ""  # given up
            live = sent_raw(connection, probe)  # and closed, so that others have room
            assert live.startswith("HTTP/1.1 200 ") and live.endswith('{"live": true}')
            third = [sent_raw(connection, post)]
            monkeypatch.setattr(http_server, "SPARE", 0)
            third.append(sent_raw(connection, ""))
            for answer in third:
                assert answer.startswith("HTTP/1.1 503 ") and "\r\nRetry-After: 1\r\n" in answer
                assert json.loads(answer.partition("\r\n\r\n")[2])["error"].startswith("too many connections")
        until = time.monotonic() + 30
        while figures(connection)["bonsai_connections",] > 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert figures(connection)["bonsai_connections_refused_total",] == 2
        assert sent_raw(connection, "GET /v2 HTTP/1.0\r\n\r\n").startswith("HTTP/1.1 200 ")


def held_up(model) -> tuple[threading.Event, threading.Event]:
    """Let a model begin to answer and wait: (it has begun, it may go on)."""
    inner, begun, go = model.predictor.run, threading.Event(), threading.Event()

    def slow(batch):
        begun.set()
        assert go.wait(30)
        return inner(batch)

    object.__setattr__(model.predictor, "run", slow)
    return begun, go


def test_requests_beyond_the_most_are_told_to_come_again(simple):
    """Answers that come when their clients are gone, of a server that works for these alone."""
    begun, go = held_up(simple)
    with listening(simple, waiting=1) as connection:
        first: list[tuple[int, dict]] = []
        other = http.client.HTTPConnection(connection.host, connection.port, timeout=30)
        thread = threading.Thread(target=lambda: first.append(ask(other, "POST", PATH, REQUEST)))
        thread.start()
        assert begun.wait(30)
        connection.request("POST", PATH, BODY)
        response = connection.getresponse()
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
        assert json.loads(response.read())["error"] == "too many requests wait: try it later"
        assert ask(connection, "GET", "/v2/health/live")[0] == 200  # on the same connection
        go.set()
        thread.join(30)
        assert first[0][0] == ask(connection, "POST", PATH, REQUEST)[0] == 200
        other.close()


def figures(connection) -> dict[tuple, float]:
    """What /metrics tells: values by names and labels."""
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    assert response.status == 200 and response.headers["Content-Type"].startswith("text/plain")
    families = text_string_to_metric_families(response.read().decode())
    return {(one.name, *sorted(one.labels.values())): one.value for each in families for one in each.samples}


def test_prometheus_is_told_what_was_served(simple):
    """An operator who cannot see load, errors or latency, or sees those of probes."""
    with listening(simple) as connection:
        for texts in (["a"], ["a", "b", "c"]):
            assert ask(connection, "POST", PATH, {"inputs": [texts_input(*texts)]})[0] == 200
        assert ask(connection, "POST", PATH, {})[0] == 400
        assert ask(connection, "GET", "/v2/health/live")[0] == 200
        found = figures(connection)
    assert found["bonsai_requests_total", "200"] == 2 and found["bonsai_requests_total", "400"] == 1
    assert found["bonsai_rows_total",] == 4 and found["bonsai_requests_running",] == 0
    assert found["bonsai_request_seconds_count",] == 3 and 0 < found["bonsai_request_seconds_sum",] < 30
    assert found["bonsai_connections",] == 1 and found["bonsai_connections_refused_total",] == 0
    assert found["bonsai_memory_bytes",] > 10 * MEGABYTE and found["bonsai_cpu_seconds",] > 0
    assert found["bonsai_model_info", "classification", "made", "reviews"] == 1


def test_requests_at_hand_are_answered_when_it_stops(simple):
    """Answers lost with each new version that a cluster rolls out."""
    begun, go = held_up(simple)
    answers = []
    with http_server.Server(simple, "reviews", "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.server_port), 30) as raw:
            raw.sendall(head.encode() + BODY)
            assert begun.wait(30)
            server.stop()
            thread.join(30)
            go.set()
            with raw.makefile("rb") as answer:
                answers = answer.read().decode()
    assert answers.startswith("HTTP/1.1 200 ") and '"label"' in answers


def test_it_is_one_command_wherever_the_package_is():
    """Images that each have a server of their own, or one that only works there."""
    environment = {**os.environ, "PYTHONWARNINGS": "error::RuntimeWarning"}
    command = [sys.executable, "-m", "kfp_bonsai.serve", "serve", "--help"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0 and re.search(r"--grace", found.stdout)
