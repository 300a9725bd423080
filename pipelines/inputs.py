"""What the local pipelines are given: checked before a stage works for nothing, and told apart from run to run."""

import glob
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp_bonsai.fine_tune.train import FEWEST_TOKENS
from kfp_bonsai.shared.errors import BonsaiError


def check_inputs(arguments: Mapping[str, Any]) -> None:
    """Refuse what a late stage would refuse.

    Args:
        arguments: a pipeline's, by their names; of the rows and the target, those that it has.

    Raises:
        BonsaiError: an argument that no stage takes.
    """
    from kfp_bonsai.evaluate_emissions.inputs import check_numbers
    from kfp_bonsai.package_model.register import check_target
    from kfp_bonsai.prepare_data.read import open_source
    from kfp_bonsai.quantize.quantize import AUTO, check_runtime
    from kfp_bonsai.shared.carbon import intensity_of
    from kfp_bonsai.shared.store import check_location

    intensity_of(arguments["country"], arguments["intensity"])
    if arguments.get("upload"):
        check_location(arguments["upload"].rstrip("/"))
    elif arguments.get("register"):
        raise BonsaiError("--register tells where the model was published: give --upload too")
    if arguments.get("register"):
        check_target(arguments["register"])
    if arguments.get("edge"):
        check_runtime(AUTO)

    for flag in ("data", "test_data", "validation_data"):
        if flag == "data" or arguments[flag]:
            open_source(arguments[flag], "--" + flag.replace("_", "-"))
    for text in filter(None, arguments["unlabelled_data"].split(",")):
        open_source(text.strip(), "--unlabelled-data")
    for flag, value in arguments.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise BonsaiError(f"--{flag.replace('_', '-')} is {value}: give a number")
    numbers = ("pairs", "block_seconds", "batch_size", "precision", "time_budget", "traffic", "embodied")
    check_numbers(*(arguments[flag] for flag in numbers))
    for flag in ("epochs", "learning_rate", "batch_size", "prune_steps"):
        if not arguments[flag] > 0:
            raise BonsaiError(f"--{flag.replace('_', '-')} is {arguments[flag]}: give a number above 0")
    for flag in ("min_accuracy", "max_emission"):
        if not 0 <= arguments[flag] <= 1:
            raise BonsaiError(f"--{flag.replace('_', '-')} is {arguments[flag]}: give a fraction such as 0.98 or 0.2")
    for flag in ("max_length", "test_rows", "validation_rows", "max_rows"):
        if arguments.get(flag, 0) < 0:
            raise BonsaiError(f"--{flag.replace('_', '-')} is {arguments[flag]}: give 0 or more")
    if 0 < arguments["max_length"] < FEWEST_TOKENS:
        raise BonsaiError(f"--max-length is {arguments['max_length']}: give 0, or room for a text, such as 64")
    for flag, what in (("unlabelled_rows", "a number of rows, or -1 for all"), ("augmentations", "0 or more, or -1")):
        if arguments[flag] < -1:
            raise BonsaiError(f"--{flag.replace('_', '-')} is {arguments[flag]}: give {what}")


def fingerprint(*references: str) -> dict[str, Any]:
    """Return size and time of change of local files, so that an interrupted run never goes on with other data."""
    found = {}
    for text in filter(None, (reference.strip() for reference in references)):
        for path in sorted(map(Path, glob.glob(str(Path(text).expanduser()), recursive=True))):
            files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
            found.update({str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files})
    return found
