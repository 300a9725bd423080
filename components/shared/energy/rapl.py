"""The CPU packages' own counters, as Linux shows them under /sys/class/powercap."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.files import text_in
from kfp_bonsai.shared.energy.reading import CPU, MEASURED, MOST_WATTS, CounterError

POWERCAP = Path("/sys/class/powercap")
RAPL_EVERY_SECONDS = 60.0


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
            if zone.name.count(":") == 1 and text_in(zone / "name").startswith("package")
        )
    )
    with suppress(CounterError):
        return Rapl(zones) if zones else None
    return None


def _number(file: Path) -> int:
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CounterError(
            f"{file} cannot be read ({error}): make it readable (chmod a+r), or in Kubernetes mount /sys/class/powercap"
        ) from error
