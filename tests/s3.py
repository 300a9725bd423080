"""A real server of S3's kind (moto's) behind a proxy that injects faults."""

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from faults import HOST, Bucket, behind_proxy

KEYS = {"aws_access_key_id": "AKIAMADE", "aws_secret_access_key": "a-secret-of-tests", "region_name": "us-east-1"}


class S3Server(Bucket):
    """A server of S3's kind."""

    scheme, home = "s3://", "AWS_ENDPOINT_URL"
    small, large, part = "/config.json", "upload", "uploadId="  # in the requests of a file, by its size

    def sends(self, method: str, path: str) -> bool:
        """Say whether a request sends something of an object."""
        return method in ("POST", "PUT") and not self.copies(method, path)

    def fail_manifest(self, kind: str, itself: bool = False, times: int = 1) -> list[int]:
        """Let a manifest fail, or what is written beside it."""
        name = "/SHA256SUMS" if itself else "/SHA256SUMS."
        return self.fail(
            kind,
            lambda method, path: self.sends(method, path) and (path.endswith(name) if itself else name in path),
            times,
        )

    def replaces(self, method: str, path: str) -> bool:
        """Say whether it is a pointer's own."""
        return method == "PUT" and path.endswith("/champion.json")

    def copies(self, method: str, path: str) -> bool:
        """Say whether it lets the server copy an object."""
        return method == "PUT" and path.endswith("#copy")

    def fetches(self, method: str, path: str) -> bool:
        """Say whether it asks for content."""
        return method == "GET" and "list-type" not in path

    def names(self) -> set[str]:
        """Return the names of all objects, asked past the proxy."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket="bucket")
        return {one["Key"] for page in pages for one in page.get("Contents", [])}

    def content(self, name: str) -> bytes:
        """Return an object's content, asked past the proxy."""
        return self.client().get_object(Bucket="bucket", Key=name)["Body"].read()

    def put(self, name: str, content: bytes, like: str = "") -> None:
        """Write an object, past the proxy, with what another one bears beside its content."""
        mark = self.client().head_object(Bucket="bucket", Key=like)["Metadata"] if like else {}
        self.client().put_object(Bucket="bucket", Key=name, Body=content, Metadata=mark)

    def remove(self, name: str) -> None:
        """Remove an object, past the proxy."""
        self.client().delete_object(Bucket="bucket", Key=name)

    def halve(self, method: str, path: str, headers: dict[str, str], content: bytes) -> tuple[dict, bytes] | None:
        """As all are."""
        url = urlsplit(path)
        if "uploads" in url.query or "partNumber" in url.query:
            return None
        name = unquote(url.path).removeprefix("/bucket/")
        whole = self.content(name)
        self.put(name, whole[: len(whole) // 2], like=name)
        etag = self.client().head_object(Bucket="bucket", Key=name)["ETag"]
        told = {key: etag if key.lower() == "etag" else value for key, value in headers.items()}
        return told, re.sub(rb"<ETag>.*</ETag>", b"<ETag>%s</ETag>" % etag.encode(), content)

    def client(self) -> Any:
        """Return a client of the server behind the proxy."""
        import boto3

        return boto3.client("s3", endpoint_url=self.direct, **KEYS)


@contextmanager
def server() -> Iterator[S3Server]:
    """Run the server and the proxy before it.

    It looks at a condition and writes as two steps, so it is given one request after the other.
    """
    made = S3Server(one_by_one=threading.Lock())

    def command(port: int, _: int) -> list[str]:
        parts = (
            "import os; os.environ['S3_UPLOAD_PART_MIN_SIZE'] = '1'"  # real ones take no part under 5 MiB but a last
        )
        run = f"from moto.server import main; main(['-H', '{HOST}', '-p', '{port}'])"
        return [sys.executable, "-c", f"{parts}; {run}"]

    with behind_proxy(made, command, "/moto-api/data.json"):
        made.client().create_bucket(Bucket="bucket")
        yield made
