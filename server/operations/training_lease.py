"""The lease of a training: waited for, given back at a checkpoint to more urgent work, and taken again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from gpu_scheduler import Class
from server.errors import VisemeError
from server.host_calls import ModelHosts
from server.placement import Held, Need, Placement

_MIB: Final = 1 << 20


class TrainingLeases:
    """Runs trainings under leases.

    Args:
        placement: Gives the leases.
        hosts: The model hosts.
        host: Name of the train host.
        gpu_memory_mib: GPU memory that a training needs.
        memory_mib: Memory that it needs on a processor.
    """

    def __init__(
        self, placement: Placement, hosts: ModelHosts, host: str, *, gpu_memory_mib: int, memory_mib: int
    ) -> None:
        self._placement = placement
        self._hosts = hosts
        self._host = host
        self._gpu_bytes = gpu_memory_mib * _MIB
        self._cpu_bytes = memory_mib * _MIB

    async def run(
        self,
        operation: str,
        pin: str,
        say: Callable[[str], None],
        train: Callable[[str], Awaitable[None]],
        tenant: str = "",
    ) -> None:
        """Runs a training, from each interruption on again until it is done.

        The training is interrupted by being cancelled, as when its caller goes: it keeps its state and
        ends. A GPU's memory is free once its process has ended, so on a GPU the host is stopped after it.

        Args:
            operation: `operations/ID`.
            pin: The device that its caller asked for, or empty.
            say: Hears why it waits.
            train: Trains on a device that it is told as the host knows it.
            tenant: Who it is done for.

        Raises:
            DeviceUnsuitable: No device is large enough, or there is none of that name.
            VisemeError: What the training raised.
        """
        if self._hosts.is_elsewhere(self._host):
            # Its machine is none of those that are shared here.
            await train(pin)
            return
        need = Need(
            operation,
            Class.TRAINING,
            self._gpu_bytes,
            self._cpu_bytes,
            preemptible=True,
            pin=pin,
            tenant=tenant,
        )
        held = await self._placement.acquire(need, say)
        try:
            while not await self._until_wanted_back(held, pin, train):
                held = await self._placement.wait_again(held, say)
        finally:
            self._placement.release(held)

    async def _until_wanted_back(self, held: Held, pin: str, train: Callable[[str], Awaitable[None]]) -> bool:
        """Whether the training ended by itself; otherwise its lease is wanted back, and it has left."""
        on_gpu = not held.device.is_cpu
        if on_gpu:
            await self._hosts.place(self._host, held.device.id)
        # Of the GPUs its host then sees one only, the first.
        training = asyncio.ensure_future(train("auto" if on_gpu else pin))
        wanted = asyncio.ensure_future(held.wanted_back.wait())
        try:
            while not training.done() and not wanted.done():
                held.pid = self._hosts.pid(self._host)
                await asyncio.wait({training, wanted}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
            if wanted.done():
                await _interrupted(training)
                return training.done() and not training.cancelled() and training.exception() is None
            await training
            return True
        finally:
            wanted.cancel()
            await _interrupted(training)
            if on_gpu:
                await self._hosts.place(self._host, None)


async def _interrupted(training: asyncio.Future[None]) -> None:
    """Cancels a training and waits until it has ended; what it says of its end does not matter any more."""
    training.cancel()
    with contextlib.suppress(asyncio.CancelledError, VisemeError):
        await training
