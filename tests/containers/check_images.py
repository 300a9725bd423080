"""The images themselves: size, user, what is left in, and that they run where a cluster is strict."""

import json
import re
from pathlib import Path

import docker
import pytest

ROOT = Path(__file__).parents[2]
KINDS = ("gpu", "cpu", "edge")
ALL = pytest.mark.parametrize("kind", KINDS)
MOST_BYTES = {"cpu": 2.2e9, "edge": 0.5e9}
STRICT = {
    "read_only": True,
    "tmpfs": {"/tmp": ""},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "network_mode": "none",
}
IMPORTS = {
    "gpu": "import torch, transformers, kfp_bonsai.shared.models.families",
    "cpu": "import torch, transformers, nncf, onnxruntime, openvino, matplotlib.pyplot",
    "edge": "import onnxruntime, openvino, tokenizers, kfp_bonsai.serve.__main__",
}


def output(client, image, *command: str, **options) -> str:
    """Run a command in an image and return what it prints; raises ContainerError if it fails."""
    options = {"stderr": True, **options}
    made = client.containers.run(image, command[1:], entrypoint=command[0], remove=True, **options)
    return made.decode()


@pytest.mark.parametrize("kind", MOST_BYTES)
def test_images_are_as_small_as_promised(images, kind):
    """An image that takes minutes to pull, or does not fit a small device."""
    assert images[kind].attrs["Size"] < MOST_BYTES[kind]


@ALL
def test_the_user_is_not_root_and_always_the_same(client, images, kind):
    """An image that the restricted Pod Security level refuses, or files that the next version cannot read."""
    assert images[kind].attrs["Config"]["User"] == "10001:0"
    assert output(client, images[kind], "id").startswith("uid=10001(bonsai) gid=0(root)")


@ALL
@pytest.mark.parametrize("user", ["", "12345:0", "23456:23456"])
def test_it_runs_read_only_as_any_user(client, images, kind, user):
    """A pod that dies on OpenShift, whose user ids are nobody's, or where nothing but /tmp can be written."""
    code = f"import getpass, pathlib; {IMPORTS[kind]}; getpass.getuser(); (pathlib.Path.home() / 'x').touch()"
    output(client, images[kind], "python", "-c", code, user=user, **STRICT)


@ALL
def test_nothing_that_builds_is_left_in(client, images, kind):
    """An image with a compiler for whoever breaks in, or with gigabytes of caches."""
    tools = "for tool in gcc cc g++ ld make cmake ninja rustc go git nvcc pip pip3; do command -v $tool; done; "
    caches = "ls -d /opt/*/bin/pip* /source /root/.cache/* /var/cache/apt/archives/*.deb 2>/dev/null; "
    caches += "find /opt -name '*.whl' -o -name '*.tar.gz' -size +1M; true"
    assert output(client, images[kind], "sh", "-c", tools + caches, user="0") == ""


@ALL
def test_the_code_in_it_cannot_be_changed_by_who_runs_it(client, images, kind):
    """A stage whose user can write into the installed packages."""
    assert output(client, images[kind], "sh", "-c", "find /opt -writable ! -type l -print -quit") == ""


@ALL
def test_labels_say_what_it_is(images, kind):
    """An image that nobody can tell the version, source or license of."""
    from kfp_bonsai import __version__

    prefix = "org.opencontainers.image."
    labels = {name.removeprefix(prefix): text for name, text in images[kind].labels.items() if name.startswith(prefix)}
    assert labels["title"] == f"kfp-bonsai {kind}"
    assert labels["version"] == __version__
    assert labels["licenses"] == "Apache-2.0"
    assert labels["description"] and {"source", "revision"} <= set(labels)


@ALL
def test_the_package_in_it_is_this_one(client, images, kind):
    """A tag that promises another version than the one inside."""
    from kfp_bonsai import __version__

    code = "import kfp_bonsai; print(kfp_bonsai.__version__)"
    asked = ("python", "-c", code) if kind == "edge" else ("bonsai", "--version")
    assert output(client, images[kind], *asked).split()[-1] == __version__


@pytest.mark.parametrize("kind", KINDS)
def test_versions_are_those_of_the_constraints(client, images, kind):
    """An image with other versions than those that the tests passed with."""
    code = (
        "from importlib.metadata import distributions as d; print(*{f'{x.name}=={x.version}' for x in d()}, sep='\\n')"
    )
    found = dict(line.lower().split("==") for line in output(client, images[kind], "python", "-c", code).split())
    check_pinned({name: version for name, version in found.items() if name not in ("kfp-bonsai", "pip")})
    assert len(found) >= (4 if kind == "edge" else 40)


def check_pinned(found: dict[str, str]) -> None:
    """Check that packages have the versions of the constraints."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-")
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", text, re.M))
    for name, version in found.items():
        assert version.partition("+")[0] == pinned.get(name.lower().replace("_", "-")), f"{name} {version}"


def test_the_edge_image_has_neither_torch_nor_what_asks_for_it(client, images):
    """An edge image that grows to gigabytes again, or has a command that ends in a traceback."""
    for package in ("torch", "transformers", "pyarrow", "pandas"):
        with pytest.raises(docker.errors.ContainerError):
            output(client, images["edge"], "python", "-c", f"import {package}")
    assert output(client, images["edge"], "sh", "-c", "command -v bonsai || true") == ""


def test_the_gpu_image_asks_for_the_energy_counter(images):
    """NVML missing in the container: emission would be estimated on a GPU that can measure it."""
    environment = dict(each.split("=", 1) for each in images["gpu"].attrs["Config"]["Env"])
    assert {"compute", "utility"} <= set(environment["NVIDIA_DRIVER_CAPABILITIES"].split(","))


def test_the_cuda_build_of_the_gpu_image_is_pinned_whole(resolving):
    """A GPU image that does not resolve, or brings other CUDA libraries each month: only a CPU build is made here."""
    report, _ = resolving.communicate()
    assert resolving.returncode == 0
    found = {each["metadata"]["name"]: each["metadata"]["version"] for each in json.loads(report)["install"]}
    assert "+" not in found["torch"] and "nvidia-cublas" in found
    check_pinned(found)


@ALL
def test_nobody_is_told_of_its_use(client, images, kind):
    """Libraries that send traces of what is run to their makers, from inside a company's cluster."""
    environment = dict(each.split("=", 1) for each in images[kind].attrs["Config"]["Env"])
    assert kind == "edge" or environment["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert kind == "gpu" or environment["ORT_DISABLE_TELEMETRY"] == "1"
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('openvino_telemetry') is not None)"
    output(client, images[kind], "python", "-c", code)
