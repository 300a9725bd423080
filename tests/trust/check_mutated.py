"""Every kind of input, damaged: a stage ends well or with a BonsaiError, in time, and never with a wrong answer.

`make test-trust` runs it; `make test` does not. Each case runs in a process of its own, forked from one that has
imported everything. BONSAI_TRUST_CASES says how many cases each input gets.
"""

import multiprocessing
import os
import random
import resource
import traceback
from pathlib import Path

import pytest
from trust.mutate import mutate
from trust.world import TARGETS, Target, copied, digest, make

CASES = int(os.environ.get("BONSAI_TRUST_CASES", "30"))
SECONDS = 90.0
GIB = 1 << 30
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "transformers", "sklearn.linear_model", "kfp_bonsai.cli", "trust.world"])


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "world"
    make(folder)
    return folder


@pytest.fixture(scope="session")
def expected(world, tmp_path_factory) -> dict:
    """What comes of each input as it is, asked for when it is first needed."""
    return {}


def _work(target: Target, source: Path, world: Path, out: Path, answer) -> None:
    """Run in the child: send how it ended, and the memory that it took."""
    from kfp_bonsai.shared.core.errors import BonsaiError

    try:
        found = ("done", target.use(source, world, out))
    except BonsaiError as error:
        found = ("refused", str(error))
    except BaseException:
        found = ("raised", traceback.format_exc())
    answer.send((*found, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))
    answer.close()


def _outcome(target: Target, source: Path, world: Path, out: Path) -> tuple:
    out.mkdir()
    ours, theirs = CONTEXT.Pipe(duplex=False)
    child = CONTEXT.Process(target=_work, args=(target, source, world, out, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        return ours.recv() if ours.poll(SECONDS) else ("hung", f"no end within {SECONDS:.0f} s", 0)
    except EOFError:
        child.join()
        return "died", f"the process ended with {child.exitcode}", 0
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("case", range(CASES))
@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_input(name, case, world, expected, tmp_path):
    """A traceback, a hang, gigabytes, a changed input, an empty message, or another result than of the whole input."""
    target = TARGETS[name]
    if name not in expected:
        ended, value, _ = _outcome(target, copied(target, world, tmp_path / "whole"), world, tmp_path / "whole" / "out")
        assert ended == "done", f"{name} as it is {ended}: {value}"
        expected[name] = value
    source = copied(target, world, tmp_path / "damaged")
    what = mutate(source, random.Random(f"{name} {case}"))
    before = digest(source)
    ended, value, memory = _outcome(target, source, world, tmp_path / "damaged" / "out")
    assert ended in ("done", "refused"), f"{what}: {ended}: {value}"
    assert memory < 4 * GIB, f"{what}: took {memory / GIB:.1f} GiB"
    assert digest(source) == before, f"{what}: the input was changed"
    if ended == "refused":
        assert len(value) > 20, f"{what}: {value}"
    elif target.exact:
        assert value == expected[name], f"{what}: gave {value}, not {expected[name]}"
