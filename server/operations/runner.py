"""Carries out operations, one at a time: claims them, keeps their leases, tells their progress, ends them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from server.error_status import status_message
from server.errors import BlobsUnreachable, HostLost, InternalError, OperationCancelled, VisemeError
from server.operations.store import OperationRecord, OperationStore

Report = Callable[[Message], None]
"""Takes the progress so far; costs nothing."""
Work = Callable[[OperationRecord, Report], Awaitable[Message]]
"""Carries out an operation and returns its response.

It is cancelled when the operation is, when the server stops and when the lease is lost; it must be able to
go on later from what it had done.
"""

LEASE_SECONDS: Final = 20.0
_RENEW_SECONDS: Final = 0.5
_LOOK_SECONDS: Final = 2.0
_ATTEMPTS: Final = 5
_RETRY_SECONDS: Final = 3.0
_log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("operations")


class OperationRunner:
    """Carries out the operations of a store.

    Args:
        store: The operations.
        works: What to do for each kind.
        lease_seconds: How long an operation stays ours without a sign of life.
    """

    def __init__(
        self, store: OperationStore, works: Mapping[str, Work], lease_seconds: float = LEASE_SECONDS
    ) -> None:
        self._store = store
        self._works = works
        self._lease_seconds = lease_seconds
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to carry out operations, those of an earlier server among them."""
        self._task = asyncio.create_task(self._run(), name="operations")

    def wake(self) -> None:
        """Says that there is a new operation, or that one was cancelled."""
        self._woken.set()

    async def stop(self) -> None:
        """Stops; the operation that was under way waits for the next server."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            record = await asyncio.to_thread(self._store.claim, self._lease_seconds)
            if record is not None:
                await self._carry_out(record)
                continue
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                # Another server of this home may accept operations and die.
                await asyncio.wait_for(self._woken.wait(), _LOOK_SECONDS)

    async def _carry_out(self, record: OperationRecord) -> None:
        log = _log.bind(operation=record.name, kind=record.kind, target=record.target, attempt=record.attempt)
        log.info("operation_begun")
        progress = _Progress(record.metadata)
        working = asyncio.ensure_future(self._works[record.kind](record, progress.report))
        keeping = asyncio.create_task(self._keep(record, progress, working))
        try:
            response = await working
        except asyncio.CancelledError:
            await self._end_cancelled(record, progress, keeping)
            log.info("operation_interrupted")
            if _cancelled_from_outside():
                raise
        except (HostLost, BlobsUnreachable) as error:
            if record.attempt < _ATTEMPTS:
                log.warning("operation_lost_its_host", problem=error.message)
                await asyncio.to_thread(self._store.release, record, _RETRY_SECONDS)
            else:
                await self._fail(record, progress, error)
        except VisemeError as error:
            log.warning("operation_failed", reason=error.reason, problem=error.message)
            await self._fail(record, progress, error)
        except Exception:
            log.exception("operation_failed")
            await self._fail(record, progress, InternalError())
        else:
            packed = AnyMessage()
            packed.Pack(response)
            done = {"response": packed.SerializeToString()}
            await asyncio.to_thread(self._store.finish, record, progress.latest, **done)
            log.info("operation_done")
        finally:
            keeping.cancel()
            working.cancel()

    async def _keep(
        self, record: OperationRecord, progress: _Progress, working: asyncio.Future[Message]
    ) -> str:
        """Keeps the lease and stores the progress while the work is under way.

        Returns:
            Why the work was cancelled: `cancelled` or `lost`.
        """
        while True:
            metadata = progress.take()
            wanted = await asyncio.to_thread(self._store.renew, record, self._lease_seconds, metadata)
            if wanted is None or wanted:
                working.cancel()
                return "lost" if wanted is None else "cancelled"
            await asyncio.sleep(_RENEW_SECONDS)

    async def _end_cancelled(
        self, record: OperationRecord, progress: _Progress, keeping: asyncio.Task[str]
    ) -> None:
        why = keeping.result() if keeping.done() and not keeping.cancelled() else "stopping"
        if why == "cancelled":
            await self._fail(record, progress, OperationCancelled())
        elif why == "stopping":
            # In this thread: a task that is being cancelled may not wait.
            self._store.release(record)

    async def _fail(self, record: OperationRecord, progress: _Progress, error: VisemeError) -> None:
        status = status_message(error).SerializeToString()
        await asyncio.to_thread(self._store.finish, record, progress.latest, error=status)


class _Progress:
    """The latest progress of an operation, and whether it is stored already."""

    def __init__(self, metadata: bytes) -> None:
        self.latest = metadata
        self._fresh = False

    def report(self, metadata: Message) -> None:
        """Takes the progress so far."""
        self.latest = metadata.SerializeToString()
        self._fresh = True

    def take(self) -> bytes | None:
        """The progress, when it is not stored yet."""
        fresh, self._fresh = self._fresh, False
        return self.latest if fresh else None


def _cancelled_from_outside() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
