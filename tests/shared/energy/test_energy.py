"""Joules must come from a named counter, be labelled as weak as they are, and never be zero in silence."""

import sys
import time
from types import SimpleNamespace

import pytest
import torch

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.energy import energy


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
    assert energy.find_sources(powercap=tmp_path)[0].label == energy.MEASURED
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


@pytest.fixture
def gpus(monkeypatch):
    """Four GPUs, which torch numbers the other way round than NVML; their counters stand at 0, 1, 2 and 3 mJ."""

    class Failure(Exception):
        pass

    nvml = SimpleNamespace(
        NVMLError=Failure,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID={f"GPU-{at}abc": at for at in range(4)}.__getitem__,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: handle,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda at: SimpleNamespace(uuid=f"{3 - at}abc", name=f"GPU {at}")
    )
    return nvml


def counted(sources):
    sources = [one.sources[0] if isinstance(one, energy.Enduring) else one for one in sources]
    return [(one.model, one.read()) for one in sources if one.part == energy.GPU]


def test_only_gpus_in_use_are_counted(gpus, monkeypatch):
    """Neighbours' GPUs, an idle one beside a model on the CPU, or another one, where NVML's order is not torch's."""
    assert counted(energy.find_sources.__wrapped__("cpu")) == []
    assert counted(energy.find_sources.__wrapped__("cuda")) == counted(energy.training_sources()) == [("GPU 0", 3)]
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    assert counted(energy.training_sources()) == [("GPU 2", 1)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert counted(energy.training_sources()) == []


def test_processes_that_train_together_count_each_of_their_gpus_once(gpus, monkeypatch):
    """A cost of one GPU where two work, or of two for each of them; a process at a GPU that is another's."""
    group = {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    for name, value in (group | {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}).items():
        monkeypatch.setenv(name, value)
    assert counted(energy.training_sources()) == [("GPU 0", 3), ("GPU 1", 2)]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert counted(energy.training_sources()) == []


def fails(error):
    def call(*_):
        raise error

    return call


def unreadable(gpus, monkeypatch, how):
    if how == "no driver":
        gpus.nvmlInit = fails(OSError("NVML Shared Library Not Found"))
    elif how == "AMD":
        monkeypatch.setattr(torch.version, "hip", "7.2")
    elif how == "a slice":
        gpus.nvmlDeviceGetHandleByUUID = fails(gpus.NVMLError("Not Found"))
    else:
        gpus.nvmlDeviceGetTotalEnergyConsumption = fails(gpus.NVMLError("Not Supported"))


UNREADABLE = {
    "no driver": "Library Not Found.*NVIDIA_DRIVER_CAPABILITIES=compute,utility.*--device cpu",
    "AMD": "AMD GPUs is not measured yet.*--device cpu",
    "a slice": "Not Found.*no MIG slice.*--device cpu",
    "too old": "Not Supported.*Volta.*--device cpu",
}


@pytest.mark.parametrize("how", UNREADABLE)
def test_a_gpu_that_works_and_cannot_be_read_is_refused(gpus, monkeypatch, how):
    """The joules of a model on a GPU would be those of its CPU alone."""
    unreadable(gpus, monkeypatch, how)
    with pytest.raises(BonsaiError, match=UNREADABLE[how]):
        energy.find_sources("cuda")


@pytest.mark.parametrize("how", UNREADABLE)
def test_training_on_a_gpu_that_cannot_be_read_goes_on_and_says_so(gpus, monkeypatch, capsys, how):
    """Hours of training would be lost for a number beside them, or the CPU's joules told as all of them."""
    unreadable(gpus, monkeypatch, how)
    with energy.track() as meter:
        busy(0.05)
    assert meter.reading.joules == meter.reading.cpu_joules > 0 == meter.reading.gpu_joules
    assert meter.reading.label == energy.PROXY and "GPU proxy: not counted" in meter.reading.source
    assert capsys.readouterr().out.count("leave out the GPU") == 1


def test_training_goes_on_with_the_estimate_where_a_counter_fails(tmp_path, capsys):
    """Hours of training lost for a note of what they cost, or an estimate under the label of a measurement."""
    for at, spoil in enumerate(
        [
            lambda file: file.unlink(),
            lambda file: file.write_text("N/A"),
            lambda file: file.write_text("1"),  # 260 kJ in no time: set back
            lambda file: None,  # stands still
        ]
    ):
        file = zone(tmp_path / str(at), "intel-rapl:0", 2_000_000, 262_143_328_850) / "energy_uj"
        sources = energy.enduring([energy.rapl(tmp_path / str(at)), energy.Memory()])
        assert sources[0].label == energy.MEASURED
        with energy.track(sources) as meter:
            busy(energy.STUCK_SECONDS + 0.01 if at == 3 else 0.02)
            spoil(file)
            if at == 0:
                assert meter.so_far().label == energy.ESTIMATED, "told at a checkpoint already"
        assert meter.reading.label == energy.ESTIMATED and meter.reading.cpu_joules > 0
        assert "CPU estimated: codecarbon" in meter.reading.source
        assert capsys.readouterr().out.count("CPU energy is estimated") == 1


def test_training_goes_on_where_nothing_can_be_read(capsys):
    """A GPU's counter that ends in the middle, a process list that cannot be read, a memory that nobody tells."""

    class Broken:
        def __init__(self, part, label, mark=None):
            self.part, self.label, self.name, self.at = part, label, "made", mark

        def mark(self):
            return (self.at or fails(PermissionError("none of yours")))()

        def between(self, before, after):
            return float("nan")

    counter = iter([5_000])
    gpu = energy.Nvml(lambda: next(counter), "a GPU")
    broken = [Broken(energy.CPU, energy.ESTIMATED), gpu, Broken(energy.RAM, energy.ESTIMATED, lambda: 1)]
    with energy.track(energy.enduring(broken)) as meter:
        pass
    assert meter.reading.joules == 0 and meter.reading.label == energy.PROXY
    assert meter.reading.source.count("not counted") == 3 == capsys.readouterr().out.count("note: ")


def test_a_counter_that_was_set_back_is_not_taken_for_one_that_wrapped(tmp_path):
    """262 kJ that nobody used, in a ratio."""
    file = zone(tmp_path, "intel-rapl:0", 9_000_000, 262_143_328_850) / "energy_uj"
    source = energy.rapl(tmp_path)
    file.write_text("10")
    for _ in range(2):
        with pytest.raises(energy.CounterError, match="set back"):
            source.mark()


def test_counters_that_cannot_be_used_are_none(tmp_path):
    """Nothing can be trained or measured in a container that shows half of the counters."""
    (zone(tmp_path, "intel-rapl:0", 1, 999) / "max_energy_range_uj").write_text("unknown")
    assert energy.rapl(tmp_path) is None
    assert energy.find_sources(powercap=tmp_path)[0].label == energy.ESTIMATED


def test_only_the_cpus_counter_has_an_estimate_in_its_place(tmp_path):
    """A measurement on a GPU whose counter failed must not end with the CPU's joules alone."""
    zone(tmp_path, "intel-rapl:0", 1, 999)
    problem = energy.CounterError("made")
    assert energy.estimates([energy.rapl(tmp_path)], problem)[0].label == energy.ESTIMATED
    with pytest.raises(energy.CounterError, match="made"):
        energy.estimates([*process_sources(), energy.Nvml(int, "a GPU")], problem)


def test_watts_are_known_whatever_the_machine_lacks(tmp_path, monkeypatch, capsys):
    """No training in a container of a SLURM job, where SLURM's command is missing, or one without a home."""
    from codecarbon.core import util
    from codecarbon.external import ram

    asked = energy._codecarbons_watts()
    monkeypatch.setattr(util, "SLURM_JOB_ID", "4711")
    monkeypatch.setattr(ram, "SLURM_JOB_ID", "4711")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("BONSAI_CACHE", str(tmp_path / "file" / "cache"))
    (tmp_path / "file").write_text("no folder")
    assert energy.watts_per_thread.__wrapped__() == asked
    monkeypatch.setattr(util, "count_physical_cpus", fails(FileNotFoundError("lscpu")))
    cached_by_the_first = energy.watts_per_thread.__wrapped__()
    assert cached_by_the_first == asked, "kept in a temporary folder"
    monkeypatch.setattr(energy, "cpu_model", lambda: "another")
    watts, how = energy.watts_per_thread.__wrapped__()
    assert watts == energy.ASSUMED_WATTS and energy.ASSUMED in how and "lscpu" in capsys.readouterr().out


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
    path.mkdir(parents=True)
    (path / "name").write_text(name + "\n")
    (path / "energy_uj").write_text(str(counter))
    (path / "max_energy_range_uj").write_text(str(wraps_after))
    return path
