"""The engine and the images that all checks here share. `make test-containers` runs them; `make test` does not."""

import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from figures import FIGURES

ROOT = Path(__file__).parents[2]
REGISTRY = "kfp-bonsai-test"


def pytest_terminal_summary(terminalreporter) -> None:
    """Say how large the images are and how long things took."""
    for line in FIGURES:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def client() -> Iterator:
    """A Docker engine; DOCKER_ROOT names a folder to keep its images in for the next run."""
    from engine import engine

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends the tests ends their engine too
    with engine(os.environ.get("DOCKER_ROOT", "")) as found:
        yield found


@pytest.fixture(scope="session")
def resolving() -> Iterator[subprocess.Popen]:
    """Pip's search for what torch's CUDA build would bring, at work while the images are built."""
    from base import pip_settings

    options = ["--dry-run", "--ignore-installed", "--quiet", "--report=-", f"--constraint={ROOT / 'constraints.txt'}"]
    options += [f"--index-url={address}" for address in pip_settings()["index-url"]]
    options += [f"--cert={ssl.get_default_verify_paths().cafile}"]
    without_local_wheels = {
        **os.environ,
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": "",
        "PIP_EXTRA_INDEX_URL": "",
    }
    command = [sys.executable, "-m", "pip", "install", *options, "torch"]
    with subprocess.Popen(command, env=without_local_wheels, stdout=subprocess.PIPE, text=True) as process:
        yield process


@pytest.fixture(scope="session")
def images(client, resolving, tmp_path_factory) -> dict:
    """All images, built from the Dockerfiles as they are by `make images`, by their kind."""
    from base import base_image

    from kfp_bonsai import __version__

    os.environ["BONSAI_IMAGES"] = REGISTRY  # read when the components are first imported, which is later
    with base_image(client, tmp_path_factory.mktemp("base")) as standin:
        index = os.environ.get("TORCH_INDEX", "")
        if not (standin or index):
            pytest.fail("set TORCH_INDEX to PyTorch's index of CPU builds: else gigabytes of CUDA would be built")
        options = ["--network=host"] if standin else []
        options += [f"--build-arg PIP_EXTRA_INDEX_URL={index}"] if index else []
        build("gpu", " ".join(options))  # alone: begun twice, its first layers would be found without the later ones
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda kind: build(kind, " ".join(options)), ("cpu", "edge")))
    found = {kind: client.images.get(f"{REGISTRY}/{kind}:{__version__}") for kind in ("gpu", "cpu", "edge")}
    FIGURES.extend(f"{kind}: {image.attrs['Size'] / 1e9:.2f} GB unpacked" for kind, image in found.items())
    return found


def build(kind: str, options: str) -> None:
    """Build an image, or fail with the last lines of the build."""
    started = time.monotonic()
    command = ["make", f"image-{kind}", f"REGISTRY={REGISTRY}", f"BUILD_ARGS={options}"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if built.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{built.stdout[-3000:]}")
    FIGURES.append(f"{kind}: built in {time.monotonic() - started:.0f} s")
