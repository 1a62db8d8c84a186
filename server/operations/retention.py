"""Operations that are over are forgotten after a while."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import structlog

from server.operations.patience import answered
from server.operations.store import OperationStore

_PAUSE_SECONDS: Final = 3600.0
_DAY_SECONDS: Final = 86400.0
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("operations")


class Retention:
    """Forgets operations that are over, when the server starts and every hour.

    Args:
        store: The operations.
        keep_days: How long they are kept.
        keep_count: How many are kept at most. The latest of each avatar stays, whatever its age.
    """

    def __init__(self, store: OperationStore, keep_days: float, keep_count: int) -> None:
        self._store = store
        self._keep_seconds = keep_days * _DAY_SECONDS
        self._keep_count = keep_count
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins."""
        self._task = asyncio.create_task(self._run(), name="retention")

    async def stop(self) -> None:
        """Ends."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            forgotten = await answered(self._store.forget, self._keep_seconds, self._keep_count)
            if forgotten:
                _log.info("operations_forgotten", count=forgotten)
            await asyncio.sleep(_PAUSE_SECONDS)
