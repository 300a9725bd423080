"""What can be known of the Dockerfiles without building them; tests/containers builds and runs them."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from kfp_bonsai import images

ROOT = Path(__file__).parents[2]
KINDS = [path.parent.name for path in sorted((ROOT / "images").glob("*/Dockerfile"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
BASE = "python:3.11-slim"


def dockerfile(kind: str) -> str:
    """Return a Dockerfile with continued lines joined, without its comments."""
    text = (ROOT / "images" / kind / "Dockerfile").read_text(encoding="utf-8")
    return re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.M))


def instructions(kind: str, name: str) -> list[str]:
    return re.findall(rf"^{name} (.*)$", dockerfile(kind), re.M)


def test_there_is_an_image_for_every_name():
    """A component whose image nobody builds, or an image that no name leads to."""
    assert {images.GPU, images.CPU, images.EDGE} == {f"{images.PREFIX}/{kind}:{images.TAG}" for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_one_version_ties_images_to_the_package(kind):
    """An image whose tag or label names another version than the package inside."""
    assert PROJECT["version"] == images.TAG
    assert f"VERSION={PROJECT['version']}" in instructions(kind, "ARG")


def test_make_builds_what_the_components_name():
    """`make images` with tags that no compiled pipeline asks for."""
    command = ["make", "--no-print-directory", "-n", "images", f"REGISTRY={images.PREFIX}"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r" -t (\S+)", printed)) == {images.GPU, images.CPU, images.EDGE}


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (["TORCH_INDEX=https://cpu"], {"cpu"}),
        (["TORCH_INDEX=https://cpu", "ACCELERATOR=none"], {"cpu", "gpu"}),
        ([], set()),
    ],
)
def test_which_images_get_torchs_cpu_build(options, kinds):
    """A GPU image that cannot use a GPU, or gigabytes of CUDA on each node of a cluster that has none."""
    command = ["make", "--no-print-directory", "-n", "images", "BUILD_ARGS=--pull", *options]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    builds = {re.findall(r"images/(\w+)/", each)[0]: each for each in printed.split("docker build")[1:]}
    assert {kind for kind, build in builds.items() if "PIP_EXTRA_INDEX_URL=https://cpu" in build} == kinds
    assert all("--pull" in each for each in builds.values()), "an option of the user's is lost"
    accelerator = "none" if "gpu" in kinds else "nvidia"
    assert {kind for kind, build in builds.items() if f"ACCELERATOR={accelerator}" in build} == {"gpu"}


def test_an_unknown_accelerator_is_refused():
    """`ACCELERATOR=None` or `cpu`, and CUDA in the image after all."""
    command = ["make", "--no-print-directory", "-n", "images", "ACCELERATOR=cpu"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode and "ACCELERATOR=cpu is unknown: give nvidia, or none" in ended.stderr


def checks_of_torch(kind: str) -> list[str]:
    return [each for each in instructions(kind, "RUN") if "This torch brings CUDA" in each]


@pytest.mark.parametrize("cuda", [False, True])
@pytest.mark.parametrize(("kind", "accelerator"), [("cpu", ""), ("gpu", "none"), ("gpu", "nvidia")])
def test_cuda_stops_the_build_where_it_has_no_use(tmp_path, kind, accelerator, cuda):
    """A build that asks for no CUDA, finds some (its index has no CPU build), and says nothing."""
    (check,) = checks_of_torch(kind)
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    (packages / ("nvidia" if cuda else "torch")).mkdir(parents=True)
    script = check.replace("/opt/bonsai", str(tmp_path))
    ended = subprocess.run(["sh", "-c", script], env={"ACCELERATOR": accelerator}, capture_output=True, text=True)
    refused = cuda and accelerator != "nvidia"
    assert (ended.returncode != 0) == refused and ("TORCH_INDEX=https://" in ended.stderr) == refused


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_can_be_pinned_by_digest(kind):
    """A base that changes under the same Dockerfile, with no way to hold it."""
    assert instructions(kind, "ARG")[0] == f"PYTHON_IMAGE={BASE}"
    assert instructions(kind, "FROM") == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE}"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_installation_is_held_to_the_constraints(kind):
    """An image that is another one when it is built again next month."""
    installs = re.findall(r"pip install [^&]*", dockerfile(kind))
    assert installs and all("-c constraints.txt" in each for each in installs)


def test_the_edge_image_installs_nothing_unpinned():
    """A version that the constraints do not know, taken as it comes: nothing else holds it."""
    lines = (ROOT / "images" / "edge" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    wanted = {line for line in lines if line and not line.startswith("#")}
    assert wanted <= set(pinned) and not wanted & {"torch", "transformers"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_is_the_user(kind):
    """`runAsNonRoot` cannot tell a name from root: the pod would not start."""
    assert instructions(kind, "USER") == ["10001:0"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_copied_is_sent_to_the_engine(kind):
    """A build that fails because .dockerignore holds a file back."""
    sent = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.M)
    copied = [name for line in instructions(kind, "COPY") if "--from" not in line for name in line.split()[:-1]]
    assert copied and set(copied) <= set(sent)
    assert all((ROOT / name).exists() for name in sent)


@pytest.mark.parametrize(("extras", "group"), [([], None), (["cpu"], "cpu")])
def test_the_packages_of_the_images_are_those_of_the_package(extras, group):
    """An image that lacks what pyproject.toml says is needed."""
    command = [sys.executable, "images/requirements.py", *extras]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    assert printed == (PROJECT["optional-dependencies"][group] if group else PROJECT["dependencies"])


def test_every_component_runs_in_one_of_our_images():
    """A stage that a cluster runs in a public image which lacks the package."""
    found = set()
    for path in sorted((ROOT / "components").glob("*/component.py")):
        module = import_module(f"kfp_bonsai.{path.parent.name}.component")
        specs = [getattr(each, "component_spec", None) for each in vars(module).values()]
        found |= {spec.implementation.container.image for spec in specs if spec is not None}
    assert found == {images.GPU, images.CPU}
