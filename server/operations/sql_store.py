"""What the stores of operations have in common: the meaning of their statements, not how those are run."""

from __future__ import annotations

import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

from server.errors import AvatarBusy, OperationNotFound, RequestIdReused
from server.operations.store import Acceptance, LogLine, OperationRecord
from server.store.paths import parse_resource_name

Statement = tuple[str, Mapping[str, Any]]
"""Name of a query and its values."""

_SQL: Final = Path(__file__).with_name("sql")
_QUERY: Final = re.compile(r"^-- name: (\w+)\n(.*?);$", re.MULTILINE | re.DOTALL)
_COLUMNS: Final = tuple(field.name for field in fields(OperationRecord))
_WANTED: Final = tuple(field.name for field in fields(Acceptance))
_LOG_LINES: Final = 500
"""How many lines of one operation are kept."""


def queries(dialect: str) -> Mapping[str, str]:
    """The queries of a dialect by name."""
    return dict(_QUERY.findall((_SQL / dialect / "queries.sql").read_text(encoding="utf-8")))


def schemas(dialect: str) -> Sequence[str]:
    """The scripts that make the database of a dialect; each brings it from one version to the next."""
    scripts = (_SQL / dialect).glob("schema_*.sql")
    ordered = sorted(scripts, key=lambda path: int(path.stem.rpartition("_")[2]))
    return [path.read_text(encoding="utf-8") for path in ordered]


class SqlStore(ABC):
    """An `OperationStore` over SQL; for the methods see there."""

    @abstractmethod
    def _read(self, query: str, values: Mapping[str, Any]) -> Sequence[Any]:
        """Runs a query that changes nothing; returns its rows."""

    @abstractmethod
    def _write(self, statements: Sequence[Statement]) -> Sequence[Any]:
        """Runs statements in one transaction, kept when this returns; returns the rows of the last."""

    def accept(self, wanted: Acceptance) -> OperationRecord:
        """Accepts an operation."""
        identifier = f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(3)}"
        values = {name: getattr(wanted, name) for name in _WANTED}
        if rows := self._change("insert", id=identifier, **{**values, "priority": int(wanted.priority)}):
            return _record(rows[0])
        known = self.by_request(wanted.kind, wanted.request_id, wanted.owner)
        if known is None:
            raise AvatarBusy(
                f"Another operation is under way on {wanted.target}.",
                fix=f"viseme avatars watch {wanted.target}",
                resource=wanted.target,
            )
        if (known.target, known.request) != (wanted.target, wanted.request):
            raise RequestIdReused(operation=known.name)
        return known

    def get(self, name: str) -> OperationRecord:
        """The operation of a name."""
        found = self._one("by_id", id=parse_resource_name(name, "operations").id)
        if found is None:
            raise OperationNotFound(f"There is no operation {name}.", operation=name)
        return found

    def by_request(self, kind: str, request_id: str, owner: str = "") -> OperationRecord | None:
        """The operation that was accepted for a request, or None."""
        return self._one("by_request", kind=kind, request_id=request_id, owner=owner)

    def page(
        self, after: int, size: int, *, owner: str | None = None, done: bool | None = None
    ) -> Sequence[OperationRecord]:
        """Operations in the order in which they were accepted."""
        values = {"after": after, "size": size, "owner": owner, "done": done}
        return [_record(row) for row in self._read("page", values)]

    def latest(self, target: str) -> OperationRecord | None:
        """The latest operation on a resource."""
        return self._one("latest", target=target)

    def claim(self, lease_seconds: float) -> OperationRecord | None:
        """Takes the most urgent operation that waits or whose holder is gone."""
        rows = self._change("claim", lease=lease_seconds)
        return _record(rows[0]) if rows else None

    def renew(self, record: OperationRecord, lease_seconds: float, metadata: bytes | None) -> bool | None:
        """Extends the lease of an operation and stores its progress."""
        values = {"id": record.id, "token": record.token, "metadata": metadata}
        rows = self._change("renew", lease=lease_seconds, **values)
        return bool(rows[0]["cancelled"]) if rows else None

    def release(self, record: OperationRecord, delay_seconds: float = 0, *, stalls: int = 0) -> bool:
        """Lets an operation wait again."""
        values = {"delay": delay_seconds, "stalls": stalls}
        return bool(self._change("release", id=record.id, token=record.token, **values))

    def finish(
        self,
        record: OperationRecord,
        metadata: bytes,
        *,
        error: bytes | None = None,
        response: bytes | None = None,
    ) -> bool:
        """Ends an operation with an error or a response."""
        values = {"metadata": metadata, "error": error, "response": response}
        return bool(self._change("finish", id=record.id, token=record.token, **values))

    def cancel(self, record: OperationRecord, error: bytes) -> None:
        """Cancels an operation."""
        self._change("cancel", id=record.id, error=error)

    def delete(self, record: OperationRecord) -> bool:
        """Forgets an operation that is done."""
        return bool(self._change("delete", id=record.id))

    def forget(self, older_than_seconds: float, beyond: int) -> int:
        """Forgets operations that are done, but never the latest on a resource."""
        return len(self._change("forget", older_than=older_than_seconds, beyond=beyond))

    def log(self, record: OperationRecord, lines: Sequence[LogLine]) -> None:
        """Adds lines to the log of an operation."""
        added: list[Statement] = [("add_line", {"id": record.id, **asdict(line)}) for line in lines]
        self._write([*added, ("drop_lines", {"id": record.id, "most": _LOG_LINES})])

    def read_log(self, record: OperationRecord, lines: int) -> Sequence[LogLine]:
        """The last lines of the log of an operation, oldest first."""
        return [
            LogLine(row["time"], row["text"])
            for row in self._read("lines", {"id": record.id, "count": lines})
        ]

    def _one(self, query: str, **values: Any) -> OperationRecord | None:
        rows = self._read(query, values)
        return _record(rows[0]) if rows else None

    def _change(self, query: str, **values: Any) -> Sequence[Any]:
        return self._write([(query, values)])


def _record(row: Any) -> OperationRecord:
    values = {name: row[name] for name in _COLUMNS}
    return OperationRecord(**{**values, "cancelled": bool(values["cancelled"])})
