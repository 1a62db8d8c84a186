"""What to do about a request: functions of the ledger, the rules and the time, without effects.

A request gets, in this order: a warm host of its model that has nothing to do; the device that it fills best;
the place of idle hosts, the least recently used first; the place of preemptible work of a lower class, the
least urgent and the newest first. Nobody is asked to leave who need not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from enum import Enum

from gpu_scheduler.ledger import OVERDUE, Earmark, Ledger, Place, idle_of, victims_of
from gpu_scheduler.requests import (
    GIB,
    Class,
    Lease,
    LeaseState,
    NeverFits,
    NoSuchDevice,
    Reclaim,
    Request,
    Rules,
)


@dataclass(frozen=True, slots=True)
class Grant:
    """The request gets memory of a device now; that of an idle host when there is a `warm` lease."""

    device: str
    warm: Lease | None = None


@dataclass(frozen=True, slots=True)
class Reserve:
    """Memory is kept for the request until it is free; the victims, if any, are asked to leave."""

    earmark: Earmark
    victims: tuple[Lease, ...] = ()


class Obstacle(Enum):
    """Why a request can only wait."""

    MEMORY = "memory"
    QUOTA = "quota"


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done for the request at the moment."""

    obstacle: Obstacle


Decision = Grant | Reserve | Wait


def check(request: Request, ledger: Ledger, rules: Rules) -> None:
    """Sees whether a request could ever be granted.

    Raises:
        NoSuchDevice: It is pinned to a device that is not there.
        NeverFits: Everything that it may use, or its quota, is too small.
    """
    quota = rules.quota(request.tenant)
    if quota.bytes is not None and request.bytes > quota.bytes:
        raise NeverFits(
            f"It needs {gib(request.bytes)}, but its tenant may hold {gib(quota.bytes)} at a time."
        )
    if quota.leases == 0:
        raise NeverFits("Its tenant may hold no device.")
    largest = ledger.largest(request)
    if largest is None:
        there = ", ".join(f"{place.device.label} ({place.device.name})" for place in ledger.places.values())
        wanted = "" if request.pin in {"", "auto"} else f" '{request.pin}'"
        able = ""
        if request.compute_capability > (0, 0):
            able = " of compute capability {}.{}".format(*request.compute_capability)
        raise NoSuchDevice(f"There is no device{wanted}{able}; there is {there or 'none'}.")
    device = largest.device
    if request.bytes > device.total_bytes:
        most = ", the most of all." if len(ledger.eligible(request)) > 1 else "."
        raise NeverFits(
            f"It needs {gib(request.bytes)}, but {device.label} ({device.name}) has "
            f"{gib(device.total_bytes)} in all{most}"
        )


def decide(request: Request, ledger: Ledger, rules: Rules, now: float) -> Decision:
    """What can be done for a request for which no place is kept yet.

    Args:
        request: The request.
        ledger: What is held and what is left.
        rules: The rules.
        now: In the scheduler's time.
    """
    ledger.put_in_order()
    if not within_quota(request, ledger, rules):
        return Wait(Obstacle.QUOTA)
    warm = _warm(request, ledger)
    if warm is not None and within_quota(warm.request, ledger, rules, tenant=request.tenant):
        return Grant(warm.device, warm)
    place = _best_fit(request, ledger)
    if place is not None:
        return Grant(place.device.id)
    reachable = _reachable(request, ledger)
    if not reachable:
        return Wait(Obstacle.MEMORY)
    return (
        _join(request, ledger)
        or _evict(request, reachable, ledger, rules, now)
        or _preempt(request, reachable, ledger, rules, now)
        or Wait(Obstacle.MEMORY)
    )


def claim(earmark: Earmark, ledger: Ledger, rules: Rules) -> Grant | None:
    """The grant for a request for which a place is kept, once there is room."""
    place, request = ledger.places[earmark.device], earmark.request
    fits = place.is_open and place.available(earmark.rank, but=request.id) >= request.bytes
    return Grant(earmark.device) if fits and within_quota(request, ledger, rules) else None


