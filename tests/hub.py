"""A small hub of data sets and models on loopback, as the hub's clients ask it, with repositories that go wrong."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

HOST = "127.0.0.1"
API = re.compile(
    r"/api/(datasets|models)/([\w.-]+(?:/[\w.-]+)?)(?:/(revision|tree|paths-info|preupload|commit|tag|refs)(?:/([^/]+))?(?:/(.*))?)?"
)
BATCH = re.compile(r"/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch")
FILE = re.compile(r"/(?:(datasets)/)?([\w.-]+(?:/[\w.-]+)?)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    """What is on the hub under a name.

    Attributes:
        files: their contents, by path.
        gated: whether its files are for some only, who have TOKEN.
        moved: the name that it has now.
        status: what every request is answered; 0 for as usual.
        cut: how many downloads end after half of the bytes.
        slow: seconds before each answer.
        private: whether it is seen with TOKEN alone.
        hidden: whether it is not seen with that either.
        tags: commits, by name.
        history: what its commits held.
        ignored: paths that it takes no file of, as of a .gitignore.
    """

    files: dict[str, bytes]
    gated: bool = False
    moved: str = ""
    status: int = 0
    cut: int = 0
    slow: float = 0
    private: bool = False
    hidden: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    history: dict[str, dict[str, bytes]] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)

    def at(self, revision: str | None) -> dict[str, bytes]:
        """Return the files of a revision."""
        return self.history.get(self.tags.get(revision or "", revision or ""), self.files)

    @property
    def commit(self) -> str:
        """The commit that main is at."""
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    @property
    def revisions(self) -> set[str]:
        """What it can be asked for as."""
        return {"main", "v1", "HEAD", self.commit, *self.tags, *self.history}


TOKEN = "hf_made"


@dataclass
class Hub:
    """The hub: its address, its repositories by kind and name, and the requests that it was asked.

    Attributes:
        owners: for whom TOKEN may write.
        sent: large files, by hash.
        faults: what happens to the next request of a method and a part of a path: a status, or "silent" (it is done,
            and the connection dropped).
    """

    url: str = ""
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    seen: list[tuple[str, str]] = field(default_factory=list)
    owners: set[str] = field(default_factory=lambda: {"me"})
    sent: dict[str, bytes] = field(default_factory=dict)
    faults: list[tuple[str, str, int | str]] = field(default_factory=list)

    def data_set(self, name: str, files: dict[str, bytes], **options: object) -> Repository:
        """Add a data set."""
        return self.repositories.setdefault(("datasets", name), Repository(files, **options))  # type: ignore[arg-type]

    def model(self, name: str, files: dict[str, bytes], **options: object) -> Repository:
        """Add a model."""
        return self.repositories.setdefault(("models", name), Repository(files, **options))  # type: ignore[arg-type]


@contextmanager
def server() -> Iterator[Hub]:
    """Run a hub."""
    made = Hub()
    running = ThreadingHTTPServer((HOST, 0), type("Made", (_Answers,), {"hub": made}))
    made.url = f"http://{HOST}:{running.server_port}"
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        running.shutdown()
        running.server_close()


CHILD = """
import importlib, json, os, sys, time
from kfp_bonsai.shared.core.errors import BonsaiError

answers, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    where, given, options, token = json.loads(line)
    os.environ.pop("HF_TOKEN", None)
    if token:
        os.environ["HF_TOKEN"] = token
    module, _, name = where.partition(":")
    found, started = {}, time.monotonic()
    try:
        found["result"] = getattr(importlib.import_module(module), name)(*given, **options)
    except BonsaiError as error:
        found |= {"error": str(error), "kind": type(error).__name__}
    print(json.dumps(found | {"seconds": time.monotonic() - started}, default=str), file=answers, flush=True)
