"""What a block of work costs in joules, and how we know.

    with energy.track() as meter:
        ...
    meter.reading  # Reading(seconds=12.1, joules=190.3, ..., label="estimated", source="...")

Each part has the best source that the machine offers:

- CPU: the RAPL counter under /sys/class/powercap where it can be read (measured, the whole package), else
  codecarbon's model of a process (estimated): CPU seconds of this process and its children x watts per thread,
  which are the TDP in codecarbon's data base / the threads, or 4 W where it does not know the CPU. It is the formula
  of codecarbon's process mode, read at the ends of the block instead of by a thread that wakes every second, so that
  it is also right for blocks of a second (codecarbon reads 0 there) and cannot fail in silence.
- GPU: the energy counter of NVML (measured) of each GPU that the work uses; other GPUs are left out, busy or idle.
- RAM: codecarbon's model, watts that depend on the memory used x time (estimated). As it is a clock and not a
  meter of work, it is told apart and is no part of `joules`.

Where joules are a note beside the work, as in training, a counter that fails gives its place to the estimate
(`enduring`). A measurement never mixes the two: it ends with a `CounterError`, and is done anew with `estimates`.
"""

import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from kfp_bonsai.shared.core import parallel, ranks
from kfp_bonsai.shared.core.cache import cached
from kfp_bonsai.shared.core.errors import BonsaiError, in_words
from kfp_bonsai.shared.core.files import new_file
from kfp_bonsai.shared.core.progress import say

MEASURED, ESTIMATED, PROXY = "measured", "estimated", "proxy"
_STRENGTH = (PROXY, ESTIMATED, MEASURED)
CPU, GPU, RAM = "cpu", "gpu", "ram"
POWERCAP = Path("/sys/class/powercap")
RAPL_EVERY_SECONDS = 60.0
STUCK_SECONDS = 1.0
MOST_WATTS = 2_000.0  # of one CPU package: a counter that says more went back
JOULES_PER_KWH = 3.6e6
ASSUMED = "not in codecarbon's table"  # of a CPU, in the words of a source
ASSUMED_WATTS = 4.0  # of a thread: codecarbon's DEFAULT_POWER_PER_CORE


class CounterError(BonsaiError):
    """A counter of energy cannot be read, stands still, or reads what cannot be."""


@dataclass(frozen=True)
class Reading:
    """What a block of work cost.

    Attributes:
        seconds: wall time.
        joules: energy of the processors, CPU and GPU.
        cpu_joules: the CPU's part.
        gpu_joules: the part of the GPUs in use; 0 if there is none, or if its energy cannot be read (`source` says so).
        ram_joules: the memory's, which `joules` leaves out.
        label: "measured", "estimated" or "proxy": that of the weakest part of `joules`.
        source: each part's source in words.
    """

    seconds: float
    joules: float
    cpu_joules: float
    gpu_joules: float
    ram_joules: float
    label: str
    source: str

    def __add__(self, other: "Reading") -> "Reading":
        """Return the cost of two blocks together, whose parts are read from like sources."""
        sums = {one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)[:5]}
        return Reading(**sums, label=weakest([self.label, other.label]), source=other.source)


class Source(Protocol):
    """One part's counter: `mark` notes a position, `between` gives the joules from one position to the next."""

    @property
    def part(self) -> str:
        """What is read: the CPU, a GPU or RAM."""

    @property
    def label(self) -> str:
        """How its joules are known."""

    @property
    def name(self) -> str:
        """The source in words."""

    def mark(self) -> Any:
        """Return the counter's position now."""

    def between(self, before: Any, after: Any) -> float:
        """Return the joules between two positions."""


def _not_yet() -> Reading:
    raise BonsaiError("the energy meter has no reading: the block it measures has not ended")


@dataclass
class Meter:
    """The cost of the block; `reading` is there once the block has ended, `so_far` tells it before."""

    so_far: Callable[[], Reading] = _not_yet
    _reading: Reading | None = None

    @property
    def reading(self) -> Reading:
        """What the block cost."""
        return self._reading or _not_yet()


