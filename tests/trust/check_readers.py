"""What reads each kind of input, on hundreds of damaged ones: it ends well or with a BonsaiError, in time and memory.

`make test-trust` runs it. A case is known by its number: BONSAI_TRUST_FIRST says where they begin (to go on, or for
other ones), BONSAI_TRUST_READS how many there are of each input, and `-k "csv and 17"` does one again.
BONSAI_TRUST_WORLD is a folder whose inputs were made before.
"""

import os
import random
from pathlib import Path

import pytest
from trust.kept import KEPT, make_kept
from trust.limited import GIB, Outcome, outcome
from trust.mutate import ANEW, mutate
from trust.readers import READERS, make_more
from trust.world import copied, digest, make

FIRST = int(os.environ.get("BONSAI_TRUST_FIRST", "0"))
CASES = range(FIRST, FIRST + int(os.environ.get("BONSAI_TRUST_READS", "80")))
ALL = READERS | KEPT
SECONDS, MOST = 20.0, 2.0  # of a case on a busy machine, and GiB


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    if kept := os.environ.get("BONSAI_TRUST_WORLD"):
        return Path(kept)
    folder = tmp_path_factory.mktemp("world") / "world"
    make(folder)
    make_more(folder)
    make_kept(folder)
    return folder


@pytest.fixture(scope="session")
def expected() -> dict:
    """What comes of each input as it is, asked for when it is first needed."""
    return {}


def _read(name: str, source: Path, world: Path, out: Path) -> object:
    out.mkdir()
    return ALL[name].use(source, world, out)


def _outcome(name: str, source: Path, world: Path, out: Path) -> Outcome:
    return outcome(_read, name, source, world, out, seconds=SECONDS, gib=MOST)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ALL)
def test_a_damaged_input(name, case, world, expected, tmp_path):
    """A traceback, a hang, gigabytes, a changed input, an empty message, or another result than of the whole input."""
    target = ALL[name]
    if name not in expected:
        source = copied(target, world, tmp_path / "whole")
        before = digest(source)
        found = _outcome(name, source, world, tmp_path / "whole" / "out")
        assert found.ended == "done", f"{name} as it is {found.ended}: {found.value}"
        assert digest(source) == before, f"{name} was changed"
        expected[name] = found.value
    source = copied(target, world, tmp_path / "damaged")
    what = mutate(source, random.Random(f"{name} {case}"))
    before = digest(source)
    found = _outcome(name, source, world, tmp_path / "damaged" / "out")
    assert found.ended in ("done", "refused"), f"{what}: {found.ended}: {found.value}"
    assert found.memory < (MOST + 1) * GIB, f"{what}: took {found.memory / GIB:.1f} GiB"
    assert digest(source) == before, f"{what}: the input was changed"
    if found.ended == "refused":
        assert len(found.value) > 20, f"{what}: {found.value}"
        assert len(found.value) < 4000, f"{what}: a message of {len(found.value):,} letters"
    elif target.exact and ANEW not in what:
        assert found.value == expected[name], f"{what}: gave {found.value}, not {expected[name]}"
