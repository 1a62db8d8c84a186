"""Reads the GPUs through NVML, whatever happens to them meanwhile: lost, pulled out, reset, driver gone.

Facts of NVML that shape this module: `NVMLLibraryMismatchError` (a driver older than the binding) is not an
`NVMLError`; a function that the driver lacks raises FUNCTION_NOT_FOUND, one that the GPU lacks NOT_SUPPORTED;
Xid errors are told once, as events, to whoever registered before they happened.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any, Final, TypeVar

from gpu_scheduler.devices import Device, DeviceProbe, DeviceProcess, processor

T = TypeVar("T")

_HARDWARE_XIDS: Final = {
    48: "an uncorrectable memory error",
    62: "its microcontroller halted",
    64: "a broken memory row could not be replaced",
    74: "an NVLink error",
    79: "it has fallen off the bus",
    92: "a high rate of memory errors",
    95: "an uncontained memory error",
    119: "its firmware does not answer",
    120: "its firmware failed",
    140: "an unrecovered memory error",
}
"""Xids after which a GPU must be reset (NVIDIA's Xid catalogue); others are faults of programs."""


class NvmlProbe:
    """Asks NVML through nvidia-ml-py. Its methods may be called from any thread, from one at a time.

    Attributes:
        problem: Why the last reading found no GPU, one sentence; empty when NVML answered.
    """

    def __init__(self) -> None:
        self.problem = ""
        self._nvml: ModuleType | None = None
        self._events: Any = None
        self._watched: set[str] = set()
        self._faults: dict[str, str] = {}
        # By the UUID of the whole GPU: indices move when one is pulled out.
        self._seen: dict[str, list[Device]] = {}

    def devices(self) -> list[Device]:
        """Returns the GPUs, a MIG GPU as its instances; see `DeviceProbe.devices`.

        A GPU that was there and does not answer any more is among them, with its problem.
        """
        # On first use: loading NVML's binding costs time that a command which does not ask need not spend.
        nvml = importlib.import_module("pynvml")
        try:
            if self._nvml is None:
                nvml.nvmlInit()
                self._nvml = nvml
            count = nvml.nvmlDeviceGetCount()
        except _failures(nvml) as error:
            self._forget_nvml()
            self.problem = _why_no_nvml(nvml, error)
            return [
                _lost(device, "is out of reach: its driver does not answer") for device in self._all_seen()
            ]
        self.problem = ""
        self._hear_events()
        answering: dict[str, list[Device]] = {}
        silent: dict[int, str] = {}
        for index in range(count):
            try:
                uuid, found = self._gpu(index)
            except _failures(nvml) as error:
                silent[index] = _why_lost(nvml, error)
            else:
                answering[uuid] = found
        for uuid in self._seen.keys() - answering.keys():
            self._seen[uuid] = [
                _lost(device, silent.get(device.index, "is gone")) for device in self._seen[uuid]
            ]
        self._seen.update(answering)
        return self._all_seen()

    def close(self) -> None:
        """Lets go of NVML; the next reading begins anew."""
        self._forget_nvml()
        self._seen.clear()
        self._faults.clear()

    def _all_seen(self) -> list[Device]:
        return sorted(
            (device for devices in self._seen.values() for device in devices),
            key=lambda device: (device.index, device.instance),
        )

    def _forget_nvml(self) -> None:
        nvml, self._nvml = self._nvml, None
        self._events = None
        self._watched.clear()
        if nvml is not None:
            _optional(nvml, nvml.nvmlShutdown, None)

    def _gpu(self, index: int) -> tuple[str, list[Device]]:
        """The UUID of the GPU of an index; the GPU itself, or its MIG instances.

        Raises:
            NVMLError: It does not answer.
        """
        nvml = self._nvml
        assert nvml is not None  # noqa: S101 (only called while NVML answers)
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = str(nvml.nvmlDeviceGetUUID(handle))
        self._watch(handle, uuid)
        problem = self._faults.get(uuid, "") or _memory_problem(nvml, handle)
        if not _optional(nvml, lambda: nvml.nvmlDeviceGetMigMode(handle)[0], 0):
            return uuid, [replace(_read(nvml, handle, index), problem=problem)]
        parts = _instances(nvml, handle)
        return uuid, [
            replace(_read(nvml, part, index), instance=number, problem=problem) for number, part in parts
        ]

    def _watch(self, handle: Any, uuid: str) -> None:
        """Asks to be told of Xid errors of a GPU from now on."""
        nvml = self._nvml
        assert nvml is not None  # noqa: S101
        if uuid in self._watched:
            return
        self._watched.add(uuid)
        if self._events is None:
            self._events = _optional(nvml, nvml.nvmlEventSetCreate, None)
        if self._events is not None:
            wanted = nvml.nvmlEventTypeXidCriticalError
            _optional(nvml, lambda: nvml.nvmlDeviceRegisterEvents(handle, wanted, self._events), None)

    def _hear_events(self) -> None:
        nvml, events = self._nvml, self._events
        if nvml is None or events is None:
            return
        while (event := _optional(nvml, lambda: nvml.nvmlEventSetWait_v2(events, 0), None)) is not None:
            words = _HARDWARE_XIDS.get(int(event.eventData))
            if words:
                uuid = str(_optional(nvml, lambda: nvml.nvmlDeviceGetUUID(event.device), ""))
                self._faults[uuid] = f"reported {words} (Xid {event.eventData}); reset it or restart"


def list_devices(probe: DeviceProbe | None = None) -> list[Device]:
    """The GPUs of this machine and, last, its processor; only the processor where NVML does not answer."""
    return [*(probe or NvmlProbe()).devices(), processor()]


def _read(nvml: ModuleType, handle: Any, index: int) -> Device:
    """Reads a GPU or a MIG instance.

    Raises:
        NVMLError: It does not answer.
    """
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    used = _optional(nvml, lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100, None)
    return Device(
        id=str(nvml.nvmlDeviceGetUUID(handle)),
        index=index,
        name=str(nvml.nvmlDeviceGetName(handle)),
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
        utilisation=used,
        processes=_processes(nvml, handle),
        compute_capability=_optional(
            nvml, lambda: tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle)), (0, 0)
        ),
    )


