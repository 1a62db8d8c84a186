"""The devices of this machine: its GPUs, parts of GPUs, and its processor."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

CPU: Final = "cpu"
"""Id of the processor as a device."""


@dataclass(frozen=True, slots=True)
class DeviceProcess:
    """A process that has memory of a GPU.

    Attributes:
        pid: Its id, as the driver sees it: in a container that is the id outside.
        bytes: What it has; None where the driver does not tell.
    """

    pid: int
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Device:
    """A place where a model can run.

    Attributes:
        id: The UUID of the GPU or MIG instance, or `cpu`.
        index: NVML index; that of the whole GPU for a MIG instance; -1 for the processor.
        name: Product name.
        total_bytes: GPU memory, or the machine's memory for `cpu`.
        free_bytes: What nobody uses at the moment.
        instance: Number of a MIG instance on its GPU; -1 for a whole GPU.
        utilisation: Share of the last moments in which it computed, 0 to 1; None where nobody tells.
        processes: Who has memory of it; None where nobody tells.
        compute_capability: CUDA compute capability; (0, 0) for the processor or where nobody tells.
        problem: Why nothing may be placed on it, in words that follow its name; empty when it is well.
    """

    id: str
    index: int
    name: str
    total_bytes: int
    free_bytes: int
    instance: int = -1
    utilisation: float | None = None
    processes: tuple[DeviceProcess, ...] | None = None
    compute_capability: tuple[int, int] = (0, 0)
    problem: str = ""

    @property
    def is_cpu(self) -> bool:
        """Whether it is the processor."""
        return self.id == CPU

    @property
    def label(self) -> str:
        """What people call it: `GPU 0`, `GPU 0:1` for a MIG instance, `the processor`."""
        if self.is_cpu:
            return "the processor"
        return f"GPU {self.index}" if self.instance < 0 else f"GPU {self.index}:{self.instance}"

    def is_called(self, wanted: str) -> bool:
        """Whether a caller means this one.

        Args:
            wanted: An index (`0`, `0:1` for a MIG instance), a UUID, `cpu` or a part of the name.
        """
        wanted = wanted.strip().lower()
        if self.is_cpu or wanted == CPU:
            return self.is_cpu and wanted == CPU
        own = self.id.lower()
        if wanted in {own, own.removeprefix("gpu-"), self.label.lower().removeprefix("gpu ")}:
            return True
        # A number is an index, never a part of a name such as H100.
        return not wanted.replace(":", "").isdigit() and wanted in self.name.lower()


class DeviceProbe(Protocol):
    """Reads the GPUs of a machine."""

    def devices(self) -> list[Device]:
        """Returns the GPUs; an empty list where there is none or its driver cannot be asked."""
        ...


def processor() -> Device:
    """The processor of this machine as a device."""
    page = os.sysconf("SC_PAGE_SIZE")
    return Device(
        id=CPU,
        index=-1,
        name=f"{os.cpu_count() or 1} processor cores",
        total_bytes=page * os.sysconf("SC_PHYS_PAGES"),
        free_bytes=page * os.sysconf("SC_AVPHYS_PAGES"),
    )


def choose(devices: Iterable[Device], wanted: str) -> list[Device]:
    """The devices that a caller may mean.

    Args:
        devices: All there are.
        wanted: `auto` or nothing for any GPU, or the processor where there is no GPU; else see
            `Device.is_called`.
    """
    there = list(devices)
    if wanted.strip().lower() in {"", "auto"}:
        return [device for device in there if not device.is_cpu] or there
    return [device for device in there if device.is_called(wanted)]
