"""A Docker engine to test with: the one that answers, or one of our own that ends with the tests."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

START_SECONDS = 60
STOP_SECONDS = 60


@contextmanager
def engine(folder: str = "") -> Iterator[docker.DockerClient]:
    """Give a client of an engine that answers; DOCKER_HOST names that engine to all who look for one.

    Args:
        folder: where an engine of our own keeps its images, which a later run then finds; "" for a folder that is
            removed in the end.

    Raises:
        RuntimeError: none answers, and none can be started.
    """
    if (client := _answering()) is not None:
        yield client
        return
    _install()
    before = os.environ.get("DOCKER_HOST")
    with tempfile.TemporaryDirectory(prefix="engine-") as work:
        os.environ["DOCKER_HOST"] = f"unix://{work}/docker.sock"
        data = Path(folder or f"{work}/data").resolve()
        with open(f"{work}/log", "wb") as log:
            places = {"data-root": data, "exec-root": f"{work}/exec", "pidfile": f"{work}/pid"}
            options = [f"--{name}={place}" for name, place in places.items()]
            process = subprocess.Popen(
                ["dockerd", *options, f"--host={os.environ['DOCKER_HOST']}"],
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests, which then stop it
            )
        try:
            yield _wait_for(process, Path(work, "log"))
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)
            _unmount(work)
            subprocess.run(["rm", "-rf", f"{work}/data"], check=True)  # a million files: minutes for Python's own
            os.environ.pop("DOCKER_HOST")
            if before is not None:
                os.environ["DOCKER_HOST"] = before


def _answering() -> docker.DockerClient | None:
    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except docker.errors.DockerException:
        return None
    return client


def _install() -> None:
    if shutil.which("dockerd"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise RuntimeError("no Docker engine answers and there is no dockerd to start: start one, or set DOCKER_HOST")
    apt_install("docker.io")


def apt_install(*packages: str) -> None:
    """Install packages of Debian."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet)
    subprocess.run(["apt-get", "install", "-qq", "--no-install-recommends", *packages], check=True, env=quiet)


def _wait_for(process: subprocess.Popen, log: Path) -> docker.DockerClient:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if (client := _answering()) is not None:
            return client
        time.sleep(0.2)
    raise RuntimeError(f"dockerd does not answer; its last lines:\n{log.read_text()[-2000:]}")


def _unmount(folder: str) -> None:
    """Unmount what an engine that has ended leaves mounted in its folder."""
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for place in reversed([each for each in places if each.startswith(f"{folder}/")]):
        subprocess.run(["umount", place], check=True)
