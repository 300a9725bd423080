"""The estimate of a process's joules is codecarbon's, follows the work, and is there on every machine."""

import time

import pytest
from counters import busy, count, fails, process_sources

from kfp_bonsai.shared.energy import cpu_estimate, energy


def test_the_process_meter_agrees_with_codecarbon():
    """The cheap meter stands for codecarbon's process mode: more than 15 % apart, and it does not.

    CPU times, TDP and cores are codecarbon's own. Its tracker's joules are not compared: on a shared virtual machine
    they read 24 to 46 J for five seconds of one thread at 4 W.
    """
    from codecarbon.core import cpu
    from codecarbon.core.hardware_cache import get_cached_tdp
    from codecarbon.external.hardware import CPU

    tdp = get_cached_tdp(cpu)
    model = CPU(output_dir=".", mode="cpu_load", model=tdp.model, tdp=tdp.tdp, tracking_mode="process")
    energy.find_sources()  # once a process; its cost is not the block's
    with energy.codecarbon_tracker() as theirs, energy.track() as ours:
        before = sum(model._get_process_cpu_times().values())
        busy(5.0)
        used = sum(model._get_process_cpu_times().values()) - before
    assert ours.reading.cpu_joules == pytest.approx(used * model._tdp / model._cpu_count, rel=0.15)
    assert theirs.reading.cpu_joules > 0
    assert ours.reading.ram_joules == pytest.approx(theirs.reading.ram_joules, rel=0.15)


def test_sleeping_costs_no_process_energy():
    """Time spent waiting must not be charged as work."""
    sources = process_sources()
    with energy.track(sources) as idle:
        time.sleep(0.5)
    with energy.track(sources) as working:
        busy(0.5)
    assert idle.reading.joules < 0.1 * working.reading.joules


def test_joules_grow_with_the_work_in_blocks_of_a_second():
    """Codecarbon itself reads 0 for such blocks."""
    sources, found = process_sources(), []
    for loops in (2_000_000, 8_000_000):
        with energy.track(sources) as meter:
            count(loops)
        found.append(meter.reading.cpu_joules)
    assert found[1] / found[0] == pytest.approx(4, rel=0.4)


def test_work_of_child_processes_is_counted():
    """Data loaders work in children, and a child that ended before the block did is easily lost."""
    import subprocess
    import sys

    with energy.track(process_sources()) as meter:
        subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"], check=True)
    assert meter.reading.cpu_joules > 0.1 * cpu_estimate.watts_per_thread()[0]


def test_watts_are_known_whatever_the_machine_lacks(tmp_path, monkeypatch, capsys):
    """No training in a container of a SLURM job, where SLURM's command is missing, or one without a home."""
    from codecarbon.core import util
    from codecarbon.external import ram

    asked = cpu_estimate._codecarbons_watts()
    monkeypatch.setattr(util, "SLURM_JOB_ID", "4711")
    monkeypatch.setattr(ram, "SLURM_JOB_ID", "4711")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("BONSAI_CACHE", str(tmp_path / "file" / "cache"))
    (tmp_path / "file").write_text("no folder")
    assert cpu_estimate.watts_per_thread.__wrapped__() == asked
    monkeypatch.setattr(util, "count_physical_cpus", fails(FileNotFoundError("lscpu")))
    cached_by_the_first = cpu_estimate.watts_per_thread.__wrapped__()
    assert cached_by_the_first == asked, "kept in a temporary folder"
    monkeypatch.setattr(cpu_estimate, "cpu_model", lambda: "another")
    watts, how = cpu_estimate.watts_per_thread.__wrapped__()
    assert watts == cpu_estimate.ASSUMED_WATTS and cpu_estimate.ASSUMED in how and "lscpu" in capsys.readouterr().out
