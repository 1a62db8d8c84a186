"""Replays a recorded day of work on the real scheduler, on a clock of its own: how long was waited for?

A trace is CSV with a line per job: `arrival,work,tenant,gib,seconds,checkpoint,model`. Times are seconds;
`checkpoint` is how long the job takes to stop for more urgent work, empty where it cannot; a job with a
`model` leaves its host idle when it ends, ready for the next of that model.
"""

from __future__ import annotations

import csv
import heapq
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gpu_scheduler.devices import Device
from gpu_scheduler.requests import GIB, Class, Lease, LeaseState, Request, Rules
from gpu_scheduler.scheduler import Scheduler

_LOOK_SECONDS: Final = 1.0
_LEAVE_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Job:
    """A line of a trace.

    Attributes:
        arrival: When it comes, seconds.
        work: Its class.
        tenant: Who it is for.
        bytes: Memory that it needs.
        seconds: How long it runs, interruptions not counted.
        checkpoint: Seconds to its next checkpoint when it is asked to stop; None: it cannot stop.
        model: What it loads, or empty.
    """

    arrival: float
    work: Class
    tenant: str
    bytes: int
    seconds: float
    checkpoint: float | None
    model: str


@dataclass
class Outcome:
    """What became of a trace.

    Attributes:
        waits: Seconds from its arrival to its first start, of each job, by class.
        interruptions: How often a job was stopped for more urgent work.
        evictions: How often an idle host was stopped.
        seconds: Until the last job had ended.
        utilisation: Memory that worked, as a share of all memory, over that time.
        tenants: Byte-seconds that each tenant worked with.
        unfinished: Jobs that never ended; none, unless something is wrong.
    """

    waits: dict[Class, list[float]] = field(default_factory=lambda: defaultdict(list))
    interruptions: int = 0
    evictions: int = 0
    seconds: float = 0.0
    utilisation: float = 0.0
    tenants: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    unfinished: list[str] = field(default_factory=list)

    def fairness(self) -> float:
        """Jain's index of what tenants worked with: 1 when all had the same, 1/n when one had all.

        R. Jain, D. Chiu, W. Hawe, "A quantitative measure of fairness", DEC TR-301, 1984.
        """
        shares = list(self.tenants.values())
        squares = sum(share * share for share in shares)
        return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def read_trace(path: Path) -> list[Job]:
    """Reads a trace.

    Raises:
        ValueError: A line has something that is no number, or a class that is none.
        KeyError: The file lacks a column, or names an unknown class.
    """
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Job(
                arrival=float(row["arrival"]),
                work=Class[row["work"].upper()],
                tenant=row["tenant"],
                bytes=int(float(row["gib"]) * GIB),
                seconds=float(row["seconds"]),
                checkpoint=float(row["checkpoint"]) if row["checkpoint"] else None,
                model=row["model"],
            )
            for row in csv.DictReader(file)
        ]


def replay(jobs: Sequence[Job], gpus: Iterable[int], rules: Rules | None = None) -> Outcome:
    """Replays a trace.

    Args:
        jobs: The jobs.
        gpus: Memory of each GPU in bytes.
        rules: The rules to try.
    """
    return _Replay(jobs, gpus, rules or Rules()).run()


class _Replay:
    def __init__(self, jobs: Sequence[Job], gpus: Iterable[int], rules: Rules) -> None:
        self._jobs = {f"jobs/{number}": job for number, job in enumerate(jobs)}
        self._left = {name: job.seconds for name, job in self._jobs.items()}
        self._started: dict[str, float] = {}
        self._devices = [Device(f"GPU-{n}", n, "a GPU", size, size) for n, size in enumerate(gpus)]
        self._now = 0.0
        self._outcome = Outcome()
        self._number = itertools.count()
        # Moment, number for a strict order, what happens, to whom.
        self._agenda: list[tuple[float, int, str, str | Lease]] = []
        self._scheduler = Scheduler(rules, self._granted, self._wanted_back, lambda: self._now)

    def run(self) -> Outcome:
        for name, job in self._jobs.items():
            self._plan(job.arrival, "arrive", name)
        self._scheduler.observe(self._devices)
        looked = 0.0
        while self._agenda:
            moment, _, event, subject = heapq.heappop(self._agenda)
            while looked + _LOOK_SECONDS <= moment:
                looked += _LOOK_SECONDS
                self._now = looked
                self._scheduler.observe(self._devices)
            self._now = moment
            self._happen(event, subject)
            if not self._agenda and self._scheduler.waiting:
                # Time alone may help those who wait: patience, warm hosts.
                self._plan(moment + _LOOK_SECONDS, "look", "")
        outcome = self._outcome
        outcome.seconds = self._now
        memory = sum(device.total_bytes for device in self._devices)
        outcome.utilisation = sum(outcome.tenants.values()) / (memory * self._now) if self._now else 0.0
        outcome.unfinished = [name for name, left in self._left.items() if left > 0]
        return outcome

    def _plan(self, moment: float, event: str, subject: str | Lease) -> None:
        heapq.heappush(self._agenda, (moment, next(self._number), event, subject))

    def _happen(self, event: str, subject: str | Lease) -> None:
        if isinstance(subject, str):
            if event == "arrive":
                job = self._jobs[subject]
                preemptible = job.checkpoint is not None
                self._scheduler.submit(
                    Request(subject, job.work, job.bytes, job.tenant, job.model, preemptible)
                )
        elif event == "end" and subject.state is LeaseState.ACTIVE:
            self._worked(subject)
            if not (subject.request.model and self._scheduler.rest(subject)):
                self._scheduler.release(subject)
        elif event == "leave":
            if subject.busy:
                self._worked(subject)
            self._scheduler.release(subject, again=subject.busy and self._left[subject.request.id] > 0)

    def _granted(self, lease: Lease) -> None:
        name = lease.request.id
        if name not in self._started:
            job = self._jobs[name]
            self._outcome.waits[job.work].append(self._now - job.arrival)
        self._started[name] = self._now
        self._plan(self._now + self._left[name], "end", lease)

    def _wanted_back(self, lease: Lease) -> None:
        if lease.busy:
            self._outcome.interruptions += 1
            self._plan(self._now + (self._jobs[lease.request.id].checkpoint or 0.0), "leave", lease)
        else:
            self._outcome.evictions += 1
            self._plan(self._now + _LEAVE_SECONDS, "leave", lease)

    def _worked(self, lease: Lease) -> None:
        """Counts what a job has done since it was started."""
        name = lease.request.id
        spent = min(self._left[name], self._now - self._started[name])
        # Moments are sums of seconds: what is left by rounding is nothing.
        self._left[name] = left if (left := self._left[name] - spent) > 1e-6 else 0.0
        self._outcome.tenants[lease.request.tenant] += spent * lease.bytes
