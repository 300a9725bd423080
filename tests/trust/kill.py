"""Kill `bonsai` at random moments, by SIGTERM and SIGKILL, and start it again, until it ends by itself.

    python tests/trust/kill.py --kills 100 --seed 0
    python tests/trust/kill.py --kills 15 --only distill --world /tmp/world

What it makes must be bit by bit what an undisturbed one made, appear whole or not at all, and leave nothing behind: no
file beside its outputs, no process, no temporary folder. SIGTERM must end it within `PATIENCE` seconds, with the status
that a cluster tries again. Of a pipeline, that is told to the command, as to one of its processes, or to all at once.
Commands are forks of a process that has imported what they need, so that kills meet their work and not their imports.
Every failure is told, and the exit status is 1. In a --world of one's own, what the undisturbed ones made is known to
the next call, so that 100 kills can be had in pieces, each with a --seed of its own.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

os.environ["HF_HUB_OFFLINE"] = "1"  # which is read when it is imported

sys.path.insert(0, str(Path(__file__).parents[1]))

import s3
from trust.limited import CONTEXT

from kfp_bonsai.cli import main

PATIENCE = 60.0  # seconds; a pod gets 30 by default, on a machine of its own
SHARED = ("kfp-bonsai-measurement.lock",)  # temporary, and for all processes of the machine
MOST_IN_A_ROW = 5  # kills, after which a work is let be
ASKED = (143, 130, -signal.SIGTERM)  # exit statuses after SIGTERM
SERVERS: list[Any] = []  # of the bucket: one, once it runs
QUICK = ("--pairs=2", "--block-seconds=1", "--precision=0")
TRAINING = ("--epochs=12", "--learning-rate=0.003")


@dataclass(frozen=True)
class Work:
    """One command, and what it makes.

    Attributes:
        command: (world, folder for outputs) -> its arguments.
        outputs: names of what is in the folder in the end.
        models: gives the weights and data whose bytes must be those of an undisturbed one.
        pipeline: whether it keeps a folder for its work, whole or not, and goes on with it.
        bucket: whether it publishes in the server's bucket, which then is empty when it begins.
    """

    command: Callable[[Path, Path], list[str]]
    outputs: tuple[str, ...]
    models: Callable[[Path], Mapping[str, Path]]
    pipeline: bool = False
    bucket: bool = False


def weights(folder: Path) -> dict[str, Path]:
    """Return what is compared of a stage's output."""
    names = ("*.safetensors", "rows.parquet", "hidden.npy", "tokenizer.json")
    return {str(path.relative_to(folder)): path for name in names for path in sorted(folder.glob(f"**/{name}"))}


def of_run(folder: Path) -> dict[str, Path]:
    """Return what is compared of a run: the models of its tasks and the one that is handed over."""
    found = {f"handed over/{path.name}": path for path in sorted((folder / "run" / "model").glob("*.safetensors"))}
    for name in ("baseline", "shorter_model", "pruned_model", "distilled_model"):
        made = sorted(
            (folder / "run" / "work").glob(f"**/{name}/model.safetensors"), key=lambda path: path.stat().st_mtime
        )
        found |= dict.fromkeys([name][: len(made)], made[-1] if made else folder)
    return found


def fetched(to: Path) -> dict[str, Path]:
    """Return all objects of the bucket, fetched: by name, and the weights by their bytes too."""
    shutil.rmtree(to, ignore_errors=True)
    found = {}
    for name in sorted(SERVERS[0].names()):
        found[name] = to / name
        found[name].parent.mkdir(parents=True, exist_ok=True)
        found[name].write_bytes(SERVERS[0].content(name) if name.endswith(".safetensors") else b"")
    return found


def accuracies(folder: Path) -> dict[str, Path]:
    """Return what a measurement says that is not of the moment: the models, and what each answered right."""
    measured = json.loads((folder / "measurement.json").read_text())
    told = folder.parent / "told.json"
    told.write_text(json.dumps([[one["sha256"], one["accuracy"]] for one in measured["models"]]))
    return {"models and their accuracies": told}


def stage(name: str, *options: str, **inputs: str) -> Work:
    """Return a stage as a command on its own, whose inputs are paths in the world."""

    def command(world: Path, to: Path) -> list[str]:
        given = [f"--{key.replace('_', '-')}={world / value}" for key, value in inputs.items()]
        return [name, *given, *options, f"--output={to / 'out'}"]

    return Work(command, ("out",), lambda folder: weights(folder / "out"))


