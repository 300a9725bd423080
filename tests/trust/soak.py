"""Work for hours under random faults, and see that nothing grows: no memory, open files, processes or temporary files.

    python tests/trust/soak.py --minutes 180 --json soak.json
    python tests/trust/soak.py --minutes 20 --only server

Two thirds of the time go to `compress`: one process does all its stages in a loop, on small data, while its disk is
full, its storage fails, or it is interrupted at random moments; and beside it whole commands are killed. One third goes
to the edge server, under good, bad and broken-off requests. What each takes is noted once a round, or a second; the
first third of the notes is warm-up. Memory grows if what the slope that is fitted to the others amounts to, from the
first to the last of them, is over 1 % with 95 % certainty. The exit status is 1 where something grows, or fails.
"""

import argparse
import http.client
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from kill import SERVERS, WORKS, Trial, make, s3
from trust.limited import CONTEXT

MOST_GROWTH = 0.01  # of the memory
BLOCKS = 8  # means of as many parts are what a slope is fitted to: what follows each other is alike
FULL_BYTES = (30_000, 3_000_000)  # of a disk that is full soon
CLIENTS, SECONDS = 4, 1.0  # of the server; between two notes
MIB = 1 << 20


class Note(NamedTuple):
    """What is taken at one moment."""

    at: float
    memory: int
    files: int
    processes: int
    temporary: int


def slope(notes: Sequence[Note], value: Callable[[Note], float]) -> tuple[float, float, float]:
    """Return how much a value rises from one unit of `at` to the next, with its 95 % interval.

    It is fitted to the means of `BLOCKS` parts of the notes.
    """
    from scipy import stats

    parts = [part for part in np.array_split(np.array([(one.at, value(one)) for one in notes]), BLOCKS) if len(part)]
    if len(parts) < 4:
        return 0.0, -np.inf, np.inf
    x, y = np.array([part.mean(0) for part in parts]).T
    found = stats.linregress(x, y)
    off = stats.t.ppf(0.975, len(x) - 2) * found.stderr
    return found.slope, found.slope - off, found.slope + off


def judged(notes: Sequence[Note]) -> dict[str, Any]:
    """Return the figures of what was noted, in this order, and what of it grew."""
    after = notes[len(notes) // 3 :]
    mean, span = float(np.mean([one.memory for one in after])), after[-1].at - after[0].at
    rise, low, high = (span * one / mean for one in slope(after, lambda one: one.memory))
    grew = [f"memory, by {100 * rise:.2f} % ({100 * low:.2f} to {100 * high:.2f})"] if low > MOST_GROWTH else []
    first, last = after[: len(after) // 2], after[len(after) // 2 :]
    for name in ("files", "processes", "temporary"):
        before, now = (max(getattr(one, name) for one in part) for part in (first, last))
        if now > before and slope(after, lambda one, name=name: getattr(one, name))[1] > 0:
            grew.append(f"{name}, from {before} to {now}")
    return {
        "notes": len(notes),
        "memory_mib": round(mean / MIB, 1),
        "memory_growth": [round(one, 5) for one in (rise, low, high)],
        **{name: [getattr(one, name) for one in (after[0], after[-1])] for name in ("files", "processes", "temporary")},
        "grew": grew,
    }


def taken(process: psutil.Process, at: float, *folders: Path) -> Note:
    """Note what a process takes, with those that it started, and how many files lie in temporary folders."""
    family = [process, *process.children(recursive=True)]
    left = sum(len([*folder.rglob("*")]) for folder in folders)
    return Note(at, process.memory_info().rss, process.num_fds(), len(family), left)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """Make a folder one on a disk of so many bytes; where nobody may mount one, it is as large as others."""
    folder.mkdir()
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, check=False
    ).returncode
    try:
        yield
    finally:
        if mounted:
            subprocess.run(["umount", "-l", folder], check=True)
        shutil.rmtree(folder)


def compress_in(world: Path, to: Path, champion: str) -> None:
    """Do what `compress` does, stage after stage, in this process, and publish what comes of it."""
    from kfp_bonsai.distill.distill import distill
    from kfp_bonsai.evaluate_emissions.evaluate import evaluate_emissions
    from kfp_bonsai.fine_tune.train import fine_tune
    from kfp_bonsai.layer_remove.remove import layer_remove
    from kfp_bonsai.matrix_prune.prune import matrix_prune
    from kfp_bonsai.package_model.package import package_model
    from kfp_bonsai.prepare_data.prepare import prepare_data
    from kfp_bonsai.promote.promote import promote
    from kfp_bonsai.report.report import report
    from kfp_bonsai.select_model.select import select_model
    from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

    train, validation, test, rest = (to / f"{name}.parquet" for name in ("train", "validation", "test", "rest"))
    measured, chosen, results = (to / f"{name}.json" for name in ("measurement", "selection", "results"))
    prepare_data(str(world / "reviews.csv"), train, validation, test, rest)
    fine_tune(str(world / "pretrained"), train, validation, to / "baseline", epochs=0.5)
    teacher_outputs(to / "baseline", train, rest, to / "transfer", augmentations=0)
    layer_remove(to / "baseline", validation, to / "short", keep="2")
    matrix_prune(to / "short", to / "transfer", to / "narrow", flops=0.4, steps=5)
    distill(to / "narrow", to / "transfer", validation, to / "small", epochs=0.5)
    evaluate_emissions(
        to / "baseline", [to / "small"], train, test, measured, pairs=2, block_seconds=0.3, precision=0, time_budget=5
    )
    select_model(measured, [to / "small"], to / "chosen", chosen)
    report(measured, chosen, to / "r.html", to / "r.md", results, to / "figures")
    package_model(to / "chosen", results, to / "package")
    promote(to / "package", champion, to / "decision.json", first=True)


FAULTS = ("none", "full disk", "failing storage", "interrupted", "interrupted")


def rounds(world: Path, scratch: Path, until: float, seed: int, answers: Any) -> None:
    """Compress again and again, each time under a fault, and tell of each round."""
    from kfp_bonsai.shared.core.errors import BonsaiError

    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch / "temporary")
    chance, me, number, took = random.Random(seed), psutil.Process(), 0, 60.0
    sys.stdout = sys.stderr = open(scratch / "log", "w", buffering=1)  # noqa: SIM115 (until the process ends)
    while time.monotonic() < until:
        number += 1
        fault, to, started = chance.choice(FAULTS), scratch / "work", time.monotonic()
        place = f"s3://bucket/{number}" if fault == "failing storage" else str(to / "champion")
        timer = threading.Timer(chance.uniform(0, took), os.kill, (os.getpid(), signal.SIGINT))
        with ExitStack() as held:
            if fault == "full disk":
                held.enter_context(small_disk(to, chance.randrange(*FULL_BYTES)))
            else:
                to.mkdir()
            try:
                try:
                    if fault == "interrupted":
                        timer.start()
                    compress_in(world, to, place)
                finally:
                    timer.cancel()
                    if timer.ident:
                        timer.join()
                ended, took = "done", time.monotonic() - started
            except BonsaiError as error:
                ended = f"refused: {error}"
            except KeyboardInterrupt:
                ended = "interrupted"
            except BaseException as error:
                ended = f"RAISED {type(error).__name__}: {error}"
        shutil.rmtree(to, ignore_errors=True)
        answers.send((fault, ended, taken(me, number, scratch)))
    answers.send(None)


