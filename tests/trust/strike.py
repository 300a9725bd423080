"""End each stage at every one of its file operations in turn, as by SIGKILL, and start it again.

    python tests/trust/strike.py --world /tmp/world
    python tests/trust/strike.py --only report --only distill

What kill.py leaves to chance is tried one by one here: the moments between two operations on files, when an output is
put in its place, a pointer changed, or a checkpoint replaced. Of operations that differ in a number alone, the first
is taken. After each the stage must end well, with what an undisturbed one makes, and leave nothing behind.
"""

import argparse
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from kill import SERVERS, WORKS, Trial, Work, make, s3, stage, weights

MORE = {
    "prepare-data": Work(
        lambda world, to: [
            "prepare-data",
            f"--data={world / 'reviews.csv'}",
            *(f"--{name}={to / name}.parquet" for name in ("train", "validation", "test", "unlabelled")),
        ],
        tuple(f"{name}.parquet" for name in ("train", "validation", "test", "unlabelled")),
        lambda folder: {path.name: path for path in sorted(folder.glob("*.parquet"))},
    ),
    "layer-remove": stage("layer-remove", "--keep=2", model="baseline", data="validation.parquet"),
    "quantize": stage("quantize", "--calibration-rows=16", model="small", calibration="train.parquet"),
    "select-model": Work(
        lambda world, to: [
            "select-model",
            f"--measurement={world / 'measurement.json'}",
            f"--candidates={world / 'small'}",
            f"--output={to / 'out'}",
            f"--selection={to / 'selection.json'}",
        ],
        ("out", "selection.json"),
        lambda folder: weights(folder / "out"),
    ),
    "report": Work(
        lambda world, to: [
            "report",
            f"--measurement={world / 'measurement.json'}",
            f"--selection={world / 'selection.json'}",
            *(f"--{name}={to / name}.{end}" for name, end in (("html", "html"), ("markdown", "md"))),
            f"--results={to / 'results.json'}",
            f"--figures={to / 'figures'}",
        ],
        ("figures", "html.html", "markdown.md", "results.json"),
        lambda folder: {path.name: path for path in sorted(folder.glob("figures/*.svg"))},
    ),
    "fetch-champion": Work(
        lambda world, to: [
            "fetch-champion",
            f"--champion={world / 'champion'}",
            f"--output={to / 'out'}",
            f"--document={to / 'champion.json'}",
        ],
        ("champion.json", "out"),
        lambda folder: weights(folder / "out"),
    ),
    "fine-tune": stage(
        "fine-tune", "--epochs=1", model="pretrained", train="train.parquet", validation="validation.parquet"
    ),
    "matrix-prune": stage("matrix-prune", "--flops=0.3", "--steps=6", model="baseline", teacher_outputs="transfer"),
    "distill": stage(
        "distill", "--epochs=1", model="narrow", teacher_outputs="transfer", validation="validation.parquet"
    ),
}
STRUCK = {name: work for name, work in (WORKS | MORE).items() if not work.pipeline}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
OWN = re.compile(r"/temporary/[a-z0-9_]{8}$")  # by which Python tries whether a folder takes files
CHANGING = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.symlink", "os.link", "shutil.rmtree")


def listen(within: Path, heard: Path, at: int = 0) -> None:
    """Write down what this process does to files from now on, and end it before a certain one of these operations.

    Args:
        within: the folder of those files.
        heard: the file to write it to, a line each.
        at: the number of that operation, from 1; 0 for none.
    """
    note, count = os.open(heard, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 0

    def hook(event: str, given: tuple) -> None:
        nonlocal count
        writes = event in CHANGING or (event == "open" and isinstance(given[2], int) and given[2] & WRITING)
        if not writes or OWN.search(str(given[0])) or not any(str(within) in str(each) for each in given[:2]):
            return
        count += 1
        os.write(note, f"{event} {' '.join(str(each) for each in given[:2]).replace(str(within), '')}\n".encode())
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def moments(heard: Path) -> list[tuple[int, str]]:
    """Return the numbers of the operations that differ in more than a number or a name that was drawn, with words."""
    found: dict[str, tuple[int, str]] = {}
    for number, line in enumerate(heard.read_text().splitlines(), 1):
        kind = re.sub(r"\.[a-z0-9_]{8}(?=[/ ]|$)|\d+|tmp\w{8}|[0-9a-f]{12,}", "#", line)
        found.setdefault(kind, (number, line))
    return sorted(found.values())


def struck(trial: Trial, most: int) -> Iterator[tuple[str, list[str]]]:
    """Yield each moment at which a work was ended, and what was wrong then.

    Args:
        trial: the work.
        most: how many moments, evenly taken.
    """
    heard = trial.folder.parent / "heard"
    process = trial.start(partial(listen, trial.folder.parent, heard))
    process.join()
    if process.exitcode:
        raise SystemExit(f"{trial.name} fails undisturbed (status {process.exitcode}): see {trial.log}")
    wanted, found = trial.hashes(), moments(heard)
    for at, line in found[:: -(-len(found) // most)]:
        trial.clean()
        process = trial.start(partial(listen, trial.folder.parent, heard, at))
        process.join()
        wrong = [] if process.exitcode in (0, -signal.SIGKILL) else [f"failed with status {process.exitcode}"]
        process = trial.start()  # which refuses what is there, and clears up what was left of making it
        process.join()
        if process.exitcode and not trial.is_there():
            wrong.append(f"does not go on (status {process.exitcode}): see {trial.log}")
        yield line, [*wrong, *trial.ended(wanted)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=STRUCK, action="append")
    parser.add_argument("--most", type=int, default=40, help="moments of each stage")
    parser.add_argument("--world", type=Path, help="where to make the world, or where it is")
    given = parser.parse_args()
    number, wrong = 0, []
    with tempfile.TemporaryDirectory() as scratch, s3.server() as server:
        SERVERS.append(server)
        world = given.world or Path(scratch) / "world"
        if not (world / "champion").exists():
            make(world)
        for name in given.only or STRUCK:
            trial = Trial(name, STRUCK[name], world, Path(scratch) / name / "made", world / "logs")
            for line, found in struck(trial, given.most):
                number += 1
                wrong += [f"{name}, before {line}: {one}" for one in found]
                print(f"{number}  {name}, before {line}  {'; '.join(found) or 'well'}", flush=True)
    print(f"{number} moments, {len(wrong)} wrong", *wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
