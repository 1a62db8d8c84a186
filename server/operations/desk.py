"""Where operations are accepted, looked up and cancelled; in front of the store and the runner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from gpu_scheduler import Class
from server.error_status import status_message
from server.errors import (
    AvatarBusy,
    OperationCancelled,
    OperationNotFound,
    OperationSucceeded,
    OperationUnfinished,
    RequestIdReused,
)
from server.operations.owned import bare, owned
from server.operations.runner import OperationRunner
from server.operations.store import Acceptance, LogLine, OperationRecord, OperationStore

_LOOK_SECONDS: Final = 0.2
_CANCEL_SECONDS: Final = 30


class OperationDesk:
    """Accepts operations and answers for them.

    Args:
        store: The operations.
        runner: Carries them out.
    """

    def __init__(self, store: OperationStore, runner: OperationRunner) -> None:
        self._store = store
        self._runner = runner

    async def known(
        self, kind: str, request: Message, request_id: str, owner: str = ""
    ) -> OperationRecord | None:
        """The operation that was accepted for a request before.

        Raises:
            RequestIdReused: The `request_id` came with a different request.
        """
        if not request_id:
            return None
        known = await asyncio.to_thread(self._store.by_request, kind, request_id, owner)
        if known is not None and known.request != _serialised(request):
            raise RequestIdReused(operation=known.name)
        return known

    async def accept(
        self,
        kind: str,
        target: str,
        request: Message,
        metadata: Message,
        request_id: str,
        *,
        owner: str = "",
        priority: Class = Class.TRAINING,
    ) -> OperationRecord:
        """Accepts an operation; when this returns it will be carried out, whatever happens.

        Args:
            kind: What is to be done.
            target: Name of the resource it is done to.
            request: The request.
            metadata: The progress before it begins, with a `create_time`.
            request_id: The caller's id of the request, or empty.
            owner: The tenant whose resource it is, or empty.
            priority: Class of the work.

        Raises:
            AvatarBusy: Another operation is under way on the same resource.
            RequestIdReused: The `request_id` came with a different request before.
            StoreUnavailable: The database does not answer; nothing was accepted.
        """
        _set_created(metadata)
        return await self._accept(
            Acceptance(
                kind=kind,
                target=owned(target, owner),
                request=_serialised(request),
                metadata=metadata.SerializeToString(),
                request_id=request_id,
                owner=owner,
                priority=priority,
            )
        )

    async def retry(self, name: str, metadata: Message, request_id: str, owner: str = "") -> OperationRecord:
        """Accepts a new operation that does what one should have done that failed or was cancelled.

        Args:
            name: The one that failed.
            metadata: As for `accept`.
            request_id: As for `accept`.
            owner: As for `accept`.

        Raises:
            OperationNotFound: There is none of this name.
            OperationUnfinished: It is not done.
            OperationSucceeded: It did not fail.
            AvatarBusy: As for `accept`.
        """
        record = await self.get(name, owner)
        if record.state != "done":
            raise OperationUnfinished(f"{name} is still under way.", fix=f"viseme jobs cancel {record.id}")
        if record.error is None:
            raise OperationSucceeded(operation=name)
        _set_created(metadata)
        return await self._accept(
            Acceptance(
                kind=record.kind,
                target=record.target,
                request=record.request,
                metadata=metadata.SerializeToString(),
                request_id=request_id,
                owner=record.owner,
                priority=record.priority,
            )
        )

    async def _accept(self, wanted: Acceptance) -> OperationRecord:
        try:
            record = await asyncio.to_thread(self._store.accept, wanted)
        except AvatarBusy:
            raise _busy(bare(wanted.target)) from None
        self._runner.wake()
        return record

    async def get(self, name: str, owner: str = "") -> OperationRecord:
        """The operation of a name.

        Raises:
            OperationNotFound: The tenant has none.
        """
        record = await asyncio.to_thread(self._store.get, name)
        if record.owner != owner:
            # In the words of one that does not exist: nobody learns what others have.
            raise OperationNotFound(f"There is no operation {name}.", operation=name)
        return record

    async def page(
        self, after: int, size: int, *, owner: str | None = None, done: bool | None = None
    ) -> Sequence[OperationRecord]:
        """Operations, oldest first; see `OperationStore.page`."""
        return await asyncio.to_thread(self._store.page, after, size, owner=owner, done=done)

    async def log(self, name: str, lines: int, owner: str = "") -> Sequence[LogLine]:
        """The last lines of the log of an operation, oldest first.

        Raises:
            OperationNotFound: There is none of this name.
        """
        record = await self.get(name, owner)
        return await asyncio.to_thread(self._store.read_log, record, lines)

    def latest(self, target: str, owner: str = "") -> OperationRecord | None:
        """The latest operation on a resource of a tenant. Blocks."""
        return self._store.latest(owned(target, owner))

    async def check_free(self, target: str, owner: str = "") -> None:
        """Sees that nothing is under way on a resource.

        Raises:
            AvatarBusy: Something is.
        """
        latest = await asyncio.to_thread(self.latest, target, owner)
        if latest is not None and latest.state != "done":
            raise _busy(target)

    async def wait(self, name: str, seconds: float, owner: str = "") -> OperationRecord:
        """The operation when it is done, or as it is after so many seconds.

        Raises:
            OperationNotFound: There is none of this name.
        """
        end = time.monotonic() + seconds
        while True:
            record = await self.get(name, owner)
            if record.state == "done" or time.monotonic() >= end:
                return record
            await asyncio.sleep(min(_LOOK_SECONDS, max(0.0, end - time.monotonic())))

    async def cancel(self, name: str, owner: str = "") -> OperationRecord:
        """Cancels an operation; nothing happens to one that is done.

        Raises:
            OperationNotFound: There is none of this name.
        """
        record = await self.get(name, owner)
        error = status_message(OperationCancelled()).SerializeToString()
        await asyncio.to_thread(self._store.cancel, record, error)
        return record

    async def cancel_on(self, target: str, owner: str = "") -> None:
        """Cancels what is under way on a resource, and waits until it has ended."""
        latest = await asyncio.to_thread(self.latest, target, owner)
        if latest is not None and latest.state != "done":
            await self.cancel(latest.name, owner)
            await self.wait(latest.name, _CANCEL_SECONDS, owner)

    async def delete(self, name: str, owner: str = "") -> None:
        """Forgets an operation that is done.

        Raises:
            OperationNotFound: There is none of this name.
            OperationUnfinished: It is not done.
        """
        record = await self.get(name, owner)
        if not await asyncio.to_thread(self._store.delete, record):
            raise OperationUnfinished(
                f"{name} is still under way.", fix=f"viseme avatars cancel {bare(record.target)}"
            )


def _busy(target: str) -> AvatarBusy:
    return AvatarBusy(
        f"Another operation is under way on {target}.",
        fix=f"viseme avatars watch {target}",
        resource=target,
    )


def _serialised(request: Message) -> bytes:
    # The same request must give the same bytes.
    return request.SerializeToString(deterministic=True)


def _set_created(metadata: Message) -> None:
    created = Timestamp()
    created.GetCurrentTime()
    getattr(metadata, "create_time").CopyFrom(created)  # noqa: B009 (every metadata of ours has one)
