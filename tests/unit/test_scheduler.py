"""The scheduler's decisions one by one: who gets what, who leaves for whom, and how it is explained."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from gpu_scheduler import (
    GIB,
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
from gpu_scheduler.simulation import read_trace, replay

TRACE = Path(__file__).parents[1] / "data" / "scheduler_trace.csv"


class Machine:
    """A scheduler with GPUs of some sizes in GiB, a clock, and what holders heard."""

    def __init__(self, *sizes: int, rules: Rules | None = None) -> None:
        self.now = 1000.0
        self.granted: dict[str, Lease] = {}
        self.wanted: list[Lease] = []
        self.scheduler = Scheduler(rules or Rules(), self._grant, self.wanted.append, lambda: self.now)
        self.devices = [
            Device(f"GPU-{n}", n, f"Fake {size}", size * GIB, size * GIB, processes=())
            for n, size in enumerate(sizes)
        ]
        self.scheduler.observe(self.devices)

    def _grant(self, lease: Lease) -> None:
        self.granted[lease.request.id] = lease

    def ask(
        self,
        name: str,
        work: Class,
        gib: float,
        *,
        tenant: str = "",
        model: str = "",
        preemptible: bool = False,
        pin: str = "auto",
    ) -> Lease | None:
        request = Request(name, work, int(gib * GIB), tenant, model, preemptible, pin)
        self.scheduler.submit(request)
        return self.granted.get(name)

    def train(self, name: str, gib: float) -> Lease | None:
        return self.ask(name, Class.TRAINING, gib, preemptible=True)

    def after(self, seconds: float) -> None:
        self.now += seconds
        self.scheduler.observe(self.devices)


def held(lease: Lease | None) -> Lease:
    assert lease is not None
    return lease


def test_the_device_that_is_filled_best() -> None:
    machine = Machine(80, 24, 48)
    assert held(machine.train("a", 20)).device == "GPU-1"
    assert held(machine.train("b", 20)).device == "GPU-2"
    assert held(machine.train("c", 30)).device == "GPU-0"
    # What is left over is used before something that is empty.
    assert held(machine.train("d", 4)).device == "GPU-1"


def test_a_warm_host_of_the_same_model_comes_first() -> None:
    machine = Machine(24, 24)
    first = held(machine.ask("hosts/a", Class.DIALOGUE, 10, model="voice"))
    machine.ask("hosts/b", Class.DIALOGUE, 20)
    assert machine.scheduler.rest(first)
    second = held(machine.ask("hosts/c", Class.DIALOGUE, 8, model="voice"))
    assert (second.device, second.bytes) == (first.device, 10 * GIB)
    assert second.token > first.token
    # Whoever acts under the older token is too late.
    assert not machine.scheduler.release(first)
    assert machine.scheduler.release(second)


def test_the_idle_host_that_was_used_least_recently_leaves() -> None:
    machine = Machine(24, 24)
    for name in ("hosts/a", "hosts/b"):
        machine.ask(name, Class.DIALOGUE, 20, model=name)
    for name in ("hosts/b", "hosts/a"):
        machine.after(1)
        machine.scheduler.rest(machine.granted[name])
    assert machine.ask("hosts/c", Class.DIALOGUE, 10) is None
    (leaving,) = machine.wanted
    assert (leaving.request.id, leaving.reclaim) == ("hosts/b", Reclaim.EVICTED)
    assert machine.scheduler.explain("hosts/c") == (
        "waiting: needs 10.0 GiB, GPU 1 has 4.0 GiB free, stopping the idle hosts/b (dialogue)"
    )
    machine.scheduler.release(leaving)
    assert machine.granted["hosts/c"].device == "GPU-1"


def test_an_idle_host_is_kept_warm_against_lower_classes_for_a_while() -> None:
    machine = Machine(24, rules=Rules(keep_warm=300))
    machine.scheduler.rest(held(machine.ask("hosts/a", Class.DIALOGUE, 20)))
    machine.after(299)
    machine.train("operations/1", 10)
    assert machine.wanted == []
    machine.after(2)
    assert [lease.request.id for lease in machine.wanted] == ["hosts/a"]


def test_the_cheapest_work_makes_room_and_nobody_in_vain() -> None:
    machine = Machine(48)
    machine.ask("evaluation", Class.EVALUATION, 10, preemptible=True)
    for name, gib in (("old", 10), ("small", 4), ("new", 12)):
        machine.after(1)
        machine.train(name, gib)
    machine.ask("fixed", Class.TRAINING, 12)
    machine.after(100)
    assert machine.ask("hosts/a", Class.DIALOGUE, 12) is None
    # The newest alone is enough.
    assert [lease.request.id for lease in machine.wanted] == ["new"]
    assert machine.scheduler.explain("hosts/a") == (
        "waiting: needs 12.0 GiB, GPU 0 has 0.0 GiB free, preempting new (training) at its next checkpoint"
    )
    assert machine.scheduler.explain("new").startswith(
        "stopping: has 12.0 GiB on GPU 0, and more urgent work"
    )
    # Its memory is nobody's until it has left; then it waits with its old age.
    assert machine.scheduler.ledger.places["GPU-0"].reserved == 48 * GIB
    machine.scheduler.release(machine.wanted[0], again=True)
    assert machine.granted["hosts/a"].state is LeaseState.ACTIVE
    assert [request.id for request in machine.scheduler.waiting] == ["new"]
    machine.scheduler.release(machine.granted["hosts/a"])
    assert machine.granted["new"].asked == 1003.0


def test_dialogue_does_not_wait_for_the_minimum_run_others_do() -> None:
    machine = Machine(24, rules=Rules(minimum_run=60))
    machine.train("operations/1", 20)
    machine.ask("render", Class.RENDER, 10)
    assert machine.wanted == []
    assert machine.scheduler.explain("render") == (
        "waiting: needs 10.0 GiB, GPU 0 has 4.0 GiB free, "
        "operations/1 has just begun and may be preempted in 60 s"
    )
    machine.ask("hosts/a", Class.DIALOGUE, 10)
    assert [lease.request.id for lease in machine.wanted] == ["operations/1"]


def test_memory_of_strangers_is_subtracted_and_that_of_holders_is_not_counted_twice() -> None:
    machine = Machine(24)
    lease = held(machine.train("operations/1", 10))
    machine.scheduler.started(lease, [70])
    processes = (DeviceProcess(70, 9 * GIB), DeviceProcess(1, 8 * GIB))
    machine.devices = [Device("GPU-0", 0, "Fake 24", 24 * GIB, 7 * GIB, processes=processes)]
    machine.after(1)
    assert machine.scheduler.ledger.places["GPU-0"].foreign == 8 * GIB
    assert machine.ask("render", Class.RENDER, 7) is None
    assert machine.scheduler.explain("render").startswith(
        "waiting: needs 7.0 GiB, GPU 0 has 6.0 GiB free (8.0 GiB is used by other programs)"
    )
    # In a container the driver shows other ids: whoever has begun is taken to use what he holds.
    processes = (DeviceProcess(9070, 9 * GIB), DeviceProcess(1, 8 * GIB))
    machine.devices = [Device("GPU-0", 0, "Fake 24", 24 * GIB, 7 * GIB, processes=processes)]
    machine.after(1)
    assert machine.scheduler.ledger.places["GPU-0"].foreign == 7 * GIB


def test_memory_is_free_when_the_driver_says_so() -> None:
    machine = Machine(24)
    lease = held(machine.train("operations/1", 20))
    machine.scheduler.started(lease, [70, 71])
    free, there = machine.devices, DeviceProcess(71, 5 * GIB)
    machine.scheduler.release(lease)
    machine.devices = [Device("GPU-0", 0, "Fake 24", 24 * GIB, 19 * GIB, processes=(there,))]
    machine.after(1)
    assert machine.train("operations/2", 20) is None
    assert "until the driver has freed the memory of operations/1" in machine.scheduler.explain(
        "operations/2"
    )
    machine.devices = free
    machine.after(1)
    assert machine.granted["operations/2"].device == "GPU-0"


def test_what_can_never_be_is_refused_at_once() -> None:
    machine = Machine(24, 48, rules=Rules(queue=1, quotas={"ada": Quota(bytes=10 * GIB)}))
    with pytest.raises(
        NeverFits, match=r"needs 50\.0 GiB, but GPU 1 \(Fake 48\) has 48\.0 GiB in all, the most"
    ):
        machine.train("a", 50)
    with pytest.raises(NeverFits, match=r"needs 30\.0 GiB, but GPU 0 \(Fake 24\) has 24\.0 GiB in all\."):
        machine.ask("a", Class.RENDER, 30, pin="0")
    with pytest.raises(NeverFits, match=r"its tenant may hold 10\.0 GiB at a time"):
        machine.ask("a", Class.RENDER, 11, tenant="ada")
    with pytest.raises(NoSuchDevice, match=r"no device 'H200'; there is GPU 0 \(Fake 24\), GPU 1"):
        machine.ask("a", Class.RENDER, 1, pin="H200")
    machine.ask("b", Class.TRAINING, 48)
    machine.ask("c", Class.TRAINING, 48)
    with pytest.raises(QueueFull, match="1 requests wait"):
        machine.ask("d", Class.TRAINING, 48)


@pytest.mark.parametrize("pin", ["1", "GPU-1", "gpu-1", "fake 48"])
def test_pinning(pin: str) -> None:
    assert held(Machine(24, 48).ask("a", Class.RENDER, 2, pin=pin)).device == "GPU-1"


def test_tenants_share_by_their_weights() -> None:
    weights = {"ada": Quota(weight=2), "bo": Quota(), "cy": Quota()}
    machine = Machine(80, rules=Rules(quotas=weights))
    machine.ask("first", Class.RENDER, 80, tenant="zoe")
    for number in range(10):
        for tenant in ("bo", "cy", "ada"):
            machine.ask(f"{tenant}/{number}", Class.RENDER, 5, tenant=tenant)
    machine.scheduler.release(machine.granted.pop("first"))
    assert Counter(name.partition("/")[0] for name in machine.granted) == {"ada": 8, "bo": 4, "cy": 4}


def test_nobody_starves_behind_small_jobs_that_never_stop_coming() -> None:
    """The large one gets its place when its patience is over and what ran then has ended."""
    machine = Machine(24, rules=Rules(patience=dict.fromkeys(Class, 100.0)))
    machine.ask("small/0", Class.RENDER, 10)
    machine.ask("small/1", Class.RENDER, 10)
    machine.train("large", 24)
    ends = {"small/0": 1010.0, "small/1": 1020.0}
    for number in range(2, 60):
        machine.ask(f"small/{number}", Class.RENDER, 10)
        machine.after(5)
        for name, end in list(ends.items()):
            if machine.now >= end:
                machine.scheduler.release(machine.granted[name])
                del ends[name]
        for name in machine.granted.keys() - ends.keys():
            if name.startswith("small") and machine.granted[name].since > machine.now - 1:
                ends[name] = machine.now + 20
        if "large" in machine.granted:
            break
    assert machine.granted["large"].since <= 1000 + 100 + 20 + 5
    # It had lost its patience: not even a dialogue sends it away at once.
    machine.ask("hosts/a", Class.DIALOGUE, 10)
    assert machine.wanted == []
    machine.after(61)
    assert [lease.request.id for lease in machine.wanted] == ["large"]


def test_a_clock_that_stands_still_or_leaps_loses_nothing() -> None:
    machine = Machine(24)
    machine.train("a", 20)
    machine.train("b", 20)
    for seconds in (0, 1e9, 0):
        machine.after(seconds)
    assert machine.granted.keys() == {"a"}
    machine.scheduler.release(machine.granted["a"])
    assert machine.granted["b"].device == "GPU-0"


def test_a_gpu_that_is_lost_and_comes_back() -> None:
    machine = Machine(24)
    lease = held(machine.train("operations/1", 20))
    well = machine.devices
    machine.devices = []
    machine.after(1)
    assert (lease.state, lease.reclaim) == (LeaseState.DRAINING, Reclaim.LOST)
    machine.scheduler.release(lease, again=True)
    assert machine.scheduler.explain("operations/1") == "waiting: needs 20.0 GiB, GPU 0 is gone"
    machine.devices = well
    machine.after(1)
    assert machine.granted["operations/1"].token > lease.token


def test_a_recorded_day() -> None:
    outcome = replay(read_trace(TRACE), [24 * GIB, 48 * GIB])
    assert outcome.unfinished == []
    assert sum(len(waits) for waits in outcome.waits.values()) == len(read_trace(TRACE))
    means = {work: sum(waits) / len(waits) for work, waits in outcome.waits.items()}
    assert means[Class.DIALOGUE] < 5 < means[Class.RENDER] < means[Class.TRAINING]
    assert outcome.interruptions > 0 and outcome.evictions > 0
    assert 0.5 < outcome.utilisation < 1
    assert outcome.fairness() > 0.9
    # With nobody in their way all start at once.
    alone = replay(read_trace(TRACE), [800 * GIB])
    assert max(max(waits) for waits in alone.waits.values()) == 0
