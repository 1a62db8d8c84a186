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
from server.errors import InternalError, OperationCancelled, UnavailableError, VisemeError
from server.operations.clock import boot_seconds
from server.operations.journal import Journal
from server.operations.patience import AWAY, answered
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
_STALLS: Final = 5
_RETRY_SECONDS: Final = 3.0
# Work that is cancelled needs a moment to end, before others may begin.
_SAFE_SHARE: Final = 0.8
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
            self._woken.clear()
            record = await answered(self._store.claim, self._lease_seconds)
            if record is not None:
                await self._carry_out(record)
                continue
            with contextlib.suppress(TimeoutError):
                # Another server may accept operations and die.
                await asyncio.wait_for(self._woken.wait(), _LOOK_SECONDS)

    async def _carry_out(self, record: OperationRecord) -> None:
        log = _log.bind(operation=record.name, kind=record.kind, target=record.target, attempt=record.attempt)
        log.info("operation_begun")
        journal = Journal(record)
        journal.note("Begun." if record.attempt == 1 else f"Begun for the {record.attempt}. time.")
        working = asyncio.ensure_future(self._works[record.kind](record, journal.report))
        keeping = asyncio.create_task(self._keep(record, journal, working))
        try:
            response = await working
        except asyncio.CancelledError:
            await self._end_cancelled(record, journal, keeping)
            log.info("operation_interrupted")
            if _cancelled_from_outside():
                raise
        except UnavailableError as error:
            log.warning("operation_lost_its_host", reason=error.reason, problem=error.message)
            stalls = 0 if journal.advanced else record.stalls + 1
            if stalls < _STALLS:
                await self._release(record, journal, error, stalls)
            else:
                await self._fail(record, journal, error)
        except VisemeError as error:
            log.warning("operation_failed", reason=error.reason, problem=error.message)
            await self._fail(record, journal, error)
        except Exception:
            log.exception("operation_failed")
            await self._fail(record, journal, InternalError())
        else:
            packed = AnyMessage()
            packed.Pack(response)
            journal.note("Done.")
            await self._finish(record, journal, response=packed.SerializeToString())
            log.info("operation_done")
        finally:
            keeping.cancel()
            working.cancel()

    async def _keep(self, record: OperationRecord, journal: Journal, working: asyncio.Future[Message]) -> str:
        """Keeps the lease and stores what is new while the work is under way.

        Returns:
            Why the work was cancelled: `cancelled` or `lost`.
        """
        safe_until = boot_seconds() + _SAFE_SHARE * self._lease_seconds
        while True:
            asked = boot_seconds()
            try:
                async with asyncio.timeout(safe_until - asked):
                    wanted = await answered(self._renew, record, journal)
            except TimeoutError:
                # The store is away; somebody else may soon take the operation.
                wanted = None
            if wanted is None or wanted:
                working.cancel()
                return "lost" if wanted is None else "cancelled"
            safe_until = asked + _SAFE_SHARE * self._lease_seconds
            await asyncio.sleep(_RENEW_SECONDS)

    def _renew(self, record: OperationRecord, journal: Journal) -> bool | None:
        metadata = journal.unstored()
        wanted = self._store.renew(record, self._lease_seconds, metadata)
        journal.stored(metadata)
        self._log_lines(record, journal)
        return wanted

    def _log_lines(self, record: OperationRecord, journal: Journal) -> None:
        lines = journal.take_lines()
        if lines:
            try:
                self._store.log(record, lines)
            except AWAY:
                journal.put_back(lines)
                raise

    async def _end_cancelled(
        self, record: OperationRecord, journal: Journal, keeping: asyncio.Task[str]
    ) -> None:
        why = keeping.result() if keeping.done() and not keeping.cancelled() else "stopping"
        if why == "cancelled":
            await self._fail(record, journal, OperationCancelled())
        elif why == "stopping":
            journal.note("Interrupted: the server stops.")
            # In this thread: a task that is being cancelled may not wait. A lease that stays runs out.
            with contextlib.suppress(*AWAY):
                self._store.release(record, stalls=record.stalls)
                self._log_lines(record, journal)

    async def _release(
        self, record: OperationRecord, journal: Journal, error: VisemeError, stalls: int
    ) -> None:
        journal.note(f"Interrupted: {error.message} It goes on in {_RETRY_SECONDS:.0f} s.")
        await answered(self._store.release, record, _RETRY_SECONDS, stalls=stalls)
        await answered(self._log_lines, record, journal)

    async def _fail(self, record: OperationRecord, journal: Journal, error: VisemeError) -> None:
        journal.note(f"Failed: {error.message}")
        await self._finish(record, journal, error=status_message(error).SerializeToString())

    async def _finish(
        self,
        record: OperationRecord,
        journal: Journal,
        *,
        error: bytes | None = None,
        response: bytes | None = None,
    ) -> None:
        # The log first: who reads it when the operation is done finds it whole.
        await answered(self._log_lines, record, journal)
        await answered(self._store.finish, record, journal.latest, error=error, response=response)


def _cancelled_from_outside() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
