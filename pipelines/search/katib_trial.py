"""One trial for Katib: a point of the space, healed to the end; its figures are printed as Katib's collector reads.

    python -m kfp_bonsai.pipelines.search.katib_trial FOLDER LAYERS SHARE [MIN_ACCURACY [MAX_EMISSION]]

FOLDER holds what stages made: data/train.parquet, data/validation.parquet, baseline and taught (teacher-outputs). The
table of costs and the baseline's figures (pool) are made by the first trial, and are there for the others.
"""

import fcntl
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from kfp_bonsai.pipelines.search.groundwork import lay_ground
from kfp_bonsai.pipelines.search.trial import run_trial
from kfp_bonsai.propose.goals import targets_of
from kfp_bonsai.propose.ground import read_ground
from kfp_bonsai.propose.next import score
from kfp_bonsai.propose.trials import LAST, TRIALS
from kfp_bonsai.shared.core.errors import BonsaiError

NAME = "TRIAL_NAME"  # of Katib's trial, of which the folder of its model is called


def trial(folder: Path, layers: int, share: float, min_accuracy: float, max_emission: float, name: str) -> dict:
    """Make the model of a point, and return its figures; `score` is lower the better it does by the targets.

    Raises:
        BonsaiError: something is missing, or the model cannot be made.
    """
    targets = targets_of({"min_accuracy": min_accuracy, "max_emission": max_emission})
    splits = {one: folder / "data" / f"{one}.parquet" for one in ("train", "validation")}
    pool = folder / "pool"
    for needed in (*splits.values(), folder / "baseline", folder / "taught"):
        if not needed.exists():
            raise BonsaiError(f"{needed} is missing: make it with prepare-data, fine-tune and teacher-outputs first")
    with (folder / ".pool.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not pool.exists():
            lay_ground(folder / "baseline", splits["train"], splits["validation"], pool)
    ground = read_ground(pool)
    if not 1 <= layers <= ground.layers:
        raise BonsaiError(f"{layers} layers: the model has {ground.layers}")
    point = ground.settled({"layers": layers, "share": share, "shape": ground.shapes[0]})
    job = {"number": 0, "rung": LAST, "order": 0, "point": point, "parent": -1, "share": 1.0}
    made = run_trial(job, pool, folder / "baseline", folder / "taught", splits, folder / TRIALS / name)
    if made.error:
        raise BonsaiError(made.error)
    figures = {key: value for key, value in made.figures.items() if isinstance(value, int | float)}
    return {**figures, "relative_accuracy": made.accuracy, "score": score(made, made.accuracy, targets)}


def main(arguments: Sequence[str]) -> int:
    """Do one trial, print its figures, and return the exit status."""
    try:
        folder, layers, share, *limits = arguments
        numbers = [float(one) for one in (share, *limits)]
        if len(limits) > 2 or not all(map(math.isfinite, numbers)):
            raise ValueError
        asked = [*numbers[1:], 0.0, 0.0][:2]
        name = os.environ.get(NAME) or f"{layers}-{share}"
        found = trial(Path(folder), int(float(layers)), numbers[0], asked[0], asked[1], name)
    except BonsaiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ValueError:
        print((__doc__ or "").strip(), file=sys.stderr)
        return 2
    for key, value in found.items():
        print(f"{key}={value:.6g}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
