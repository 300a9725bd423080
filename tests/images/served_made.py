"""What tests of the server start from: a folder that it loads, a connection to it, and requests."""

import http.client
import json
import socket
import threading
from contextlib import contextmanager
from pathlib import Path

import tiny

from kfp_bonsai.serve.http_server import Server


def written(folder: Path, settings: dict, **record) -> Path:
    """A model folder with a tokenizer and a record, and an ONNX file that is none."""
    tiny.tokenizer().save_pretrained(folder)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **settings}))
    (folder / "bonsai.json").write_text(json.dumps({"runtime": "made", "max_length": 9, "lineage": [], **record}))
    (folder / "model.onnx").write_bytes(b"")
    return folder


@contextmanager
def listening(model, **options):
    """A connection to a server of a model."""
    with Server(model, "reviews", "127.0.0.1", 0, **options) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        try:
            yield connection
        finally:
            connection.close()
            server.stop()
            thread.join()


def ask(connection, method: str, path: str, body=None, headers=None) -> tuple[int, dict]:
    """Send a request, and return the answer's status and JSON."""
    sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, sent, headers or {})
    response = connection.getresponse()
    assert response.headers["Content-Type"] == "application/json"
    return response.status, json.loads(response.read())


def texts_input(*texts, name: str = "text", **changed) -> dict:
    """The input tensor of a request."""
    return {"name": name, "datatype": "BYTES", "shape": [len(texts)], "data": list(texts), **changed}


def sent_raw(connection, text: str) -> str:
    """Send bytes that no client would, and return all that comes until the server closes."""
    with socket.create_connection((connection.host, connection.port), 30) as raw, raw.makefile("rb") as answer:
        raw.sendall(text.encode())
        return answer.read().decode()