def holds(earmark: Earmark, ledger: Ledger) -> bool:
    """Whether keeping a place still makes sense: what was counted on is still to come."""
    place, request = ledger.places[earmark.device], earmark.request
    if not place.is_open:
        return False
    if earmark.rank == OVERDUE:
        return place.device.total_bytes - place.foreign >= request.bytes
    return place.available(earmark.rank, but=request.id) + place.leaving >= request.bytes


def keep_place(request: Request, ledger: Ledger, rules: Rules) -> Reserve | None:
    """Keeps a place for a request that has waited too long, where it will be free soonest.

    One place a device is kept like that, so that not everything stands still.
    """
    if not within_quota(request, ledger, rules):
        return None
    places = [
        place
        for place in ledger.eligible(request)
        if place.is_open
        and place.device.total_bytes - place.foreign >= request.bytes
        and not any(mark.rank == OVERDUE for mark in place.earmarks.values())
    ]
    if not places:
        return None
    best = max(places, key=lambda place: (place.room + place.leaving + place.idle, place.device.id))
    return Reserve(Earmark(request, best.device.id, OVERDUE))


def make_way(earmark: Earmark, ledger: Ledger, rules: Rules, now: float) -> tuple[Lease, ...]:
    """Who should leave the place that is kept for a request which has waited too long, where that is enough.

    Idle hosts are not kept warm against it.
    """
    place, request = ledger.places[earmark.device], earmark.request
    missing = request.bytes - place.available(OVERDUE, but=request.id) - place.leaving
    return _enough([*idle_of(place), *_preemptible(place, request.work, rules, now)], missing) or ()


def within_quota(request: Request, ledger: Ledger, rules: Rules, tenant: str | None = None) -> bool:
    """Whether a tenant may hold a request's memory beside what it holds already."""
    tenant = request.tenant if tenant is None else tenant
    quota = rules.quotas.get(tenant)
    if quota is None:
        return True
    held, count = ledger.usage.get(tenant, (0, 0))
    return (quota.bytes is None or held + request.bytes <= quota.bytes) and (
        quota.leases is None or count < quota.leases
    )


def share(tenant: str, ledger: Ledger, rules: Rules) -> float:
    """How much a tenant works with, in bytes by its weight: the least goes next (max-min fairness)."""
    return ledger.usage.get(tenant, (0, 0))[0] / rules.quota(tenant).weight


def reach(place: Place, work: Class, rules: Rules, now: float) -> int:
    """The most that one request of a class could get on a place, also if those leave whom it may ask to."""
    if not place.is_open:
        return -1
    room = place.available(work) + place.leaving
    if place.idle:
        room += sum(lease.bytes for lease in _evictable(place.leases.values(), work, rules, now))
    if any(place.preemptible[work + 1 :]):
        room += sum(lease.bytes for lease in _preemptible(place, work, rules, now))
    return room


def gib(size: int) -> str:
    """Memory for people: 9.1 GiB."""
    return f"{size / GIB:.1f} GiB"


def _warm(request: Request, ledger: Ledger) -> Lease | None:
    """The idle host of the same model that was used last."""
    found = ledger.warm.get(request.model) if request.model else None
    if not found:
        return None
    allowed = _allowed(request, ledger)
    for lease in reversed(found.values()):
        if lease.bytes >= request.bytes and lease.device in allowed and ledger.places[lease.device].is_open:
            return lease
    return None


def _best_fit(request: Request, ledger: Ledger) -> Place | None:
    """The open place with the least room that is enough."""
    need, work = request.bytes, request.work
    if request.is_choosy:
        fitting = [
            place
            for place in ledger.eligible(request)
            if place.is_open and place.room >= need and place.available(work) >= need
        ]
        return min(fitting, key=lambda place: (place.room, place.device.id), default=None)
    found = ledger.by_room[work].at_least(need)
    return ledger.places[found] if found else None


