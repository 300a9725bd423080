"""Latency, throughput and what an idle machine takes are measured for moments, where no test asks how long.

Two or three models take some 10 seconds of CPU time for these by default, beside the rounds, which tests state. Memory
is measured in a process that imports torch, in as many again: only where MEMORY is set, as tests that look at it do.
Nobody reads these figures, so that one worker's measurement does not wait for another's.
"""

import os
from types import ModuleType

from wrapt import when_imported

SINGLE_SECONDS, SIZE_SECONDS, IDLE_SECONDS = 0.1, 0.01, 0.05
MEMORY = "BONSAI_TESTS_MEASURE_MEMORY"


def shorten() -> None:
    """Shorten them in this process, once their modules are imported."""

    @when_imported("kfp_bonsai.evaluate_emissions.speed")
    def _(speed: ModuleType) -> None:
        speed.SINGLE_SECONDS, speed.SIZE_SECONDS = SINGLE_SECONDS, SIZE_SECONDS

    @when_imported("kfp_bonsai.evaluate_emissions.rounds")
    def _(rounds: ModuleType) -> None:
        rounds.IDLE_SECONDS = IDLE_SECONDS

    @when_imported("kfp_bonsai.evaluate_emissions.machine")
    def _(machine: ModuleType) -> None:
        machine.LOCK = f"kfp-bonsai-tests-{os.environ.get('PYTEST_XDIST_WORKER', 'gw')}.lock"

    @when_imported("kfp_bonsai.evaluate_emissions.memory")
    def _(memory: ModuleType) -> None:
        measured = memory.peaks

        def peaks(folders, batches, threads):
            if MEMORY in os.environ:
                return measured(folders, batches, threads)
            sizes = [sum(file.stat().st_size for file in folder.glob("*")) for folder in folders]
            return [memory.Peak((100 << 20) + size) for size in sizes]

        memory.peaks = peaks
