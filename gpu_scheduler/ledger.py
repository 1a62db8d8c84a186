"""Who holds what on which device, and what is left: the leases beside what the driver tells.

The ledger keeps the sums and orders that the policy asks for, so that a decision looks at few devices. It
decides nothing itself.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from gpu_scheduler.devices import Device, choose
from gpu_scheduler.index import SortedIndex
from gpu_scheduler.requests import Class, Lease, LeaseState, Reclaim, Request

OVERDUE: Final = -1
"""Rank of a place that is kept for a request which has waited too long: above every class."""


@dataclass(frozen=True, slots=True)
class Earmark:
    """Memory of a device that is kept for a request until it is free.

    Attributes:
        request: For whom.
        device: Id of the device.
        rank: The class of the request, or `OVERDUE`: nobody of this or a later rank may take it.
    """

    request: Request
    device: str
    rank: int


@dataclass(slots=True, eq=False)
class Place:
    """A device with everything that is on it; all amounts in bytes.

    Attributes:
        device: As it was last read.
        cordoned: Whether an operator wants nothing new on it.
        foreign: What processes use of it that hold no lease, or beyond their lease.
        reserved: Of all its leases.
        leaving: Of the leases that drain or leave.
        idle: Of the idle leases.
        preemptible: Of the active leases that can be preempted, by class.
        leases: By token.
        earmarks: By the id of the request.
    """

    device: Device
    cordoned: bool = False
    foreign: int = 0
    reserved: int = 0
    leaving: int = 0
    idle: int = 0
    preemptible: list[int] = field(default_factory=lambda: [0] * len(Class))
    leases: dict[int, Lease] = field(default_factory=dict)
    earmarks: dict[str, Earmark] = field(default_factory=dict)
    _marked: list[int] = field(default_factory=lambda: [0] * (len(Class) + 1))

    @property
    def is_open(self) -> bool:
        """Whether anything may be placed on it."""
        return not self.cordoned and not self.device.problem

    @property
    def room(self) -> int:
        """What neither a lease nor anybody else has; negative where strangers took what was promised."""
        return self.device.total_bytes - self.reserved - self.foreign

    def available(self, rank: int, but: str = "") -> int:
        """What a request of a rank can have now.

        Args:
            rank: Its class, or `OVERDUE`.
            but: Id of the request whose own earmark is no obstacle.
        """
        return self.room - self.kept(rank, but) if self.earmarks else self.room

    def kept(self, rank: int, but: str = "") -> int:
        """What is kept for requests that come before one of a rank, or with it."""
        own = self.earmarks.get(but) if but else None
        return self._marked[rank + 1] - (own.request.bytes if own and own.rank <= rank else 0)

    def mark(self, earmark: Earmark) -> None:
        """Keeps memory for a request."""
        self.earmarks[earmark.request.id] = earmark
        self._count_marks(earmark, 1)

    def unmark(self, earmark: Earmark) -> None:
        """Keeps it no longer."""
        del self.earmarks[earmark.request.id]
        self._count_marks(earmark, -1)

    def _count_marks(self, earmark: Earmark, sign: int) -> None:
        for rank in range(earmark.rank, len(Class)):
            self._marked[rank + 1] += sign * earmark.request.bytes


class Ledger:
    """The leases on all devices.

    Attributes:
        places: By id of the device.
        leases: By token.
        idle: Leases of idle hosts, the longest idle first.
        warm: The same by model.
        victims: Tokens of the active leases that can be preempted, by class, the oldest first.
        common: Devices that requests which are not choosy may use: the GPUs, or the processor without one.
        usage: What tenants work with: bytes and leases; idle hosts are nobody's.
        by_room: Devices by what a class can have of them now, by class.
        by_leaving: The same when those have left who do so already; devices that nobody leaves are not in it.
        by_reach: The same if everybody left who may ever be asked to, by class.
    """

    def __init__(self) -> None:
        self.places: dict[str, Place] = {}
        self.leases: dict[int, Lease] = {}
        self.idle: dict[int, Lease] = {}
        self.warm: dict[str, dict[int, Lease]] = {}
        self.victims: dict[Class, list[int]] = {work: [] for work in Class}
        self.usage: dict[str, tuple[int, int]] = {}
        self.by_room = {work: SortedIndex() for work in Class}
        self.by_leaving = {work: SortedIndex() for work in Class}
        self.by_reach = {work: SortedIndex() for work in Class}
        # In the order in which they moved: what is decided does not depend on chance.
        self._moved: dict[str, Place] = {}
        self._token = 0
        self._chosen: dict[tuple[str, tuple[int, int]], tuple[Place, ...]] = {}
        self.common: frozenset[str] = frozenset()

    def eligible(self, request: Request) -> tuple[Place, ...]:
        """The places that would do for a request if they were empty and well, the largest first."""
        key = (request.pin, request.compute_capability)
        if key not in self._chosen:
            self._chosen[key] = self._select(*key)
        return self._chosen[key]

    def largest(self, request: Request) -> Place | None:
        """The largest of them."""
        # Sorted when they are selected.
        return next(iter(self.eligible(request)), None)

    def observe(self, devices: Iterable[Device]) -> None:
        """Takes a reading of the devices in.

        What strangers use is subtracted; leases whose holders said that they had left, and of which the
        driver knows nothing any more, end; a device that is not in the reading has a problem until its last
        lease ends.
        """
        read = {device.id: device for device in devices}
        known = {identifier: place.device for identifier, place in self.places.items()}
        for identifier, device in read.items():
            place = self.places.get(identifier)
            if place is None:
                self.places[identifier] = place = Place(device)
            place.device = device
        for identifier, place in list(self.places.items()):
            if identifier not in read:
                place.device = replace(place.device, problem="is gone", free_bytes=0, processes=None)
            self._confirm(place)
            if identifier in read or place.leases or place.earmarks:
                place.foreign = _foreign(place)
                self._moved[place.device.id] = place
            else:
                del self.places[identifier]
                self._moved.pop(identifier, None)
                self._unlist(identifier)
        if known.keys() != self.places.keys() or any(
            _identity(place.device) != _identity(known[identifier])
            for identifier, place in self.places.items()
        ):
            self._chosen.clear()
            self.common = frozenset(device.id for device in choose(self._devices(), "auto"))
            self._moved.update(self.places)

    def cordon(self, device: str, cordoned: bool) -> None:
        """Closes a device for everything new, or opens it again."""
        place = self.places[device]
        place.cordoned = cordoned
        self._moved[place.device.id] = place

    def grant(self, request: Request, device: str, asked: float, now: float, *, protected: bool) -> Lease:
        """Gives a request a lease of its own."""
        self._token += 1
        lease = Lease(self._token, request, device, asked, now, now, protected)
        self._add(lease)
        return lease

    def take_over(self, idle: Lease, request: Request, asked: float, now: float, *, protected: bool) -> Lease:
        """Gives a request the lease of an idle host that has its model loaded.

        The memory stays what the host has; the lease of the host ends.
        """
        self._remove(idle)
        self._token += 1
        held = replace(request, bytes=idle.bytes)
        lease = Lease(self._token, held, idle.device, asked, now, now, protected, pids=idle.pids)
        self._add(lease)
        return lease

    def resume(self, idle: Lease, now: float) -> Lease:
        """Gives an idle host its own lease again, under a new token."""
        return self.take_over(idle, idle.request, idle.asked, now, protected=False)

    def change(
        self, lease: Lease, state: LeaseState, now: float | None = None, reclaim: Reclaim | None = None
    ) -> None:
        """Puts a lease into another state.

        Args:
            lease: The lease.
            state: What its holder does from now on.
            now: When it became idle.
            reclaim: Why it is asked to leave.
        """
        self._remove(lease)
        lease.state = state
        lease.busy = lease.busy and state is not LeaseState.IDLE
        lease.used = lease.used if now is None else now
        lease.reclaim = reclaim or lease.reclaim
        self._add(lease)

    def end(self, lease: Lease) -> None:
        """Ends a lease: at once, or when the driver has confirmed that its processes are gone."""
        device = self.places[lease.device].device
        if lease.pids and not device.is_cpu:
            self.change(lease, LeaseState.LEAVING)
        else:
            self._remove(lease)

    def keep(self, mark: Earmark) -> None:
        """Keeps memory of a device for a request."""
        place = self.places[mark.device]
        place.mark(mark)
        self._moved[place.device.id] = place

    def unkeep(self, mark: Earmark) -> None:
        """Keeps it no longer."""
        place = self.places[mark.device]
        place.unmark(mark)
        self._moved[place.device.id] = place

    def _devices(self) -> list[Device]:
        return [place.device for place in self.places.values()]

    def _select(self, pin: str, compute_capability: tuple[int, int]) -> tuple[Place, ...]:
        chosen = sorted(choose(self._devices(), pin), key=lambda device: -device.total_bytes)
        return tuple(
            self.places[device.id] for device in chosen if device.compute_capability >= compute_capability
        )

    def _add(self, lease: Lease) -> None:
        place, request = self.places[lease.device], lease.request
        self.leases[lease.token] = place.leases[lease.token] = lease
        place.reserved += lease.bytes
        if lease.state is LeaseState.IDLE:
            place.idle += lease.bytes
            self.idle[lease.token] = lease
            if request.model:
                self.warm.setdefault(request.model, {})[lease.token] = lease
        elif lease.state is LeaseState.ACTIVE:
            if request.preemptible:
                place.preemptible[request.work] += lease.bytes
                insort(self.victims[request.work], lease.token)
        else:
            place.leaving += lease.bytes
        self._charge(lease, 1)
        self._moved[place.device.id] = place

    def _remove(self, lease: Lease) -> None:
        place, request = self.places[lease.device], lease.request
        del self.leases[lease.token], place.leases[lease.token]
        place.reserved -= lease.bytes
        if lease.state is LeaseState.IDLE:
            place.idle -= lease.bytes
            del self.idle[lease.token]
            if request.model:
                warm = self.warm[request.model]
                del warm[lease.token]
                if not warm:
                    del self.warm[request.model]
        elif lease.state is LeaseState.ACTIVE:
            if request.preemptible:
                place.preemptible[request.work] -= lease.bytes
                victims = self.victims[request.work]
                del victims[bisect_left(victims, lease.token)]
        else:
            place.leaving -= lease.bytes
        self._charge(lease, -1)
        self._moved[place.device.id] = place

    def _charge(self, lease: Lease, sign: int) -> None:
        """Charges a tenant for a lease, or no longer."""
        if not works(lease):
            return
        tenant = lease.request.tenant
        held, count = self.usage.get(tenant, (0, 0))
        if count + sign:
            self.usage[tenant] = (held + sign * lease.bytes, count + sign)
        else:
            del self.usage[tenant]

    def _confirm(self, place: Place) -> None:
        """Ends leases that were left, once the driver knows nothing of their processes."""
        listed = {process.pid for process in place.device.processes or ()}
        for lease in list(place.leases.values()):
            if lease.state is LeaseState.LEAVING and not lease.pids & listed:
                self._remove(lease)

    def put_in_order(self) -> None:
        """Brings the orders of the devices up to date; the policy does so before it asks."""
        for identifier, place in self._moved.items():
            if place.is_open and identifier in self.common:
                self._order(identifier, place)
            else:
                self._unlist(identifier)
        self._moved.clear()

    def _order(self, identifier: str, place: Place) -> None:
        """Puts a place where it now belongs in the orders of what requests that are not choosy may use."""
        room, leaving = place.room, place.leaving
        reach = room + leaving + place.idle
        # From the last class to the first: each may preempt those after it.
        for work in reversed(Class):
            kept = place.kept(work) if place.earmarks else 0
            self.by_room[work].move(identifier, room - kept)
            self.by_leaving[work].move(identifier, room + leaving - kept if leaving else None)
            self.by_reach[work].move(identifier, reach - kept)
            reach += place.preemptible[work]

    def _unlist(self, identifier: str) -> None:
        for index in (*self.by_room.values(), *self.by_leaving.values(), *self.by_reach.values()):
            index.move(identifier, None)


def works(lease: Lease) -> bool:
    """Whether the holder of a lease does something for its tenant."""
    return lease.busy and (lease.state is LeaseState.ACTIVE or lease.state is LeaseState.DRAINING)


def idle_of(place: Place) -> list[Lease]:
    """The idle leases of a place, the least recently used first."""
    idle = [lease for lease in place.leases.values() if lease.state is LeaseState.IDLE]
    return sorted(idle, key=lambda lease: (lease.used, lease.token))


def victims_of(place: Place, above: int) -> Iterator[Lease]:
    """The active leases of a place that are preemptible and of a class after `above`, the cheapest first.

    The cheapest is of the least urgent class, and among those the one that has run for the shortest time.
    """
    found = [
        lease
        for lease in place.leases.values()
        if lease.state is LeaseState.ACTIVE and lease.request.preemptible and lease.request.work > above
    ]
    return iter(sorted(found, key=lambda lease: (-lease.request.work, -lease.token)))


def _identity(device: Device) -> tuple[int, str, int]:
    """What decides for whom a device will do."""
    return device.index, device.name, device.total_bytes


def _foreign(place: Place) -> int:
    """What is used of a device beyond its leases; a processor shares its memory with everybody.

    Processes are known by their ids. Where none of ours is in the driver's list, as in a container, each
    is taken to use what its lease says once it has begun.
    """
    device = place.device
    if device.is_cpu or device.problem:
        return 0
    listed = {process.pid: process.bytes for process in device.processes or ()}
    comparable = any(lease.pids & listed.keys() for lease in place.leases.values())
    ours = 0
    for lease in place.leases.values():
        if not comparable:
            ours += lease.bytes if lease.pids else 0
            continue
        used = [listed[pid] for pid in lease.pids & listed.keys()]
        ours += lease.bytes if None in used else min(lease.bytes, sum(one for one in used if one))
    return max(0, device.total_bytes - device.free_bytes - ours)