@contextmanager
def track(sources: Sequence[Source] | None = None) -> Iterator[Meter]:
    """Measure the energy of a block, in all processes that train together; nothing is read if the block raises.

    Args:
        sources: what to read, from `find_sources`; `training_sources` if not given, which never fail.

    Raises:
        CounterError: a counter cannot be read, went back, or stood still for a second.
    """
    sources = training_sources() if sources is None else sources
    meter = Meter(partial(_cost, sources, [one.mark() for one in sources], time.perf_counter()))
    yield meter
    meter._reading = meter.so_far()


def _cost(sources: Sequence[Source], before: Sequence[Any], started: float) -> Reading:
    """Return what all processes together took since."""
    seconds, after = time.perf_counter() - started, [one.mark() for one in reversed(sources)][::-1]
    parts = {CPU: 0.0, GPU: 0.0, RAM: 0.0}
    for one, start, end in zip(sources, before, after, strict=True):
        joules = _checked(one, one.between(start, end), seconds)
        if one.label != MEASURED or ranks.is_first_here():  # such counters are the machine's, of all its processes
            parts[one.part] += joules
    parts = parallel.totals(parts)
    counted = [one for one in sources if one.part != RAM]
    return Reading(
        seconds=seconds,
        joules=parts[CPU] + parts[GPU],
        cpu_joules=parts[CPU],
        gpu_joules=parts[GPU],
        ram_joules=parts[RAM],
        label=weakest([one.label for one in counted]),
        source="; ".join(f"{one.part.upper()} {one.label}: {one.name}" for one in sources),
    )


def weakest(labels: Sequence[str]) -> str:
    """Return the label of a total whose parts have these labels."""
    if not labels:
        raise BonsaiError("nothing measures energy here: neither the CPU's nor a GPU's is read")
    return min(labels, key=_STRENGTH.index)


def _checked(source: Source, joules: float, seconds: float) -> float:
    if joules == 0 and source.label == MEASURED and seconds >= STUCK_SECONDS:
        raise CounterError(
            f"{source.name} did not move in {seconds:.1f} s, so it is broken: hide it, or measure elsewhere"
        )
    if not 0 <= joules < float("inf"):
        raise CounterError(f"{source.part.upper()} energy: {source.name} read {joules} J, which cannot be")
    return joules


@cache
def find_sources(device: str = "cpu", powercap: Path = POWERCAP) -> tuple[Source, ...]:
    """Return the best source of each part: CPU, the GPUs in use, and RAM.

    Args:
        device: where the work is done: "cpu", and no GPU counts, or "cuda".
        powercap: where Linux shows RAPL's counters.

    Raises:
        BonsaiError: the work is done on a GPU whose energy cannot be read.
    """
    gpus = gpus_in_use() if device == "cuda" else ()
    return (rapl(powercap) or ProcessCpu(watts_per_thread()[0]), *gpus, Enduring(Memory()))


def estimates(sources: Sequence[Source], problem: CounterError) -> tuple[Source, ...]:
    """Return the sources with the CPU's estimated instead of read, after a counter failed.

    Raises:
        CounterError: the problem, where none of the CPU's counters is among them: a GPU's energy has no estimate.
    """
    if not any(one.part == CPU and one.label == MEASURED for one in sources):
        raise problem
    return tuple(ProcessCpu(watts_per_thread()[0]) if one.part == CPU else one for one in sources)


def enduring(sources: Sequence[Source]) -> tuple[Source, ...]:
    """Return sources for work that must not be lost for a note of its cost: where one fails, the next best is told."""
    return tuple(one if isinstance(one, Enduring) else Enduring(one) for one in sources)


def training_sources() -> tuple[Source, ...]:
    """Return the sources for work that a GPU does if torch sees one, as in training.

    What cannot be read ends no training: a line says that it is not counted or estimated, and so does the label.
    """
    import torch

    cpu, memory = find_sources()
    gpus: Sequence[Source] = ()
    if torch.cuda.is_available():
        try:
            gpus = gpus_in_use()
        except BonsaiError as error:
            say(f"note: the joules told here leave out the GPU: {error}")
            gpus = (NotCounted(GPU),)
    return enduring((cpu, *gpus, memory))


