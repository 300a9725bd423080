"""A server of buckets behind a proxy that injects faults; gcs.py and s3.py say what is special of each."""

import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOST = "127.0.0.1"
DROPPED = {"connection", "keep-alive", "transfer-encoding", "content-length", "accept-encoding", "expect"}


@dataclass(frozen=True)
class Fault:
    """What happens to the next `times` requests that match.

    Attributes:
        matches: decides by method and path (with the query).
        holds: what the body must hold, such as an object's name; "" for anything.
        body: of the answer of "status".
        kind: "status" (answer it, without passing the request on), "cut" (pass half of the body on as if that were
            all of it, then drop the connection), "half" (drop the connection while the body comes, pass nothing on),
            "silent" (pass it on, then drop the connection without the answer), "broken" (with half of the answer),
            "truncated" (store half of what was sent, and answer that) or "truncated-silent" (store half, then drop the
            connection).
        times: how often.
        status: of "status".
    """

    matches: Callable[[str, str], bool]
    kind: str = "status"
    times: int = 1
    status: int = 503
    holds: str = ""
    body: bytes = b'{"error": {"message": "as the test wants it"}}'


@dataclass
class Bucket:
    """A server with one bucket, named "bucket".

    What is special of a store is in a class of it: `scheme`, and how its requests are told apart.

    Attributes:
        url: of the proxy.
        direct: of the server behind it.
        faults: what goes wrong from now on; a fault that was used up stays, with 0 left.
        seen: the requests: method and path, in order.
        hooks: functions that are called with method and path before a request is passed on.
        without: names of headers that the server is never shown, by method.
        one_by_one: held while the server works on a request.
    """

    url: str = ""
    direct: str = ""
    faults: list[tuple[Fault, list[int]]] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    hooks: list[Callable[[str, str], None]] = field(default_factory=list)
    without: dict[str, set[str]] = field(default_factory=dict)
    one_by_one: Any = field(default_factory=nullcontext)

    def fail(self, kind: str, matches: Callable[[str, str], bool], times: int = 1, **options: Any) -> list[int]:
        """Let the next requests that match fail; return a list whose one entry says how many still will."""
        left = [times]
        self.faults.append((Fault(matches, kind, times, **options), left))
        return left

    def halve(self, method: str, path: str, headers: dict[str, str], content: bytes) -> tuple[dict, bytes] | None:
        """Store half of an object that a request has just completed, and return the answer that tells of it so.

        None where the request completed none.
        """
        raise NotImplementedError


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        return found.getsockname()[1]


@contextmanager
def behind_proxy(made: Bucket, command: Callable[[int, int], list[str]], ready: str) -> Iterator[None]:
    """Run a server and the proxy before it, and say in `made` where they are.

    Args:
        made: the bucket.
        command: what starts the server, from its own port and the proxy's.
        ready: a path that is answered once it runs.
    """
    port = free_port()
    proxy = ThreadingHTTPServer((HOST, 0), type("Made", (_Proxy,), {"bucket": made, "port": port}))
    made.url, made.direct = f"http://{HOST}:{proxy.server_port}", f"http://{HOST}:{port}"
    process = subprocess.Popen(command(port, proxy.server_port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{made.direct}{ready}", timeout=5).close()
                break
            except OSError:
                time.sleep(0.05)
        yield
    finally:
        proxy.shutdown()
        proxy.server_close()
        process.terminate()
        process.wait()


class _Proxy(BaseHTTPRequestHandler):
    bucket: Bucket
    port: int
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer's body would wait 40 ms for the client to acknowledge its head

    def handle_one(self) -> None:
        """Pass a request on, or let it go wrong."""
        self.asked = self.path + ("#copy" if self.headers.get("x-amz-copy-source") else "")  # no path says it
        self.bucket.seen.append((self.command, self.asked))
        fault, left = self._fault()
        length = int(self.headers.get("Content-Length") or 0)
        if fault and fault.kind == "half":
            self.rfile.read(length // 2)
            return self._drop()
        body = self.rfile.read(length)
        if not fault:
            fault, left = self._fault(body)
        if fault and fault.kind == "status":
            return self._answer(fault.status, {}, fault.body)
        if fault and fault.kind == "cut":
            body = body[: length // 2]
        for hook in self.bucket.hooks:
            hook(self.command, self.asked)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in DROPPED}
        for name in self.bucket.without.get(self.command, ()):
            headers.pop(name, None)
        with self.bucket.one_by_one:
            connection = HTTPConnection(HOST, self.port, timeout=60)
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            content, told = answer.read(), dict(answer.getheaders())
            connection.close()
        if fault and fault.kind.startswith("truncated"):
            halved = (
                self.bucket.halve(self.command, self.path, told, content)
                if answer.status == 200 and self.headers.get("Content-Range") != "bytes */*"
                else None
            )
            if halved:
                told, content = halved
            else:  # it waits for an object's last byte
                left[0] += 1
                fault = None
        if fault and fault.kind == "broken":
            self._answer(answer.status, told, content, len(content) // 2)
        if fault and fault.kind != "truncated":
            return self._drop()
        self._answer(answer.status, told, content)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = handle_one

    def _fault(self, body: bytes | None = None) -> tuple[Fault | None, list[int]]:
        """Return the fault that a request meets: before its body is read, of those that ask for nothing in it."""
        for fault, left in self.bucket.faults:
            meant = not fault.holds if body is None else bool(fault.holds) and fault.holds.encode() in body
            if left[0] and meant and fault.matches(self.command, self.asked):
                left[0] -= 1
                return fault, left
        return None, []

    def _answer(self, status: int, headers: dict[str, str], content: bytes, sent: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in DROPPED or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:sent])

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""
