"""Leases of devices for hosts and operations: asyncio around the scheduler, and readings of the devices.

The scheduler decides (`gpu_scheduler`); here its answers are awaited, the devices are read while anybody
holds or waits for one, and its refusals become errors of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import psutil
import structlog

from gpu_scheduler import (
    Class,
    Device,
    DeviceProbe,
    Lease,
    NvmlProbe,
    QueueFull,
    Quota,
    Request,
    Rules,
    Scheduler,
    SchedulingRefusal,
    list_devices,
)
from gpu_scheduler.devices import choose
from server.config import Scheduling
from server.errors import DeviceUnsuitable, ServerBusy

_READ_SECONDS: Final = 1.0
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("placement")


@dataclass(frozen=True, slots=True)
class Need:
    """What somebody wants to run.

    Attributes:
        holder: Who: `operations/ID` or `hosts/NAME`.
        work: How urgent it is.
        gpu_bytes: Memory that it needs on a GPU.
        cpu_bytes: Memory that it needs where the processor is the only device.
        model: What it loads, when another holder could use it.
        preemptible: Whether it can stop at a checkpoint and go on later.
        pin: The device it must run on; empty for any.
        tenant: Who it is done for.
    """

    holder: str
    work: Class
    gpu_bytes: int
    cpu_bytes: int
    model: str = ""
    preemptible: bool = False
    pin: str = ""
    tenant: str = ""


class Held:
    """A lease that was granted.

    Attributes:
        lease: The latest lease: a holder that rested gets another.
        device: Where it is.
        wanted_back: Set when the holder should leave.
        pid: The process that uses the memory, with its children; None while there is none.
    """

    def __init__(self, lease: Lease, device: Device) -> None:
        self.lease = lease
        self.device = device
        self.wanted_back = asyncio.Event()
        self.pid: int | None = None


def rules_of(scheduling: Scheduling) -> Rules:
    """The scheduler's rules as they are set."""
    quotas = {
        tenant: Quota(
            None if quota.gpu_memory_mib is None else quota.gpu_memory_mib << 20, quota.leases, quota.weight
        )
        for tenant, quota in scheduling.quotas.items()
    }
    return Rules(
        minimum_run=scheduling.minimum_run_seconds, keep_warm=scheduling.keep_warm_seconds, quotas=quotas
    )


