"""Shares the devices: takes requests in, grants leases, asks holders to leave. Driven by events alone.

It has no thread, no timer and no I/O: its owner tells it what happens (`submit`, `release`, `observe`, ...)
and hears of grants and of leases that are wanted back through two callbacks, always after the ledger is in
order.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Set
from typing import Final

from gpu_scheduler import policy
from gpu_scheduler.devices import Device
from gpu_scheduler.explanation import explain_granted, explain_waiting
from gpu_scheduler.ledger import OVERDUE, Ledger, Place, idle_of, works
from gpu_scheduler.policy import Grant, Obstacle, Reserve, Wait
from gpu_scheduler.requests import (
    AlreadyWaiting,
    Class,
    Lease,
    LeaseState,
    QueueFull,
    Reclaim,
    Request,
    Rules,
)
from gpu_scheduler.waiting import Waiting, WaitingLine

_FEW: Final = 8
"""Of so many places what they have left is counted again after every grant."""


class Scheduler:
    """Shares the devices of a machine. Its methods are called from one thread.

    Args:
        rules: What the policy may do.
        on_grant: Hears of every lease; never called for a request that was withdrawn.
        on_reclaim: Hears of every lease whose holder should leave; `Lease.reclaim` says why. The holder calls
            `release` when it has.
        clock: Seconds that only grow, whatever happens to the time of day.
    """

    def __init__(
        self,
        rules: Rules,
        on_grant: Callable[[Lease], None],
        on_reclaim: Callable[[Lease], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ledger: Final = Ledger()
        self.rules: Final = rules
        self.decisions = 0
        self._on_grant, self._on_reclaim = on_grant, on_reclaim
        self._clock = clock
        self._waiting = WaitingLine()
        self._running: dict[str, Lease] = {}
        self._news: deque[tuple[Callable[[Lease], None], Lease]] = deque()
        self._telling = False
        self._touched: dict[str, None] = {}

    @property
    def waiting(self) -> list[Request]:
        """The requests that wait, in order of their arrival."""
        return [waiting.request for waiting in self._waiting.all.values()]

    def submit(self, request: Request) -> None:
        """Asks for memory; the answer comes through `on_grant`, perhaps before this returns.

        Raises:
            AlreadyWaiting: Somebody waits or runs under the id of the request.
            NeverFits: No device, or no quota, is large enough.
            NoSuchDevice: It is pinned to a device that is not there.
            QueueFull: Too many wait.
        """
        if request.id in self._waiting.all or request.id in self._running:
            raise AlreadyWaiting(f"{request.id} waits or runs already.")
        policy.check(request, self.ledger, self.rules)
        if len(self._waiting.all) >= self.rules.queue:
            raise QueueFull(f"{self.rules.queue} requests wait for a device already.")
        # Nobody who waits could use what there is, so who comes takes nothing from them.
        now = self._clock()
        self._decide(self._waiting.add(request, now), now)
        self._settle(now)

    def withdraw(self, identifier: str) -> None:
        """Forgets a request that waits; nothing happens when it does not."""
        waiting = self._waiting.all.get(identifier)
        if waiting is not None:
            place = self._unmark(waiting)
            self._waiting.remove(waiting)
            self._serve([place] if place else [])

    def release(self, lease: Lease, *, again: bool = False) -> bool:
        """The holder has left.

        Args:
            lease: Its lease.
            again: Whether its request waits again, with the age that it had.

        Returns:
            False, and nothing happens, where the lease had ended: another holder has its memory now.
        """
        if self.ledger.leases.get(lease.token) is not lease or lease.state is LeaseState.LEAVING:
            return False
        if works(lease):
            self._running.pop(lease.request.id, None)
        self.ledger.end(lease)
        back = self._waiting.add(lease.request, lease.asked) if again else None
        self._serve(self._around(lease), back)
        return True

    def rest(self, lease: Lease) -> bool:
        """The holder has nothing to do and keeps its model loaded; False where it was asked to leave."""
        if self.ledger.leases.get(lease.token) is not lease or lease.state is not LeaseState.ACTIVE:
            return False
        self._running.pop(lease.request.id, None)
        self.ledger.change(lease, LeaseState.IDLE, self._clock())
        self._serve(self._around(lease))
        return True

    def resume(self, lease: Lease) -> Lease | None:
        """An idle holder has something to do again.

        Returns:
            Its new lease; None when it was asked to leave, or has to wait for its quota as others have.
        """
        if self.ledger.leases.get(lease.token) is not lease or lease.state is not LeaseState.IDLE:
            return None
        taken = lease.request.id in self._waiting.all or lease.request.id in self._running
        if taken or not policy.within_quota(lease.request, self.ledger, self.rules):
            return None
        resumed = self.ledger.resume(lease, self._clock())
        self._running[resumed.request.id] = resumed
        return resumed

    def started(self, lease: Lease, pids: Iterable[int]) -> None:
        """Says which processes use the memory of a lease."""
        lease.pids = frozenset(pids)

    def observe(self, devices: Iterable[Device]) -> None:
        """Takes a reading of the devices, and the time that has passed, into account.

        Holders on a device that has a problem are asked to leave.
        """
        self.ledger.observe(devices)
        for place in self._places():
            if place.device.problem:
                self._empty(place, Reclaim.LOST)
        self._review()
        now = self._clock()
        late = {work: now - self.rules.patience[work] for work in Class}
        for waiting in self._waiting.overdue(late):
            self._attend(waiting, now)
        self._serve(self._places())

    def drain(self, device: str) -> None:
        """Places nothing more on a device and asks all its holders to leave.

        Raises:
            KeyError: There is no such device.
        """
        self.ledger.cordon(device, True)
        self._empty(self.ledger.places[device], Reclaim.DRAINED)
        self._review()
        self._serve(self._places())

    def undrain(self, device: str) -> None:
        """Uses a device again.

        Raises:
            KeyError: There is no such device.
        """
        self.ledger.cordon(device, False)
        self._serve([self.ledger.places[device]])

    def explain(self, identifier: str) -> str:
        """Why a request waits, or where it runs: one sentence; empty for an id that is unknown."""
        if waiting := self._waiting.all.get(identifier):
            return explain_waiting(waiting, self.ledger, self.rules, self._clock())
        lease = self._running.get(identifier)
        return explain_granted(lease, self.ledger) if lease else ""

    def waited(self, identifier: str) -> float:
        """For how many seconds a request has waited; 0 for one that does not."""
        waiting = self._waiting.all.get(identifier)
        return self._clock() - waiting.asked if waiting else 0.0

    def _places(self) -> list[Place]:
        return list(self.ledger.places.values())

    def _around(self, lease: Lease) -> list[Place]:
        """Where others may be served when the work of a lease has ended: anywhere, where a quota was full."""
        limited = lease.request.tenant in self.rules.quotas
        return self._places() if limited else [self.ledger.places[lease.device]]

    def _empty(self, place: Place, why: Reclaim) -> None:
        for lease in list(place.leases.values()):
            if lease.state in {LeaseState.ACTIVE, LeaseState.IDLE}:
                self._want_back(lease, why)

    def _want_back(self, lease: Lease, why: Reclaim) -> None:
        self.ledger.change(lease, LeaseState.DRAINING, reclaim=why)
        self._news.append((self._on_reclaim, lease))

    def _review(self) -> None:
        """Gives up places that were kept in vain."""
        for waiting in list(self._waiting.all.values()):
            if waiting.earmark and not policy.holds(waiting.earmark, self.ledger):
                self._unmark(waiting)

    def _unmark(self, waiting: Waiting) -> Place | None:
        """Keeps no place for a request any more; gives the place."""
        mark = waiting.earmark
        if mark is None:
            return None
        self.ledger.unkeep(mark)
        self._waiting.mark(waiting, None)
        return self.ledger.places[mark.device]

    def _attend(self, waiting: Waiting, now: float) -> None:
        """Gives a request that has waited too long a place that nobody else may take."""
        mark = waiting.earmark
        if mark is None and not isinstance(self._decide(waiting, now), Wait):
            return
        if mark is None or mark.rank != OVERDUE:
            kept = policy.keep_place(waiting.request, self.ledger, self.rules)
            if kept is None:
                return
            self._unmark(waiting)
            self._apply(waiting, kept, now)
            mark = kept.earmark
        for lease in policy.make_way(mark, self.ledger, self.rules, now):
            self._want_back(lease, policy.asked_to_leave(lease))

    def _serve(self, places: list[Place], back: Waiting | None = None) -> None:
        """Serves those who wait, after something changed on some places, until nobody can be served.

        Args:
            places: The places.
            back: Somebody who waits again, and may find room anywhere.
        """
        now = self._clock()
        self._claim(places, now)
        self._serve_classes(places, now)
        if back is not None and back.earmark is None and self._waiting.all.get(back.request.id) is back:
            self._decide(back, now)
        self._settle(now)

    def _settle(self, now: float) -> None:
        """Sees to what decisions did to others, then tells what happened.

        More urgent work may have taken what was kept for somebody: another place is sought for him. Who was
        asked to leave may leave more than was needed: others wait for that, too.
        """
        while self._touched:
            places = [self.ledger.places[identifier] for identifier in self._touched]
            self._touched.clear()
            for place in places:
                for waiting in sorted((self._waiting.all[mark] for mark in place.earmarks), key=_turn):
                    if waiting.earmark and not policy.holds(waiting.earmark, self.ledger):
                        self._unmark(waiting)
                        self._decide(waiting, now)
            # A place that is kept no longer may be room for the next.
            self._claim(places, now)
            self._serve_classes(places, now)
        self._tell()

    def _claim(self, places: list[Place], now: float) -> None:
        """Grants what is kept on some places, where there is room by now."""
        for place in places:
            marks = [self._waiting.all[identifier] for identifier in place.earmarks]
            for waiting in sorted(marks, key=_turn):
                granted = policy.claim(waiting.earmark, self.ledger, self.rules) if waiting.earmark else None
                if granted is not None:
                    self._apply(waiting, granted, now)

    def _serve_classes(self, places: list[Place], now: float) -> None:
        models = {lease.request.model for place in places if place.idle for lease in idle_of(place)}
        for work in Class:
            smallest = self._waiting.smallest(work)
            if smallest is None:
                continue
            limit = self._limit(places, work, now)
            if smallest <= limit or models:
                self._serve_class(work, places, limit, models, now)

    def _serve_class(
        self, work: Class, places: list[Place], limit: int, models: Set[str], now: float
    ) -> None:
        """Serves a class: of the tenants, the one that has least; of its requests, the oldest that can be.

        Args:
            work: The class.
            places: Where something changed.
            limit: Who needs more memory need not be asked,
            models: except those who would use an idle host of one of these.
            now: In the scheduler's time.
        """
        warm = self._warm(models)
        own: dict[str, int] = {}
        served: set[str] = set()
        passed_over: set[str] = set()
        while tenants := [name for name in self._waiting.tenants(work, limit, warm) if name not in served]:
            tenant = min(tenants, key=lambda name: (policy.share(name, self.ledger, self.rules), name))
            most = min(limit, own.get(tenant, limit))
            waiting = self._waiting.first(work, tenant, most, warm, passed_over)
            if waiting is None:
                served.add(tenant)
                continue
            decision, request = self._decide(waiting, now), waiting.request
            if not isinstance(decision, Wait):
                warm = self._warm(models)
                if len(places) <= _FEW:
                    limit = min(limit, self._limit(places, work, now))
                continue
            passed_over.add(request.id)
            if decision.obstacle is Obstacle.QUOTA:
                own[tenant] = min(most, request.bytes - 1)
            elif not request.is_choosy:
                # What one who takes any device cannot get, nobody can who needs as much.
                limit = min(limit, request.bytes - 1)

    def _limit(self, places: list[Place], work: Class, now: float) -> int:
        """The most that a request of a class could get on some places."""
        return max((policy.reach(place, work, self.rules, now) for place in places), default=-1)

    def _warm(self, models: Set[str]) -> dict[str, int]:
        """The most memory that an idle host of each of some models has."""
        known = self.ledger.warm
        return {model: max(lease.bytes for lease in known[model].values()) for model in models & known.keys()}

    def _decide(self, waiting: Waiting, now: float) -> Grant | Reserve | Wait:
        self.decisions += 1
        decision = policy.decide(waiting.request, self.ledger, self.rules, now)
        if not isinstance(decision, Wait):
            self._apply(waiting, decision, now)
        return decision

    def _apply(self, waiting: Waiting, decision: Grant | Reserve, now: float) -> None:
        request = waiting.request
        device = decision.earmark.device if isinstance(decision, Reserve) else decision.device
        if self.ledger.places[device].earmarks or isinstance(decision, Reserve):
            self._touched[device] = None
        if isinstance(decision, Reserve):
            self.ledger.keep(decision.earmark)
            self._waiting.mark(waiting, decision.earmark)
            for lease in decision.victims:
                self._want_back(lease, policy.asked_to_leave(lease))
            return
        mark = waiting.earmark
        protected = mark is not None and mark.rank == OVERDUE
        if mark is not None:
            self.ledger.unkeep(mark)
        self._waiting.remove(waiting)
        if decision.warm is not None:
            lease = self.ledger.take_over(decision.warm, request, waiting.asked, now, protected=protected)
        else:
            lease = self.ledger.grant(request, decision.device, waiting.asked, now, protected=protected)
        self._running[request.id] = lease
        self._news.append((self._on_grant, lease))

    def _tell(self) -> None:
        """Tells what happened; what a callback does to the scheduler is told after it."""
        if self._telling:
            return
        self._telling = True
        try:
            while self._news:
                callback, lease = self._news.popleft()
                callback(lease)
        finally:
            self._telling = False


def _turn(waiting: Waiting) -> tuple[int, float, int]:
    """When it is the turn of one for whom a place is kept."""
    rank = waiting.earmark.rank if waiting.earmark else waiting.request.work
    return rank, waiting.asked, waiting.number
