"""The audit log: one JSON line for each call, with who, what, which resource and how it ended.

It has no contents of requests, no secrets and no words of users. Files are rotated by size.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path
from typing import Any, Final

import structlog

from server.access.caller import Caller
from server.media.spool import disk_full_as_error

_FILE_BYTES: Final = 16 * 1024 * 1024
_FILES: Final = 8
_WAITING: Final = 10_000
_QUIET_SECONDS: Final = 60.0
_RESOURCE: Final = re.compile(r"[a-z]{1,20}/[a-z0-9][a-z0-9_-]{0,62}")
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("audit")


@dataclass(frozen=True, slots=True)
class EndedCall:
    """A call that has ended, as logs and metrics tell of it.

    Attributes:
        method: `/package.Service/Method`.
        request_id: Its id in all logs.
        caller: Who made it; None when that was not made out.
        resource: Name of what it was about, or empty.
        peer: Address of the caller.
        code: gRPC status.
        reason: Of the error, or empty.
        seconds: How long it took.
    """

    method: str
    request_id: str
    caller: Caller | None
    resource: str
    peer: str
    code: str
    reason: str
    seconds: float


Observer = Callable[[EndedCall], None]
"""Is told of every call; must not block."""


class AuditLog:
    """Writes the audit log, in a thread of its own.

    Args:
        path: The file; made when it is missing, for the user of the server only.
    """

    def __init__(self, path: Path) -> None:
        self._queue: queue.Queue[logging.LogRecord] = queue.Queue(_WAITING)
        self._handler = _Queue(self._queue)
        with disk_full_as_error():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = _File(path, maxBytes=_FILE_BYTES, backupCount=_FILES, encoding="utf-8", delay=True)
        self._listener = QueueListener(self._queue, file)
        self._file = file
        self._listener.start()

    def write(self, call: EndedCall) -> None:
        """Notes a call."""
        caller = call.caller
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": call.request_id,
            "tenant": None if caller is None else caller.tenant,
            "token": None if caller is None else caller.token,
            "peer": call.peer,
            "method": call.method,
            "resource": call.resource,
            "code": call.code,
            "reason": call.reason,
            "seconds": round(call.seconds, 3),
        }
        self._handler.handle(logging.makeLogRecord({"msg": json.dumps(line)}))

    def close(self) -> None:
        """Writes what waits, and ends."""
        self._listener.stop()
        self._file.close()


def resource_of(message: Any) -> str:
    """Name of the resource that a request is about; empty when it names none that could exist."""
    for path in ("name", "config.avatar", "metadata.avatar_id"):
        value = message
        for part in path.split("."):
            value = getattr(value, part, "")
        if isinstance(value, str) and value:
            name = f"avatars/{value}" if path.endswith("_id") else value
            return name if _RESOURCE.fullmatch(name) else ""
    return ""


class _File(RotatingFileHandler):
    """A file that only the user of the server may read, and that a full disk does not end."""

    _told = 0.0

    def _open(self) -> Any:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return os.fdopen(descriptor, "a", encoding=self.encoding)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        now = time.monotonic()
        if now - self._told >= _QUIET_SECONDS or not self._told:
            self._told = now
            _log.warning("audit_not_written", file=self.baseFilename)


class _Queue(QueueHandler):
    """Hands lines over; when the disk hangs for long, those that do not fit are lost and that is told."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        _log.warning("audit_line_lost")
