"""What the pipelines are given: checked before a stage works for nothing, and told apart from run to run."""

import glob
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from kfp_bonsai.cli import MOST_SEEDS
from kfp_bonsai.pipelines.levels import check_fit, check_flops, check_layers
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.models.checkpoint import rehearse
from kfp_bonsai.shared.models.families import family_of, positions_of
from kfp_bonsai.shared.models.pretrained import read
from kfp_bonsai.shared.models.tokens import FEWEST_TOKENS, ODD_TEXTS

LONGEST = 512  # tokens of a text


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
            open_source(arguments[flag], _flag(flag))
    for text in filter(None, map(str.strip, arguments["unlabelled_data"].split(","))):
        open_source(text, "--unlabelled-data")


def check_model(model: str, levels: Sequence[Mapping[str, Any]], max_length: int) -> None:
    """Refuse a model that cannot be had, and levels and a length that it cannot have.

    Args:
        model: a folder, a hub name or embedded:minilm.
        levels: what parse_levels gives.
        max_length: tokens at which texts are cut; 0 for the longest text.

    Raises:
        BonsaiError: there is no such model, or a late stage would refuse one of these.
    """
    found = read(model)
    config = found.config
    fewest = min(getattr(config, stack.count) for stack in family_of(config).stacks)
    for level in levels:
        check_layers(level, fewest)
    check_fit(levels, config)
    positions = positions_of(config)
    if max_length > positions:
        raise BonsaiError(
            f"--max-length {max_length}: {model} has {positions} positions: give no more, or 0 for the longest "
            "training text"
        )
    check_flops(levels, config, min(max_length or LONGEST, positions))
    rehearse(found.outline, found.tokenizer, [[*ODD_TEXTS]], min(LONGEST, positions))


def _apart(check: Callable[[], None]) -> None:
    """Do a check in a process of its own: one that has used a GPU holds memory there for as long as it lives."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
        apart.submit(check).result()


def _check_gpus() -> None:
    """Refuse GPUs whose energy cannot be read."""
    from kfp_bonsai.shared.energy.energy import find_sources

    find_sources("cuda")


def check_values(arguments: Mapping[str, Any]) -> None:
    """Refuse values that a late stage would refuse anywhere; nothing is opened, and no package need be here.

    Args:
        arguments: a pipeline's, by their names, or those of them that are given.

    Raises:
        BonsaiError: a value that no stage takes.
    """
    from kfp_bonsai.check_drift.check import WARN, check_on_drift
    from kfp_bonsai.evaluate_emissions.given import AUTO as AUTO_DEVICE
    from kfp_bonsai.evaluate_emissions.given import check_known
    from kfp_bonsai.quantize.quantize import AUTO, check_runtime
    from kfp_bonsai.shared.energy.carbon import intensity_of
    from kfp_bonsai.shared.metrics.noninferiority import check_margin

    intensity_of(arguments.get("country", ""), arguments.get("intensity", 0))
    _check_published(arguments)
    _check_numbers(arguments)
    _check_choices(arguments)
    check_on_drift(arguments.get("on_drift", WARN))
    check_margin(arguments.get("margin", 0))
    check_runtime(arguments.get("runtime", AUTO))
    check_known(arguments.get("device", AUTO_DEVICE))


def _check_published(arguments: Mapping[str, Any]) -> None:
    """Check the form of where the model is published, and of the registry that is told."""
    from kfp_bonsai.package_model.register import check_address, check_published
    from kfp_bonsai.shared.storage.store import check_location

    register = arguments.get("register", "")
    if arguments.get("upload"):
        check_location(arguments["upload"])
    if register:
        check_address(register)
        check_published(register, arguments.get("upload", ""))


def _check_numbers(arguments: Mapping[str, Any]) -> None:
    """Check the numbers that are given."""
    from kfp_bonsai.evaluate_emissions.given import check_numbers

    def given(*flags: str) -> list[tuple[str, Any]]:
        return [(flag, arguments[flag]) for flag in flags if flag in arguments]

    for flag, value in arguments.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise BonsaiError(f"{_flag(flag)} is {value}: give a number")
    measured = given("pairs", "block_seconds", "batch_size", "precision", "time_budget", "traffic", "embodied")
    check_numbers(**dict(measured))
    for flag, value in given("epochs", "learning_rate", "batch_size", "prune_steps"):
        if not value > 0:
            raise BonsaiError(f"{_flag(flag)} is {value}: give a number above 0")
    for flag, value in given("min_accuracy", "max_emission"):
        if not 0 <= value <= 1:
            raise BonsaiError(f"{_flag(flag)} is {value}: give a fraction such as 0.98 or 0.2")
    for flag, value in given("max_length", "test_rows", "validation_rows", "max_rows"):
        if value < 0:
            raise BonsaiError(f"{_flag(flag)} is {value}: give 0 or more")
    if 0 < arguments.get("max_length", 0) < FEWEST_TOKENS:
        raise BonsaiError(f"--max-length is {arguments['max_length']}: give 0, or room for a text, such as 64")
    for flag, what in (("unlabelled_rows", "a number of rows, or -1 for all"), ("augmentations", "0 or more, or -1")):
        if arguments.get(flag, 0) < -1:
            raise BonsaiError(f"{_flag(flag)} is {arguments[flag]}: give {what}")


def _check_choices(arguments: Mapping[str, Any]) -> None:
    """Check what prepare-data would refuse, as far as it needs no data for that."""
    from kfp_bonsai.prepare_data.asked import check_flags, check_split_by

    def given(*names: str) -> dict[str, Any]:
        return {name: arguments[name] for name in names if name in arguments}

    if not 0 <= arguments.get("seed", 0) < MOST_SEEDS:
        raise BonsaiError(f"--seed {arguments['seed']}: give a number from 0 to {MOST_SEEDS - 1}")
    rows = given("validation_rows", "test_rows")
    check_flags(**rows, **given("kind", "metric", "validation_fraction", "test_fraction", "max_rows", "seed"))
    check_split_by(**rows, **given("split_by"))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def fingerprint(*references: str) -> dict[str, Any]:
    """Return size and time of change of local files, so that an interrupted run never goes on with other data."""
    found = {}
    for text in filter(None, (reference.strip() for reference in references)):
        named = Path(text).expanduser()
        for path in [named] if named.exists() else sorted(map(Path, glob.glob(str(named), recursive=True))):
            files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
            found.update({str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files})
    return found
