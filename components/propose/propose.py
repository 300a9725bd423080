"""Put the trials of a round to those before, and say what to try next."""

import json
import shutil
from pathlib import Path

from kfp_bonsai.propose.goals import RANGES, targets_of
from kfp_bonsai.propose.ground import check_possible, read_ground
from kfp_bonsai.propose.trials import RECORD, TRIALS, folder_name, read_trial
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import check_apart, new_folder
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.core.ranges import ONE_OR_MORE, check_ranges

JOBS = "jobs.json"
NOTHING = {"number": -1, "rung": 0, "order": 0, "point": {}, "parent": -1, "share": 0.0}


def propose(
    pool: Path,
    trials: list[Path],
    output: Path,
    *,
    min_accuracy: float = 0.0,
    max_emission: float = 0.0,
    max_latency_ms: float = 0.0,
    max_size_mb: float = 0.0,
    max_memory_mb: float = 0.0,
    objective: str = "",
    confidence: float = 0.9,
    jobs: int = 1,
    seed: int = 0,
) -> dict:
    """Say what a search tries next, given all that it has tried; nothing is kept elsewhere.

    The study is rebuilt from the trials: successive halving says which are healed further, and a Gaussian process with
    the targets as constraints which new models are tried (Optuna's).

    Args:
        pool: The search so far: ground.json, tables of costs, and the trials of earlier rounds.
        trials: The folders that the last round made.
        output: Folder to write the pool with these trials to, and jobs.json.
        min_accuracy: The share of the baseline's accuracy to keep, such as 0.98; 0 for no such target.
        max_emission: The largest emission as a share of the baseline's; 0 for no limit.
        max_latency_ms: The largest median latency of requests of one row, in milliseconds; of a model that writes, of a
            whole answer of the baseline's mean length. 0 for no limit.
        max_size_mb: The largest size of the weights, in megabytes; 0 for no limit.
        max_memory_mb: The largest peak memory of a process that serves the model, in megabytes; 0 for no limit.
        objective: What to make best among those that meet the targets: emission, accuracy, latency, size or memory; by
            default emission, or accuracy where no min_accuracy is given.
        confidence: How probable it must be that the chosen model meets the targets on rows that were never seen.
        jobs: How many trials can run at the same time.
        seed: Seed of the sampler.

    Returns:
        How many trials there are and how many jobs, and the numbers of these in jobs.json; of one that does nothing,
        where there is nothing to do.

    Raises:
        BonsaiError: the pool is of no search, or the targets are none or cannot be met.

    Example:
        bonsai propose --pool pool --trials round1/a --trials round1/b --output pool2 --min-accuracy 0.98
    """
    from kfp_bonsai.propose.next import next_jobs
    from kfp_bonsai.propose.trials import read_trials

    check_ranges({**RANGES, "jobs": ONE_OR_MORE}, locals())
    check_apart([output], [pool, *trials])
    targets = targets_of(locals())
    ground = read_ground(pool)
    with new_folder(Path(output)) as folder:
        gather(Path(pool), [Path(one) for one in trials], folder)
        known = read_trials(folder)
        if not known:
            check_possible(ground, targets)
        found = [one.as_record() for one in next_jobs(ground, known, targets, jobs, seed)]
        (folder / JOBS).write_text(json.dumps(found or [NOTHING], indent=1) + "\n", encoding="utf-8")
    say(f"propose  {len(known)} trials so far, {len(found)} to do next")
    return {"trials": len(known), "jobs": len(found), "todo": [*range(max(1, len(found)))]}


def gather(pool: Path, trials: list[Path], folder: Path) -> None:
    """Copy a pool into a folder, and put the trials of a round to it; a trial healed further takes its own place.

    Raises:
        BonsaiError: two trials of a round are one.
    """
    shutil.copytree(pool, folder, dirs_exist_ok=True)
    seen = set()
    for each in trials:
        if not (each / RECORD).is_file():  # there was nothing to do
            continue
        one = read_trial(each)
        if one.number in seen:
            raise BonsaiError(f"{each} is trial {one.number}, which is there twice: give each once")
        seen.add(one.number)
        for before in (folder / TRIALS).glob(f"{one.number:03}-*"):
            shutil.rmtree(before)
        shutil.copytree(each, folder / TRIALS / folder_name(one.number, max(one.rung, 0)))
