"""How fast the scheduler decides, and how soon a dialogue gets the only GPU while a training holds it.

Usage:
    python -m benchmarks.scheduler [--decisions 20000] [--json]

The first figures are of `gpu_scheduler` alone at 1,000 GPUs and 10,000 jobs, with everything on: four
classes, fifty tenants, idle hosts that are evicted, trainings that are preempted, a queue that never empties.
A decision is one request that the policy judged: granted, given a place that others leave for it, or left to
wait. Every call of the scheduler is timed whole, however many decisions it makes. Times are of the processor,
so that what else runs on the machine does not count.

The last figure is of the server's own scheduling (`server.placement`, `server.operations.training_lease`).
The GPU and the training are simulated: it runs in steps of `STEP_SECONDS`, and when it is asked to leave it
ends its step, takes `SAVE_SECONDS` to keep its state (the bound of `benchmarks.resume`) and `EXIT_SECONDS` to
end its process. What is measured is the wait of the dialogue, from its request to its lease, beside the
interval at which the trainer keeps its state anyway.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from benchmarks._report import Figure, Figures, run
from gpu_scheduler import GIB, Class, Device, Lease, Request, Rules, Scheduler
from server.logging import configure_logging
from server.operations.training_lease import TrainingLeases
from server.placement import Need, Placement
from tests.doubles.gpus import FakeGpus
from tests.doubles.still_hosts import StillHosts

A = TypeVar("A")
T = TypeVar("T")

GPUS = 1_000
JOBS = 10_000
TENANTS = 50
MODELS = 40
WARMING = 3_000
CHECKPOINT_SECONDS = 20.0
STEP_SECONDS, SAVE_SECONDS, EXIT_SECONDS = 0.2, 0.5, 0.15
DIALOGUES = 8
SHARES = {Class.DIALOGUE: 0.3, Class.RENDER: 0.2, Class.EVALUATION: 0.15, Class.TRAINING: 0.35}


class Load:
    """Jobs that come, run and end at random, on a clock that is as fast as the scheduler."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.now = 0.0
        self.waiting = 0
        self.counts = {"granted": 0, "evicted or preempted": 0}
        self.spent: list[float] = []
        self._running: list[Lease] = []
        self._leaving: deque[Lease] = deque()
        self._number = 0
        self.scheduler = Scheduler(
            Rules(minimum_run=5.0, keep_warm=10.0), self._granted, self._reclaimed, lambda: self.now
        )
        sizes = [24 * GIB, 48 * GIB, 80 * GIB, 141 * GIB]
        self.scheduler.observe(
            Device(f"GPU-{number:04}", number, "a GPU", size, size)
            for number in range(GPUS)
            for size in [self._random.choice(sizes)]
        )

    def _granted(self, lease: Lease) -> None:
        self.counts["granted"] += 1
        self.waiting -= 1
        self._running.append(lease)

    def _reclaimed(self, lease: Lease) -> None:
        self.counts["evicted or preempted"] += 1
        self._leaving.append(lease)

    def submit(self) -> None:
        """A job comes."""
        chance, self._number = self._random, self._number + 1
        self.waiting += 1
        work = chance.choices(list(SHARES), list(SHARES.values()))[0]
        training = work is Class.TRAINING
        self._timed(
            self.scheduler.submit,
            Request(
                id=f"jobs/{self._number}",
                work=work,
                bytes=int(chance.uniform(8 if training else 1, 60 if training else 24) * GIB),
                tenant=f"tenant-{chance.randrange(TENANTS)}",
                model="" if training else f"model-{chance.randrange(MODELS)}",
                preemptible=training or work is Class.EVALUATION,
            ),
        )

    def refill(self) -> None:
        """Jobs come until as many wait as should."""
        while self.waiting < JOBS:
            self.submit()

    def end_one(self) -> None:
        """Somebody who was asked to leave leaves; else a job ends, half of them as idle hosts."""
        chance = self._random
        self.now += 0.01
        if self._leaving:
            lease = self._leaving.popleft()
            self.waiting += lease.busy
            self._timed(lambda lease: self.scheduler.release(lease, again=lease.busy), lease)
            return
        while self._running:
            position = chance.randrange(len(self._running))
            self._running[position], self._running[-1] = self._running[-1], self._running[position]
            lease = self._running.pop()
            rests = bool(lease.request.model) and chance.random() < 0.5
            if rests and self._timed(self.scheduler.rest, lease):
                return
            if self._timed(self.scheduler.release, lease):
                return

    def _timed(self, call: Callable[[A], T], argument: A) -> T:
        began = time.thread_time()
        result = call(argument)
        self.spent.append(time.thread_time() - began)
        return result


def decisions(wanted: int) -> Figures:
    """Decisions a second and how long a call takes, with the queue filled."""
    load = Load(seed=0)
    for _ in range(WARMING):
        load.refill()
        load.end_one()
    # What was decided while the machine filled is not the load that is asked about.
    load.spent.clear()
    load.counts = dict.fromkeys(load.counts, 0)
    before = load.scheduler.decisions
    gc.collect()
    began = time.process_time()
    while load.scheduler.decisions - before < wanted:
        load.end_one()
        load.refill()
    made = load.scheduler.decisions - before
    busy = sum(load.spent)
    spent = sorted(load.spent)
    note = f"{GPUS} GPUs, {JOBS} jobs waiting, {len(spent)} calls in {time.process_time() - began:.1f} s"
    return {
        "decisions": Figure(made / busy, "a second", 10_000, "at least", note),
        "call, 99th percentile": Figure(
            1e3 * spent[int(0.99 * len(spent))], "ms", 2, note="a call may decide often"
        ),
        "call, median": Figure(1e3 * spent[len(spent) // 2], "ms"),
        "call, worst": Figure(1e3 * spent[-1], "ms"),
        "share that was granted": Figure(100 * load.counts["granted"] / made, "%"),
        "evicted or preempted": Figure(load.counts["evicted or preempted"], "holders"),
    }


async def dialogue_waits() -> list[float]:
    """How long dialogues wait for the only GPU, each with a training on it that has just begun or goes on."""
    placement = Placement(FakeGpus(80))
    leases = TrainingLeases(
        placement, StillHosts(EXIT_SECONDS), "train", gpu_memory_mib=60_000, memory_mib=1000
    )
    working = asyncio.Event()

    async def train(device: str) -> None:
        working.set()
        try:
            await asyncio.sleep(3600)
        finally:
            working.clear()
            # It hears of it at the end of a step.
            await asyncio.sleep(STEP_SECONDS + SAVE_SECONDS)

    training = asyncio.ensure_future(leases.run("operations/1", "", lambda text: None, train))
    waits = []
    for number in range(DIALOGUES):
        await working.wait()
        began = time.perf_counter()
        held = await placement.acquire(Need(f"hosts/{number}", Class.DIALOGUE, 40 * GIB, GIB))
        waits.append(time.perf_counter() - began)
        placement.release(held)
    await working.wait()
    training.cancel()
    await asyncio.wait({training})
    await placement.close()
    return waits


def measure(arguments: argparse.Namespace) -> Figures:
    """All figures."""
    configure_logging(level=logging.CRITICAL)
    waits = asyncio.run(dialogue_waits())
    note = f"worst of {len(waits)}; the bound is the trainer's interval of checkpoints; training simulated"
    dialogue = Figure(max(waits), "s", CHECKPOINT_SECONDS, note=note)
    return {**decisions(arguments.decisions), "lease of a dialogue while a GPU trains": dialogue}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--decisions", type=int, default=20_000, help="how many to time")
    run("scheduler", measure, parser)
