"""`bonsai doctor`: what a report of a bug needs, and whether this machine has what runs need."""

import json as documents
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from kfp_bonsai.shared.core.cache import CACHE_VARIABLE, cached
from kfp_bonsai.shared.core.errors import BonsaiError, in_words
from kfp_bonsai.shared.core.files import free_bytes, try_lock
from kfp_bonsai.shared.core.progress import megabytes
from kfp_bonsai.shared.core.temporary import machines_folder

PACKAGE = "kfp-bonsai"
FINE, NOTE, BROKEN = "fine", "note", "broken"
HUB_SECONDS = 3.0
FEWEST_BYTES = 2_000_000_000  # with which the smallest of runs has room


@dataclass(frozen=True)
class Finding:
    """What was found of one thing.

    Attributes:
        about: which.
        state: "fine"; "note" for what some runs would miss; or "broken": no run works so.
        said: in words.
    """

    about: str
    state: str
    said: str


def doctor(*, json: bool = False) -> dict[str, str]:
    """Print what a report of a bug needs, and check that this machine has what runs need.

    That are versions, processor, energy counters, GPU, memory, disk, locks, the cache, and whether the model hub is
    reached, which is asked for some seconds at the most. It names no user, no secret and no file beside the cache.
    It exits with 1 only where something is broken that every run needs.

    Args:
        json: Print it as JSON.

    Returns:
        What was found of each thing.

    Example:
        bonsai doctor
        bonsai doctor --json > doctor.json
    """
    found = [_looked(about, look) for about, look in LOOKS.items()]
    broken = any(one.state == BROKEN for one in found)
    lines = {one.about: one.said if one.state == FINE else f"{one.state.upper()}: {one.said}" for one in found}
    if json:
        print(documents.dumps({"format": 1, "broken": broken, "found": [asdict(one) for one in found]}, indent=1))
    elif broken:
        for about, said in lines.items():
            print(f"{about.ljust(max(map(len, lines)))}  {said}")
    if broken:
        raise SystemExit(1)
    return {} if json else lines


def _looked(about: str, look: Callable[[], tuple[str, str]]) -> Finding:
    """Look at one thing; that it cannot be looked at is a note."""
    try:
        return Finding(about, *look())
    except Exception as error:
        return Finding(about, NOTE, f"cannot be told ({in_words(error)})")


def _versions() -> tuple[str, str]:
    """Compare what is installed with what the package asks for."""
    from packaging.requirements import Requirement

    wrong, told = [], [f"{PACKAGE} {metadata.version(PACKAGE)}", f"python {platform.python_version()}"]
    for line in metadata.requires(PACKAGE) or ():
        asked = Requirement(line)
        extra = not (asked.marker is None or asked.marker.evaluate({"extra": ""}))
        with suppress(metadata.PackageNotFoundError):
            version = metadata.version(asked.name)
            told.append(f"{asked.name} {version}")
            if not asked.specifier.contains(version, prereleases=True):
                wrong.append(f"{asked.name} {version}, and {asked.specifier} is asked for")
            continue
        if not extra:
            wrong.append(f"{asked.name} is missing")
    said = ", ".join(dict.fromkeys(told))
    return (BROKEN, f"{'; '.join(wrong)}: pip install {PACKAGE} again ({said})") if wrong else (FINE, said)


def _platform() -> tuple[str, str]:
    inside = ", in a container" if Path("/.dockerenv").exists() or "KUBERNETES_SERVICE_HOST" in os.environ else ""
    return FINE, platform.platform() + inside


def _processor() -> tuple[str, str]:
    from kfp_bonsai.shared.core.threads import threads
    from kfp_bonsai.shared.energy.cpu_estimate import cpu_model
    from kfp_bonsai.shared.inference.processor import instruction_sets, sums_exactly

    sets = " ".join(instruction_sets()) or "no instruction sets told"
    said = f"{cpu_model()}, {os.cpu_count()} threads, of which {threads()} may be used, {sets}"
    return (FINE, said) if sums_exactly() else (NOTE, f"{said}: int8 models of 8 bits may answer otherwise here")


def _computes() -> tuple[str, str]:
    import torch

    ones = torch.ones(4, 4)
    if (ones @ ones).sum().item() != 64:
        return BROKEN, f"torch {torch.__version__} multiplies wrongly here: install it again"
    if not torch.cuda.is_available():
        return FINE, "none that torch sees: everything runs on the CPU"
    names = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
    ones = ones.cuda()
    return (FINE if (ones @ ones).sum().item() == 64 else BROKEN), f"{', '.join(names)} (CUDA {torch.version.cuda})"


