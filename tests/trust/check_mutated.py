"""Every kind of input, damaged: a stage ends well or with a BonsaiError, in time, and never with a wrong answer.

`make test-trust` runs it; `make test` does not. BONSAI_TRUST_CASES says how many cases each input gets,
BONSAI_TRUST_FIRST where they begin. What reads the inputs is tried on many more: check_readers.py.
"""

import os
import random
from pathlib import Path

import pytest
from trust.limited import GIB, Outcome, outcome
from trust.mutate import ANEW, mutate
from trust.world import TARGETS, copied, digest, make

FIRST = int(os.environ.get("BONSAI_TRUST_FIRST", "0"))
CASES = range(FIRST, FIRST + int(os.environ.get("BONSAI_TRUST_CASES", "30")))
ROOM = 12.0  # GiB of addresses, which threads and runtimes take many of; of memory it is to take less than a third


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "world"
    make(folder)
    return folder


@pytest.fixture(scope="session")
def expected() -> dict:
    """What comes of each input as it is, asked for when it is first needed."""
    return {}


def _used(name: str, source: Path, world: Path, out: Path) -> object:
    out.mkdir()
    return TARGETS[name].use(source, world, out)


def _outcome(name: str, source: Path, world: Path, out: Path) -> Outcome:
    return outcome(_used, name, source, world, out, gib=ROOM)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_input(name, case, world, expected, tmp_path):
    """A traceback, a hang, gigabytes, a changed input, an empty message, or another result than of the whole input."""
    target = TARGETS[name]
    if name not in expected:
        whole = _outcome(name, copied(target, world, tmp_path / "whole"), world, tmp_path / "whole" / "out")
        assert whole.ended == "done", f"{name} as it is {whole.ended}: {whole.value}"
        expected[name] = whole.value
    source = copied(target, world, tmp_path / "damaged")
    what = mutate(source, random.Random(f"{name} {case}"))
    before = digest(source)
    found = _outcome(name, source, world, tmp_path / "damaged" / "out")
    assert found.ended in ("done", "refused"), f"{what}: {found.ended}: {found.value}"
    assert found.memory < 4 * GIB, f"{what}: took {found.memory / GIB:.1f} GiB"
    assert digest(source) == before, f"{what}: the input was changed"
    if found.ended == "refused":
        assert len(found.value) > 20, f"{what}: {found.value}"
    elif target.exact and ANEW not in what:
        assert found.value == expected[name], f"{what}: gave {found.value}, not {expected[name]}"
