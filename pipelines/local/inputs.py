"""What a run on one's own machine is given: checked before any work, and told apart from run to run."""

import glob
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from kfp_bonsai.pipelines.values import check_values, flag_of


def check_inputs(arguments: Mapping[str, Any]) -> None:
    """Refuse what a late stage would refuse on this machine: a value, a package that is not here, or the data.

    Args:
        arguments: a pipeline's, by their names; of the rows and the target, those that it has.

    Raises:
        BonsaiError: an argument that no stage takes.
    """
    from kfp_bonsai.evaluate_emissions.given import AUTO as AUTO_DEVICE
    from kfp_bonsai.evaluate_emissions.given import check_device
    from kfp_bonsai.package_model.register import check_target
    from kfp_bonsai.prepare_data.read import open_source
    from kfp_bonsai.quantize.quantize import AUTO, check_packages

    check_values(arguments)
    if arguments.get("register"):
        check_target(arguments["register"])
    if arguments.get("edge"):
        check_packages(AUTO)
    if check_device(arguments.get("device", AUTO_DEVICE), []) == "cuda":
        _apart(_check_gpus)
    for flag in ("data", "test_data", "validation_data"):
        if flag == "data" or arguments[flag]:
            open_source(arguments[flag], flag_of(flag))
    for text in filter(None, map(str.strip, arguments["unlabelled_data"].split(","))):
        open_source(text, "--unlabelled-data")


def check_room(work: Path, model: str, epochs: float, freeze_embeddings: bool) -> None:
    """Refuse a disk without room for what is known before the rows are: teacher-outputs thins to what is left there.

    Args:
        work: the folder of the work.
        model: as users name it.
        epochs: of fine-tuning.
        freeze_embeddings: whether the embeddings stay.

    Raises:
        BonsaiError: there is no room for the fine-tune.
    """
    from kfp_bonsai.shared.saved.pretrained import read
    from kfp_bonsai.shared.training import attempts

    attempts.check_room(work, read(model).outline, epochs, freeze_embeddings)


def _apart(check: Callable[[], None]) -> None:
    """Do a check in a process of its own: one that has used a GPU holds memory there for as long as it lives."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        apart.submit(check).result()


def _check_gpus() -> None:
    """Refuse GPUs whose energy cannot be read."""
    from kfp_bonsai.shared.energy.energy import find_sources

    find_sources("cuda")


def fingerprint(*references: str) -> dict[str, Any]:
    """Return size and time of change of local files, so that an interrupted run never goes on with other data."""
    found = {}
    for text in filter(None, (reference.strip() for reference in references)):
        named = Path(text).expanduser()
        for path in [named] if named.exists() else sorted(map(Path, glob.glob(str(named), recursive=True))):
            files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
            found.update({str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files})
    return found