class Placement:
    """Gives leases of this machine's devices. Used from one event loop.

    Nothing runs and nothing is read before the first lease is asked for.

    Args:
        probe: Reads the GPUs.
        rules: The scheduler's rules.
        clock: Seconds that only grow.
        read_seconds: How often devices are read while anybody holds or waits for one.
    """

    def __init__(
        self,
        probe: DeviceProbe | None = None,
        rules: Rules | None = None,
        clock: Callable[[], float] = time.monotonic,
        read_seconds: float = _READ_SECONDS,
    ) -> None:
        self.clock: Final = clock
        self.scheduler: Final = Scheduler(rules or Rules(), self._granted, self._wanted_back, clock)
        self._probe = probe or NvmlProbe()
        self._read_seconds = read_seconds
        self._awaited: dict[str, asyncio.Future[Lease]] = {}
        self._held: dict[int, Held] = {}
        self._reading = asyncio.Lock()
        self._woken = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    @property
    def problem(self) -> str:
        """Why no GPU was found; empty when there is one."""
        return str(getattr(self._probe, "problem", ""))

    async def acquire(self, need: Need, say: Callable[[str], None] = lambda text: None) -> Held:
        """Waits for a lease.

        Args:
            need: What for.
            say: Hears why it waits, a sentence each time that changes; an empty one when it waits no longer.

        Raises:
            DeviceUnsuitable: No device is large enough, or there is none of that name.
            ServerBusy: Too many wait.
        """
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="placement")
            await self.read()
        request = Request(
            id=need.holder,
            work=need.work,
            bytes=self._bytes(need),
            model=need.model,
            preemptible=need.preemptible,
            pin=need.pin or "auto",
            tenant=need.tenant,
        )
        future = self._expect(request.id)
        try:
            self.scheduler.submit(request)
        except SchedulingRefusal as refusal:
            del self._awaited[request.id]
            raise _as_error(refusal) from refusal
        # From now on there is something to watch.
        self._woken.set()
        return await self._grant(request.id, future, say)

    async def wait_again(self, held: Held, say: Callable[[str], None]) -> Held:
        """Gives a lease back that is wanted back, and waits for another with the age that it had."""
        holder = held.lease.request.id
        future = self._expect(holder)
        self.release(held, again=True)
        return await self._grant(holder, future, say)

    def release(self, held: Held, *, again: bool = False) -> None:
        """Gives a lease back: its holder has ended. May be called twice."""
        self._held.pop(held.lease.token, None)
        self.scheduler.release(held.lease, again=again)
        # Memory of a GPU is free when the driver says so.
        self._woken.set()

    def rest(self, held: Held) -> bool:
        """The holder has nothing to do and keeps its model; False where it should leave instead."""
        return self.scheduler.rest(held.lease)

    def resume(self, held: Held) -> None:
        """The holder has something to do again."""
        lease = self.scheduler.resume(held.lease)
        if lease is not None:
            self._held.pop(held.lease.token, None)
            held.lease = lease
            self._held[lease.token] = held

    async def read(self) -> None:
        """Reads the devices now."""
        async with self._reading:
            devices = await asyncio.to_thread(list_devices, self._probe)
            for held in self._held.values():
                if held.pid is not None and not held.device.is_cpu:
                    self.scheduler.started(held.lease, _family(held.pid))
            self.scheduler.observe(devices)

    def find(self, name: str) -> str:
        """The id of the device that somebody calls by its UUID, index or name.

        Raises:
            DeviceUnsuitable: There is none, or several.
        """
        there = [place.device for place in self.scheduler.ledger.places.values()]
        found = [device for device in there if device.is_called(name)]
        if len(found) != 1:
            names = ", ".join(f"{device.id} ({device.label})" for device in there)
            kind = "more than one device is" if found else "there is no device"
            raise DeviceUnsuitable(f"{kind[0].upper()}{kind[1:]} called '{name}'; there is {names}.")
        return found[0].id

    async def close(self) -> None:
        """Reads no more."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait({watching})

    def _bytes(self, need: Need) -> int:
        devices = [place.device for place in self.scheduler.ledger.places.values()]
        chosen = choose(devices, need.pin)
        if chosen and all(device.is_cpu for device in chosen):
            # A processor's memory is not lost when it runs short: nobody is refused on account of it.
            return min(need.cpu_bytes, *(device.total_bytes for device in chosen))
        return need.gpu_bytes

    def _expect(self, holder: str) -> asyncio.Future[Lease]:
        if holder in self._awaited:
            raise ServerBusy(f"{holder} waits for a device already.")
        future = self._awaited[holder] = asyncio.get_running_loop().create_future()
        return future

    async def _grant(self, holder: str, future: asyncio.Future[Lease], say: Callable[[str], None]) -> Held:
        told = ""
        try:
            while not (await asyncio.wait({future}, timeout=0 if not told else self._read_seconds))[0]:
                if (text := self.scheduler.explain(holder)) != told:
                    told = text
                    say(text)
                    _log.info("waiting_for_device", holder=holder, explanation=text)
                self._woken.set()
        except asyncio.CancelledError:
            self._awaited.pop(holder, None)
            self.scheduler.withdraw(holder)
            if future.done() and not future.cancelled():
                self.release(self._held[future.result().token])
            raise
        if told:
            say("")
        lease = future.result()
        _log.info("lease_granted", holder=holder, explanation=self.scheduler.explain(holder))
        return self._held[lease.token]

    def _granted(self, lease: Lease) -> None:
        self._held[lease.token] = Held(lease, self.scheduler.ledger.places[lease.device].device)
        self._awaited.pop(lease.request.id).set_result(lease)

    def _wanted_back(self, lease: Lease) -> None:
        held = self._held.get(lease.token)
        reason = lease.reclaim.value if lease.reclaim else ""
        _log.info("lease_wanted_back", holder=lease.request.id, device=lease.device, reason=reason)
        if held is not None:
            held.wanted_back.set()

    async def _watch(self) -> None:
        while True:
            busy = bool(self.scheduler.ledger.leases or self.scheduler.waiting)
            # Python 3.11's wait_for may miss that it is cancelled when it is woken at the same moment.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._read_seconds if busy else None):
                    await self._woken.wait()
            self._woken.clear()
            try:
                await self.read()
            except Exception:
                # The next reading may do better; holders keep what they have.
                _log.exception("devices_not_read")
            await asyncio.sleep(self._read_seconds / 10)


def _as_error(refusal: SchedulingRefusal) -> DeviceUnsuitable | ServerBusy:
    return ServerBusy(str(refusal)) if isinstance(refusal, QueueFull) else DeviceUnsuitable(str(refusal))


def _family(pid: int) -> Sequence[int]:
    """A process and its children."""
    with contextlib.suppress(psutil.Error):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return [pid]