def _join(request: Request, ledger: Ledger) -> Reserve | None:
    """Waits for those who leave already, where that is enough."""
    need, work = request.bytes, request.work
    found: str | None
    if request.is_choosy:
        leaving = (place for place in ledger.eligible(request) if place.leaving and place.is_open)
        enough = (place.device.id for place in leaving if place.available(work) + place.leaving >= need)
        found = min(enough, default=None)
    else:
        found = ledger.by_leaving[work].at_least(need)
    return Reserve(Earmark(request, found, work)) if found else None


def _evict(request: Request, reachable: Set[str], ledger: Ledger, rules: Rules, now: float) -> Reserve | None:
    """Makes room by idle hosts, beside what leaves already."""
    need, work = request.bytes, request.work
    tried: set[str] = set()
    for idle in ledger.idle.values():
        device = idle.device
        if device not in reachable or device in tried:
            continue
        tried.add(device)
        place = ledger.places[device]
        missing = need - place.available(work) - place.leaving
        if missing <= place.idle:
            victims = _enough(list(_evictable(idle_of(place), work, rules, now)), missing)
            if victims is not None:
                return Reserve(Earmark(request, device, work), victims)
    return None


def _preempt(
    request: Request, reachable: Set[str], ledger: Ledger, rules: Rules, now: float
) -> Reserve | None:
    """Makes room by idle hosts and preemptible work of lower classes."""
    need, work = request.bytes, request.work
    tried: set[str] = set()
    for lower in sorted(Class, reverse=True):
        if lower <= work:
            break
        for token in reversed(ledger.victims[lower]):
            lease = ledger.leases[token]
            device = lease.device
            if device not in reachable or device in tried or not _may_preempt(lease, work, rules, now):
                continue
            tried.add(device)
            place = ledger.places[device]
            missing = need - place.available(work) - place.leaving
            idle = _evictable(idle_of(place), work, rules, now)
            victims = _enough([*idle, *_preemptible(place, work, rules, now)], missing)
            if victims is not None:
                return Reserve(Earmark(request, device, work), victims)
    return None


def _allowed(request: Request, ledger: Ledger) -> Set[str]:
    """Ids of the devices that a request may use."""
    if not request.is_choosy:
        return ledger.common
    return {place.device.id for place in ledger.eligible(request)}


def _reachable(request: Request, ledger: Ledger) -> Set[str]:
    """Ids of the open devices that a request may use and that could have enough memory for it."""
    if request.is_choosy:
        return {place.device.id for place in ledger.eligible(request) if place.is_open}
    return ledger.by_reach[request.work].all_at_least(request.bytes)


def _evictable(leases: Iterable[Lease], work: Class, rules: Rules, now: float) -> Iterator[Lease]:
    """The idle hosts that a class may have stopped: those of a higher class are kept warm for a while."""
    return (
        lease
        for lease in leases
        if lease.state is LeaseState.IDLE
        and (lease.request.work >= work or now - lease.used >= rules.keep_warm)
    )


def _preemptible(place: Place, work: Class, rules: Rules, now: float) -> Iterator[Lease]:
    return (lease for lease in victims_of(place, work) if _may_preempt(lease, work, rules, now))


def _may_preempt(lease: Lease, work: Class, rules: Rules, now: float) -> bool:
    """Whether a preemptible lease of a lower class has run for long enough."""
    at_once = work is Class.DIALOGUE and not lease.protected
    return at_once or now - lease.since >= rules.minimum_run


def _enough(candidates: list[Lease], missing: int) -> tuple[Lease, ...] | None:
    """The cheapest candidates, in their order, that have as much as is missing, without those in vain."""
    taken: list[Lease] = []
    for lease in candidates:
        if missing <= 0:
            break
        taken.append(lease)
        missing -= lease.bytes
    if missing > 0:
        return None
    # A dear victim that came late may make an earlier one needless; the dearest are spared first.
    for lease in reversed(taken[:-1]):
        if missing + lease.bytes <= 0:
            taken.remove(lease)
            missing += lease.bytes
    return tuple(taken)


def asked_to_leave(lease: Lease) -> Reclaim:
    """Why a victim is asked to leave."""
    return Reclaim.EVICTED if lease.state is LeaseState.IDLE else Reclaim.PREEMPTED
