"""The engine and the images that all checks here share. `make test-containers` runs them; `make test` does not."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).parents[2]
REGISTRY = "kfp-bonsai-test"
os.environ["BONSAI_IMAGES"] = REGISTRY  # read when the components are first imported


@pytest.fixture(scope="session")
def client() -> Iterator:
    """A Docker engine; DOCKER_ROOT names a folder to keep its images in for the next run."""
    from engine import engine

    with engine(os.environ.get("DOCKER_ROOT", "")) as found:
        yield found


@pytest.fixture(scope="session")
def images(client, tmp_path_factory) -> dict:
    """All images, built from the Dockerfiles as they are by `make images`, by their kind."""
    from base import base_image

    from kfp_bonsai import __version__

    with base_image(client, tmp_path_factory.mktemp("base")) as standin:
        index = os.environ.get("TORCH_INDEX", "")
        if not (standin or index):
            pytest.fail("set TORCH_INDEX to PyTorch's index of CPU builds: else gigabytes of CUDA would be built")
        options = "--network=host" if standin else ""
        for kind in ("gpu", "cpu", "edge"):
            arguments = f"{options} --build-arg PIP_EXTRA_INDEX_URL={index}" if index else options
            started = time.monotonic()
            subprocess.run(
                ["make", f"image-{kind}", f"REGISTRY={REGISTRY}", f"BUILD_ARGS={arguments}"], cwd=ROOT, check=True
            )
            print(f"{kind}: built in {time.monotonic() - started:.0f} s")
    return {kind: client.images.get(f"{REGISTRY}/{kind}:{__version__}") for kind in ("gpu", "cpu", "edge")}
