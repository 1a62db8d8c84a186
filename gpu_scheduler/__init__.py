"""Shares the GPUs of a machine: what NVML tells, who holds what, and a policy that says what to do next.

Nothing here knows gRPC, SQL or the server.
"""

from gpu_scheduler.devices import CPU, Device, DeviceProbe, DeviceProcess, processor
from gpu_scheduler.probe import NvmlProbe, list_devices
from gpu_scheduler.requests import (
    GIB,
    AlreadyWaiting,
    Class,
    Lease,
    LeaseState,
    NeverFits,
    NoSuchDevice,
    QueueFull,
    Quota,
    Reclaim,
    Request,
    Rules,
    SchedulingRefusal,
)
from gpu_scheduler.scheduler import Scheduler

__all__ = [
    "CPU",
    "GIB",
    "AlreadyWaiting",
    "Class",
    "Device",
    "DeviceProbe",
    "DeviceProcess",
    "Lease",
    "LeaseState",
    "NeverFits",
    "NoSuchDevice",
    "NvmlProbe",
    "QueueFull",
    "Quota",
    "Reclaim",
    "Request",
    "Rules",
    "Scheduler",
    "SchedulingRefusal",
    "list_devices",
    "processor",
]
