"""GPUs are read by the counters of those in use, or it is said that they are not."""

import pytest
import torch
from counters import busy, fails, process_sources

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.energy.enduring import Enduring
from kfp_bonsai.shared.energy.nvml import Nvml


def test_nvml_counts_milli_joules_after_waiting_for_the_gpu():
    """Kernels still queued at the block's end would be charged to the next block."""
    counter, waited = iter([5_000, 17_500]), []
    gpu = Nvml(lambda: next(counter), "a GPU", lambda: waited.append(1))
    with energy.track([*process_sources(), gpu]) as meter:
        pass
    assert meter.reading.gpu_joules == 12.5 and len(waited) == 2
    assert meter.reading.joules == pytest.approx(meter.reading.cpu_joules + 12.5)
    assert meter.reading.label == energy.ESTIMATED, "the CPU's part is estimated, so the total is"


def test_nvml_counter_that_goes_back_is_an_error():
    """A reloaded driver starts at zero."""
    counter = iter([5, 4])
    with pytest.raises(BonsaiError, match="NVML"), energy.track([Nvml(lambda: next(counter), "a GPU")]):
        pass


def counted(sources):
    sources = [one.sources[0] if isinstance(one, Enduring) else one for one in sources]
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