WORKS = {
    "fine-tune": stage(
        "fine-tune", *TRAINING, model="pretrained", train="train.parquet", validation="validation.parquet"
    ),
    "teacher-outputs": stage(
        "teacher-outputs", "--batch-size=4", model="baseline", train="train.parquet", unlabelled="unlabelled.parquet"
    ),
    "matrix-prune": stage("matrix-prune", "--flops=0.3", "--steps=150", model="baseline", teacher_outputs="transfer"),
    "distill": stage("distill", *TRAINING, model="narrow", teacher_outputs="transfer", validation="validation.parquet"),
    "package-model": stage("package-model", model="small", results="results.json"),
    "evaluate-emissions": Work(
        lambda world, to: [
            "evaluate-emissions",
            f"--baseline={world / 'baseline'}",
            f"--candidates={world / 'small'}",
            *(f"--{name}={world / name}.parquet" for name in ("train", "test")),
            f"--output={to / 'measurement.json'}",
            *QUICK,
        ],
        ("measurement.json",),
        accuracies,
    ),
    "check-drift": Work(
        lambda world, to: [
            "check-drift",
            f"--champion={world / 'champion'}",
            f"--document={world / 'champion.json'}",
            f"--incumbent={world / 'incumbent'}",
            *(f"--{name}={world / name}.parquet" for name in ("train", "validation", "test")),
            f"--output={to / 'drift.json'}",
        ],
        ("drift.json",),
        lambda folder: {"drift.json": folder / "drift.json"},
    ),
    "package-model into a bucket": Work(
        lambda world, to: [
            "package-model",
            f"--model={world / 'small'}",
            f"--results={world / 'results.json'}",
            f"--output={to / 'out'}",
            "--upload=s3://bucket/models",
        ],
        ("out",),
        lambda folder: weights(folder / "out") | fetched(folder.parent / "fetched"),
        bucket=True,
    ),
    "promote": Work(
        lambda world, to: [
            "promote",
            f"--challenger={world / 'package'}",
            f"--champion={to / 'champion'}",
            f"--decision={to / 'decision.json'}",
            "--first",
        ],
        ("champion", "decision.json"),
        lambda folder: weights(folder / "champion"),
    ),
    "promote in a bucket": Work(
        lambda world, to: [
            "promote",
            f"--challenger={world / 'package'}",
            "--champion=s3://bucket/reviews",
            f"--decision={to / 'decision.json'}",
            "--first",
        ],
        ("decision.json",),
        lambda folder: fetched(folder.parent / "fetched"),
        bucket=True,
    ),
    "compress": Work(
        lambda world, to: [
            "run",
            f"--model={world / 'pretrained'}",
            f"--data={world / 'reviews.csv'}",
            "--level=small:layers=2/3,flops=0.4",
            "--epochs=6",
            "--learning-rate=0.003",
            "--prune-steps=40",
            "--country=USA",
            *QUICK,
            f"--output={to / 'run'}",
        ],
        ("run",),
        of_run,
        pipeline=True,
    ),
    "retrain": Work(
        lambda world, to: [
            "retrain",
            f"--champion={to / 'champion'}",
            f"--data={world / 'reviews.csv'}",
            "--epochs=6",
            "--learning-rate=0.003",
            "--prune-steps=40",
            *QUICK,
            f"--output={to / 'run'}",
        ],
        ("champion", "run"),
        of_run,
        pipeline=True,
    ),
}


