"""Work to measure, and counters that are made up."""

import time

from kfp_bonsai.shared.energy.codecarbons import Memory
from kfp_bonsai.shared.energy.cpu_estimate import ProcessCpu, watts_per_thread


def process_sources():
    return [ProcessCpu(watts_per_thread()[0]), Memory()]


def busy(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


def count(loops):
    for _ in range(loops):
        pass


def zone(root, folder, counter, wraps_after, name="package-0"):
    path = root / folder
    path.mkdir(parents=True)
    (path / "name").write_text(name + "\n")
    (path / "energy_uj").write_text(str(counter))
    (path / "max_energy_range_uj").write_text(str(wraps_after))
    return path


def fails(error):
    def call(*_):
        raise error

    return call
