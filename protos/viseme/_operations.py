"""Long work on a server: looked at, followed, cancelled."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, AsyncGenerator, Callable, Generator, List

import grpc
import grpc.aio
from google.longrunning import (  # type: ignore[import-untyped]
    operations_pb2,
    operations_pb2_grpc,
)

from viseme import _messages as messages
from viseme._avatar_messages import log_line_value, operation_value, request_id_or_new
from viseme._calls import async_errors, errors
from viseme._errors import VisemeError
from viseme.v1 import job_pb2, job_pb2_grpc

if TYPE_CHECKING:
    from viseme._types import LogLine, Operation

PATIENCE_SECONDS = 60.0
"""How long a server that is gone is waited for, unless the caller says otherwise."""

_LOOK_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 30.0
_LONGEST_PAUSE_SECONDS = 5.0

OnLost = Callable[[VisemeError], None]


class Operations:
    """The long work of a server; `Client.operations`."""

    def __init__(self, channel: grpc.Channel, address: str, timeout: float) -> None:
        self._stub = operations_pb2_grpc.OperationsStub(channel)
        self._jobs = job_pb2_grpc.JobServiceStub(channel)
        self._address = address
        self._timeout = timeout

    def get(self, name: str) -> Operation:
        """Returns one operation; `name` as in `operations/1` or `1`."""
        return operation_value(self._get(name))

    def list(self, *, done: bool | None = None) -> List[Operation]:  # noqa: UP006 (`list` is this method)
        """The operations that the server remembers, oldest first.

        Args:
            done: Only those that are, or are not, done; None: all.
        """
        operations, token = [], ""
        with errors(self._address):
            while True:
                request = operations_pb2.ListOperationsRequest(page_token=token, filter=_filter(done))
                response = self._stub.ListOperations(request, timeout=self._timeout)
                operations += [operation_value(message) for message in response.operations]
                token = response.next_page_token
                if not token:
                    return operations

    def watch(
        self, name: str, *, patience: float = PATIENCE_SECONDS, on_lost: OnLost | None = None
    ) -> Generator[Operation, None, None]:
        """Follows an operation: gives it as it is, and again whenever something about it changes.

        The last one given is done. The work does not depend on being followed: the generator may be closed,
        and another begun, at any time.

        Args:
            name: As in `get`.
            patience: Seconds that the server may be gone meanwhile: work goes on when a server is started
                again.
            on_lost: Is told each time the server does not answer, before it is asked again.

        Raises:
            VisemeError: There is no such operation, or the server stayed away.
        """
        seen = self._get(name)
        yield operation_value(seen)
        trust = Trust(patience, on_lost)
        while not seen.done:
            time.sleep(trust.pause)
            try:
                found = self._get(name)
            except VisemeError as error:
                trust.lose(error)
                continue
            trust.gain()
            if found != seen:
                seen = found
                yield operation_value(seen)

    def wait(self, name: str, timeout: float | None = None) -> Operation:
        """Waits until an operation is done, and returns it.

        Args:
            name: As in `get`.
            timeout: Most seconds to wait; the operation is then returned as it is, and goes on.

        Raises:
            VisemeError: As in `watch`. An operation that failed is no error here: its `error` says why.
        """
        end = None if timeout is None else time.monotonic() + timeout
        found = self._get(name)
        trust = Trust(PATIENCE_SECONDS)
        while not found.done and (end is None or time.monotonic() < end):
            request, seconds = _wait_request(name, end)
            try:
                with errors(self._address):
                    found = self._stub.WaitOperation(request, timeout=seconds + self._timeout)
                trust.gain()
            except VisemeError as error:
                trust.lose(error)
                time.sleep(trust.pause)
        return operation_value(found)

    def cancel(self, name: str) -> None:
        """Asks the server to end an operation early; nothing happens to one that is done."""
        request = operations_pb2.CancelOperationRequest(name=_full(name))
        with errors(self._address):
            self._stub.CancelOperation(request, timeout=self._timeout)

    def delete(self, name: str) -> None:
        """Makes the server forget an operation that is done; what came of it stays."""
        request = operations_pb2.DeleteOperationRequest(name=_full(name))
        with errors(self._address):
            self._stub.DeleteOperation(request, timeout=self._timeout)

    def retry(self, name: str, *, request_id: str = "") -> Operation:
        """Does again what failed or was cancelled, as a new operation that goes on from what was done.

        Args:
            name: The one that failed, as in `get`.
            request_id: The same id gives the operation that it gave before.

        Raises:
            VisemeError: It is not done, did not fail, or something else is done to its avatar.
        """
        with errors(self._address):
            request = _retry_request(name, request_id)
            return operation_value(self._jobs.RetryOperation(request, timeout=self._timeout))

    def log(self, name: str, lines: int = 100) -> List[LogLine]:  # noqa: UP006
        """The end of the log of an operation, oldest first.

        Args:
            name: As in `get`.
            lines: How many lines.
        """
        with errors(self._address):
            response = self._jobs.GetOperationLog(_log_request(name, lines), timeout=self._timeout)
        return [log_line_value(line) for line in response.lines]

    def _get(self, name: str) -> Any:
        request = operations_pb2.GetOperationRequest(name=_full(name))
        with errors(self._address):
            return self._stub.GetOperation(request, timeout=self._timeout)


class AsyncOperations:
    """The long work of a server; `AsyncClient.operations`."""

    def __init__(self, channel: grpc.aio.Channel, address: str, timeout: float) -> None:
        self._stub: Any = operations_pb2_grpc.OperationsStub(channel)
        self._jobs: Any = job_pb2_grpc.JobServiceStub(channel)
        self._address = address
        self._timeout = timeout

    async def get(self, name: str) -> Operation:
        """Returns one operation; `name` as in `operations/1` or `1`."""
        return operation_value(await self._get(name))

    async def list(self, *, done: bool | None = None) -> List[Operation]:  # noqa: UP006 (`list` is this method)
        """The operations that the server remembers; see `Operations.list`."""
        operations, token = [], ""
        async with async_errors(self._address):
            while True:
                request = operations_pb2.ListOperationsRequest(page_token=token, filter=_filter(done))
                response = await self._stub.ListOperations(request, timeout=self._timeout)
                operations += [operation_value(message) for message in response.operations]
                token = response.next_page_token
                if not token:
                    return operations

    async def watch(
        self, name: str, *, patience: float = PATIENCE_SECONDS, on_lost: OnLost | None = None
    ) -> AsyncGenerator[Operation, None]:
        """Follows an operation; see `Operations.watch`.

        Args:
            name: As in `get`.
            patience: As in `Operations.watch`.
            on_lost: As in `Operations.watch`.

        Yields:
            The operation, whenever something about it has changed; the last one is done.

        Raises:
            VisemeError: As in `Operations.watch`.
        """
        seen = await self._get(name)
        yield operation_value(seen)
        trust = Trust(patience, on_lost)
        while not seen.done:
            await asyncio.sleep(trust.pause)
            try:
                found = await self._get(name)
            except VisemeError as error:
                trust.lose(error)
                continue
            trust.gain()
            if found != seen:
                seen = found
                yield operation_value(seen)

    async def wait(self, name: str, timeout: float | None = None) -> Operation:
        """Waits until an operation is done, and returns it; see `Operations.wait`."""
        end = None if timeout is None else time.monotonic() + timeout
        found = await self._get(name)
        trust = Trust(PATIENCE_SECONDS)
        while not found.done and (end is None or time.monotonic() < end):
            request, seconds = _wait_request(name, end)
            try:
                async with async_errors(self._address):
                    found = await self._stub.WaitOperation(request, timeout=seconds + self._timeout)
                trust.gain()
            except VisemeError as error:
                trust.lose(error)
                await asyncio.sleep(trust.pause)
        return operation_value(found)

    async def cancel(self, name: str) -> None:
        """Asks the server to end an operation early; nothing happens to one that is done."""
        request = operations_pb2.CancelOperationRequest(name=_full(name))
        async with async_errors(self._address):
            await self._stub.CancelOperation(request, timeout=self._timeout)

    async def delete(self, name: str) -> None:
        """Makes the server forget an operation that is done; what came of it stays."""
        request = operations_pb2.DeleteOperationRequest(name=_full(name))
        async with async_errors(self._address):
            await self._stub.DeleteOperation(request, timeout=self._timeout)

    async def retry(self, name: str, *, request_id: str = "") -> Operation:
        """Does again what failed or was cancelled; see `Operations.retry`."""
        async with async_errors(self._address):
            request = _retry_request(name, request_id)
            return operation_value(await self._jobs.RetryOperation(request, timeout=self._timeout))

    async def log(self, name: str, lines: int = 100) -> List[LogLine]:  # noqa: UP006
        """The end of the log of an operation; see `Operations.log`."""
        async with async_errors(self._address):
            response = await self._jobs.GetOperationLog(_log_request(name, lines), timeout=self._timeout)
        return [log_line_value(line) for line in response.lines]

    async def _get(self, name: str) -> Any:
        request = operations_pb2.GetOperationRequest(name=_full(name))
        async with async_errors(self._address):
            return await self._stub.GetOperation(request, timeout=self._timeout)


class Trust:
    """That a server which no longer answers will be back: it is asked again, less and less often.

    Args:
        patience: Seconds after which that is given up.
        on_lost: Is told each time the server did not answer.

    Attributes:
        pause: Seconds until the server is to be asked again.
    """

    def __init__(self, patience: float, on_lost: OnLost | None = None) -> None:
        self._patience = patience
        self._on_lost = on_lost
        self._lost_since: float | None = None
        self.pause = _LOOK_SECONDS

    def gain(self) -> None:
        """The server has answered."""
        self._lost_since = None
        self.pause = _LOOK_SECONDS

    def lose(self, error: VisemeError) -> None:
        """The server has not answered.

        Raises:
            VisemeError: This error, when asking again is of no use, or was for too long.
        """
        now = time.monotonic()
        if self._lost_since is None:
            self._lost_since = now
        else:
            self.pause = min(2 * self.pause, _LONGEST_PAUSE_SECONDS)
        retryable = error.retryable or error.status == grpc.StatusCode.DEADLINE_EXCEEDED.name
        if not retryable or now - self._lost_since >= self._patience:
            raise error
        if self._on_lost is not None:
            self._on_lost(error)


def _wait_request(name: str, end: float | None) -> tuple[Any, float]:
    """The request that waits a while, at most until a point of the monotonic clock; and how long it may."""
    left = _LONGEST_WAIT_SECONDS if end is None else max(0.0, end - time.monotonic())
    seconds = min(left, _LONGEST_WAIT_SECONDS)
    request = operations_pb2.WaitOperationRequest(name=_full(name))
    request.timeout.FromNanoseconds(int(seconds * 1e9))
    return request, seconds


def _full(name: str) -> str:
    return messages.resource("operations", name)


def _filter(done: bool | None) -> str:
    return "" if done is None else f"done={str(done).lower()}"


def _retry_request(name: str, request_id: str) -> job_pb2.RetryOperationRequest:
    return job_pb2.RetryOperationRequest(name=_full(name), request_id=request_id_or_new(request_id))


def _log_request(name: str, lines: int) -> job_pb2.GetOperationLogRequest:
    return job_pb2.GetOperationLogRequest(name=_full(name), lines=lines)
