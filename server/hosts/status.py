"""How a host is doing, for operators."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class HostState(Enum):
    """States of a host, named as in the public protocol (`STATE_READY` is `READY`)."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    DRAINING = "draining"
    BACKING_OFF = "backing off"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class HostStatus:
    """A host at one moment.

    Attributes:
        name: Name of the host.
        state: What it is doing.
        capabilities: What it can do.
        pid: Its process on its node; None when it does not run.
        memory_bytes: Resident memory of its process and their children; 0 when it does not run.
        restart_count: How often it was started again.
        start_time: When the process said hello, in UTC; None when it does not run.
        problem: Why it is not ready, in one sentence; empty when it is.
        fix: The command or action that puts that right; may be empty.
        python_version: Of its process; empty when it does not run.
        models: What it serves.
        node: Id of the machine it runs on; empty for the server's own.
    """

    name: str
    state: HostState
    capabilities: tuple[str, ...]
    pid: int | None
    memory_bytes: int
    restart_count: int
    start_time: datetime | None
    problem: str
    fix: str
    python_version: str
    models: tuple[str, ...]
    node: str = ""
