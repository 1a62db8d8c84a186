"""Devices, leases, hosts and operations as rows of tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from server.cli.console import memory_text, wait_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from viseme import Gpu, Host, Lease, Operation

GPU_COLUMNS: Final = ("GPU", "NAME", "STATE", "BUSY", "MEMORY", "FREE", "RESERVED", "OTHERS", "UUID")
LEASE_COLUMNS: Final = ("HOLDER", "WORK", "STATE", "MEMORY", "GPU", "SINCE", "WHY")
HOST_COLUMNS: Final = ("HOST", "STATE", "DOES", "MEMORY")
OPERATION_COLUMNS: Final = ("OPERATION", "AVATAR", "STAGE", "DONE", "LEFT", "MESSAGE")


def label(gpu: Gpu) -> str:
    """What people call a device: `0`, `0:1` for a MIG instance, `cpu`."""
    if gpu.index < 0:
        return "cpu"
    return str(gpu.index) if gpu.instance < 0 else f"{gpu.index}:{gpu.instance}"


def gpu_row(gpu: Gpu) -> tuple[str, ...]:
    """A device."""
    state = "failed" if gpu.problem else "draining" if gpu.draining else "well"
    return (
        label(gpu),
        gpu.display_name,
        state,
        "-" if gpu.utilisation is None else f"{100 * gpu.utilisation:.0f} %",
        memory_text(gpu.total_bytes),
        memory_text(gpu.free_bytes),
        memory_text(gpu.reserved_bytes),
        memory_text(gpu.foreign_bytes),
        gpu.name.removeprefix("gpus/"),
    )


def lease_row(lease: Lease, gpus: Sequence[Gpu]) -> tuple[str, ...]:
    """A lease, or a request that waits."""
    where = next((label(gpu) for gpu in gpus if gpu.name == lease.gpu), lease.gpu.removeprefix("gpus/"))
    return (
        lease.holder,
        lease.work.lower(),
        lease.state.lower(),
        memory_text(lease.bytes),
        where or "-",
        wait_text(lease.age),
        lease.explanation,
    )


def host_row(host: Host) -> tuple[str, ...]:
    """A model host."""
    memory = memory_text(host.memory_bytes) if host.memory_bytes else "-"
    state = host.state.lower().replace("_", " ")
    return host.name.removeprefix("hosts/"), state, ", ".join(host.capabilities), memory


def operation_row(operation: Operation) -> tuple[str, ...]:
    """An operation that is under way."""
    left = "-" if operation.remaining is None else wait_text(operation.remaining)
    return (
        operation.name.removeprefix("operations/"),
        operation.avatar_name.removeprefix("avatars/"),
        f"{operation.task} {operation.stage}".strip() if operation.start_time else "waiting",
        f"{100 * operation.fraction:.0f} %",
        left,
        operation.message,
    )
