"""HTTP for one model: the addresses of the Open Inference Protocol, and /metrics."""

import io
import json
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kfp_bonsai.serve.bodies import LEAVING_SECONDS, BodyError, Paced, leave, length_of, read_body
from kfp_bonsai.serve.gauges import CONTENT_TYPE_LATEST, Gauges
from kfp_bonsai.serve.open_inference import infer, metadata, parse
from kfp_bonsai.serve.served import InputError, Model
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.data.encoding import TextError

MOST_CONNECTIONS = 1000  # at the same time, each a thread
SPARE, SPARE_SECONDS = 100, 1.0  # connections beyond those, for a probe each, and how long one is open
MOST_WAITING = 256  # requests
LINGER = 1.0  # seconds; of a client that goes on sending what was refused
JSON = "application/json"
NONE: Mapping[str, str] = {}
RETRY_SECONDS = 1
_FULL = b'{"error": "too many connections: try it later"}'
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_FULL), _FULL)
)


class Handler(BaseHTTPRequestHandler):
    """Speaks the Open Inference Protocol, in JSON, errors too."""

    protocol_version = "HTTP/1.1"
    server: "Server"
    server_version, sys_version = "kfp-bonsai", ""
    timeout = 10  # seconds; a connection that sends nothing for so long is closed
    wbufsize = 1 << 16  # headers and body leave together
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Read at the pace that is asked of a client."""
        super().setup()
        self.rfile.close()
        self.spare = self.server.open > MOST_CONNECTIONS
        self.paced = Paced(self.connection, SPARE_SECONDS if self.spare else self.timeout)
        if self.spare:
            self.paced.until = time.monotonic() + SPARE_SECONDS
        self.rfile = io.BufferedReader(self.paced, 1 << 16)

    def handle_one_request(self) -> None:
        """Answer the next request of a connection."""
        if not self.spare:
            self.paced.next_request()
        super().handle_one_request()

    def handle_expect_100(self) -> bool:
        """Ask for the body, unless the answer does without it."""
        if self.command != "POST":
            return True
        try:
            length_of(self.headers)
        except BodyError as error:
            self.send_error(error.code, str(error))
            return False
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def do_GET(self) -> None:
        """Answer a probe, say what the model takes and gives, or give the server's figures."""
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
        elif self._route() == "/metrics":
            self._send(HTTPStatus.OK, self.server.gauges.text(), CONTENT_TYPE_LATEST)
        else:
            self._unknown()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Answer an inference request."""
        if self.spare:
            self.server.gauges.refused.inc()
            self._busy("too many connections")
            self._leave()
            return
        with self.server.gauges.request():
            try:
                body = read_body(self.rfile, self.headers)
                if self._route() == f"/v2/models/{self.server.name}/infer":
                    self._answer(body)
                else:
                    self._unknown()
            except BodyError as error:
                self.send_error(error.code, str(error))
            except (InputError, TextError) as error:
                self._refuse(HTTPStatus.BAD_REQUEST, str(error))
            except (ConnectionError, TimeoutError):  # the client went away: nobody to answer
                raise
            except Exception:  # a fault of ours: the details are for the log
                traceback.print_exc()
                self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the model failed: see the server's log")

    def _answer(self, body: bytes) -> None:
        """Answer a request that is there whole, unless too many wait before it: its client may be gone by then."""
        if not self.server.room.acquire(blocking=False):
            self._busy("too many requests wait")
            return
        try:
            answer = infer(self.server.model, self.server.name, parse(body))
        finally:
            self.server.room.release()
        self.server.gauges.rows.inc(answer["outputs"][0]["shape"][0])
        self._reply(HTTPStatus.OK, answer)

    def _busy(self, why: str) -> None:
        self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"{why}: try it later", {"Retry-After": str(RETRY_SECONDS)})

    def _route(self) -> str:
        return self.path.partition("?")[0].rstrip("/")

    def _unknown(self) -> None:
        here = f"the model here is /v2/models/{self.server.name}"
        self._refuse(HTTPStatus.NOT_FOUND, f"there is no {self._route()}: {here}")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer an error that leaves the request partly unread; http.server too calls this for those it finds."""
        self.close_connection = True  # the rest would be read as the next request
        self._refuse(code, message or HTTPStatus(code).phrase)
        self._leave()

    def _leave(self) -> None:
        leave(self.connection, min(LINGER, self.timeout), SPARE_SECONDS if self.spare else LEAVING_SECONDS)

    def _refuse(self, code: int, message: str, headers: Mapping[str, str] = NONE) -> None:
        self._reply(code, {"error": message}, headers)

    def _reply(self, code: int, found: dict[str, Any], headers: Mapping[str, str] = NONE) -> None:
        self._send(code, json.dumps(found).encode(), JSON, headers)

    def _send(self, code: int, body: bytes, content: str, headers: Mapping[str, str] = NONE) -> None:
        if self.command == "POST":
            self.server.gauges.requests.labels(int(code)).inc()
        self.close_connection |= self.server.stopping or self.spare
        self.send_response(code)
        self.send_header("Content-Type", content)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
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
    request_queue_size = 1024

    def __init__(self, model: Model, name: str, host: str, port: int, waiting: int = MOST_WAITING) -> None:
        """Listen; port 0 takes a free one. At most `waiting` requests wait for the model, or are answered.

        Raises:
            BonsaiError: the address or port cannot be used.
        """
        self.model, self.name, self.stopping = model, name, False
        self.gauges = Gauges(name, model.runtime, model.task.kind)
        self.open, self.counting = 0, threading.Lock()
        self.room = threading.Semaphore(waiting)
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise BonsaiError(f"cannot listen on --host {host}, --port {port} ({error}): give others") from error

    def stop(self, grace: float = 0) -> None:
        """End connections after their next answer, and take no more after `grace` seconds, as some are on their way."""
        self.stopping = True
        threading.Timer(grace, self.shutdown).start()  # which waits for the loop that may have called this

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Refuse a connection beyond the most and the spare ones, in words, without a thread for it."""
        if self.open < MOST_CONNECTIONS + SPARE:
            return True
        self.gauges.refused.inc()
        request.settimeout(0)
        with suppress(OSError):
            request.send(FULL)
        return False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread of its own."""
        self._count(1)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._count(-1)

    def _count(self, more: int) -> None:
        with self.counting:
            self.open += more
            self.gauges.connections.set(self.open)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what went wrong, unless the client just went away."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def serve(model: Model, name: str, host: str, port: int, grace: float = 0, waiting: int = MOST_WAITING) -> None:
    """Serve until SIGTERM or SIGINT, and finish the requests at hand; after SIGTERM take more for `grace` seconds."""
    with Server(model, name, host, port, waiting) as listening:
        signal.signal(signal.SIGTERM, lambda *_: listening.stop(grace))
        signal.signal(signal.SIGINT, lambda *_: listening.stop())
        print(f"{name} ({model.runtime}) on http://{host}:{listening.server_port}/v2/models/{name}/infer", flush=True)
        listening.serve_forever()