def _energy() -> tuple[str, str]:
    import torch

    from kfp_bonsai.shared.energy.energy import CPU, MEASURED, find_sources

    try:
        sources = find_sources("cuda" if torch.cuda.is_available() else "cpu")
    except BonsaiError as error:
        return NOTE, str(error)
    said = "; ".join(f"{one.part.upper()} {one.label}: {one.name}" for one in sources)
    measured = all(one.label == MEASURED for one in sources if one.part == CPU)
    return (FINE, said) if measured else (NOTE, f"{said} (RAPL's counters cannot be read, so the CPU's are estimated)")


def _memory() -> tuple[str, str]:
    import psutil

    found = psutil.virtual_memory()
    return FINE, f"{megabytes(found.available)} of {megabytes(found.total)} are free"


def _disk() -> tuple[str, str]:
    found = {where: free_bytes(Path(where)) for where in (".", str(machines_folder()), str(_cache_folder()))}
    said = ", ".join(
        f"{where}: {megabytes(free) if free is not None else 'not told'} free" for where, free in found.items()
    )
    few = [where for where, free in found.items() if free is not None and free < FEWEST_BYTES]
    return (NOTE, f"{said}: little for a run") if few else (FINE, said)


def _temporary() -> tuple[str, str]:
    try:
        with tempfile.TemporaryDirectory(dir=machines_folder()) as folder:
            (Path(folder) / "file").write_bytes(b"written")
            shutil.copy(Path(folder) / "file", Path(folder) / "copy")
            return FINE, f"{Path(folder).parent} takes files"
    except OSError as error:
        return BROKEN, f"no temporary file can be written ({error}): set TMPDIR to a folder that takes some"


def _cache_folder() -> Path:
    return cached("doctor").parent


def _cache() -> tuple[str, str]:
    folder = _cache_folder().resolve()
    stated = os.environ.get(CACHE_VARIABLE)
    if folder.is_relative_to(machines_folder().resolve()) and not stated:
        return NOTE, f"the home takes no files, so {folder} is the cache, and downloads may be gone with it"
    if stated and Path(stated).expanduser().resolve() != folder:
        return NOTE, f"${CACHE_VARIABLE} takes no files, so {folder} is the cache"
    return FINE, f"{folder} takes files"


def _locks() -> tuple[str, str]:
    without = [where for where in (Path.cwd(), machines_folder(), _cache_folder()) if not _locks_in(where)]
    if without:
        return (
            NOTE,
            f"{', '.join(map(str, without))} has no locks: start no second run there before the first one's end",
        )
    return FINE, "work here, in the temporary folder and in the cache"


def _locks_in(folder: Path) -> bool:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".bonsai-doctor.") as one, open(one.name) as other:
        return try_lock(one.file) is True and try_lock(other) is False


def _hub() -> tuple[str, str]:
    import huggingface_hub
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return NOTE, "is not asked (HF_HUB_OFFLINE): models and data are folders, or embedded:NAME"
    try:
        session = huggingface_hub.get_session()
        session.head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception as error:
        return (
            NOTE,
            f"{constants.ENDPOINT} is not reached ({type(error).__name__}): models are folders, or embedded:NAME",
        )
    return FINE, f"{constants.ENDPOINT} is reached"


def _pipelines() -> tuple[str, str]:
    told = []
    for package in ("kfp", "kfp-kubernetes", "onnxruntime", "openvino", "nncf"):
        try:
            told.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            told.append(f"no {package}")
    lacking = [one for one in told if one.startswith("no ")]
    advice = ": `bonsai run` needs the extra [kfp], `--edge` the extra [cpu]" if lacking else ""
    return (NOTE if lacking else FINE), ", ".join(told) + advice


LOOKS: dict[str, Callable[[], tuple[str, str]]] = {
    "versions": _versions,
    "extras": _pipelines,
    "platform": _platform,
    "processor": _processor,
    "GPU": _computes,
    "energy": _energy,
    "memory": _memory,
    "disk": _disk,
    "temporary files": _temporary,
    "cache": _cache,
    "locks": _locks,
    "hub": _hub,
}