class Enduring:
    """One part's source, and what takes its place for the whole block when it fails: it never raises."""

    def __init__(self, source: Source) -> None:
        self.part = source.part
        estimated = [ProcessCpu(watts_per_thread()[0])] if source.part == CPU and source.label == MEASURED else []
        self.sources: list[Source] = [source, *estimated, NotCounted(source.part)]

    @property
    def label(self) -> str:
        """The label of what is read now."""
        return self.sources[0].label

    @property
    def name(self) -> str:
        """What is read now, in words."""
        return self.sources[0].name

    def mark(self) -> tuple[float, list[Any]]:
        """Note the time, and all positions."""
        return time.perf_counter(), [(one, _attempt(one.mark)) for one in self.sources]

    def between(self, before: tuple[float, list[Any]], after: tuple[float, list[Any]]) -> float:
        """Return the joules by the best source that has not failed."""
        seconds, starts, ends = after[0] - before[0], dict(before[1]), dict(after[1])
        while True:
            best = self.sources[0]
            try:
                return _checked(best, best.between(_known(starts[best]), _known(ends[best])), seconds)
            except Exception as error:
                del self.sources[0]
                say(f"note: {error}; {self.part.upper()} energy is {self.sources[0].label}: {self.sources[0].name}")


def _attempt(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return error


def _known(mark: Any) -> Any:
    if isinstance(mark, Exception):
        raise mark
    return mark


@dataclass(frozen=True)
class ProcessCpu:
    """codecarbon's model of a process: its CPU time x watts per thread."""

    part = CPU
    label = ESTIMATED
    watts: float

    @property
    def name(self) -> str:
        """The source in words."""
        return (
            f"codecarbon {_version('codecarbon')} process mode, CPU time x {self.watts:.3g} W per thread "
            f"({watts_per_thread()[1]})"
        )

    def mark(self) -> float:
        """Return the CPU seconds used so far."""
        return cpu_seconds()

    def between(self, before: float, after: float) -> float:
        """Return the joules of the CPU seconds used between."""
        return (after - before) * self.watts


@dataclass(frozen=True)
class Memory:
    """codecarbon's model of a process's memory: watts that depend on its size x time."""

    part = RAM
    label = ESTIMATED

    @property
    def name(self) -> str:
        """The source in words."""
        return f"codecarbon {_version('codecarbon')} RAM model, a constant of time"

    def mark(self) -> float:
        """Return the time."""
        return time.perf_counter()

    def between(self, before: float, after: float) -> float:
        """Return the joules of the time between at the watts of the memory in use now."""
        return (after - before) * _memory_model().total_power().W


class Rapl:
    """The energy counters of the CPU packages: micro-joules, with a thread that sees them wrap around.

    Args:
        zones: the packages' folders, such as /sys/class/powercap/intel-rapl:0.
    """

    part = CPU
    label = MEASURED

    def __init__(self, zones: Sequence[Path]) -> None:
        self.zones = tuple(zones)
        self._ranges = [_number(zone / "max_energy_range_uj") + 1 for zone in self.zones]
        self._last = [_number(zone / "energy_uj") for zone in self.zones]
        self._total, self._read_at, self._problem = 0, time.monotonic(), ""
        self._lock = threading.Lock()
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def name(self) -> str:
        """The source in words."""
        return f"RAPL counter, whole machine ({', '.join(zone.name for zone in self.zones)})"

    def mark(self) -> int:
        """Return the micro-joules of all packages since the first reading."""
        with self._lock:
            passed, self._read_at = time.monotonic() - self._read_at, time.monotonic()
            for index, zone in enumerate(self.zones):
                now = _number(zone / "energy_uj")
                more = (now - self._last[index]) % self._ranges[index]
                if more > MOST_WATTS * 1e6 * max(passed, 1):  # no wrap around, which adds what was used
                    self._problem = f"{self.name} jumped by {more / 1e6:.0f} J in {passed:.1f} s, so it was set back"
                self._total, self._last[index] = self._total + more, now
            if self._problem:  # for good: what was used meanwhile is not known
                raise CounterError(self._problem)
            return self._total

    def between(self, before: int, after: int) -> float:
        """Return the joules between."""
        return (after - before) / 1e6

    def _watch(self) -> None:
        """Read often enough that no counter wraps twice between two readings (it takes minutes at full load)."""
        while True:
            time.sleep(RAPL_EVERY_SECONDS)
            with suppress(BonsaiError):
                self.mark()


def rapl(powercap: Path = POWERCAP) -> Rapl | None:
    """Return the packages' counters if all of them can be read, else nothing."""
    zones = tuple(
        sorted(
            zone
            for zone in powercap.glob("*-rapl:*")
            if zone.name.count(":") == 1 and _text(zone / "name").startswith("package")
        )
    )
    with suppress(CounterError):
        return Rapl(zones) if zones else None
    return None


@dataclass(frozen=True)
class Nvml:
    """The energy counter of one NVIDIA GPU (milli-joules since the driver was loaded).

    Attributes:
        read: gives the counter.
        model: the GPU's name.
        wait: waits until the GPU has done all work that was queued.
    """

    read: Callable[[], int]
    model: str
    wait: Callable[[], None] = lambda: None
    part = GPU
    label = MEASURED

    @property
    def name(self) -> str:
        """The source in words."""
        return f"NVML energy counter of {self.model}"

    def mark(self) -> int:
        """Return the counter once the queued work is done."""
        self.wait()
        try:
            return int(self.read())
        except Exception as error:  # NVML's own, or what is no number
            raise CounterError(f"{self.name} cannot be read any more ({error})") from error

    def between(self, before: int, after: int) -> float:
        """Return the joules between."""
        if after < before:
            raise CounterError(f"{self.name} went back, so the driver was restarted")
        return (after - before) / 1000


@dataclass(frozen=True)
class NotCounted:
    """A part that works, and whose energy cannot be read: 0 J, so that the rest is a proxy at the best."""

    part: str
    label = PROXY
    name = "not counted, as it cannot be read"

    def mark(self) -> None:
        """Note nothing."""

    def between(self, before: None, after: None) -> float:
        """Return 0."""
        return 0.0


def gpus_in_use() -> list[Source]:
    """Return a source for each GPU that this machine's processes compute on; none in all but the first of them.

    Raises:
        BonsaiError: NVML does not start, or a GPU is not NVIDIA's, has no energy counter (older than Volta), or one
            that a MIG slice hides.
    """
    import torch

    if torch.version.hip:
        raise BonsaiError("the energy of AMD GPUs is not measured yet: measure with --device cpu")
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:
        raise BonsaiError(
            f"the GPU's energy counter cannot be read, as NVML does not start ({error}): hand the driver's utilities "
            "into the container (NVIDIA_DRIVER_CAPABILITIES=compute,utility), or measure with --device cpu"
        ) from error
    return [_nvml(pynvml, torch.cuda.get_device_properties(index)) for index in _numbers_in_use()]


def _numbers_in_use() -> list[int]:
    """Return torch's numbers of the GPUs in use: one a process (see `parallel.begin`), all read by the first one."""
    import torch

    if ranks.processes() == 1:
        return [torch.cuda.current_device()]
    if not ranks.is_first_here():
        return []
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return list(range(min(here, torch.cuda.device_count())))


def _nvml(pynvml: Any, device: Any) -> Nvml:
    """Return the counter of a device of torch, found by UUID: NVML numbers GPUs in an order of its own."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{device.uuid}")
        read = partial(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle)
        read()
    except pynvml.NVMLError as error:
        raise BonsaiError(
            f"the energy counter of the GPU {device.name} cannot be read ({error}): use a whole GPU (no MIG slice) of "
            "the Volta generation or newer, or measure with --device cpu"
        ) from error
    return Nvml(read, device.name, _synchronise)


def _synchronise() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def cpu_seconds() -> float:
    """Return the CPU seconds used by this process and its children, those that ended included."""
    return time.process_time() + _children_seconds()


def _children_seconds() -> float:
    import psutil

    times = os.times()
    total = times.children_user + times.children_system
    for child in psutil.Process().children(recursive=True) if _has_children() else ():
        with suppress(psutil.Error):
            used = child.cpu_times()
            total += used.user + used.system
    return total


def _has_children() -> bool:
    """Return whether this process has children, or none could be told: ten times as fast as psutil's search."""
    lists = list(Path("/proc/self/task").glob("*/children"))
    return not lists or any(_text(each) for each in lists)


@cache
def watts_per_thread() -> tuple[float, str]:
    """Return the watts that codecarbon gives one busy hardware thread, and how it came to them.

    The answer is kept beside the downloads, since asking takes over a second and each stage is a process.
    """
    machine = f"{_version('codecarbon')}, {cpu_model()}, {os.cpu_count()} threads"
    kept = cached("cpu_watts.json")
    with suppress(OSError, ValueError, KeyError, TypeError):
        watts, how = json.loads(kept.read_text(encoding="utf-8"))[machine]
        if 0 < float(watts) < MOST_WATTS:
            return float(watts), str(how)
    try:
        found = _codecarbons_watts()
    except Exception as error:  # it asks commands and files that this machine may not have
        say(f"note: codecarbon does not find this CPU's power ({in_words(error)}): {ASSUMED_WATTS:g} W a thread, then")
        return ASSUMED_WATTS, f"{ASSUMED}, which could not be asked: {ASSUMED_WATTS:g} W a thread"
    with suppress(OSError, BonsaiError), new_file(kept) as file:
        file.write_text(json.dumps({machine: found}), encoding="utf-8")
    return found


def _codecarbons_watts() -> tuple[float, str]:  # the formula of codecarbon.external.hardware.CPU in process mode
    _quiet()
    from codecarbon.core import cpu, util
    from codecarbon.core.hardware_cache import get_cached_tdp

    tdp = get_cached_tdp(cpu)
    threads = util.count_cpus()
    sockets = util.count_physical_cpus()
    known = tdp._get_cpu_power_from_registry(tdp.model)
    power = f"TDP {tdp.tdp:g} W" if known else f"{ASSUMED}, which takes {tdp.tdp:g} W then"
    return tdp.tdp * sockets / threads, f"{tdp.model}: {power}, {sockets} socket(s), {threads} threads"


def cpu_model() -> str:
    """Return the CPU's name."""
    lines = (line for line in _text(Path("/proc/cpuinfo")).splitlines() if line.startswith("model name"))
    return next(lines, "").partition(":")[2].strip() or platform.processor() or platform.machine()


@cache
def _memory_model() -> Any:
    _quiet()
    from codecarbon.external.ram import RAM as CodecarbonRam

    return CodecarbonRam(tracking_mode="process")


@contextmanager
def codecarbon_tracker() -> Iterator[Meter]:
    """Measure a block by codecarbon's own tracker, to check `track` against; for blocks of 5 s and more.

    Raises:
        BonsaiError: codecarbon made no reading.
    """
    _quiet()
    from codecarbon import OfflineEmissionsTracker

    tracker = OfflineEmissionsTracker(
        country_iso_code="FRA",  # it wants a country; its grams are not used
        tracking_mode="process",
        save_to_file=False,
        allow_multiple_runs=True,
        log_level="critical",
        measure_power_secs=3600,
    )
    meter = Meter()
    tracker.start()
    yield meter
    tracker.stop()
    found = tracker.final_emissions_data
    if found is None or not found.cpu_energy > 0:
        raise BonsaiError("codecarbon's tracker made no reading: measure a block of 5 seconds or more")
    cpu, gpu, ram = (value * JOULES_PER_KWH for value in (found.cpu_energy, found.gpu_energy, found.ram_energy))
    name = f"codecarbon {_version('codecarbon')} OfflineEmissionsTracker, process mode"
    meter._reading = Reading(found.duration, cpu + gpu, cpu, gpu, ram, ESTIMATED, name)


def _quiet() -> None:
    """Let codecarbon say nothing, and ask the machine: SLURM's variables are there without its commands too."""
    import logging

    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    from codecarbon.core import util
    from codecarbon.external import ram

    util.SLURM_JOB_ID = ram.SLURM_JOB_ID = None  # a thread's watts are the machine's, not a job's share of them


def _version(package: str) -> str:
    return metadata.version(package)


def _number(file: Path) -> int:
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CounterError(
            f"{file} cannot be read ({error}): make it readable (chmod a+r), or in Kubernetes mount /sys/class/powercap"
        ) from error


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
