"""What is asked of the scheduler and what it gives: requests, leases, the rules, and the refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Final

GIB: Final = 1 << 30


class Class(IntEnum):
    """How urgent work is; a smaller number goes first and may take the place of a greater one."""

    DIALOGUE = 0
    RENDER = 1
    EVALUATION = 2
    TRAINING = 3


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody wants to run something.

    Attributes:
        id: Who asks: the name of an operation or a host; nobody else may wait under it.
        work: How urgent it is.
        bytes: Memory that it needs on one device.
        tenant: Who it is done for.
        model: What it loads; a host that has it loaded already and does nothing is used again. Empty: nothing
            that another request could use.
        preemptible: Whether it can stop at a checkpoint and go on later.
        pin: The device it must run on, see `gpu_scheduler.devices.choose`.
        compute_capability: The least it needs.
    """

    id: str
    work: Class
    bytes: int
    tenant: str = ""
    model: str = ""
    preemptible: bool = False
    pin: str = "auto"
    compute_capability: tuple[int, int] = (0, 0)

    @property
    def is_choosy(self) -> bool:
        """Whether some devices will not do, however much memory they have."""
        return self.pin not in {"auto", ""} or self.compute_capability > (0, 0)


class LeaseState(Enum):
    """What the holder of a lease does."""

    ACTIVE = "active"
    """It works."""
    IDLE = "idle"
    """It has a model loaded and nothing to do: it may be asked to leave."""
    DRAINING = "draining"
    """It was asked to leave, and still has the memory."""
    LEAVING = "leaving"
    """It says that it has left; the driver has not confirmed it yet."""


class Reclaim(Enum):
    """Why a holder is asked to leave."""

    EVICTED = "another model needs its memory and it had nothing to do"
    PREEMPTED = "more urgent work needs its memory"
    LOST = "its device failed"
    DRAINED = "its device is being drained"


@dataclass(slots=True, eq=False)
class Lease:
    """The right to memory of a device.

    Attributes:
        token: Grows with every grant on this scheduler; whoever acts under an older one is too late.
        request: Who holds it.
        device: Id of the device.
        asked: When the request came, in the scheduler's time.
        since: When it was granted.
        used: When its holder became idle; when it was granted before that.
        protected: Whether it may stay for a while even when the most urgent work wants its memory.
        state: What the holder does.
        busy: Whether it works for its tenant, or did until it was asked to leave.
        pids: Processes of the holder, once it has any.
        reclaim: Why it was asked to leave.
    """

    token: int
    request: Request
    device: str
    asked: float
    since: float
    used: float
    protected: bool = False
    state: LeaseState = LeaseState.ACTIVE
    busy: bool = True
    pids: frozenset[int] = frozenset()
    reclaim: Reclaim | None = None

    @property
    def bytes(self) -> int:
        """The memory that is reserved for it."""
        return self.request.bytes


@dataclass(frozen=True, slots=True)
class Quota:
    """What a tenant may hold at a time, and how much of it is fair beside others.

    Attributes:
        bytes: Memory of all its leases together; None: no limit.
        leases: How many; None: no limit.
        weight: Its share against the shares of other tenants.
    """

    bytes: int | None = None
    leases: int | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Rules:
    """What the policy may do, in seconds of the scheduler's time.

    Attributes:
        minimum_run: How long work runs at least before a class above its own takes its place; DIALOGUE never
            waits for this, except for work that had lost its patience.
        keep_warm: How long an idle host is kept when a class below its own wants its memory.
        patience: After this wait a request goes before all others, by age, and a place is kept for it.
        quotas: By tenant.
        queue: How many requests may wait.
    """

    minimum_run: float = 60.0
    keep_warm: float = 300.0
    patience: Mapping[Class, float] = field(
        default_factory=lambda: {
            Class.DIALOGUE: 30.0,
            Class.RENDER: 300.0,
            Class.EVALUATION: 900.0,
            Class.TRAINING: 1800.0,
        }
    )
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    queue: int = 20_000

    def quota(self, tenant: str) -> Quota:
        """The quota of a tenant."""
        return self.quotas.get(tenant, _NO_QUOTA)


_NO_QUOTA: Final = Quota()


class SchedulingRefusal(Exception):  # noqa: N818 (reads as a statement)
    """A request cannot be accepted; the message is one sentence."""


class NeverFits(SchedulingRefusal):
    """No device of this machine, or no quota, is large enough: waiting would not help."""


class NoSuchDevice(SchedulingRefusal):
    """The request names a device that is not there."""


class QueueFull(SchedulingRefusal):
    """Too many requests wait already."""


class AlreadyWaiting(SchedulingRefusal):
    """Somebody waits or runs under this id already."""
