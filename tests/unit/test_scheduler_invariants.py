"""What must hold of the scheduler whatever happens, in any order: a machine of random events checks it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gpu_scheduler import (
    CPU,
    AlreadyWaiting,
    Class,
    Device,
    DeviceProcess,
    Lease,
    LeaseState,
    NeverFits,
    NoSuchDevice,
    QueueFull,
    Quota,
    Reclaim,
    Request,
    Rules,
    Scheduler,
)
from gpu_scheduler.ledger import Place

RULES = Rules(
    minimum_run=10,
    keep_warm=20,
    patience={Class.DIALOGUE: 30, Class.RENDER: 60, Class.EVALUATION: 90, Class.TRAINING: 120},
    quotas={"small": Quota(bytes=30, leases=2), "heavy": Quota(weight=3)},
    queue=12,
)
TENANTS = ["small", "heavy", "other"]
RUNNING = (LeaseState.ACTIVE, LeaseState.DRAINING)


@dataclass
class Gpu:
    """A GPU as the test's driver tells of it."""

    device: Device
    foreign: int = 0
    broken: bool = False
    there: bool = True


class SchedulerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.gpus: list[Gpu] = []
        self.scheduler = Scheduler(RULES, self.granted, self.reclaimed, lambda: self.now)
        self.count = 0
        self.tokens: list[int] = []
        self.live: dict[int, Lease] = {}
        self.admitted: set[str] = set()
        self.done: set[str] = set()
        self.wanted_back: list[Lease] = []

    # What holders hear.

    def granted(self, lease: Lease) -> None:
        self.tokens.append(lease.token)
        self.live[lease.token] = lease
        place = self.scheduler.ledger.places[lease.device]
        assert place.is_open, "a grant on a device that may not be used"
        self.scheduler.started(lease, {1000 + lease.token})

    def reclaimed(self, lease: Lease) -> None:
        assert lease.reclaim is not None
        self.wanted_back.append(lease)

    # What happens.

    @initialize(
        sizes=st.sampled_from([[48], [24, 48], [48, 48], [24, 24, 24], [8, 24, 48, 48], []]),
        capabilities=st.lists(st.sampled_from([(7, 5), (9, 0)]), min_size=4, max_size=4),
    )
    def begin(self, sizes: list[int], capabilities: list[tuple[int, int]]) -> None:
        self.gpus = [
            Gpu(Device(f"GPU-{n}", n, "Fake H100", size, size, compute_capability=capabilities[n]))
            for n, size in enumerate(sizes)
        ]
        self.observe()

    def observe(self) -> None:
        held = self.scheduler.ledger.leases.values()
        devices = [Device(CPU, -1, "cores", 40, 40)]
        for gpu in self.gpus:
            mine = [lease for lease in held if lease.device == gpu.device.id]
            alive = [lease for lease in mine if lease.state is not LeaseState.LEAVING]
            processes = [DeviceProcess(pid, lease.bytes) for lease in alive for pid in lease.pids]
            if gpu.foreign:
                processes.append(DeviceProcess(1, gpu.foreign))
            used = sum(process.bytes or 0 for process in processes)
            device = replace(
                gpu.device,
                free_bytes=max(0, gpu.device.total_bytes - used),
                processes=tuple(processes),
                problem="is lost" if gpu.broken else "",
            )
            if gpu.there:
                devices.append(device)
        self.scheduler.observe(devices)

    @rule(
        work=st.sampled_from(Class),
        size=st.integers(0, 50),
        tenant=st.sampled_from(TENANTS),
        model=st.sampled_from(["", "a", "b"]),
        pin=st.sampled_from(["auto", "0", "GPU-1", "h100", "cpu"]),
        capability=st.sampled_from([(0, 0), (9, 0)]),
        preemptible=st.booleans(),
    )
    def submit_anything(self, **wanted: Any) -> None:
        self.submit(**wanted)

    @rule(
        work=st.sampled_from([Class.EVALUATION, Class.TRAINING, Class.TRAINING]),
        size=st.sampled_from([12, 20, 24, 40]),
        tenant=st.sampled_from(TENANTS),
    )
    def submit_patient_work(self, **wanted: Any) -> None:
        self.submit(**wanted, preemptible=True)

    @rule(
        work=st.sampled_from([Class.DIALOGUE, Class.RENDER]),
        size=st.sampled_from([4, 10, 20, 30]),
        model=st.sampled_from(["", "a", "b"]),
        tenant=st.sampled_from(TENANTS),
    )
    def submit_urgent_work(self, **wanted: Any) -> None:
        self.submit(**wanted)

    def submit(
        self,
        work: Class,
        size: int,
        tenant: str,
        model: str = "",
        pin: str = "auto",
        capability: tuple[int, int] = (0, 0),
        preemptible: bool = False,
    ) -> None:
        self.count += 1
        request = Request(
            f"job/{self.count}",
            work,
            size,
            tenant,
            model,
            preemptible and work > Class.DIALOGUE,
            pin,
            capability,
        )
        try:
            self.scheduler.submit(request)
        except (NeverFits, NoSuchDevice):
            quota = RULES.quota(tenant).bytes
            places = self.eligible(request)
            assert (quota is not None and size > quota) or all(
                place.device.total_bytes < size for place in places
            )
        except QueueFull:
            assert len(self.scheduler.waiting) >= RULES.queue
        else:
            self.admitted.add(request.id)

    @rule()
    def submit_again(self) -> None:
        for request in self.scheduler.waiting[:1]:
            try:
                self.scheduler.submit(request)
            except AlreadyWaiting:
                return
            raise AssertionError("one id waits twice")

    @rule(pick=st.integers(0, 30))
    def finish(self, pick: int) -> None:
        if lease := self.pick(pick, *RUNNING):
            if lease.busy:
                self.done.add(lease.request.id)
            assert self.scheduler.release(lease)
            assert not self.scheduler.release(lease), "released twice"

    @rule(pick=st.integers(0, 30))
    def checkpoint(self, pick: int) -> None:
        lease = self.pick(pick, LeaseState.DRAINING)
        if lease is not None:
            self.scheduler.release(lease, again=lease.busy)

    @rule(pick=st.integers(0, 30))
    def rest(self, pick: int) -> None:
        if lease := self.pick(pick, LeaseState.ACTIVE):
            self.done.add(lease.request.id)
            assert self.scheduler.rest(lease)

    @rule(pick=st.integers(0, 30))
    def resume(self, pick: int) -> None:
        if lease := self.pick(pick, LeaseState.IDLE):
            allowed = self.is_within_quota(lease.request)
            resumed = self.scheduler.resume(lease)
            assert (resumed is not None) == allowed
            if resumed is None:
                return
            self.tokens.append(resumed.token)
            self.done.discard(resumed.request.id)
            assert not self.scheduler.rest(lease), "the older token still counts"

    @rule(pick=st.integers(0, 30))
    def withdraw(self, pick: int) -> None:
        if waiting := self.scheduler.waiting:
            identifier = waiting[pick % len(waiting)].id
            self.scheduler.withdraw(identifier)
            self.done.add(identifier)

    @rule(seconds=st.sampled_from([0.5, 11, 21, 130]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.observe()

    @precondition(lambda self: self.gpus)
    @rule(pick=st.integers(0, 30), foreign=st.sampled_from([0, 5, 30]))
    def stranger(self, pick: int, foreign: int) -> None:
        self.gpus[pick % len(self.gpus)].foreign = foreign
        self.observe()

    @precondition(lambda self: self.gpus)
    @rule(pick=st.integers(0, 30), state=st.sampled_from(["well", "well", "broken", "gone"]))
    def fault(self, pick: int, state: str) -> None:
        for gpu in self.gpus:
            gpu.broken, gpu.there = False, True
        self.gpus[pick % len(self.gpus)].broken = state == "broken"
        self.gpus[pick % len(self.gpus)].there = state != "gone"
        self.observe()

    @precondition(lambda self: self.gpus)
    @rule(pick=st.integers(0, 30))
    def drain(self, pick: int) -> None:
        """One at a time is drained, or none."""
        for device, place in self.scheduler.ledger.places.items():
            if place.cordoned:
                self.scheduler.undrain(device)
                return
        device = self.gpus[pick % len(self.gpus)].device.id
        if device in self.scheduler.ledger.places:
            self.scheduler.drain(device)

    # What must hold.

    @invariant()
    def sums_are_right(self) -> None:
        ledger = self.scheduler.ledger
        for place in ledger.places.values():
            leases = list(place.leases.values())
            assert 0 <= place.reserved <= place.device.total_bytes
            assert place.reserved == sum(lease.bytes for lease in leases)
            assert place.idle == sum(lease.bytes for lease in leases if lease.state is LeaseState.IDLE)
            assert all(ledger.leases[lease.token] is lease for lease in leases)
        assert sum(len(place.leases) for place in ledger.places.values()) == len(ledger.leases)

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        waiting = [request.id for request in self.scheduler.waiting]
        running = [
            lease.request.id
            for lease in self.scheduler.ledger.leases.values()
            if lease.state in RUNNING and lease.busy
        ]
        assert len(set(waiting)) == len(waiting)
        assert len(set(running)) == len(running)
        assert not set(waiting) & set(running)
        assert set(waiting) | set(running) == self.admitted - self.done

    @invariant()
    def nothing_works_on_a_sick_device(self) -> None:
        for place in self.scheduler.ledger.places.values():
            if place.device.problem or place.cordoned:
                states = {lease.state for lease in place.leases.values()}
                assert not states & {LeaseState.ACTIVE, LeaseState.IDLE}
                assert not place.earmarks

    @invariant()
    def tokens_grow(self) -> None:
        assert self.tokens == sorted(set(self.tokens))

    @invariant()
    def quotas_hold(self) -> None:
        held = [
            lease
            for lease in self.scheduler.ledger.leases.values()
            if lease.request.tenant == "small" and lease.state in RUNNING and lease.busy
        ]
        assert sum(lease.bytes for lease in held) <= 30
        assert len(held) <= 2

    @invariant()
    def whoever_is_asked_to_leave_hears_it(self) -> None:
        draining = [
            lease for lease in self.scheduler.ledger.leases.values() if lease.state is LeaseState.DRAINING
        ]
        assert {lease.token for lease in draining} <= {lease.token for lease in self.wanted_back}
        for lease in draining:
            if lease.reclaim is Reclaim.PREEMPTED:
                assert lease.request.preemptible and lease.request.work > Class.DIALOGUE

    @invariant()
    def no_memory_lies_idle_that_somebody_waits_for(self) -> None:
        """Work-conserving, also after eviction; and nobody waits for what he may preempt."""
        for waiting in self.scheduler._waiting.all.values():
            request = waiting.request
            if waiting.earmark is None and self.is_within_quota(request):
                for place in self.eligible(request):
                    if place.is_open:
                        assert self.could_have(place, request) < request.bytes, self.scheduler.explain(
                            request.id
                        )
            if waiting.earmark is not None and self.is_within_quota(request):
                place = self.scheduler.ledger.places[waiting.earmark.device]
                kept = place.kept(waiting.earmark.rank, request.id)
                assert place.room - kept < request.bytes, "there is room and it was not given"

    @invariant()
    def every_wait_is_explained(self) -> None:
        for request in self.scheduler.waiting:
            text = self.scheduler.explain(request.id)
            assert text.startswith("waiting: needs ") and "\n" not in text

    def could_have(self, place: Place, request: Request) -> int:
        """What a request could have of a place by the rules, counted anew from the leases."""
        free = place.device.total_bytes - place.foreign
        for lease in place.leases.values():
            evictable = lease.state is LeaseState.IDLE and (
                lease.request.work >= request.work or self.now - lease.used >= RULES.keep_warm
            )
            preemptible = (
                lease.state is LeaseState.ACTIVE
                and lease.request.preemptible
                and lease.request.work > request.work
                and (
                    self.now - lease.since >= RULES.minimum_run
                    or (request.work is Class.DIALOGUE and not lease.protected)
                )
            )
            leaving = lease.state in (LeaseState.DRAINING, LeaseState.LEAVING)
            free -= 0 if evictable or preemptible or leaving else lease.bytes
        marks = [mark for mark in place.earmarks.values() if mark.rank <= request.work]
        return free - sum(mark.request.bytes for mark in marks)

    def is_within_quota(self, request: Request) -> bool:
        if request.tenant != "small":
            return True
        held = [
            lease
            for lease in self.scheduler.ledger.leases.values()
            if lease.request.tenant == "small" and lease.state in RUNNING and lease.busy
        ]
        return len(held) < 2 and sum(lease.bytes for lease in held) + request.bytes <= 30

    def eligible(self, request: Request) -> list[Place]:
        places = list(self.scheduler.ledger.places.values())
        gpus = [place for place in places if not place.device.is_cpu]
        if request.pin == "auto":
            chosen = gpus or places
        elif request.pin == "cpu":
            chosen = [place for place in places if place.device.is_cpu]
        else:
            called = {"0": "GPU-0", "GPU-1": "GPU-1"}.get(request.pin, "")
            chosen = [place for place in gpus if not called or place.device.id == called]
        return [place for place in chosen if place.device.compute_capability >= request.compute_capability]

    def pick(self, number: int, *states: LeaseState) -> Lease | None:
        found = [lease for lease in self.scheduler.ledger.leases.values() if lease.state in states]
        return found[number % len(found)] if found else None


SchedulerMachine.TestCase.settings = settings(
    max_examples=300, stateful_step_count=60, deadline=None, report_multiple_bugs=False
)
TestScheduler = SchedulerMachine.TestCase
