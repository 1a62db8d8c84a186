"""The devices of this machine, as NVML tells them; one `cpu` device where there is no NVML."""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol


@dataclass(frozen=True)
class Device:
    """A place where a model can run.

    Attributes:
        id: The GPU's UUID, or `cpu`.
        index: NVML index; -1 for the processor.
        name: Product name.
        total_bytes: GPU memory, or the machine's memory for `cpu`.
        free_bytes: What nobody uses at the moment.
    """

    id: str
    index: int
    name: str
    total_bytes: int
    free_bytes: int


class DeviceProbe(Protocol):
    """Reads the GPUs of a machine."""

    def devices(self) -> list[Device]:
        """Returns the GPUs; an empty list where there is none or its driver cannot be asked."""
        ...


class NvmlProbe:
    """Asks NVML through nvidia-ml-py."""

    def devices(self) -> list[Device]:
        """Returns one device per GPU; see `DeviceProbe.devices`."""
        # Imported here: loading NVML's binding costs time that a machine without a GPU need not spend.
        import pynvml  # noqa: PLC0415

        # A driver older than the binding raises NVMLLibraryMismatchError, which is not an NVMLError.
        failures = (pynvml.NVMLError, getattr(pynvml, "NVMLLibraryMismatchError", pynvml.NVMLError))
        try:
            pynvml.nvmlInit()
        except failures:
            return []
        try:
            return [_read(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
        except failures:
            return []
        finally:
            pynvml.nvmlShutdown()


def _read(pynvml: ModuleType, index: int) -> Device:
    """Reads one GPU by its NVML index."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Device(
        id=str(pynvml.nvmlDeviceGetUUID(handle)),
        index=index,
        name=str(pynvml.nvmlDeviceGetName(handle)),
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
    )


def list_devices(probe: DeviceProbe | None = None) -> list[Device]:
    """Returns the GPUs of this machine, or its processor as the one device `cpu` where it has none."""
    gpus = (probe or NvmlProbe()).devices()
    if gpus:
        return gpus
    page = os.sysconf("SC_PAGE_SIZE")
    return [
        Device(
            id="cpu",
            index=-1,
            name=f"{os.cpu_count() or 1} processor cores",
            total_bytes=page * os.sysconf("SC_PHYS_PAGES"),
            free_bytes=page * os.sysconf("SC_AVPHYS_PAGES"),
        )
    ]
