"""Kill `bonsai` at random moments, by SIGTERM and SIGKILL, and start it again, until it ends by itself.

    python tests/trust/kill.py --kills 100 --seed 0
    python tests/trust/kill.py --kills 15 --only distill

What it makes must be bit by bit what an undisturbed one made, appear whole or not at all, and leave nothing behind: no
file beside its outputs, no process, no temporary folder. SIGTERM must end it within `PATIENCE` seconds, with the status
that a cluster tries again. Every failure is told, and the exit status is 1.
"""

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

BONSAI = [sys.executable, "-c", "from kfp_bonsai.cli import main; main()"]
PATIENCE = 60.0  # seconds; a pod gets 30 by default, on a machine of its own
TORCHS = "torchinductor_"  # a cache that torch leaves for its next process
MOST_IN_A_ROW = 5  # kills, after which a work is let be
ASKED = (143, 130, -signal.SIGTERM)  # exit statuses after SIGTERM
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
    """

    command: Callable[[Path, Path], list[str]]
    outputs: tuple[str, ...]
    models: Callable[[Path], Mapping[str, Path]]
    pipeline: bool = False


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


class Trial:
    """One work, done in a folder of its own."""

    def __init__(self, name: str, work: Work, world: Path, folder: Path) -> None:
        self.name, self.work, self.world, self.folder = name, work, world, folder
        self.temporary, self.log = folder.parent / "temporary", folder.parent / f"{name}.log"
        self.clean()

    def clean(self) -> None:
        """Begin with an empty folder."""
        for folder in (self.folder, self.temporary):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        if self.name == "retrain":
            shutil.copytree(self.world / "champion", self.folder / "champion")

    def start(self) -> subprocess.Popen:
        """Start the command, in a session of its own, with temporary folders of its own."""
        own = {
            "TMPDIR": str(self.temporary),
            "BONSAI_CACHE": str(self.world / "cache"),
            "BONSAI_CHECKPOINT_SECONDS": "0.3",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(self.world / "path"),
        }
        return subprocess.Popen(
            [*BONSAI, *self.work.command(self.world, self.folder)],
            env=os.environ | own,
            stdout=self.log.open("a"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def undisturbed(self) -> tuple[dict[str, str], float]:
        """Do the work once; return the hashes of what it made, and how long it took."""
        started = time.monotonic()
        status = self.start().wait()
        if status:
            raise SystemExit(f"{self.name} fails undisturbed (status {status}): see {self.log}")
        found, took = self.hashes(), time.monotonic() - started
        assert found, f"{self.name} made nothing that can be compared"
        self.clean()
        return found, took

    def hashes(self) -> dict[str, str]:
        """Return the hashes of what was made."""
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in self.work.models(self.folder).items()
        }

    def killed(self, after: float, number: int) -> Iterator[str]:
        """Start it, and kill it after some seconds; yield what is wrong, and "ended" if it had ended by itself."""
        process = self.start()
        session = process.pid
        try:
            status = process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            try:
                status = process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                yield f"is still there {PATIENCE:.0f} s after signal {number}"
                os.killpg(session, signal.SIGKILL)
                status = process.wait()
        else:
            if status:
                yield f"failed by itself with status {status}"
            yield "ended"
        if number == signal.SIGTERM and status not in (0, *ASKED):
            yield f"ended with status {status} after SIGTERM"
        yield from self._left_processes(session)
        if status:
            yield from self._half_made(number)

    def _left_processes(self, session: int) -> Iterator[str]:
        until = time.monotonic() + PATIENCE
        while left := [one for one in psutil.process_iter() if _session(one) == session]:
            if time.monotonic() > until:
                yield f"left processes: {[one.info if hasattr(one, 'info') else one.pid for one in left]}"
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
        return [path for path in self.temporary.iterdir() if not path.name.startswith(TORCHS)]

    def is_there(self) -> bool:
        """Say whether a stage's outputs are there, beside which it refuses to begin: it was killed after its work."""
        return not self.work.pipeline and all((self.folder / name).exists() for name in self.work.outputs)

    def ended(self, wanted: dict[str, str]) -> Iterator[str]:
        """Yield what is wrong with what it made in the end."""
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


def _session(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid) if process.status() != psutil.STATUS_ZOMBIE else -1
    except (ProcessLookupError, psutil.NoSuchProcess):
        return -1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=WORKS, action="append")
    parser.add_argument("--world", type=Path, help="where to make the world, or where it is")
    given = parser.parse_args()
    chance = random.Random(given.seed)
    wrong: list[str] = []
    killed = ends = 0
    with tempfile.TemporaryDirectory() as scratch:
        world = given.world or Path(scratch) / "world"
        if not (world / "champion").exists():
            world.mkdir(parents=True, exist_ok=True)
            make(world)
            (world / "path").mkdir()
            (world / "path" / "sitecustomize.py").write_text(  # two rounds on a busy machine prove nothing
                "from kfp_bonsai.shared.metrics import control\ncontrol.state = lambda ends, margin: control.PASSED\n"
            )
        trials = {
            name: Trial(name, work, world, Path(scratch) / name / "made")
            for name, work in WORKS.items()
            if name in (given.only or WORKS)
        }
        known = {}
        for name, trial in trials.items():
            known[name] = trial.undisturbed()
            print(f"{name}: {known[name][1]:.0f} s undisturbed, {len(known[name][0])} files compared", flush=True)
        while killed < given.kills:
            for name, trial in trials.items():
                done, attempts = False, 0
                while not done:
                    number = chance.choice((signal.SIGTERM, signal.SIGKILL))
                    after = (
                        chance.uniform(0.1, known[name][1])
                        if attempts < MOST_IN_A_ROW
                        else 10 * known[name][1] + PATIENCE
                    )
                    said = [*trial.killed(after, number)]
                    done = "ended" in said or trial.is_there()
                    killed, attempts = killed + (not done), attempts + 1
                    found = [one for one in said if one != "ended"] + ([*trial.ended(known[name][0])] if done else [])
                    ends += done
                    wrong += [f"{name}, {signal.Signals(number).name} after {after:.1f} s: {one}" for one in found]
                    print(
                        f"{killed} kills, {ends} ends  {name}  {'ended' if done else signal.Signals(number).name}"
                        f" after {after:.1f} s  {'; '.join(found) or 'well'}",
                        flush=True,
                    )
                trial.clean()
                if killed >= given.kills:
                    break
    print(f"{killed} kills, {ends} ends, {len(wrong)} wrong", *wrong, sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
