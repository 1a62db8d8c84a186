"""Operations in SQLite: accepted once, carried out under leases, never lost.

A lease has a token that grows with every claim. Whoever lost the lease, because it was killed or hung and
another took over, writes under an old token and changes nothing (fencing).
"""

from __future__ import annotations

import errno
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal

from server.errors import AvatarBusy, OperationNotFound
from server.media.spool import disk_full_as_error
from server.store.paths import parse_resource_name

State = Literal["pending", "running", "done"]

_SCHEMAS: Final = (Path(__file__).with_name("schema_1.sql"),)
_QUERY: Final = re.compile(r"^-- name: (\w+)\n(.*?);$", re.MULTILINE | re.DOTALL)
_QUERIES: Final[Mapping[str, str]] = dict(
    _QUERY.findall(Path(__file__).with_name("queries.sql").read_text(encoding="utf-8"))
)
_BUSY_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class OperationRecord:
    """An operation as it is stored. Times are seconds since the epoch; messages are serialised.

    Attributes:
        id: Last segment of its name.
        kind: What is done, such as `train`.
        target: Name of the resource it is done to, such as `avatars/ada`.
        request: The request.
        request_id: The caller's id of the request, or empty.
        metadata: The progress.
        state: Whether it waits, runs or is done.
        cancelled: Whether somebody wants it cancelled.
        attempt: How often it was begun.
        token: Of the latest lease.
        lease_until: When the lease ends.
        not_before: When it may be begun.
        created, started, ended: When it was accepted, last begun and done.
        error: A google.rpc.Status, when it failed.
        response: A google.protobuf.Any, when it succeeded.
    """

    id: str
    kind: str
    target: str
    request: bytes
    request_id: str
    metadata: bytes
    state: State
    cancelled: bool
    attempt: int
    token: int
    lease_until: float
    not_before: float
    created: float
    started: float | None
    ended: float | None
    error: bytes | None
    response: bytes | None

    @property
    def name(self) -> str:
        """`operations/ID`."""
        return f"operations/{self.id}"


