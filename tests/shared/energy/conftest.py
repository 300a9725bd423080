"""A machine with GPUs that are made up."""

import sys
from types import SimpleNamespace

import pytest
import torch


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
