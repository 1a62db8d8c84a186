"""Every decision in one plain sentence."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_scheduler import policy
from gpu_scheduler.ledger import OVERDUE, Ledger, Place
from gpu_scheduler.policy import gib
from gpu_scheduler.requests import Class, Lease, LeaseState, Reclaim, Request, Rules
from gpu_scheduler.waiting import Waiting

_NAMED = 3


def explain_waiting(waiting: Waiting, ledger: Ledger, rules: Rules, now: float) -> str:
    """Why a request waits, and for what."""
    request = waiting.request
    needs = f"waiting: needs {gib(request.bytes)}"
    if not policy.within_quota(request, ledger, rules):
        return f"{needs}, {_quota(request, ledger, rules)}"
    if waiting.earmark is not None:
        place = ledger.places[waiting.earmark.device]
        plan = _departures(place) or _until_free(place)
        if waiting.earmark.rank == OVERDUE:
            plan = f"kept for it since it has waited for {_seconds(now - waiting.asked)}, {plan}"
        return f"{needs}, {_free(place)}, {plan}"
    places = [place for place in ledger.eligible(request) if place.is_open]
    if not places:
        return f"{needs}, {_closed(ledger.eligible(request))}"
    best = max(places, key=lambda place: place.available(request.work))
    others = f", the most of {len(places)} devices" if len(places) > 1 else ""
    return f"{needs}, {_free(best)}{others}, {_held(best, request, rules, now)}"


def explain_granted(lease: Lease, ledger: Ledger) -> str:
    """Where the holder of a lease works, or why it is asked to leave."""
    place = ledger.places[lease.device]
    where = f"{gib(lease.bytes)} on {place.device.label}"
    if lease.state is LeaseState.DRAINING and lease.reclaim is not None:
        return f"stopping: has {where}, and {lease.reclaim.value}"
    return f"running: has {where}, which has {gib(max(0, place.room))} free"


def _free(place: Place) -> str:
    taken = f" ({gib(place.foreign)} is used by other programs)" if place.foreign > 0 else ""
    return f"{place.device.label} has {gib(max(0, place.room))} free{taken}"


def _departures(place: Place) -> str:
    """Who leaves a place."""
    words = {
        "preempting": [lease for lease in _in(place, LeaseState.DRAINING) if lease.busy],
        "stopping the idle": [lease for lease in _in(place, LeaseState.DRAINING) if not lease.busy],
    }
    parts = [f"{verb} {_names(leases)}" for verb, leases in words.items() if leases]
    if any(lease.reclaim is Reclaim.PREEMPTED for lease in words["preempting"]):
        parts[0] += (
            " at its next checkpoint" if len(words["preempting"]) == 1 else " at their next checkpoints"
        )
    if leaving := _in(place, LeaseState.LEAVING):
        parts.append(f"waiting until the driver has freed the memory of {_names(leaving)}")
    return " and ".join(parts)


def _until_free(place: Place) -> str:
    holders = [*_in(place, LeaseState.ACTIVE), *_in(place, LeaseState.IDLE)]
    return f"until {_names(holders)} ends" if holders else "and is about to be given"


def _held(place: Place, request: Request, rules: Rules, now: float) -> str:
    """Who holds the memory, and when that may change."""
    soon = [
        (lease.since + rules.minimum_run - now, lease)
        for lease in _in(place, LeaseState.ACTIVE)
        if lease.request.preemptible and lease.request.work > request.work
    ]
    if soon:
        seconds, lease = min(soon, key=lambda pair: pair[0])
        if seconds > 0:
            return f"{lease.request.id} has just begun and may be preempted in {_seconds(seconds)}"
    if marks := [mark.request.id for mark in place.earmarks.values() if mark.rank <= request.work]:
        return f"which is kept for {', '.join(sorted(marks))}"
    holders = [*_in(place, LeaseState.ACTIVE), *_in(place, LeaseState.IDLE), *_in(place, LeaseState.DRAINING)]
    return (
        f"{_names(holders)} {'has' if len(holders) == 1 else 'have'} the rest" if holders else "nobody leaves"
    )


def _closed(places: Sequence[Place]) -> str:
    """Why none of the devices may be used."""
    if not places:
        return "and the device it asked for is gone"
    words = [
        f"{place.device.label} {place.device.problem}"
        if place.device.problem
        else f"{place.device.label} is being drained"
        for place in places[:_NAMED]
    ]
    more = f" and {len(places) - _NAMED} more cannot be used" if len(places) > _NAMED else ""
    return "; ".join(words) + more


def _quota(request: Request, ledger: Ledger, rules: Rules) -> str:
    quota = rules.quota(request.tenant)
    held, count = ledger.usage.get(request.tenant, (0, 0))
    who = f"tenant {request.tenant}" if request.tenant else "its tenant"
    if quota.bytes is not None and held + request.bytes > quota.bytes:
        return f"{who} holds {gib(held)} of the {gib(quota.bytes)} that it may hold"
    return f"{who} holds {count} of the {quota.leases} leases that it may hold"


def _in(place: Place, state: LeaseState) -> list[Lease]:
    return [lease for lease in place.leases.values() if lease.state is state]


def _names(leases: Sequence[Lease]) -> str:
    names = [f"{lease.request.id} ({Class(lease.request.work).name.lower()})" for lease in leases[:_NAMED]]
    more = f" and {len(leases) - _NAMED} more" if len(leases) > _NAMED else ""
    return ", ".join(names) + more


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
