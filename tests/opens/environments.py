"""Environments in which what we hand over is opened: Python without kfp_bonsai.

Torch, transformers and the runtimes are those of the environment that the tests run in, of which only the folder of
packages is taken: an editable installation, as `make install` makes it, does not come along. What else a consumer needs
is installed by pip, for it alone.
"""

import json
import os
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

CONSUMERS = Path(__file__).parent / "consumers"
ABSENT = "import importlib.util as found; assert found.find_spec('kfp_bonsai') is None, 'kfp_bonsai is there'"


class CannotInstall(Exception):
    """What a consumer needs cannot be had beside our transformers: says why."""


@cache
def environment(folder: Path, *packages: str) -> Path:
    """Make an environment of its own with some packages; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    answer = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    Path(answer.stdout.strip(), "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    if packages:
        command = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--disable-pip-version-check",
            "-q",
            *packages,
            *_as_here(),
        ]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        if said.returncode:
            raise CannotInstall(said.stderr.strip()[-600:])
    subprocess.run([python, "-c", ABSENT], check=True)
    return python


def _as_here() -> list[str]:
    """Return what holds pip to the transformers and torch that are here."""
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in ("transformers", "torch")]


def ask(python: Path, consumer: str, folder: Path, asked: Any, scratch: Path) -> Any:
    """Let a consumer open a folder and answer; return what it says.

    Args:
        python: of which environment.
        consumer: a file in consumers/.
        folder: what is opened.
        asked: what it is asked, as JSON.
        scratch: for files.
    """
    question, answer = scratch / "asked.json", scratch / "answer.json"
    question.write_text(json.dumps(asked))
    variables = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(scratch / "modules"), "PYTHONNOUSERSITE": "1"}
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    command = [python, "-I", CONSUMERS / f"{consumer}.py", folder, question, answer]
    said = subprocess.run(command, env=kept, cwd=scratch, capture_output=True, text=True, check=False)
    assert said.returncode == 0, f"{consumer}: {said.stderr[-3000:]}"
    return json.loads(answer.read_text())