class OperationStore:
    """The operations of one home. Its methods block; they may be called from any thread.

    Several servers may use one database.

    Args:
        path: The database; made when it is missing.
    """

    def __init__(self, path: Path) -> None:
        with disk_full_as_error():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        # An accepted operation outlives a power cut.
        self._connection.execute("PRAGMA synchronous = FULL")
        self._migrate()

    def close(self) -> None:
        """Closes the database."""
        with self._lock:
            self._connection.close()

    def accept(
        self, kind: str, target: str, request: bytes, metadata: bytes, request_id: str = ""
    ) -> OperationRecord:
        """Accepts an operation; from now on it will be carried out.

        Args:
            kind: What is to be done.
            target: Name of the resource it is done to.
            request: The request.
            metadata: The progress before it begins.
            request_id: The same id gives the operation that was accepted with it before.

        Raises:
            AvatarBusy: Another operation is under way on the same resource.
        """
        if request_id and (known := self.by_request(kind, request_id)):
            return known
        # Ids sort by age, so a page of operations continues where the one before it ended.
        identifier = f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(3)}"
        try:
            accepted = self._one(
                "insert",
                id=identifier,
                kind=kind,
                target=target,
                request=request,
                request_id=request_id,
                metadata=metadata,
                now=time.time(),
            )
        except sqlite3.IntegrityError:
            # Between the look and the insert somebody may have sent the same request.
            if request_id and (known := self.by_request(kind, request_id)):
                return known
            raise AvatarBusy(
                f"Another operation is under way on {target}.",
                fix=f"viseme avatars watch {target}",
                resource=target,
            ) from None
        assert accepted is not None  # noqa: S101 (an insert that did not fail gives its row)
        return accepted

    def get(self, name: str) -> OperationRecord:
        """The operation of a name.

        Raises:
            OperationNotFound: There is none.
        """
        found = self._one("by_id", id=parse_resource_name(name, "operations").id)
        if found is None:
            raise OperationNotFound(f"There is no operation {name}.", operation=name)
        return found

    def by_request(self, kind: str, request_id: str) -> OperationRecord | None:
        """The operation that was accepted for a request, or None."""
        return self._one("by_request", kind=kind, request_id=request_id)

    def list(self) -> Sequence[OperationRecord]:
        """All operations, oldest first."""
        return self._all("list")

    def latest(self, target: str) -> OperationRecord | None:
        """The latest operation on a resource."""
        return self._one("latest", target=target)

    def claim(self, lease_seconds: float) -> OperationRecord | None:
        """Takes the operation that has waited longest, or whose holder is gone; None when there is none."""
        now = time.time()
        return self._one("claim", now=now, until=now + lease_seconds)

    def renew(self, record: OperationRecord, lease_seconds: float, metadata: bytes | None) -> bool | None:
        """Extends the lease of an operation and stores its progress.

        Returns:
            Whether somebody wants it cancelled; None when the lease is lost.
        """
        values = {"id": record.id, "token": record.token, "metadata": metadata}
        row = self._row("renew", until=time.time() + lease_seconds, **values)
        return None if row is None else bool(row["cancelled"])

    def release(self, record: OperationRecord, delay_seconds: float = 0) -> bool:
        """Lets an operation wait again; False when the lease was lost."""
        not_before = time.time() + delay_seconds
        return self._row("release", id=record.id, token=record.token, not_before=not_before) is not None

    def finish(
        self,
        record: OperationRecord,
        metadata: bytes,
        *,
        error: bytes | None = None,
        response: bytes | None = None,
    ) -> bool:
        """Ends an operation with an error or a response; False when the lease was lost."""
        values = {"metadata": metadata, "error": error, "response": response}
        return self._row("finish", id=record.id, token=record.token, now=time.time(), **values) is not None

    def cancel(self, record: OperationRecord, error: bytes) -> None:
        """Cancels an operation: at once when it waits, else whoever carries it out is told with `renew`.

        Args:
            record: The operation.
            error: What it ends with when it waits.
        """
        if self._row("cancel_pending", id=record.id, now=time.time(), error=error) is None:
            self._row("cancel_running", id=record.id)

    def delete(self, record: OperationRecord) -> bool:
        """Forgets an operation that is done; False when it is not."""
        return self._row("delete", id=record.id) is not None

    def _migrate(self) -> None:
        for number, schema in enumerate(_SCHEMAS, 1):
            script = f"BEGIN IMMEDIATE;{schema.read_text(encoding='utf-8')}COMMIT;"
            try:
                if self._version() < number:
                    self._connection.executescript(script)
            except sqlite3.OperationalError:
                self._connection.execute("ROLLBACK")
                # Another server on this home may have been faster.
                if self._version() < number:
                    raise

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    def _one(self, query: str, **values: Any) -> OperationRecord | None:
        row = self._row(query, **values)
        return None if row is None else _record(row)

    def _row(self, query: str, **values: Any) -> sqlite3.Row | None:
        rows = self._rows(query, values)
        return rows[0] if rows else None

    def _all(self, query: str, **values: Any) -> Sequence[OperationRecord]:
        return [_record(row) for row in self._rows(query, values)]

    def _rows(self, query: str, values: Mapping[str, Any]) -> Sequence[sqlite3.Row]:
        with self._lock, _full_disk_as_error():
            return self._connection.execute(_QUERIES[query], values).fetchall()


@contextmanager
def _full_disk_as_error() -> Iterator[None]:
    """SQLite tells of a full disk in words of its own."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" not in str(error):
            raise
        with disk_full_as_error():
            raise OSError(errno.ENOSPC, "no space left") from error


def _record(row: sqlite3.Row) -> OperationRecord:
    values = {field.name: row[field.name] for field in fields(OperationRecord)}
    return OperationRecord(**{**values, "cancelled": bool(values["cancelled"])})
