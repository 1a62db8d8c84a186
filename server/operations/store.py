"""What a store of operations keeps and promises, whichever database is behind it.

A lease has a token that grows with every claim. Whoever lost the lease, because it was killed or hung and
another took over, writes under an old token and changes nothing (fencing).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from gpu_scheduler import Class

State = Literal["pending", "running", "done"]


@dataclass(frozen=True, slots=True)
class OperationRecord:
    """An operation as it is stored; messages are serialised.

    Attributes:
        sequence: Grows with every operation that is accepted.
        id: Last segment of its name.
        owner: The tenant it belongs to, or empty.
        kind: What is done, such as `train`.
        target: Name of the resource it is done to, such as `avatars/ada`.
        priority: Its class.
        request: The request.
        request_id: The caller's id of the request, or empty.
        metadata: The progress.
        state: Whether it waits, runs or is done.
        cancelled: Whether somebody wants it cancelled.
        attempt: How often it was begun.
        stalls: How often in a row it was interrupted before it got any further.
        token: Of the latest lease.
        created, started, ended: When it was accepted, last begun and done, seconds since the epoch. For
            people to read; nothing is decided by them.
        error: A google.rpc.Status, when it failed.
        response: A google.protobuf.Any, when it succeeded.
    """

    sequence: int
    id: str
    owner: str
    kind: str
    target: str
    priority: int
    request: bytes
    request_id: str
    metadata: bytes
    state: State
    cancelled: bool
    attempt: int
    stalls: int
    token: int
    created: float
    started: float | None
    ended: float | None
    error: bytes | None
    response: bytes | None

    @property
    def name(self) -> str:
        """`operations/ID`."""
        return f"operations/{self.id}"


@dataclass(frozen=True, slots=True)
class LogLine:
    """Something worth knowing later about an operation.

    Attributes:
        time: When it was written, seconds since the epoch.
        text: One line.
    """

    time: float
    text: str


@dataclass(frozen=True, slots=True)
class Acceptance:
    """An operation to be accepted; the attributes are those of `OperationRecord`."""

    kind: str
    target: str
    request: bytes
    metadata: bytes
    request_id: str = ""
    owner: str = ""
    priority: int = Class.TRAINING


class OperationStore(Protocol):
    """Operations in a database. Its methods block; they may be called from any thread.

    Several servers may use one database. Every method raises `StoreUnavailable` while the database does not
    answer, and `DiskFull` when it has no room. Each may then be called again: ids and tokens see to it that
    nothing happens twice.
    """

    def accept(self, wanted: Acceptance) -> OperationRecord:
        """Accepts an operation; from now on it will be carried out.

        The same `request_id` of the same owner gives the operation that was accepted with it before.

        Raises:
            AvatarBusy: Another operation is under way on the same resource.
            RequestIdReused: The `request_id` came with a different request before.
        """

    def get(self, name: str) -> OperationRecord:
        """The operation of a name.

        Raises:
            OperationNotFound: There is none.
        """

    def by_request(self, kind: str, request_id: str, owner: str = "") -> OperationRecord | None:
        """The operation that was accepted for a request, or None."""

    def page(
        self, after: int, size: int, *, owner: str | None = None, done: bool | None = None
    ) -> Sequence[OperationRecord]:
        """Operations in the order in which they were accepted.

        Args:
            after: Only those with a greater `sequence`.
            size: Most of them.
            owner: Only those of this owner; None: of all.
            done: Only those that are, or are not, done; None: both.
        """

    def latest(self, target: str) -> OperationRecord | None:
        """The latest operation on a resource."""

    def claim(self, lease_seconds: float) -> OperationRecord | None:
        """Takes the most urgent operation that waits or whose holder is gone; None when there is none."""

    def renew(self, record: OperationRecord, lease_seconds: float, metadata: bytes | None) -> bool | None:
        """Extends the lease of an operation and stores its progress.

        Returns:
            Whether somebody wants it cancelled; None when the lease is lost.
        """

    def release(self, record: OperationRecord, delay_seconds: float = 0, *, stalls: int = 0) -> bool:
        """Lets an operation wait again, with so many stalls; False when the lease was lost."""

    def finish(
        self,
        record: OperationRecord,
        metadata: bytes,
        *,
        error: bytes | None = None,
        response: bytes | None = None,
    ) -> bool:
        """Ends an operation with an error or a response; False when the lease was lost."""

    def cancel(self, record: OperationRecord, error: bytes) -> None:
        """Cancels an operation: at once when it waits, else whoever carries it out is told with `renew`.

        Args:
            record: The operation.
            error: What it ends with when it waits.
        """

    def delete(self, record: OperationRecord) -> bool:
        """Forgets an operation that is done; False when it is not."""

    def forget(self, older_than_seconds: float, beyond: int) -> int:
        """Forgets operations that are done, but never the latest on a resource.

        Args:
            older_than_seconds: Those that ended longer ago than this.
            beyond: Those that are not among so many that ended last.

        Returns:
            How many were forgotten.
        """

    def log(self, record: OperationRecord, lines: Sequence[LogLine]) -> None:
        """Adds lines to the log of an operation; of very many the oldest are dropped."""

    def read_log(self, record: OperationRecord, lines: int) -> Sequence[LogLine]:
        """The last lines of the log of an operation, oldest first."""

    def close(self) -> None:
        """Closes the database."""