def soak_compress(world: Path, scratch: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Let one process compress for some minutes, while commands beside it are killed."""
    chance, until = random.Random(seed), time.monotonic() + 60 * minutes
    (scratch / "temporary").mkdir()
    ours, theirs = CONTEXT.Pipe(duplex=False)
    with s3.server() as server:
        SERVERS.append(server)
        os.environ |= {"AWS_ENDPOINT_URL": server.url, "AWS_DEFAULT_REGION": s3.KEYS["region_name"]}
        os.environ |= {name.upper(): value for name, value in s3.KEYS.items()}
        process = CONTEXT.Process(target=within, args=(dict(os.environ), world, scratch, until, seed, theirs))
        process.start()
        theirs.close()
        trials = [
            Trial(name, WORKS[name], world, scratch.parent / name / "made", scratch.parent)
            for name in ("promote", "package-model", "promote in a bucket")
        ]
        for trial in trials:
            trial.undisturbed()
        notes, said, failed, kills = [], [], [], 0
        while (found := ours.recv()) is not None:
            fault, ended, note = found
            notes.append(note)
            said.append(f"{fault}: {ended.partition(':')[0]}")
            if ended.startswith("RAISED") or (fault == "none" and ended != "done"):
                failed.append(f"round {note.at}, {fault}: {ended}")
            print(f"round {note.at}  {fault}: {ended[:150]}  {note.memory / MIB:.0f} MiB, {note[2:]}", flush=True)
            server.fail("status", lambda *_: True, times=chance.randrange(4), status=503)
            trial = chance.choice(trials)
            trial.clean()
            number = chance.choice((signal.SIGTERM, signal.SIGKILL))
            wrong = [one for one in trial.killed(chance.uniform(0.1, 2.0), number, "it") if one != "ended"]
            failed += [f"{trial.name}, {signal.Signals(number).name}: {one}" for one in wrong]
            kills += 1
        process.join()
    figures = judged(notes)
    counted = {one: said.count(one) for one in sorted({*said})}
    return {"minutes": minutes, "rounds": len(notes), "kills": kills, "ended": counted, **figures, "failed": failed}


def within(environment: dict[str, str], *given: Any) -> None:
    """Do rounds in this process, which has an environment of its own."""
    os.environ.update(environment)
    rounds(*given)


def bodies(chance: random.Random) -> tuple[str, str, bytes]:
    """Return a request: most are good, others as strangers send them."""
    texts = [" ".join(chance.choices(("a", "good", "bad", "film", "é", "plot"), k=chance.randint(0, 30)))] * 2
    good = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}]}
    infer = "/v2/models/model/infer"
    kinds = [("POST", infer, json.dumps(good).encode())] * 12
    kinds += [
        ("GET", "/metrics", b""),
        ("GET", "/v2/health/ready", b""),
        ("GET", "/../../etc/passwd", b""),
        ("POST", infer, b"{" * 5000),
        ("POST", infer, b"\xff\xfe\0"),
        ("POST", infer, json.dumps(good).encode()[:40]),
        ("POST", infer, json.dumps({"inputs": [{**good["inputs"][0], "shape": [10**9]}]}).encode()),
        (
            "POST",
            infer,
            json.dumps({"inputs": [{**good["inputs"][0], "data": ["long " * 90_000]}]}).encode(),
        ),
        ("POST", f"/v2/models/{chance.randrange(10**9)}/infer", b"{}"),
        ("BREW", f"/{chance.randrange(10**9)}", b""),
    ]
    return chance.choice(kinds)


def ask(port: int, until: float, seed: int, counts: dict[int | str, int]) -> None:
    """Send requests, some of which break off, until the time is over."""
    chance = random.Random(seed)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while time.monotonic() < until:
        method, path, body = bodies(chance)
        try:
            if chance.random() < 0.05:  # goes away before it is answered, or in the midst of its body
                connection.putrequest(method, path)
                connection.putheader("Content-Length", str(2 * len(body)))
                connection.endheaders()
                connection.send(body)
                connection.close()
                status: int | str = "broken off"
            else:
                connection.request(method, path, body)
                answer = connection.getresponse()
                answer.read()
                status = answer.status
        except (OSError, http.client.HTTPException) as error:
            status = type(error).__name__
            connection.close()
        counts[status] = counts.get(status, 0) + 1


def soak_server(world: Path, scratch: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Let a server answer for some minutes, to several at once."""
    from faults import free_port

    from kfp_bonsai.quantize.quantize import quantize

    quantize(world / "small", world / "train.parquet", scratch / "int8", calibration_rows=16)
    (scratch / "temporary").mkdir()
    port, until = free_port(), time.monotonic() + 60 * minutes
    command = [sys.executable, "-m", "kfp_bonsai.serve", "serve", str(scratch / "int8"), "--host=127.0.0.1"]
    own = os.environ | {"TMPDIR": str(scratch / "temporary")}
    with (scratch / "log").open("w") as log:
        server = subprocess.Popen([*command, f"--port={port}"], env=own, stdout=log, stderr=log)
    process, counts = psutil.Process(server.pid), dict[int | str, int]()
    while "http" not in (scratch / "log").read_text():
        if server.poll() is not None:
            raise SystemExit(f"the server does not start: {(scratch / 'log').read_text()}")
        time.sleep(0.2)
    clients = [threading.Thread(target=ask, args=(port, until, seed + at, counts)) for at in range(CLIENTS)]
    started, notes = time.monotonic(), []
    for client in clients:
        client.start()
    while time.monotonic() < until and server.poll() is None:
        time.sleep(SECONDS)
        notes.append(taken(process, time.monotonic() - started, scratch / "temporary"))
    failed = [f"the server ended by itself with {server.returncode}"] if server.poll() is not None else []
    for client in clients:
        client.join()
    server.send_signal(signal.SIGTERM)
    if server.wait(60):
        failed.append(f"the server ended with {server.returncode} after SIGTERM")
    if "Traceback" in (scratch / "log").read_text():
        failed.append("the server's log has a traceback")
    failed += [f"{count} answers of status {status}" for status, count in counts.items() if status == 500]
    answers = {str(status): count for status, count in sorted(counts.items(), key=str)}
    return {"minutes": minutes, "answers": answers, **judged(notes), "failed": failed}


def main() -> None:
    """Soak, and tell what grew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=180)
    parser.add_argument("--only", choices=("compress", "server"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--world", type=Path, help="where to make the world, or where it is")
    given = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory() as holder:
        world = given.world or Path(holder) / "world"
        if not (world / "champion").exists():
            make(world)
        for name, soak, part in (("compress", soak_compress, 2 / 3), ("server", soak_server, 1 / 3)):
            if given.only not in (None, name):
                continue
            scratch = Path(holder) / name / "own"
            scratch.mkdir(parents=True)
            figures[name] = soak(world, scratch, given.minutes * (1 if given.only else part), given.seed)
            print(name, json.dumps(figures[name], indent=1), flush=True)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")
    wrong = [f"{name}: {one}" for name, found in figures.items() for one in (*found["grew"], *found["failed"])]
    print(*(wrong or ["nothing grew, and nothing failed"]), sep="\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
