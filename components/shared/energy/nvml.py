"""The energy counters of NVIDIA's GPUs."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from kfp_bonsai.shared.core import ranks
from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.energy.reading import GPU, MEASURED, CounterError, Source


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