def make(world: Path) -> None:
    """Make what the commands start from."""
    import tiny

    from kfp_bonsai.distill.distill import distill
    from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions
    from kfp_bonsai.fetch_champion.fetch import fetch_champion
    from kfp_bonsai.fine_tune.train import fine_tune
    from kfp_bonsai.layer_remove.remove import layer_remove
    from kfp_bonsai.matrix_prune.prune import matrix_prune
    from kfp_bonsai.package_model.package import package_model
    from kfp_bonsai.promote.promote import promote
    from kfp_bonsai.report.report import report
    from kfp_bonsai.select_model.select import select_model
    from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

    data = tiny.splits(world)
    tiny.pretrained(world / "pretrained")
    with (world / "reviews.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [(text, ("bad", "good")[label]) for text, label in tiny.texts(500, 7)]
        csv.writer(file).writerows([("text", "label"), *rows])
    known, rest = (data["train"], data["validation"]), (data["train"], data["unlabelled"])
    fine_tune(str(world / "pretrained"), *known, world / "baseline", epochs=6, learning_rate=3e-3, seed=1)
    teacher_outputs(world / "baseline", *rest, world / "transfer", augmentations=1)
    layer_remove(world / "baseline", data["validation"], world / "short", keep="2", level="small")
    matrix_prune(world / "short", world / "transfer", world / "narrow", shape="stock", heads=2, ffn=32, steps=5)
    distill(world / "narrow", world / "transfer", data["validation"], world / "small", epochs=1)
    files = [world / name for name in ("measurement.json", "selection.json", "r.html", "r.md", "results.json")]
    evaluate_emissions(
        world / "baseline",
        [world / "small"],
        data["train"],
        data["test"],
        files[0],
        pairs=2,
        block_seconds=1,
        precision=0,
    )
    select_model(files[0], [world / "small"], world / "chosen", files[1])
    report(files[0], files[1], *files[2:], world / "figures")
    package_model(world / "small", world / "results.json", world / "package")
    promote(world / "package", str(world / "champion"), world / "decision.json", train=str(data["train"]), first=True)
    fetch_champion(str(world / "champion"), world / "incumbent", world / "champion.json")


class Trial:
    """One work, done in a folder of its own."""

    def __init__(self, name: str, work: Work, world: Path, folder: Path, logs: Path) -> None:
        self.name, self.work, self.world, self.folder = name, work, world, folder
        self.temporary, self.log = folder.parent / "temporary", logs / f"{name}.log"
        logs.mkdir(exist_ok=True)
        self.clean()

    def clean(self) -> None:
        """Begin with an empty folder."""
        for folder in (self.folder, self.temporary):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        for name in SERVERS[0].names() if self.work.bucket else ():
            SERVERS[0].remove(name)
        if self.name == "retrain":
            shutil.copytree(self.world / "champion", self.folder / "champion")

    def start(self, before: Callable[[], None] | None = None) -> Any:
        """Start the command, in a session of its own, with temporary folders of its own; return its process.

        Args:
            before: what is done in that process first.
        """
        own = {
            "TMPDIR": str(self.temporary),
            "BONSAI_CACHE": str(self.world / "cache"),
            "BONSAI_CHECKPOINT_SECONDS": "0.3",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "AWS_ENDPOINT_URL": SERVERS[0].url,
            **{name.upper(): value for name, value in s3.KEYS.items()},
            "AWS_DEFAULT_REGION": s3.KEYS["region_name"],
            "PYTHONPATH": os.pathsep.join([str(self.world / "path"), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        process = CONTEXT.Process(target=_run, args=(self.work.command(self.world, self.folder), own, self.log, before))
        process.start()
        while process.is_alive() and os.getsid(process.pid) != process.pid:
            time.sleep(0.01)
        return process

    def undisturbed(self) -> tuple[dict[str, str], float]:
        """Do the work once; return the hashes of what it made, and how long it took, as an earlier call wrote down."""
        note = self.world / "undisturbed" / f"{self.name}.json"
        if note.exists():
            return tuple(json.loads(note.read_text()))
        started = time.monotonic()
        process = self.start()
        process.join()
        status = process.exitcode
        if status:
            raise SystemExit(f"{self.name} fails undisturbed (status {status}): see {self.log}")
        found, took = self.hashes(), time.monotonic() - started
        assert found, f"{self.name} made nothing that can be compared"
        note.parent.mkdir(exist_ok=True)
        note.write_text(json.dumps([found, took]))
        self.clean()
        return found, took

    def hashes(self) -> dict[str, str]:
        """Return the hashes of what was made."""
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in self.work.models(self.folder).items()
        }

    def killed(self, after: float, number: int, whom: str) -> Iterator[str]:
        """Start it, and kill it after some seconds; yield what is wrong, and "ended" if it had ended by itself.

        Args:
            after: the seconds.
            number: the signal.
            whom: "it", "all" of its session, or, so far as there is one, "a part": one of those that it started.
        """
        process = self.start()
        session = process.pid
        part = None
        process.join(after)
        if process.is_alive():
            parts = psutil.Process(session).children(recursive=True) if whom == "a part" else []
            if whom == "all":
                os.killpg(session, number)
            elif parts:
                part = parts[-1]
                with suppress(psutil.NoSuchProcess):
                    part.send_signal(number)
            else:
                os.kill(session, number)
            process.join(PATIENCE if not part else 10 * PATIENCE)
            if process.is_alive():
                yield f"is still there {PATIENCE:.0f} s after signal {number}"
                os.killpg(session, signal.SIGKILL)
                process.join()
        elif process.exitcode:
            yield f"failed by itself with status {process.exitcode}"
        status = process.exitcode
        if not status:
            yield "ended"
        if number == signal.SIGTERM and status not in (0, *ASKED) and not part:
            yield f"ended with status {status} after SIGTERM"
        yield from self._left_processes(session)
        if status:
            yield from self._half_made(number)

    def _left_processes(self, session: int) -> Iterator[str]:
        until = time.monotonic() + PATIENCE
        while left := [one for one in psutil.process_iter() if _session(one) == session]:
            if time.monotonic() > until:
                yield f"left processes: {[one.pid for one in left]}"
                for one in left:
                    one.kill()
                return
            time.sleep(0.2)

    def _half_made(self, number: int) -> Iterator[str]:
        """Yield what is there of an output that is not whole."""
        if number == signal.SIGTERM and (left := self._temporary()):
            yield f"left temporary {sorted(path.name for path in left)} after SIGTERM"
        for path in self.folder.glob("**/bonsai.json"):
            made = path.parent
            if any(part.startswith(".") for part in path.relative_to(self.folder).parts):
                continue  # beside its place
            if not json.loads(path.read_text()) or not [*made.glob("model.safetensors"), *made.glob("hidden.npy")]:
                yield f"half an output in {made}"
        if not self.work.pipeline:
            return
        for name in ("report.html", "results.json"):
            file = self.folder / "run" / name
            if file.exists() and not file.stat().st_size:
                yield f"half a file {file}"

    def _temporary(self) -> list[Path]:
        return [path for path in self.temporary.iterdir() if path.name not in SHARED]

    def is_there(self) -> bool:
        """Say whether a stage's outputs are there, beside which it refuses to begin: it was killed after its work."""
        return not self.work.pipeline and all((self.folder / name).exists() for name in self.work.outputs)

    def ended(self, wanted: dict[str, str]) -> Iterator[str]:
        """Yield what is wrong with what it made in the end."""
        if left := self._temporary():
            yield f"left temporary {sorted(path.name for path in left)}"
        found = self.hashes()
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                yield f"made another {name} than an undisturbed one"
        there = sorted(path.name for path in self.folder.iterdir())
        if there != sorted(self.work.outputs):
            yield f"left {sorted({*there} - {*self.work.outputs})} beside its outputs"
        for path in self.folder.glob("**/.*"):
            if path.name != ".lock":
                yield f"left {path.relative_to(self.folder)}"


def _run(arguments: list[str], own: Mapping[str, str], log: Path, before: Callable[[], None] | None) -> None:
    """Be the command: in a session, with an environment and a log of its own."""
    os.setsid()
    os.environ.update(own)
    tempfile.tempdir = None
    sink = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in (1, 2):
        os.dup2(sink, number)
    sys.argv = ["bonsai", *arguments]
    if before:
        before()
    main()


def _session(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid) if process.status() != psutil.STATUS_ZOMBIE else -1
    except (ProcessLookupError, psutil.NoSuchProcess):
        return -1


def kill() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=WORKS, action="append")
    parser.add_argument("--world", type=Path, help="where to make the world, or where it is")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    wrong: list[str] = []
    killed = ends = 0
    with tempfile.TemporaryDirectory() as scratch, s3.server() as server:
        SERVERS.append(server)
        world = given.world or Path(scratch) / "world"
        if not (world / "champion").exists():
            world.mkdir(parents=True, exist_ok=True)
            make(world)
            (world / "path").mkdir()
            (world / "path" / "sitecustomize.py").write_text(  # two rounds on a busy machine prove nothing
                "from kfp_bonsai.shared.metrics import control\ncontrol.state = lambda ends, margin: control.PASSED\n"
            )
        logs = Path(scratch) if not given.world else world / "logs"
        trials = {
            name: Trial(name, work, world, Path(scratch) / name / "made", logs)
            for name, work in WORKS.items()
            if name in (given.only or WORKS)
        }
        first = CONTEXT.Process(target=time.time)  # with it comes the one that imports, whose time is no work's
        first.start()
        first.join()
        known = {}
        for name, trial in trials.items():
            known[name] = trial.undisturbed()
            print(f"{name}: {known[name][1]:.1f} s undisturbed, {len(known[name][0])} files compared", flush=True)
        while killed < given.kills:
            for name, trial in trials.items():
                done, attempts = False, 0
                while not done:
                    number = chance.choice((signal.SIGTERM, signal.SIGKILL))
                    after = (
                        chance.uniform(0, known[name][1])
                        if attempts < MOST_IN_A_ROW
                        else 10 * known[name][1] + PATIENCE
                    )
                    whom = chance.choice(("it", "it", "all", "a part")) if trial.work.pipeline else "it"
                    said = [*trial.killed(after, number, whom)]
                    done = "ended" in said or trial.is_there()
                    killed, attempts = killed + (not done), attempts + 1
                    if not done and attempts == 2 * MOST_IN_A_ROW:
                        wrong, done = [*wrong, f"{name} does not end any more: see {trial.log}"], True
                    found = [one for one in said if one != "ended"] + ([*trial.ended(known[name][0])] if done else [])
                    ends += done
                    what = f"{name}, {signal.Signals(number).name} to {whom} after {after:.1f} s"
                    wrong += [f"{what}: {one}" for one in found]
                    shown = f"{name}  ended" if done else what
                    print(f"{killed} kills, {ends} ends  {shown}  {'; '.join(found) or 'well'}", flush=True)
                trial.clean()
                if killed >= given.kills:
                    break
    print(f"{killed} kills, {ends} ends, {len(wrong)} wrong", *wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    kill()
