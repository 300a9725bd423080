"""Joules must come from a named counter, be labelled as weak as they are, and never be zero in silence."""

import time

import pytest

from kfp_bonsai.shared import energy
from kfp_bonsai.shared.errors import BonsaiError


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
    assert meter.reading.cpu_joules > 0.1 * energy.watts_per_thread()[0]


def test_rapl_is_measured_and_wraps_around(tmp_path):
    """After a wrap-around the difference would be negative, or 262 kJ too low."""
    zones = [zone(tmp_path, "intel-rapl:0", 900, 999), zone(tmp_path, "intel-rapl:1", 100, 999)]
    zone(tmp_path, "intel-rapl:0:0", 5, 999, name="core")
    zone(tmp_path, "intel-rapl:2", 5, 999, name="psys")
    source = energy.rapl(tmp_path)
    before = source.mark()
    (zones[0] / "energy_uj").write_text("50")
    (zones[1] / "energy_uj").write_text("300")
    assert source.between(before, source.mark()) == pytest.approx((150 + 200) / 1e6)
    assert source.label == energy.MEASURED and source.zones == tuple(zones)


def test_rapl_is_preferred_where_it_can_be_read_and_missed_without_a_word_where_not(tmp_path):
    """A machine without counters must be labelled estimated, one with them measured."""
    assert energy.rapl(tmp_path) is None
    zone(tmp_path, "intel-rapl:0", 1, 999)
    assert energy.find_sources(tmp_path)[0].label == energy.MEASURED
    assert process_sources()[0].label == energy.ESTIMATED


def test_a_counter_that_stands_still_is_an_error(tmp_path):
    """Zero joules for a second of work would make every ratio infinite or free."""
    zone(tmp_path, "intel-rapl:0", 1, 999)
    with pytest.raises(BonsaiError, match="did not move"), energy.track([energy.rapl(tmp_path)]):
        time.sleep(energy.STUCK_SECONDS)


def test_nvml_counts_milli_joules_after_waiting_for_the_gpu():
    """Kernels still queued at the block's end would be charged to the next block."""
    counter, waited = iter([5_000, 17_500]), []
    gpu = energy.Nvml(lambda: next(counter), "a GPU", lambda: waited.append(1))
    with energy.track([*process_sources(), gpu]) as meter:
        pass
    assert meter.reading.gpu_joules == 12.5 and len(waited) == 2
    assert meter.reading.joules == pytest.approx(meter.reading.cpu_joules + 12.5)
    assert meter.reading.label == energy.ESTIMATED, "the CPU's part is estimated, so the total is"


def test_nvml_counter_that_goes_back_is_an_error():
    """A reloaded driver starts at zero."""
    counter = iter([5, 4])
    with pytest.raises(BonsaiError, match="NVML"), energy.track([energy.Nvml(lambda: next(counter), "a GPU")]):
        pass


def test_visible_gpus_are_those_cuda_would_use(monkeypatch):
    """On a shared machine the neighbours' GPUs must not be charged."""

    class ThreeGpus:
        nvmlDeviceGetCount = staticmethod(lambda: 3)
        nvmlDeviceGetHandleByIndex = staticmethod(lambda index: index)
        nvmlDeviceGetUUID = staticmethod(lambda index: f"GPU-{index}abc")

    for listed, expected in (("1", [1]), ("GPU-2a,0", [2, 0]), ("", []), ("0,7,1", [0]), ("-1", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
        assert energy._visible(ThreeGpus) == expected, listed
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert energy._visible(ThreeGpus) == [0, 1, 2]


def test_a_total_is_as_weak_as_its_weakest_part():
    """One estimated part must not hide behind a measured one."""
    assert energy.weakest(["measured", "proxy", "estimated"]) == "proxy"
    assert energy.weakest(["measured", "measured"]) == "measured"
    with pytest.raises(BonsaiError):
        energy.weakest([])


def test_a_meter_has_no_reading_before_its_block_ends():
    """Half a block's reading must not be written into a record."""
    with energy.track(process_sources()) as meter, pytest.raises(BonsaiError):
        _ = meter.reading


def process_sources():
    return [energy.ProcessCpu(energy.watts_per_thread()[0]), energy.Memory()]


def busy(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


def count(loops):
    for _ in range(loops):
        pass


def zone(root, folder, counter, wraps_after, name="package-0"):
    path = root / folder
    path.mkdir()
    (path / "name").write_text(name + "\n")
    (path / "energy_uj").write_text(str(counter))
    (path / "max_energy_range_uj").write_text(str(wraps_after))
    return path
