"""The base image where no registry is reached: a stand-in from Debian's packages, under the same name.

The Dockerfiles are built as they are. What a closed machine needs beyond them (its certificates, and the folders of
packages that its pip is told of) is handed in by this image alone.
"""

import shlex
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import docker
from engine import apt_install

BASE = "python:3.11-slim"
DEBIAN, SUITE = "debian-stand-in:bookworm", "bookworm"  # whose Python is 3.11
PORT = 18765  # of the packages' server if it is free: then the next run finds its layers in the engine's cache
PACKAGES = "ca-certificates,python3,python3-venv,python3-pip"
LOCATIONS = ("index-url", "extra-index-url", "find-links")
DOCKERFILE = """\
FROM debian-stand-in:bookworm
COPY certificates.pem /etc/ssl/certs/ca-certificates.crt
COPY pip.conf /etc/pip.conf
RUN rm -f /usr/lib/python3*/EXTERNALLY-MANAGED && ln -s python3 /usr/bin/python
CMD ["python3"]
"""


@contextmanager
def base_image(client: docker.DockerClient, work: Path) -> Iterator[bool]:
    """Make sure that the engine has BASE; give whether it is the stand-in, whose pip needs the host's network.

    Args:
        client: the engine.
        work: an empty folder.
    """
    if not _found(client, BASE) and _pulled(client, BASE):
        yield False
        return
    if _found(client, BASE) and not client.images.get(BASE).labels.get("stand-in"):
        yield False
        return
    with served(work / "served") as locations:
        _make(client, work, locations)
        yield True


def _found(client: docker.DockerClient, name: str) -> bool:
    return any(name in image.tags for image in client.images.list())


def _pulled(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.pull(name)
    except docker.errors.DockerException as error:
        print(f"{name} cannot be pulled ({error}): a stand-in is made from Debian's packages")
        return False
    return True


def _make(client: docker.DockerClient, work: Path, locations: dict[str, list[str]]) -> None:
    if not _found(client, DEBIAN):
        if not shutil.which("mmdebstrap"):
            apt_install("mmdebstrap")
        tar = work / "base.tar"
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", SUITE, tar], check=True)
        client.api.import_image_from_file(str(tar), *DEBIAN.split(":"))
        tar.unlink()
    context = work / "context"
    context.mkdir()
    certificates = ssl.get_default_verify_paths().cafile
    if certificates is None:
        raise RuntimeError("this machine has no file of certificates: install ca-certificates")
    shutil.copyfile(certificates, context / "certificates.pem")
    settings = [f"{name} = {' '.join(found)}" for name, found in locations.items() if found]
    (context / "pip.conf").write_text(
        "\n".join(["[global]", "cert = /etc/ssl/certs/ca-certificates.crt", *settings, ""])
    )
    (context / "Dockerfile").write_text(DOCKERFILE)
    client.images.build(path=str(context), tag=BASE, labels={"stand-in": "true"})


@contextmanager
def served(folder: Path) -> Iterator[dict[str, list[str]]]:
    """Serve the folders that pip's settings name on loopback; give the settings with addresses in their place."""
    folder.mkdir()
    handler = partial(_Silent, directory=str(folder))
    with _listening(handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        root = f"http://127.0.0.1:{server.server_port}"
        try:
            yield {
                name: [_served(value, folder, root, name) for value in values]
                for name, values in pip_settings().items()
            }
        finally:
            server.shutdown()
            thread.join()


def _listening(handler: Callable) -> ThreadingHTTPServer:
    try:
        return ThreadingHTTPServer(("127.0.0.1", PORT), handler)
    except OSError:
        return ThreadingHTTPServer(("127.0.0.1", 0), handler)


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def pip_settings() -> dict[str, list[str]]:
    """Return where pip looks for packages here, by its own word."""
    found: dict[str, list[str]] = {name: [] for name in LOCATIONS}
    lines = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    for line in lines:
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        if name in found:
            found[name] += [each for each in shlex.split(value)[0].split() if each not in found[name]]
    return found


def _served(location: str, folder: Path, root: str, name: str) -> str:
    parts = urlsplit(location)
    if parts.scheme not in ("", "file"):
        return location
    path = Path(unquote(parts.path))
    # An index's pages link to files beside it; a folder of wheels is complete in itself.
    top = path if name == "find-links" else path.parent
    link = folder / str(len(list(folder.iterdir())))
    link.symlink_to(top)
    return f"{root}/{link.name}/{path.relative_to(top).as_posix()}".removesuffix(".") + "/"
