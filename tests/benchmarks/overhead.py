"""Where a run's wall time goes: the stages' own work, and what KFP's local runner adds by running each in a process.

    python tests/benchmarks/overhead.py runs/demo/run.log [--json FILE]

Reads the times that KFP notes in the log of a run that was not resumed. "Between the functions" is all time in which no
task's function runs: processes start and import kfp, and artifacts are noted. Within their functions most stages import
torch and transformers' models once more, those that train its Trainer too, which one process for all would do once:
that is timed here, in processes of its own, and counted for every task but the first that does it. Give it a quiet
machine, like the run's.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

from arguments import json_file, write_json

WITHOUT_TORCH = {"prepare-data", "select-model", "report", "package-model"}
TRAINING = {"fine-tune", "matrix-prune", "distill"}
MODELS = "import torch; from transformers import AutoModelForSequenceClassification, AutoTokenizer"
TRAINER = MODELS + "; from transformers import Trainer"
TRIES = 3
GOAL = 0.10
KFP = re.compile(r"(\d\d:\d\d:\d\d) kfp: (.*)")
EXECUTOR = re.compile(r"\[KFP Executor (\S+ \S+),(\d+) INFO\]: (.*)")


def main() -> None:
    """Read a log and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, help="run.log of a finished run")
    parser.add_argument("--json", type=json_file, help="file to write the figures to")
    given = parser.parse_args()
    total, tasks = times(given.log.read_text(encoding="utf-8").splitlines())
    found = {
        "seconds": total,
        "tasks": tasks,
        "models_seconds": import_seconds(MODELS),
        "trainer_seconds": import_seconds(TRAINER),
    }
    print(table(found))
    write_json(given.json, found)


def times(lines: list[str]) -> tuple[float, list[tuple[str, float]]]:
    """Return the seconds from the first task to the last one's end, and each task with its function's seconds."""
    functions: list[tuple[str, float]] = []
    name, began, first, last = "", 0.0, "", ""
    for line in lines:
        if found := KFP.match(line):
            if started := re.match(r"Executing task '(.+)'", found[2]):
                name, first = started[1], first or found[1]
            last = found[1]
        elif found := EXECUTOR.match(line):
            now = datetime.fromisoformat(found[1]).timestamp() + int(found[2]) / 1000
            if found[3].startswith("Got executor_input"):
                began = now
            elif found[3].startswith("Wrote executor output"):
                functions.append((name, now - began))
    if not functions:
        raise SystemExit("no finished task in this log: give the run.log of a whole run")
    whole = datetime.strptime(last, "%H:%M:%S") - datetime.strptime(first, "%H:%M:%S")
    return whole.total_seconds() % 86400, functions


def import_seconds(imports: str) -> float:
    """Return the median seconds that a new process takes longer with some imports."""

    def timed(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - started

    return statistics.median(timed(imports) - timed("pass") for _ in range(TRIES))


def table(found: dict) -> str:
    """Return the tasks' seconds, and KFP's share."""
    total, tasks = found["seconds"], found["tasks"]
    lines = [f"{'':32}{'seconds':>8}{'share':>8}"]
    lines += [f"{name:32}{seconds:8.1f}{100 * seconds / total:7.1f}%" for name, seconds in tasks]
    with_torch = [(name, seconds) for name, seconds in tasks if re.sub(r"-\d+$", "", name) not in WITHOUT_TORCH]
    # The first of them, fine-tune, trains: what it imports, any process would.
    repeated = [
        min(seconds, found["trainer_seconds" if name in TRAINING else "models_seconds"])
        for name, seconds in with_torch[1:]
    ]
    between, imports = total - sum(seconds for _, seconds in tasks), sum(repeated)
    own = (between + imports) / total
    lines += [
        f"{'between the functions':32}{between:8.1f}{100 * between / total:7.1f}%  ({len(tasks)} tasks)",
        f"{'imports again, in them':32}{imports:8.1f}{100 * imports / total:7.1f}%  "
        f"({len(repeated)} times {found['models_seconds']:.1f} s at the most, with Trainer "
        f"{found['trainer_seconds']:.1f} s)",
        f"KFP's own share: {100 * own:.1f} % of {total:.0f} s, goal {100 * GOAL:.0f} %: "
        f"{'met' if own <= GOAL else 'missed'}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
