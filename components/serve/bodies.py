"""What a client sends, within limits of time and size: so slowly, so much, in such an encoding, and no more."""

import codecs
import io
import socket
import time
import zlib
from contextlib import suppress
from email.message import Message
from http import HTTPStatus
from typing import Any

from kfp_bonsai.serve.served import InputError

MOST_BYTES = 4 << 20  # of one request's body, unpacked
REQUEST_SECONDS = 30.0  # for a whole request, from its first byte on
LEAVING_SECONDS = 10.0
AT_ONCE = 1 << 16  # bytes
JSON_CHARSETS = (
    "utf-8",
    "utf-8-sig",
    "ascii",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
)  # which JSON's reader tells


class BodyError(InputError):
    """A request's body cannot be read; `code` is the status to answer with."""

    def __init__(self, code: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.code = code


class Paced(io.RawIOBase):
    """A connection's bytes: a client that waits too long between them, or takes too long for a request, is given up."""

    def __init__(self, connection: socket.socket, idle: float) -> None:
        self.connection, self.idle = connection, idle
        self.until: float | None = None  # when the request at hand has to be there whole

    def readable(self) -> bool:
        """Say that it is read."""
        return True

    def next_request(self) -> None:
        """Count time anew from the next byte on."""
        self.until = None

    def readinto(self, buffer: Any) -> int:
        """Read what there is.

        Raises:
            TimeoutError: nothing came for too long, or the request is not there in time.
        """
        now = time.monotonic()
        left = self.idle if self.until is None else min(self.idle, self.until - now)
        if left <= 0:
            raise TimeoutError(f"the request was not there in {REQUEST_SECONDS:g} s")
        self.connection.settimeout(left)
        try:
            count = self.connection.recv_into(buffer)
        finally:
            self.connection.settimeout(self.idle)  # of answers
        if self.until is None:
            self.until = time.monotonic() + REQUEST_SECONDS
        return count


def length_of(headers: Message) -> int:
    """Return a body's length in bytes, or refuse the body before it is read."""
    length = ", ".join(headers.get_all("Content-Length", []))  # two are no number
    if headers.get("Inference-Header-Content-Length"):
        raise BodyError(HTTPStatus.BAD_REQUEST, "binary tensors are not read: give the texts in JSON")
    if "Transfer-Encoding" in headers or not (length.isascii() and length.isdigit()):
        raise BodyError(HTTPStatus.LENGTH_REQUIRED, "give one Content-Length, and no Transfer-Encoding")
    if len(length) > 10 or int(length) > MOST_BYTES:
        raise BodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has over {MOST_BYTES} bytes")
    packing, charset = packing_of(headers), headers.get_content_charset() or "utf-8"
    if packing not in ("", "gzip"):
        raise BodyError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Encoding {packing[:40]!r} is not read: send JSON, or gzip of it",
        )
    try:
        known = codecs.lookup(charset).name in JSON_CHARSETS
    except (LookupError, ValueError):
        known = False
    if not known:
        raise BodyError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the charset {charset[:40]!r} is not JSON's: send UTF-8")
    return int(length)


def packing_of(headers: Message) -> str:
    """Return how a body is packed; "" if it is not."""
    found = ", ".join(headers.get_all("Content-Encoding", [])).strip().lower().replace("x-gzip", "gzip")
    return "" if found == "identity" else found


def read_body(file: Any, headers: Message) -> bytes:
    """Read a request's body, unpacked.

    Raises:
        BodyError: it is too long, packed in an unknown way, does not come in time, or is not as long as it says.
    """
    length = length_of(headers)
    try:
        body = bytes(file.read(length))
    except TimeoutError as error:
        raise BodyError(HTTPStatus.REQUEST_TIMEOUT, "no more of it came in time") from error
    if len(body) < length:
        raise BodyError(HTTPStatus.BAD_REQUEST, "the body is shorter than its Content-Length")
    return unpacked(body) if packing_of(headers) else body


def unpacked(body: bytes) -> bytes:
    """Return what is in a gzip body, of which a few bytes may stand for gigabytes.

    Raises:
        InputError: it is none, or cut off.
        BodyError: it is too long.
    """
    reader = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        found = reader.decompress(body, MOST_BYTES + 1)
    except zlib.error as error:
        raise InputError(f"the body is no gzip, as its Content-Encoding says it is: {error}") from error
    if len(found) > MOST_BYTES:
        raise BodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has over {MOST_BYTES} bytes, unpacked")
    if not reader.eof or reader.unused_data:
        raise InputError("the body is no whole gzip: send it again")
    return found


def leave(connection: socket.socket, seconds: float, most: float) -> None:
    """End a connection whose client may still be sending: it shall read the answer, which a mere close would destroy.

    What comes is thrown away until nothing comes for some seconds, or for so many at the most.
    """
    until, buffer = time.monotonic() + most, bytearray(AT_ONCE)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(seconds)
        while connection.recv_into(buffer) and time.monotonic() < until:
            pass