def _instances(nvml: ModuleType, handle: Any) -> list[tuple[int, Any]]:
    """The MIG instances of a GPU, by number; the numbers may have gaps."""
    found = []
    for number in range(int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle))):
        part = _optional(
            nvml,
            lambda: nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number),  # noqa: B023 (called at once)
            None,
        )
        if part is not None:
            found.append((number, part))
    return found


def _processes(nvml: ModuleType, handle: Any) -> tuple[DeviceProcess, ...] | None:
    for name in ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"):
        listed = _optional(nvml, lambda: getattr(nvml, name)(handle), None)  # noqa: B023 (called at once)
        if listed is not None:
            return tuple(
                DeviceProcess(int(one.pid), None if one.usedGpuMemory is None else int(one.usedGpuMemory))
                for one in listed
            )
    return None


def _memory_problem(nvml: ModuleType, handle: Any) -> str:
    """What is wrong with the memory of a GPU."""
    rows = _optional(nvml, lambda: nvml.nvmlDeviceGetRemappedRows(handle), (0, 0, 0, 0))
    if rows[3]:
        return "has broken memory that could not be replaced"
    errors = _optional(
        nvml,
        lambda: nvml.nvmlDeviceGetTotalEccErrors(
            handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        ),
        0,
    )
    if errors:
        return f"has had {errors} uncorrectable memory errors since its driver was loaded; reset it"
    return "has a broken memory row that is replaced at its next reset" if rows[2] else ""


def _lost(device: Device, why: str) -> Device:
    return replace(device, free_bytes=0, utilisation=None, processes=None, problem=why)


def _why_lost(nvml: ModuleType, error: Exception) -> str:
    value = getattr(error, "value", None)
    if value == nvml.NVML_ERROR_GPU_IS_LOST:
        return "is lost: it has fallen off the bus"
    if value == nvml.NVML_ERROR_RESET_REQUIRED:
        return "must be reset"
    return f"does not answer: {error}"


def _why_no_nvml(nvml: ModuleType, error: Exception) -> str:
    value = getattr(error, "value", None)
    if isinstance(error, nvml.NVMLLibraryMismatchError) or value == nvml.NVML_ERROR_FUNCTION_NOT_FOUND:
        return "The NVIDIA driver is too old for nvidia-ml-py."
    if value == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        return "There is no NVIDIA driver."
    return f"The NVIDIA driver does not answer: {error}."


def _failures(nvml: ModuleType) -> tuple[type[Exception], ...]:
    return (nvml.NVMLError, nvml.NVMLLibraryMismatchError)


def _optional(nvml: ModuleType, ask: Callable[[], T], otherwise: T) -> T:
    """What NVML answers, or something else where the driver or the GPU cannot tell it."""
    try:
        return ask()
    except _failures(nvml):
        return otherwise
