"""The leases of hosts that run on GPUs: each has one from before it starts until its process has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from gpu_scheduler import Class
from server.hosts.launching import LaunchedHost
from server.hosts.manifest import HostManifest
from server.placement import Held, Need, Placement

_MIB: Final = 1 << 20
IDLE_SECONDS: Final = 60.0
"""A host that nobody has asked for during this time has nothing to do. One that is asked to leave finishes
its calls first, so that a long one is not cut off."""


class HostLeases:
    """Holds the leases of hosts. Hosts that declare no GPU memory have none, and cost nothing here.

    Args:
        placement: Gives the leases.
        idle_seconds: See `IDLE_SECONDS`.
    """

    def __init__(self, placement: Placement, idle_seconds: float = IDLE_SECONDS) -> None:
        self._placement = placement
        self._idle_seconds = idle_seconds
        self._held: dict[str, Held] = {}
        self._used: dict[str, float] = {}
        self._following: set[asyncio.Task[None]] = set()

    def needed(self, manifest: HostManifest) -> bool:
        """Whether a host starts under a lease; who trains gets one for as long as the training takes."""
        return manifest.gpu_memory_mib > 0 and manifest.capabilities != ("train",)

    async def acquire(self, manifest: HostManifest) -> Held:
        """Waits for the lease of a host that is about to start.

        Raises:
            DeviceUnsuitable: It fits on no device.
            ServerBusy: Too many wait.
        """
        return await self._placement.acquire(
            Need(
                holder=f"hosts/{manifest.name}",
                work=Class.EVALUATION if manifest.capabilities == ("evaluate",) else Class.DIALOGUE,
                gpu_bytes=manifest.gpu_memory_mib * _MIB,
                cpu_bytes=manifest.memory_mib * _MIB,
            )
        )

    def follow(
        self, name: str, held: Held, process: LaunchedHost, stop: Callable[[], Awaitable[None]]
    ) -> None:
        """Keeps a lease until a process ends; stops the host when its lease is wanted back.

        Args:
            name: Name of the host.
            held: Its lease.
            process: Its process.
            stop: Stops the host after its running calls.
        """
        held.pid = process.describe().pid
        self._held[name] = held
        self._used[name] = self._placement.clock()
        task = asyncio.create_task(self._follow(name, held, process, stop), name=f"lease-{name}")
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    def used(self, name: str) -> None:
        """Somebody asks for a host."""
        if (held := self._held.get(name)) is not None:
            self._used[name] = self._placement.clock()
            self._placement.resume(held)

    def give_back(self, held: Held) -> None:
        """Gives the lease of a host back that did not start."""
        self._placement.release(held)

    async def close(self) -> None:
        """Waits until all leases are given back; all hosts have been stopped before."""
        if self._following:
            await asyncio.wait(self._following)

    async def _follow(
        self, name: str, held: Held, process: LaunchedHost, stop: Callable[[], Awaitable[None]]
    ) -> None:
        ended = asyncio.ensure_future(process.watch())
        wanted = asyncio.ensure_future(held.wanted_back.wait())
        stopping: asyncio.Future[None] | None = None
        try:
            while not ended.done():
                left = self._used[name] + self._idle_seconds - self._placement.clock()
                if left <= 0:
                    self._placement.rest(held)
                    left = self._idle_seconds
                waited: set[asyncio.Future[str] | asyncio.Future[bool]] = {ended}
                if stopping is None:
                    waited.add(wanted)  # type: ignore[arg-type]
                await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if wanted.done() and stopping is None and not ended.done():
                    stopping = asyncio.ensure_future(stop())
        finally:
            wanted.cancel()
            if self._held.get(name) is held:
                del self._held[name]
            self._placement.release(held)
            if stopping is not None:
                await stopping
