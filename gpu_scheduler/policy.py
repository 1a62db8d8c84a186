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
    if not within_quota(request, ledger, rules):
        return Wait(Obstacle.QUOTA)
    warm = _warm(request, ledger)
    if warm is not None and within_quota(warm.request, ledger, rules, tenant=request.tenant):
        return Grant(warm.device, warm)
    place = _best_fit(request, ledger)
    if place is not None:
        return Grant(place.device.id)
    return (
        _evict(request, ledger, rules, now) or _preempt(request, ledger, rules, now) or Wait(Obstacle.MEMORY)
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
    """The most that one request of a class could get on a place, also if idle hosts and others leave."""
    if not place.is_open:
        return -1
    room = place.available(work) + place.leaving
    room += sum(lease.bytes for lease in _evictable(place.leases.values(), work, rules, now))
    room += sum(lease.bytes for lease in _preemptible(place, work, rules, now))
    idle = [lease.bytes for lease in place.leases.values() if lease.state is LeaseState.IDLE]
    return max(room, *idle) if idle else room


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
    for identifier in ledger.by_room.at_least(need):
        place = ledger.places[identifier]
        if not place.earmarks or place.available(work) >= need:
            return place
    return None


def _evict(request: Request, ledger: Ledger, rules: Rules, now: float) -> Reserve | None:
    """Makes room by what leaves already and by idle hosts."""
    need, work = request.bytes, request.work
    if not request.is_choosy and ledger.by_evicting.largest() < need:
        return None
    for place in _candidates(request, ledger):
        if place.leaving and place.is_open and place.available(work) + place.leaving >= need:
            return Reserve(Earmark(request, place.device.id, work))
    allowed = _allowed(request, ledger)
    tried: set[str] = set()
    for idle in ledger.idle.values():
        if idle.device in tried or idle.device not in allowed:
            continue
        tried.add(idle.device)
        place = ledger.places[idle.device]
        missing = need - place.available(work) - place.leaving
        if place.is_open and missing <= place.idle:
            victims = _enough(list(_evictable(idle_of(place), work, rules, now)), missing)
            if victims is not None:
                return Reserve(Earmark(request, place.device.id, work), victims)
    return None


def _preempt(request: Request, ledger: Ledger, rules: Rules, now: float) -> Reserve | None:
    """Makes room by idle hosts and preemptible work of lower classes."""
    need, work = request.bytes, request.work
    if not request.is_choosy and ledger.by_preempting[work].largest() < need:
        return None
    allowed = _allowed(request, ledger)
    tried: set[str] = set()
    for lower in sorted(Class, reverse=True):
        if lower <= work:
            break
        for token in reversed(ledger.victims[lower]):
            lease = ledger.leases[token]
            if lease.device in tried or lease.device not in allowed:
                continue
            if not _may_preempt(lease, work, rules, now):
                continue
            tried.add(lease.device)
            place = ledger.places[lease.device]
            missing = need - place.available(work) - place.leaving
            if not place.is_open or missing > place.idle + sum(place.preemptible[work + 1 :]):
                continue
            idle = _evictable(idle_of(place), work, rules, now)
            victims = _enough([*idle, *_preemptible(place, work, rules, now)], missing)
            if victims is not None:
                return Reserve(Earmark(request, place.device.id, work), victims)
    return None


def _allowed(request: Request, ledger: Ledger) -> Set[str]:
    """Ids of the devices that a request may use."""
    if not request.is_choosy:
        return ledger.common
    return {place.device.id for place in ledger.eligible(request)}


def _candidates(request: Request, ledger: Ledger) -> Iterable[Place]:
    """The places that a request may use and that could have enough memory without idle hosts."""
    if request.is_choosy:
        return ledger.eligible(request)
    return (ledger.places[identifier] for identifier in ledger.by_evicting.at_least(request.bytes))


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