"""


class Client:
    """A process of its own, whose libraries read HF_ENDPOINT and HF_HOME as they are imported."""

    def __init__(self, url: str, home: Path, **environment: str) -> None:
        known = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        known |= {"HF_ENDPOINT": url, "HF_HOME": str(home), "OMP_NUM_THREADS": "1", **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=known
        )

    def ask(self, where: str, *given: Any, token: str = "", **options: Any) -> dict[str, Any]:
        """Call a function, module:name; return its "result", or the "error" and its "kind", and the "seconds"."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps([where, given, options, token]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        length = self.headers.get("Content-Length")
        body = self.rfile.read(int(length)) if length else self.chunks()
        path = unquote(urlsplit(self.path).path)
        self.hub.seen.append((self.command, path))
        self.silent = False
        for fault in self.hub.faults:
            if self.command == fault[0] and fault[1] in path:
                self.hub.faults.remove(fault)
                if fault[2] != "silent":
                    return self.send(int(fault[2]))
                self.silent = True
                break
        if self.command in ("POST", "PUT") and self.writes(path, body):
            return None
        asked, file = API.fullmatch(path), FILE.fullmatch(path)
        if asked:
            kind, name, what, revision, below = asked.groups()
        elif file:
            kind, name, revision, below = file.groups()
            what = "resolve"
        else:
            return self.send(404)
        kind = kind or "models"
        found = self.hub.repositories.get((kind, name))
        if found is None or found.hidden or (found.private and not self.may_write()):
            return self.send(401, {"X-Error-Code": "RepoNotFound"})  # as the hub tells those without a token
        time.sleep(found.slow)
        if found.status:
            return self.send(found.status)
        if found.moved:
            return self.send(307, {"Location": path.replace(name, found.moved, 1)})
        if (revision or "main") not in found.revisions:
            return self.send(404, {"X-Error-Code": "RevisionNotFound"})
        if what == "refs":
            tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": one} for tag, one in found.tags.items()]
            return self.json({"branches": [], "tags": tags, "converts": []})
        if what == "resolve":
            return self.file(found, below, revision)
        if what == "tree":
            return self.json(_listed(found, (below or "").rstrip("/")))
        if what == "paths-info":
            wanted = json.loads(body)["paths"] if body[:1] == b"{" else re.findall(r"paths=([^&]+)", body.decode())
            paths = [unquote(one).rstrip("/") for one in wanted]
            return self.json([one for one in _listed(found, "") if one["path"] in paths])
        self.json(
            {
                "id": name,
                "sha": found.tags.get(revision, found.commit) if revision not in found.history else revision,
                "private": found.private,
                "gated": "auto" if found.gated else False,
                "tags": [],
                "siblings": [{"rfilename": one} for one in found.at(revision)],
            }
        )

    def chunks(self) -> bytes:
        """Return a body that comes in chunks."""
        found = b""
        while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            found += self.rfile.read(size)
            self.rfile.readline()
        return found

    def may_write(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def writes(self, path: str, body: bytes) -> bool:
        """Answer a request that writes; say whether it was one."""
        asked, batch = API.fullmatch(path), BATCH.fullmatch(path)
        if path.startswith("/sent/"):
            self.hub.sent[path.removeprefix("/sent/")] = body
            self.send(200)
        elif path == "/api/validate-yaml":
            self.json({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif batch:
            objects = json.loads(body)["objects"]
            for one in objects:
                one["actions"] = {"upload": {"href": f"{self.hub.url}/sent/{one['oid']}"}}
            self.json({"transfer": "basic", "objects": objects})
        elif asked and asked[3] in ("preupload", "commit", "tag"):
            self.change(asked[3], asked[2], asked[4], body)
        else:
            return False
        return True

    def create(self, wanted: dict) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if not self.may_write():
            return self.send(401)
        if wanted["organization"] not in self.hub.owners:
            return self.send(403, {"X-Error-Message": "You don't have the rights to create a model here"})
        if ("models", name) in self.hub.repositories:
            return self.send(409, {"X-Error-Message": "You already created this model repo"})
        self.hub.model(name, {".gitattributes": b""}, private=wanted.get("visibility") == "private")
        self.json({"url": f"{self.hub.url}/{name}", "name": name})

    def change(self, what: str, name: str, revision: str, body: bytes) -> None:
        found = self.hub.repositories[("models", name)]
        if not self.may_write():
            return self.send(401)
        if name.partition("/")[0] not in self.hub.owners:
            return self.send(403, {"X-Error-Message": "this token has no write access"})
        if what == "preupload":
            files = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["size"] > 1000 else "regular",
                    "shouldIgnore": one["path"] in found.ignored,
                }
                for one in json.loads(body)["files"]
            ]
            return self.json({"files": files})
        if what == "tag":
            tag = json.loads(body)["tag"]
            if tag in found.tags:
                return self.send(409, {"X-Error-Message": "Tag reference exists already"})
            found.tags[tag] = revision
            return self.json({})
        lines = [json.loads(line) for line in body.splitlines() if line]
        if lines[0]["value"].get("parentCommit") not in (None, found.commit):
            return self.send(412, {"X-Error-Message": "A commit has happened since"})
        files = dict(found.files)
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.sent[value["oid"]]
            else:
                files.pop(value["path"], None)
        found.history[found.commit] = found.files
        found.files = files
        found.history[found.commit] = files
        self.json({"commitUrl": f"{self.hub.url}/{name}/commit/{found.commit}", "commitOid": found.commit})

    def file(self, found: Repository, path: str, revision: str) -> None:
        if found.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.send(401, {"X-Error-Code": "GatedRepo"})
        commit = found.tags.get(revision, revision if revision in found.history else found.commit)
        if path not in found.at(revision):
            return self.send(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        content = found.at(revision)[path]
        whole = len(content)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_hash(content)}"', "Accept-Ranges": "bytes"}
        status = 200
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(asked[1]), int(asked[2] or whole - 1)
            status, content = 206, content[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{min(last, whole - 1)}/{whole}"
        self.send(status, headers, content, found if path.endswith((".parquet", ".safetensors")) else None)

    def json(self, found: object) -> None:
        self.send(200, {"Content-Type": "application/json"}, json.dumps(found).encode())

    def send(
        self, status: int, headers: dict[str, str] | None = None, content: bytes = b"", cut: Repository | None = None
    ) -> None:
        if self.silent:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut and cut.cut:
            cut.cut -= 1
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content)


def _listed(found: Repository, below: str) -> list[dict]:
    """Return files and folders as the hub lists them."""
    folders = {"/".join(path.split("/")[:depth]) for path in found.files for depth in range(1, path.count("/") + 1)}
    listed = [{"type": "directory", "oid": _hash(one.encode()), "size": 0, "path": one} for one in sorted(folders)]
    listed += [
        {"type": "file", "oid": _hash(content), "size": len(content), "path": path}
        for path, content in sorted(found.files.items())
    ]
    return [one for one in listed if not below or one["path"].startswith(f"{below}/")]


def _hash(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
